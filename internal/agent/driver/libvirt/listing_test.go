// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"strings"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/reported"
)

func TestWhatADomainReportsDependsOnWhatItWas(t *testing.T) {
	off := &reported.Fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}
	active := &reported.Fields{State: "ACTIVE", PowerState: "RUNNING"}
	const paused, shutoff, running = golibvirt.DomainPaused, golibvirt.DomainShutoff, golibvirt.DomainRunning
	for name, c := range map[string]struct {
		entry
		want *reported.Fields
		left bool
	}{
		"it runs": {entry: entry{domain: domain{state: running}}, want: active},
		"it is received, or starts for the first time": {entry: entry{domain: domain{state: paused, reason: 11}}},
		"it starts after it was off":                   {entry: entry{domain: domain{state: paused, reason: 11}, before: off}, want: off},
		"it has moved":                                 {entry: entry{domain: domain{state: shutoff, reason: 4}, before: active}, left: true},
		"it had moved, and libvirtd has forgotten it":  {entry: entry{domain: domain{state: shutoff}, leftBefore: true}, left: true},
		"it had moved, and was saved since":            {entry: entry{domain: domain{state: shutoff, saved: true}, leftBefore: true}, want: &reported.Fields{State: "SUSPENDED", PowerState: "SHUTDOWN"}},
		"it had moved, and was destroyed since":        {entry: entry{domain: domain{state: shutoff, reason: 2}, leftBefore: true}, want: off},
		"it had moved, and is back":                    {entry: entry{domain: domain{state: running}, leftBefore: true}, want: active},
		"it is off for a reason that was forgotten":    {entry: entry{domain: domain{state: shutoff}, before: active}, want: off},
	} {
		t.Run(name, func(t *testing.T) {
			got, left := c.fields()
			if diff := cmp.Diff(c.want, got); diff != "" || left != c.left {
				t.Errorf("left %v, want %v; (-want +got):\n%s", left, c.left, diff)
			}
		})
	}
}

func TestAddressesComeFromTheMetadataAndFromLeases(t *testing.T) {
	net := func(name string, addresses ...string) v1alpha1.ServerNetwork {
		return v1alpha1.ServerNetwork{Name: name, Addresses: addresses}
	}
	e := entry{
		details: details{networks: []v1alpha1.ServerNetwork{net("xnet", "10.0.0.4"), net("named")}, leased: []leasedInterface{{"a", "default"}, {"b", "named"}, {"c", "silent"}, {"d", "default"}}},
		leases:  map[string][]string{"a": {"192.168.122.2"}, "b": {"10.1.0.1"}, "d": {"192.168.122.3"}, "z": {"10.9.9.9"}},
	}
	want := []v1alpha1.ServerNetwork{net("xnet", "10.0.0.4"), net("named", "10.1.0.1"), net("default", "192.168.122.2", "192.168.122.3")}
	for range 2 { // The second time shows that the first changed nothing.
		if diff := cmp.Diff(want, e.addresses()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestTheOnlyActiveDomainIsTheServerThatSeveralClaim(t *testing.T) {
	claimOf := func(name, domain string, active bool) claim {
		return claim{VM: driver.VM{Server: types.NamespacedName{Namespace: "tenant", Name: name}, Fields: reported.Fields{State: v1alpha1.ServerState(domain)}}, domain: domain, active: active}
	}
	for name, c := range map[string]struct {
		claims []claim
		want   string // the domains that are reported
		note   string
	}{
		"none":                         {},
		"one each, in their order":     {claims: []claim{claimOf("b", "1", false), claimOf("a", "2", true)}, want: "2 1"},
		"one of two is active":         {claims: []claim{claimOf("a", "1", false), claimOf("a", "2", true), claimOf("b", "3", false)}, want: "2 3", note: `"2", the only active one`},
		"both are active":              {claims: []claim{claimOf("a", "1", true), claimOf("a", "2", true), claimOf("b", "3", false)}, want: "3", note: "2 of them are active; reporting none"},
		"neither is active":            {claims: []claim{claimOf("a", "1", false), claimOf("a", "2", false)}, note: "0 of them are active; reporting none"},
		"three, with a name of no use": {claims: []claim{claimOf("a", "\x1b", false), claimOf("a", "2", false), claimOf("a", "3", true)}, want: "3", note: "3 domains claim it, among them \"\ufffd\""},
	} {
		t.Run(name, func(t *testing.T) {
			vms, notes := compose(c.claims)
			var got []string
			for _, vm := range vms {
				got = append(got, string(vm.State))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("reports %q, want %q", got, c.want)
			}
			var all string
			for server, note := range notes {
				all += server.String() + ": " + note
			}
			if (all == "") != (c.note == "") || !strings.Contains(all, c.note) {
				t.Errorf("notes %q, want %q", all, c.note)
			}
		})
	}
}
