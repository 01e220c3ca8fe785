// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/hypervisors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// gopher returns a compute client of gophercloud, which asks the identity service first.
func gopher(t testing.TB, account, version string) *gophercloud.ServiceClient {
	t.Helper()
	provider, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: env.url + "/identity/v3", Username: account, DomainName: "Default", Password: env.tokens[account],
		Scope: &gophercloud.AuthScope{ProjectName: "team-a", DomainName: "Default"},
	})
	expect.NoError(t, err)
	compute, err := openstack.NewComputeV2(provider, gophercloud.EndpointOpts{})
	expect.NoError(t, err)
	compute.Microversion = version
	return compute
}

// withStatus is a server with the field that gophercloud does not know by itself.
type withStatus struct {
	Name       string  `json:"name"`
	HostStatus *string `json:"host_status"`
}

func TestGophercloudReadsServers(t *testing.T) {
	everyStatus(t)
	for account, want := range map[string]map[string]string{
		"ana": {"db-1": "UP", "db-2": "UNKNOWN", "web-1": "UP", "web-2": "DOWN", "web-3": "MAINTENANCE"},
		"abe": {"db-1": "", "db-2": "UNKNOWN", "web-1": "", "web-2": "", "web-3": ""},
		"ada": {"db-1": "", "db-2": "", "web-1": "", "web-2": "", "web-3": ""},
	} {
		compute := gopher(t, account, "2.72")
		pages, err := servers.List(compute, servers.ListOpts{Limit: 2}).AllPages(t.Context())
		expect.NoError(t, err)
		var got []withStatus
		expect.NoError(t, servers.ExtractServersInto(pages, &got))
		if len(got) != len(want) {
			t.Errorf("%s is shown %d servers, want %d", account, len(got), len(want))
		}
		for _, s := range got {
			if shown := ptr.Deref(s.HostStatus, ""); shown != want[s.Name] {
				t.Errorf("%s is shown %s as %q, want %q", account, s.Name, shown, want[s.Name])
			}
		}
		one, err := servers.Get(t.Context(), compute, serverUID(t, "team-a", "web-2")).Extract()
		expect.NoError(t, err)
		if one.Name != "web-2" || one.TenantID != "team-a" {
			t.Errorf("%s: %+v", account, one)
		}
		if _, err := services.List(compute, nil).AllPages(t.Context()); !gophercloud.ResponseCodeIs(err, http.StatusForbidden) {
			t.Errorf("%s lists services: %v", account, err)
		}
	}
}

// The inspector of OPNFV Doctor: it finds the servers of a host, marks the host down, and a
// consumer sees it. So does fence_compute: it finds the hypervisor, marks its service down
// and disables it.
func TestInspectorsAndFenceAgentsReportAHost(t *testing.T) {
	const host = "compute-2"
	compute := gopher(t, "administrator", "2.34")
	t.Cleanup(func() {
		kubectl(t, "patch", "computeservice", host, "--type=merge", `--patch={"spec":{"disabled":null,"disabledReason":null,"forcedDown":null,"forcedDownReason":null}}`)
		hostIs(t, v1alpha1.HostStatusUp, host)
	})
	type placed struct {
		Name string `json:"name"`
		Host string `json:"OS-EXT-SRV-ATTR:host"`
	}
	pages, err := servers.List(compute, servers.ListOpts{AllTenants: true}).AllPages(t.Context())
	expect.NoError(t, err)
	var all, on []placed
	expect.NoError(t, servers.ExtractServersInto(pages, &all))
	for _, s := range all {
		if s.Host == host {
			on = append(on, s)
		}
	}
	if len(on) != 3 {
		t.Fatalf("the servers on %s are %v", host, on)
	}
	forceDown := func(down string) {
		t.Helper()
		got := as("administrator", "2.34").do(t, http.MethodPut, "/v2.1/os-services/force-down", `{"host":"`+host+`","binary":"nova-compute","forced_down":`+down+`}`)
		if got.code != http.StatusOK {
			t.Fatalf("force-down: %d %s", got.code, got.body)
		}
		// The webhook warns of a host that still reports.
		if warned := strings.Contains(got.header.Get("Warning"), "still reports"); warned != (down == "true") {
			t.Errorf("forced_down %s is answered with the warning %q", down, got.header.Get("Warning"))
		}
	}
	forceDown("true")
	consumer := gopher(t, "ana", "2.34")
	expect.Eventually(t, patience, func() error { return sees(t, consumer, "web-2", "DOWN") })
	forceDown(`"False"`)
	expect.Eventually(t, patience, func() error { return sees(t, consumer, "web-2", "UP") })

	compute.Microversion = "2.53"
	found, err := hypervisors.List(compute, hypervisors.ListOpts{HypervisorHostnamePattern: ptr.To(host)}).AllPages(t.Context())
	expect.NoError(t, err)
	hosts, err := hypervisors.ExtractHypervisors(found)
	expect.NoError(t, err)
	if len(hosts) != 1 || hosts[0].HypervisorHostname != host || hosts[0].State != "up" {
		t.Fatalf("the hypervisors are %+v", hosts)
	}
	listed, err := services.List(compute, services.ListOpts{Host: host, Binary: "nova-compute"}).AllPages(t.Context())
	expect.NoError(t, err)
	all53, err := services.ExtractServices(listed)
	expect.NoError(t, err)
	if len(all53) != 1 {
		t.Fatalf("the services are %+v", all53)
	}
	changed, err := services.Update(t.Context(), compute, all53[0].ID, services.UpdateOpts{ForcedDown: true, Status: services.ServiceDisabled, DisabledReason: "fenced"}).Extract()
	expect.NoError(t, err)
	if changed.State != "down" || changed.Status != "disabled" || changed.DisabledReason != "fenced" || !changed.ForcedDown {
		t.Errorf("changed to %+v", changed)
	}
	// gophercloud leaves out what is false, so it cannot clear the flag, and is told so.
	if _, err := services.Update(t.Context(), compute, all53[0].ID, services.UpdateOpts{ForcedDown: false}).Extract(); !gophercloud.ResponseCodeIs(err, http.StatusBadRequest) {
		t.Errorf("an update of nothing: %v", err)
	}
	expect.Eventually(t, patience, func() error { return sees(t, consumer, "web-2", "DOWN") })
}

// sees returns an error unless a client is shown a host status of a server.
func sees(t testing.TB, compute *gophercloud.ServiceClient, name, want string) error {
	t.Helper()
	var s withStatus
	if err := servers.Get(t.Context(), compute, serverUID(t, "team-a", name)).ExtractInto(&s); err != nil {
		return err
	}
	if got := ptr.Deref(s.HostStatus, ""); got != want {
		return fmt.Errorf("%s is shown as %q, want %q", name, got, want)
	}
	return nil
}
