// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/reported"
)

// maxNotes is how many notes on one record are kept: enough to find what is wrong.
const maxNotes = 16

// recordOf returns what a driver knows in the form that the API server accepts: in order,
// each server once, and no more of them than a report may list. The notes list, for a
// person, what had to be left out.
func recordOf(vms []driver.VM) (record agentv1alpha1.HostReportSpec, notes []string) {
	note := func(format string, args ...any) {
		if len(notes) < maxNotes {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	vms = slices.Clone(vms)
	slices.SortStableFunc(vms, func(a, b driver.VM) int { return compare(a.Server, b.Server) })
	for i, vm := range vms {
		if i > 0 && vms[i-1].Server == vm.Server {
			note("server %s: known twice: one of them left out", vm.Server)
			continue
		}
		if err := validate(vm.Server); err != "" {
			note("server %.80q: %s: left out", vm.Server.String(), err)
			continue
		}
		if len(record.Servers) == agentv1alpha1.MaxServers {
			note("%d servers, of which a report may list %d: the last ones in order of namespace and name left out", len(vms), agentv1alpha1.MaxServers)
			break
		}
		fields, about := reported.Normalise(vm.Fields)
		for _, one := range about {
			note("server %s: %s", vm.Server, one)
		}
		record.Servers = append(record.Servers, entryOf(vm.Server, fields))
	}
	return record, notes
}

func compare(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// validate returns what is wrong with the name of a server, or "".
func validate(server types.NamespacedName) string {
	if errs := validation.IsDNS1123Label(server.Namespace); len(errs) > 0 {
		return "its namespace is no name of a namespace: " + errs[0]
	}
	if errs := validation.IsDNS1123Subdomain(server.Name); len(errs) > 0 {
		return "its name is no name of a Server: " + errs[0]
	}
	return ""
}

func entryOf(server types.NamespacedName, fields reported.Fields) agentv1alpha1.ReportedServer {
	entry := agentv1alpha1.ReportedServer{
		Namespace: server.Namespace, Name: server.Name,
		State: string(fields.State), TaskState: fields.TaskState, PowerState: string(fields.PowerState),
	}
	for _, n := range fields.Networks {
		entry.Networks = append(entry.Networks, agentv1alpha1.ReportedNetwork(n))
	}
	return entry
}

// bare returns a record without what is less important than the states: for an API server
// that does not accept all of it.
func bare(record agentv1alpha1.HostReportSpec) agentv1alpha1.HostReportSpec {
	var less agentv1alpha1.HostReportSpec
	for _, s := range record.Servers {
		less.Servers = append(less.Servers, agentv1alpha1.ReportedServer{Namespace: s.Namespace, Name: s.Name, State: s.State, PowerState: s.PowerState})
	}
	return less
}
