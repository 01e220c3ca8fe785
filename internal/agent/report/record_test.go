// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/reported"
)

// vm is a server in the namespace tenant, with this power state.
func vm(name string, power v1alpha1.PowerState) driver.VM {
	return driver.VM{Server: types.NamespacedName{Namespace: "tenant", Name: name}, Fields: reported.Fields{PowerState: power}}
}

func in(namespace, name string) driver.VM {
	return driver.VM{Server: types.NamespacedName{Namespace: namespace, Name: name}}
}

func entry(namespace, name string) agentv1alpha1.ReportedServer {
	return agentv1alpha1.ReportedServer{Namespace: namespace, Name: name}
}

func TestARecordListsWhatTheDriverKnowsInOrder(t *testing.T) {
	full := vm("a", "RUNNING")
	full.State, full.TaskState = "ACTIVE", "rebooting"
	full.Networks = []v1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4/24"}}, {Name: "empty"}}
	for name, c := range map[string]struct {
		vms  []driver.VM
		want []agentv1alpha1.ReportedServer
		note string // in the only note; "" if there is none.
	}{
		"nothing": {},
		"every field": {
			[]driver.VM{full},
			[]agentv1alpha1.ReportedServer{{
				Namespace: "tenant", Name: "a", State: "ACTIVE", TaskState: "rebooting", PowerState: "RUNNING",
				Networks: []agentv1alpha1.ReportedNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}, {Name: "empty"}},
			}}, "",
		},
		"by namespace and name": {
			[]driver.VM{in("b", "a"), in("a", "b"), in("a-b", "a"), in("a", "a")},
			[]agentv1alpha1.ReportedServer{entry("a", "a"), entry("a", "b"), entry("a-b", "a"), entry("b", "a")}, "",
		},
		"one server twice":   {[]driver.VM{in("a", "a"), in("a", "b"), in("a", "a")}, []agentv1alpha1.ReportedServer{entry("a", "a"), entry("a", "b")}, "server a/a: known twice"},
		"an odd namespace":   {[]driver.VM{in("A", "a"), in("a", "a")}, []agentv1alpha1.ReportedServer{entry("a", "a")}, `server "A/a": its namespace is no name of a namespace`},
		"an odd name":        {[]driver.VM{in("a", "a\x1b"), in("a", "a")}, []agentv1alpha1.ReportedServer{entry("a", "a")}, `server "a/a\x1b": its name is no name of a Server`},
		"a name too long":    {[]driver.VM{in("a", strings.Repeat("x", 1_000_000)), in("a", "a")}, []agentv1alpha1.ReportedServer{entry("a", "a")}, "its name is no name of a Server"},
		"a state of no kind": {[]driver.VM{{Server: types.NamespacedName{Namespace: "a", Name: "a"}, Fields: reported.Fields{State: "HALTED"}}}, []agentv1alpha1.ReportedServer{entry("a", "a")}, `server a/a: state "HALTED" is unknown`},
	} {
		t.Run(name, func(t *testing.T) {
			got, notes := recordOf(c.vms)
			if diff := cmp.Diff(c.want, got.Servers); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.note == "" && len(notes) > 0 || c.note != "" && (len(notes) != 1 || !strings.Contains(notes[0], c.note) || len(notes[0]) > 500) {
				t.Errorf("notes %.2000q, want %q", notes, c.note)
			}
		})
	}
}

func TestARecordListsNoMoreServersThanItMay(t *testing.T) {
	var vms []driver.VM
	for i := range agentv1alpha1.MaxServers + 10 {
		vms = append(vms, in("a", fmt.Sprintf("vm-%04d", i)))
	}
	got, notes := recordOf(vms)
	if n := len(got.Servers); n != agentv1alpha1.MaxServers {
		t.Errorf("%d servers", n)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "1034 servers, of which a report may list 1024") {
		t.Errorf("notes %q", notes)
	}
}

// The schema is at least as wide as what the agent sends.
func TestARecordFitsTheSchema(t *testing.T) {
	type schema struct {
		Properties          map[string]schema
		Items               *schema
		MaxLength, MaxItems int
	}
	read := func(file string) schema {
		content, err := os.ReadFile("../../../config/crd/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Versions []struct {
					Schema struct{ OpenAPIV3Schema schema }
				}
			}
		}
		if err := yaml.Unmarshal(content, &crd); err != nil {
			t.Fatal(err)
		}
		return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	report := read("agent.hoststatus.dev_hostreports.yaml").Properties["spec"].Properties["servers"]
	server := read("compute.hoststatus.dev_servers.yaml").Properties["status"]
	if report.MaxItems != agentv1alpha1.MaxServers {
		t.Errorf("the schema allows %d servers, the agent sends up to %d", report.MaxItems, agentv1alpha1.MaxServers)
	}
	entry := report.Items.Properties
	networks, serverNetworks := entry["networks"], server.Properties["networks"]
	for name, c := range map[string]struct{ report, server int }{
		"task state":    {entry["taskState"].MaxLength, server.Properties["taskState"].MaxLength},
		"networks":      {networks.MaxItems, serverNetworks.MaxItems},
		"network names": {networks.Items.Properties["name"].MaxLength, serverNetworks.Items.Properties["name"].MaxLength},
		"addresses":     {networks.Items.Properties["addresses"].MaxItems, serverNetworks.Items.Properties["addresses"].MaxItems},
		"address":       {networks.Items.Properties["addresses"].Items.MaxLength, serverNetworks.Items.Properties["addresses"].Items.MaxLength},
	} {
		if c.report == 0 || c.report < c.server {
			t.Errorf("%s: a report allows %d, a Server %d", name, c.report, c.server)
		}
	}
}
