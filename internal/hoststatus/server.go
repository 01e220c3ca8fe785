// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// HostFields are the fields of a Server's status that its host determines,
// without the time of the last change, which is the server's own.
type HostFields struct {
	Status    *v1alpha1.HostStatus
	Reason    v1alpha1.HostStatusReason
	Reporting v1alpha1.HostReporting
	Window    *v1alpha1.AnnouncedWindow
}

// ForServer returns the host fields of a server whose spec.host is host. service
// is the ComputeService of that name, or nil if there is none. They depend on
// the service's status alone, so on nothing that came before.
//
// ok is false while the service's status does not stand for its spec yet: its
// controller is about to write it, and what was true before holds until then.
func ForServer(host string, service *v1alpha1.ComputeService) (fields HostFields, ok bool) {
	if host == "" {
		return noHost(v1alpha1.ReasonNoHost), true
	}
	if service == nil {
		return noHost(v1alpha1.ReasonHostNotFound), true
	}
	if service.Status.ObservedGeneration != service.Generation {
		return HostFields{}, false
	}
	fields = HostFields{
		Status:    service.Status.HostStatus,
		Reason:    service.Status.HostStatusReason,
		Reporting: v1alpha1.HostReportingUnknown,
	}
	if c := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionReporting); c != nil {
		fields.Reporting = v1alpha1.HostReporting(c.Status)
	}
	if w := service.Spec.MaintenanceWindow; w != nil && windowVisible(service.Status.Conditions) {
		fields.Window = &v1alpha1.AnnouncedWindow{StartTime: w.StartTime, EndTime: w.EndTime}
	}
	return fields, true
}

// NewsForServers says whether the step of a ComputeService from one state to
// another may give its servers other host fields.
func NewsForServers(before, after *v1alpha1.ComputeService) bool {
	now, ok := ForServer(after.Name, after)
	if !ok {
		return false
	}
	then, ok := ForServer(before.Name, before)
	return !ok || !now.Equal(then)
}

// Equal says whether a server with these fields needs no change to have other.
func (f HostFields) Equal(other HostFields) bool {
	return SameStatus(f.Status, other.Status) &&
		f.Reason == other.Reason &&
		f.Reporting == other.Reporting &&
		sameWindow(f.Window, other.Window)
}

// SameStatus compares two host statuses, of which nil is one: not derived yet.
func SameStatus(a, b *v1alpha1.HostStatus) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// Worse says whether the step from one host status to another takes something
// from the server's owner: such news goes first.
func Worse(from, to *v1alpha1.HostStatus) bool {
	return slices.Index(byBadness, value(to)) > slices.Index(byBadness, value(from))
}

// byBadness orders the statuses from the best to the worst for a server's owner.
var byBadness = []v1alpha1.HostStatus{
	v1alpha1.HostStatusUp,
	v1alpha1.HostStatusNone,
	v1alpha1.HostStatusNeedsMaintenance,
	v1alpha1.HostStatusMaintenance,
	v1alpha1.HostStatusUnknown,
	v1alpha1.HostStatusDown,
}

func value(s *v1alpha1.HostStatus) v1alpha1.HostStatus {
	if s == nil {
		return v1alpha1.HostStatusNone
	}
	return *s
}

func noHost(reason v1alpha1.HostStatusReason) HostFields {
	none := v1alpha1.HostStatusNone
	return HostFields{Status: &none, Reason: reason}
}

func windowVisible(conditions []metav1.Condition) bool {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionWindowOpen)
	return c != nil && c.Reason != v1alpha1.WindowOpenReasonClosed
}

func sameWindow(a, b *v1alpha1.AnnouncedWindow) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.StartTime.Equal(&b.StartTime) && a.EndTime.Equal(b.EndTime)
}
