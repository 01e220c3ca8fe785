// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/reported"
)

// Keep is the cache's transformation of HostReports: it keeps what the controller needs,
// in the form that the API of Servers accepts, in order and each server once. Hosts are
// not trusted to have done any of that. The creation time becomes the time of the last
// write.
func Keep(obj any) (any, error) {
	report, ok := obj.(*agentv1alpha1.HostReport)
	if !ok {
		return obj, nil
	}
	kept := &agentv1alpha1.HostReport{ObjectMeta: metav1.ObjectMeta{
		Name: report.Name, UID: report.UID, ResourceVersion: report.ResourceVersion, CreationTimestamp: writtenAt(report),
	}}
	servers := slices.Clone(report.Spec.Servers)
	slices.SortStableFunc(servers, func(a, b agentv1alpha1.ReportedServer) int { return compare(a, keyOf(b)) })
	servers = slices.CompactFunc(servers, func(a, b agentv1alpha1.ReportedServer) bool { return keyOf(a) == keyOf(b) })
	kept.Spec.Servers = make([]agentv1alpha1.ReportedServer, 0, len(servers))
	for _, s := range servers {
		normal, _ := reported.Normalise(fieldsOf(s))
		entry := agentv1alpha1.ReportedServer{
			Namespace: shared(s.Namespace), Name: s.Name,
			State: shared(string(normal.State)), TaskState: shared(normal.TaskState), PowerState: shared(string(normal.PowerState)),
		}
		for _, n := range normal.Networks {
			entry.Networks = append(entry.Networks, agentv1alpha1.ReportedNetwork{Name: shared(n.Name), Addresses: n.Addresses})
		}
		kept.Spec.Servers = append(kept.Spec.Servers, entry)
	}
	return kept, nil
}

// writtenAt is when the API server last wrote a report: the host's own clock proves nothing.
func writtenAt(report *agentv1alpha1.HostReport) metav1.Time {
	last := report.CreationTimestamp
	for _, m := range report.ManagedFields {
		if m.Time != nil && m.Time.After(last.Time) {
			last = *m.Time
		}
	}
	return last
}

// shared returns an equal string that all callers share.
func shared(s string) string { return unique.Make(s).Value() }

func keyOf(s agentv1alpha1.ReportedServer) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

func compare(s agentv1alpha1.ReportedServer, key types.NamespacedName) int {
	return cmp.Or(strings.Compare(s.Namespace, key.Namespace), strings.Compare(s.Name, key.Name))
}

// entryFor returns what a report, as Keep made it, lists of a server.
func entryFor(report *agentv1alpha1.HostReport, server types.NamespacedName) (agentv1alpha1.ReportedServer, bool) {
	if report == nil {
		return agentv1alpha1.ReportedServer{}, false
	}
	i, found := slices.BinarySearchFunc(report.Spec.Servers, server, compare)
	if !found {
		return agentv1alpha1.ReportedServer{}, false
	}
	return report.Spec.Servers[i], true
}

// fieldsOf returns the reported fields of an entry.
func fieldsOf(s agentv1alpha1.ReportedServer) reported.Fields {
	fields := reported.Fields{State: v1alpha1.ServerState(s.State), TaskState: s.TaskState, PowerState: v1alpha1.PowerState(s.PowerState)}
	for _, n := range s.Networks {
		fields.Networks = append(fields.Networks, v1alpha1.ServerNetwork(n))
	}
	return fields
}

// countsOf returns the counts that a host should have, and whether they have to be
// written. Without a report there are none. The time alone is no reason to write: it is
// that of the last report of which something was new, as news tells.
func countsOf(stored *v1alpha1.ReportCounts, report *agentv1alpha1.HostReport, notHere int, news bool) (counts *v1alpha1.ReportCounts, changed bool) {
	if report == nil {
		return nil, stored != nil
	}
	servers, missing := int32(len(report.Spec.Servers)), int32(notHere) //nolint:gosec // at most MaxServers
	written := metav1.NewTime(report.CreationTimestamp.Truncate(time.Second))
	counts = &v1alpha1.ReportCounts{Time: &written, Servers: &servers, NotHere: &missing}
	same := stored != nil && stored.Servers != nil && *stored.Servers == servers && stored.NotHere != nil && *stored.NotHere == missing
	if same && (!news || stored.Time.Equal(counts.Time)) {
		return stored, false
	}
	return counts, true
}
