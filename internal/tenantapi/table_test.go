// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestATableShowsWhatIsGrantedAndNothingElseIsEmpty(t *testing.T) {
	s := newTestStorage(t)
	window := &computev1alpha1.AnnouncedWindow{StartTime: ptr.To(metav1.NewTime(instant.Add(time.Hour)))}
	bounded := window.DeepCopy()
	bounded.EndTime = ptr.To(metav1.NewTime(instant.Add(3 * time.Hour)))
	full := func(s *computev1alpha1.Server) {
		s.UID, s.CreationTimestamp = "uid", metav1.NewTime(instant.Add(-time.Hour))
		s.Spec.Host = "host"
		s.Status.HostStatus = ptr.To(computev1alpha1.HostStatusNeedsMaintenance)
		s.Status.HostStatusReason, s.Status.HostReporting = "WindowAnnounced", "True"
		s.Status.HostStatusTransitionTime, s.Status.MaintenanceWindow = ptr.To(metav1.NewTime(instant.Add(-5*time.Minute))), bounded
	}
	id := hostID(s.feed.projector.hostIDKey, "ns", "host")[:12]
	for _, c := range []struct {
		name   string
		server *computev1alpha1.Server
		grant  grant
		want   string
	}{
		{"no grant", server(11, "ns", "web", full), grantNone, "web|ACTIVE||||60m|uid|" + id},
		{"unknown only, not UNKNOWN", server(11, "ns", "web", full), grantUnknown, "web|ACTIVE|||||60m|||||uid|" + id},
		{"full", server(11, "ns", "web", full), grantFull,
			"web|ACTIVE||||NEEDS_MAINTENANCE|60m|5m|WindowAnnounced|True|2026-01-02T04:04Z to 2026-01-02T06:04Z|uid|" + id},
		{"a window without an end", server(11, "ns", "web", full, func(s *computev1alpha1.Server) { s.Status.MaintenanceWindow = window }), grantFull,
			"web|ACTIVE||||NEEDS_MAINTENANCE|60m|5m|WindowAnnounced|True|from 2026-01-02T04:04Z|uid|" + id},
		{"a window that has been put off", server(11, "ns", "web", full, func(s *computev1alpha1.Server) {
			s.Status.MaintenanceWindow = bounded.DeepCopy()
			s.Status.MaintenanceWindow.OpensAt = ptr.To(metav1.NewTime(instant.Add(2 * time.Hour)))
		}), grantFull, "web|ACTIVE||||NEEDS_MAINTENANCE|60m|5m|WindowAnnounced|True|2026-01-02T05:04Z to 2026-01-02T06:04Z|uid|" + id},
		{"a window without a time", server(11, "ns", "web", full, func(s *computev1alpha1.Server) { s.Status.MaintenanceWindow = &computev1alpha1.AnnouncedWindow{} }), grantFull,
			"web|ACTIVE||||NEEDS_MAINTENANCE|60m|5m|WindowAnnounced|True|time not known yet|uid|" + id},
		{"UNKNOWN", server(11, "ns", "web", full, host("UNKNOWN"), func(s *computev1alpha1.Server) {
			s.Status.HostStatusReason, s.Status.HostReporting, s.Status.MaintenanceWindow = "LeaseExpired", "False", nil
		}), grantUnknown, "web|ACTIVE||||UNKNOWN|60m|5m|LeaseExpired|False|-|uid|" + id},
		{"on no host", server(11, "ns", "web", host(""), func(s *computev1alpha1.Server) { s.Status.HostStatusReason = "NoHost" }), grantFull,
			"web|ACTIVE||||-|<unknown>|-|NoHost|-|-|ns/web|"},
		{"nothing derived yet", server(11, "ns", "web", func(s *computev1alpha1.Server) { s.Status.HostStatus = nil }), grantFull,
			"web|ACTIVE||||-|<unknown>|-|-|-|-|ns/web|"},
	} {
		r := mustRecord(t, c.server)
		list := &viewList{hostColumn: c.grant != grantNone, Items: []view{viewOf(r, c.grant, r.rv)}}
		table, err := s.ConvertToTable(t.Context(), list.DeepCopyObject(), nil)
		check(t, err)
		if got := strings.Trim(strings.Join(strings.Fields(strings.ReplaceAll(fmt.Sprintf("%q", table.Rows[0].Cells), `" "`, `"|"`)), " "), "[]"); strings.ReplaceAll(got, `"`, "") != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		for _, column := range table.ColumnDefinitions[:7-min(1, len(columns)-len(table.ColumnDefinitions))] {
			if column.Priority != 0 {
				t.Errorf("%s: %s is in wide tables only", c.name, column.Name)
			}
		}
	}
}
