// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/agent/report"
	"hoststatus.dev/hoststatus/internal/reported"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// newReport keeps the HostReport of a host by the agent's own code, under the agent's own
// rights, until it is told to stop.
func newReport(t *testing.T, host string) (reporter *report.Reporter, stop func()) {
	t.Helper()
	config, err := system.HostConfig(host)
	expect.NoError(t, err)
	c, err := report.NewClient(config)
	expect.NoError(t, err)
	reporter = report.New(host, c, klog.Background())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		reporter.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(func() {
		stop()
		if err := client.IgnoreNotFound(system.Client.Delete(context.Background(), hostReport(host))); err != nil {
			t.Error(err)
		}
	})
	return reporter, stop
}

func vm(namespace, name string, state v1alpha1.ServerState) driver.VM {
	return driver.VM{Server: types.NamespacedName{Namespace: namespace, Name: name}, Fields: reported.Fields{State: state}}
}

func serverState(name string, want v1alpha1.ServerState) func() error {
	return func() error {
		var s v1alpha1.Server
		if err := system.Client.Get(context.Background(), client.ObjectKey{Namespace: "team-a", Name: name}, &s); err != nil {
			return err
		}
		if s.Status.State != want {
			return fmt.Errorf("%s is %q, want %q", name, s.Status.State, want)
		}
		return nil
	}
}

func countsAre(host, want string) func() error {
	return func() error {
		var s v1alpha1.ComputeService
		if err := system.Client.Get(context.Background(), client.ObjectKey{Name: host}, &s); err != nil {
			return err
		}
		got := "none"
		if r := s.Status.Report; r != nil {
			got = fmt.Sprintf("%d servers, %d not here", *r.Servers, *r.NotHere)
		}
		if got != want {
			return fmt.Errorf("the counts of %s are %s, want %s", host, got, want)
		}
		return nil
	}
}

func TestWhatAHostReportsReachesItsServersWheneverTheyCome(t *testing.T) {
	const here, there = "reporting-a", "reporting-b"
	newService(t, here)
	newService(t, there)
	newServer(t, "team-a", "reported-first", here)
	reporter, stop := newReport(t, here)
	other, _ := newReport(t, there)
	reporter.Know([]driver.VM{vm("team-a", "reported-first", "ACTIVE"), vm("team-a", "reported-later", "PAUSED"), vm("team-a", "reported-guest", "ERROR")})
	other.Know([]driver.VM{vm("team-a", "reported-guest", "ACTIVE"), vm("team-a", "reported-first", "SHUTOFF")})
	expect.Eventually(t, patience, serverState("reported-first", "ACTIVE"))
	expect.Eventually(t, patience, countsAre(here, "3 servers, 2 not here"))

	// A server that is made later has at once what the host reports.
	newServer(t, "team-a", "reported-later", here)
	expect.Eventually(t, patience, serverState("reported-later", "PAUSED"))
	guest := newServer(t, "team-a", "reported-guest", there)
	expect.Eventually(t, patience, serverState("reported-guest", "ACTIVE"))
	expect.Eventually(t, patience, countsAre(here, "3 servers, 1 not here"))

	// One that moves has what its new host reports.
	expect.NoError(t, system.Client.Patch(t.Context(), guest, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"host":"`+here+`"}}`))))
	expect.Eventually(t, patience, serverState("reported-guest", "ERROR"))
	expect.Eventually(t, patience, countsAre(here, "3 servers, 0 not here"))
	expect.Eventually(t, patience, countsAre(there, "2 servers, 2 not here"))

	// What somebody else writes is put right.
	expect.NoError(t, system.Client.Status().Patch(t.Context(), guest, client.RawPatch(types.MergePatchType, []byte(`{"status":{"state":"ACTIVE","taskState":"deleting"}}`))))
	expect.Eventually(t, patience, func() error {
		var s v1alpha1.Server
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(guest), &s))
		if s.Status.State != "ERROR" || s.Status.TaskState != "" {
			return fmt.Errorf("the server is %s, %s", s.Status.State, s.Status.TaskState)
		}
		return nil
	})

	// An agent that is started again replaces the report, and a report that is gone leaves
	// the servers as they are.
	stop()
	again, stopAgain := newReport(t, here)
	again.Know([]driver.VM{vm("team-a", "reported-first", "SUSPENDED")})
	expect.Eventually(t, patience, serverState("reported-first", "SUSPENDED"))
	expect.Eventually(t, patience, countsAre(here, "1 servers, 0 not here"))
	stopAgain()
	expect.NoError(t, system.Client.Delete(t.Context(), hostReport(here)))
	expect.Eventually(t, patience, countsAre(here, "none"))
	expect.NoError(t, serverState("reported-first", "SUSPENDED")())
	expect.NoError(t, serverState("reported-later", "PAUSED")())
}

// answers are what kube-apiserver says to a request, without what differs anyway.
type answers struct {
	code int
	body string
}

var incidental = regexp.MustCompile(`"(uid|resourceVersion|creationTimestamp|time|managedFields)":("[^"]*"|\[.*?\])`)

func ask(t *testing.T, c *http.Client, method, path, contentType, body string) answers {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, system.Cluster.URL+path, strings.NewReader(body))
	expect.NoError(t, err)
	request.Header.Set("Content-Type", contentType)
	response, err := c.Do(request)
	expect.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	expect.NoError(t, err)
	return answers{response.StatusCode, incidental.ReplaceAllString(string(content), "")}
}

// Whatever an agent sends about a server, it is answered the same whether the server is on
// another host, has left this one, or does not exist.
func TestAnAgentLearnsNothingAboutServersThatAreNotOnItsHost(t *testing.T) {
	admitted(t)
	const own, other = "curious-a", "curious-b"
	newService(t, own)
	newService(t, other)
	const secret = "openstack:///secret-of-another-host"
	elsewhere := newServer(t, "team-a", "vm-elsewhere", other)
	left := newServer(t, "team-a", "vm-departed0", own)
	for _, server := range []*v1alpha1.Server{elsewhere, left} {
		expect.NoError(t, system.Client.Patch(t.Context(), server, client.RawPatch(types.MergePatchType,
			[]byte(`{"spec":{"host":"`+other+`","providerID":"`+secret+`"},"metadata":{"annotations":{"note":"`+secret+`"}}}`))))
	}
	names := []string{elsewhere.Name, left.Name, "vm-missing00"}
	config, err := system.HostConfig(own)
	expect.NoError(t, err)
	agent, err := rest.HTTPClientFor(config)
	expect.NoError(t, err)

	type attack struct{ method, path, contentType, body string }
	attacks := map[string]attack{}
	for _, subresource := range []string{"", "/status"} {
		for what, a := range map[string]attack{
			"get":                 {http.MethodGet, "", "", ""},
			"table":               {http.MethodGet, "?limit=1", "", ""},
			"watch":               {http.MethodGet, "?watch=1&timeoutSeconds=1", "", ""},
			"delete":              {http.MethodDelete, "", "application/json", ""},
			"delete, conditioned": {http.MethodDelete, "?dryRun=All", "application/json", `{"preconditions":{"uid":"guess","resourceVersion":"1"}}`},
			"put":                 {http.MethodPut, "", "application/json", `{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"Server","metadata":{"name":"NAME","namespace":"team-a","resourceVersion":"1"}}`},
			"put, dry":            {http.MethodPut, "?dryRun=All", "application/json", `{}`},
			"strict merge patch":  {http.MethodPatch, "?fieldValidation=Strict", "application/merge-patch+json", `{"status":{"zzz":"ERROR"}}`},
			"merge patch":         {http.MethodPatch, "", "application/merge-patch+json", `{"status":{"state":"ERROR"}}`},
			"merge patch, stale":  {http.MethodPatch, "", "application/merge-patch+json", `{"metadata":{"resourceVersion":"1"},"status":{"state":"ERROR"}}`},
			"merge patch, wrong":  {http.MethodPatch, "", "application/merge-patch+json", `{"status":{"state":"no such state"}}`},
			"test of the host":    {http.MethodPatch, "", "application/json-patch+json", `[{"op":"test","path":"/spec/host","value":"` + other + `"}]`},
			"copy":                {http.MethodPatch, "", "application/json-patch+json", `[{"op":"copy","from":"/spec/host","path":"/status/state"}]`},
			"apply":               {http.MethodPatch, "?fieldManager=x&force=true", "application/apply-patch+yaml", `{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"Server","metadata":{"name":"NAME","namespace":"team-a"},"status":{"state":"ERROR"}}`},
			"no patch at all":     {http.MethodPatch, "", "application/merge-patch+json", `nonsense`},
		} {
			a.path = "/apis/compute.hoststatus.dev/v1alpha1/namespaces/team-a/servers/NAME" + subresource + a.path
			attacks[what+subresource] = a
		}
	}
	for what, a := range attacks {
		t.Run(what, func(t *testing.T) {
			var first answers
			for i, name := range names {
				with := strings.NewReplacer("NAME", name)
				got := ask(t, agent, a.method, with.Replace(a.path), a.contentType, with.Replace(a.body))
				got.body = strings.ReplaceAll(got.body, name, "NAME")
				if got.code != http.StatusForbidden || strings.Contains(got.body, secret) || strings.Contains(got.body, other) {
					t.Errorf("%s is answered %d: %s", name, got.code, got.body)
				}
				if i == 0 {
					first = got
				}
				if diff := cmp.Diff(first, got, cmp.AllowUnexported(answers{})); diff != "" {
					t.Errorf("%s is told from %s (-%s +%s):\n%s", name, names[0], names[0], name, diff)
				}
			}
		})
	}

	t.Run("its own report", func(t *testing.T) {
		t.Cleanup(func() { _ = system.Client.Delete(context.Background(), hostReport(own)) })
		var first []answers
		for i, name := range names {
			entry := agentv1alpha1.ReportedServer{Namespace: "team-a", Name: name, State: "ERROR"}
			var got []answers
			send := func(method, path string, report *agentv1alpha1.HostReport) {
				t.Helper()
				report.APIVersion, report.Kind = agentv1alpha1.SchemeGroupVersion.String(), "HostReport"
				body, err := json.Marshal(report)
				expect.NoError(t, err)
				got = append(got, ask(t, agent, method, reports+path, "application/json", string(body)))
			}
			send(http.MethodPost, "?dryRun=All", hostReport(own, entry))
			send(http.MethodPost, "", hostReport(own, entry))
			send(http.MethodPost, "", hostReport(own, entry))
			stored := hostReport(own)
			expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(stored), stored))
			changed := stored.DeepCopy()
			changed.Spec.Servers = append(changed.Spec.Servers, agentv1alpha1.ReportedServer{Namespace: "team-a", Name: name + "x"})
			send(http.MethodPut, "/"+own, changed)
			send(http.MethodPut, "/"+own, changed)
			got = append(got, ask(t, agent, http.MethodDelete, reports+"/"+own, "application/json", ""))
			for j := range got {
				got[j].body = strings.ReplaceAll(got[j].body, name, "NAME")
				if strings.Contains(got[j].body, secret) || strings.Contains(got[j].body, other) {
					t.Errorf("%s is answered %s", name, got[j].body)
				}
			}
			if i == 0 {
				first = got
			}
			if diff := cmp.Diff(first, got, cmp.AllowUnexported(answers{})); diff != "" {
				t.Errorf("%s is told from %s:\n%s", name, names[0], diff)
			}
		}
	})
	var server v1alpha1.Server
	expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(elsewhere), &server))
	if server.Status.State != "" {
		t.Errorf("a server of another host is %s", server.Status.State)
	}
}

// Odd data of one server, or of a network, refuses nothing of the others.
func TestOddDataInAReportRefusesNothingElse(t *testing.T) {
	const host = "odd-reporter"
	newService(t, host)
	newServer(t, "team-a", "odd-one", host)
	newServer(t, "team-a", "sane-one", host)
	t.Cleanup(func() { _ = system.Client.Delete(context.Background(), hostReport(host)) })
	odd := agentv1alpha1.ReportedServer{
		Namespace: "team-a", Name: "odd-one", State: "no such state", TaskState: "two words", PowerState: "shutdown",
		Networks: []agentv1alpha1.ReportedNetwork{{Addresses: []string{"dhcp", "10.0.0.4/24"}}, {Name: "x\x1b", Addresses: []string{"fe80::1%eth0"}}, {Name: "x\x1b"}},
	}
	agent := hostByCertificate(t, host)
	expect.Eventually(t, patience, func() error {
		return agent.servers.Create(t.Context(), hostReport(host, odd, agentv1alpha1.ReportedServer{Namespace: "team-a", Name: "sane-one", State: "ACTIVE"},
			agentv1alpha1.ReportedServer{Namespace: "NO NAMESPACE", Name: strings.Repeat("x", 253)}))
	})
	expect.Eventually(t, patience, serverState("sane-one", "ACTIVE"))
	expect.Eventually(t, patience, func() error {
		var s v1alpha1.Server
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "odd-one"}, &s))
		want := reported.Fields{PowerState: "SHUTDOWN", Networks: []v1alpha1.ServerNetwork{{Name: "unnamed", Addresses: []string{"10.0.0.4"}}, {Name: "x\ufffd", Addresses: []string{"fe80::1"}}}}
		if diff := cmp.Diff(want, reported.Of(&s.Status)); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
	expect.Eventually(t, patience, countsAre(host, "3 servers, 1 not here"))
}

// etcd takes less than kube-apiserver reads of one request.
func TestAReportThatIsTooLargeForEtcdStillHasTheStates(t *testing.T) {
	const host = "large-reporter"
	newService(t, host)
	newServer(t, "team-a", "large-0", host)
	var networks []v1alpha1.ServerNetwork
	for i := range 32 {
		networks = append(networks, v1alpha1.ServerNetwork{Name: fmt.Sprintf("%s%02d", strings.Repeat("x", 250), i)})
	}
	var vms []driver.VM
	for i := range 200 { // 1.7 MB; the limit of etcd is 1.5 MiB.
		large := vm("team-a", fmt.Sprintf("large-%d", i), "ACTIVE")
		large.Networks = networks
		vms = append(vms, large)
	}
	reporter, _ := newReport(t, host)
	reporter.Know(vms)
	expect.Eventually(t, patience, serverState("large-0", "ACTIVE"))
}

// Fifty VMs that change together are one request of the agent, and one write for each of
// their Servers.
func TestFiftyVMsThatChangeTogetherAreOneReport(t *testing.T) {
	const host, many = "busy-reporter", 50
	newService(t, host)
	var vms []driver.VM
	for i := range many {
		name := fmt.Sprintf("busy-%02d", i)
		newServer(t, "team-a", name, host)
		vms = append(vms, vm("team-a", name, "ACTIVE"))
	}
	reporter, _ := newReport(t, host)
	reporter.Know(vms)
	all := func(state v1alpha1.ServerState) func() error {
		return func() error {
			for _, v := range vms {
				if err := serverState(v.Server.Name, state)(); err != nil {
					return err
				}
			}
			return nil
		}
	}
	expect.Eventually(t, patience, all("ACTIVE"))
	before := hostReport(host)
	expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(before), before))
	begun := time.Now()
	for i := range vms {
		vms[i].State = "PAUSED"
		reporter.Know(append([]driver.VM(nil), vms...))
	}
	expect.Eventually(t, patience, all("PAUSED"))
	t.Logf("all of them after %s", time.Since(begun).Round(time.Millisecond))
	after := hostReport(host)
	expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(after), after))
	if after.Generation != before.Generation+1 || after.UID != before.UID {
		t.Errorf("the report has been written %d times", after.Generation-before.Generation)
	}
}
