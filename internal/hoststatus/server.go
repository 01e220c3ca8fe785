// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// ForServer returns the host fields of a server whose spec.host is host. service
// is the ComputeService of that name, or nil if there is none. They depend on the
// service alone and not on history: the time of the last change is the host's, of which
// Take makes the server's. What is the server's own is not in them: its history, and what
// has become of its owner's answer.
//
// ok is false while the service's status does not reflect its spec yet: its
// controller is about to write it, and the earlier fields hold until then.
func ForServer(host string, service *v1alpha1.ComputeService) (fields v1alpha1.HostFields, ok bool) {
	if host == "" {
		return noHost(v1alpha1.ReasonNoHost), true
	}
	if service == nil {
		return noHost(v1alpha1.ReasonHostNotFound), true
	}
	if service.Status.ObservedGeneration != service.Generation {
		return v1alpha1.HostFields{}, false
	}
	fields = v1alpha1.HostFields{
		HostStatus:       service.Status.HostStatus,
		HostStatusReason: service.Status.HostStatusReason,
		HostReporting:    v1alpha1.HostReportingUnknown,

		HostStatusTransitionTime: service.Status.HostStatusTransitionTime,
	}
	if c := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionReporting); c != nil {
		fields.HostReporting = v1alpha1.HostReporting(c.Status)
	}
	if w := service.Spec.MaintenanceWindow; w != nil && windowVisible(service.Status.Conditions) {
		fields.MaintenanceWindow = &v1alpha1.AnnouncedWindow{
			StartTime: w.StartTime, LatestStartTime: w.LatestStartTime, EndTime: w.EndTime, Category: w.Category, Impact: w.Impact,
		}
		// A manager of 0.1 leaves behind when a former window was to open.
		if m := RecordOf(service); m != nil {
			fields.MaintenanceWindow.OpensAt = m.OpensAt
		}
	}
	return fields, true
}

// NewsForServers reports whether the change of a ComputeService from one state to
// another may give its servers other host fields.
func NewsForServers(before, after *v1alpha1.ComputeService) bool {
	now, ok := ForServer(after.Name, after)
	if !ok {
		return false
	}
	then, ok := ForServer(before.Name, before)
	return !ok || !SameFields(now, then)
}

// SameFields compares host fields by value, and their times as instants; those of a window
// as they are stored.
func SameFields(a, b v1alpha1.HostFields) bool {
	return SameStatus(a.HostStatus, b.HostStatus) &&
		a.HostStatusReason == b.HostStatusReason &&
		a.HostStatusTransitionTime.Equal(b.HostStatusTransitionTime) &&
		a.HostReporting == b.HostReporting &&
		sameWindow(a.MaintenanceWindow, b.MaintenanceWindow) &&
		slices.EqualFunc(a.HostHistory, b.HostHistory, sameChange)
}

// SameStatus compares two host statuses, of which nil is one: not derived yet.
func SameStatus(a, b *v1alpha1.HostStatus) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// Worse reports whether a host status is worse than another for the server's owner:
// such news goes first.
func Worse(from, to *v1alpha1.HostStatus) bool {
	return Rank(to) > Rank(from)
}

func noHost(reason v1alpha1.HostStatusReason) v1alpha1.HostFields {
	none := v1alpha1.HostStatusNone
	return v1alpha1.HostFields{HostStatus: &none, HostStatusReason: reason}
}

func windowVisible(conditions []metav1.Condition) bool {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionWindowOpen)
	return c != nil && c.Reason != v1alpha1.WindowOpenReasonClosed
}

// sameWindow compares times as they are stored: those of the spec may have fractions of a
// second, which the copy in a Server has not.
func sameWindow(a, b *v1alpha1.AnnouncedWindow) bool {
	if a == nil || b == nil {
		return a == b
	}
	return SameSecond(a.StartTime, b.StartTime) && SameSecond(a.OpensAt, b.OpensAt) && SameSecond(a.LatestStartTime, b.LatestStartTime) && SameSecond(a.EndTime, b.EndTime) &&
		a.Category == b.Category && a.Impact == b.Impact && a.Answer == b.Answer
}

func sameChange(a, b v1alpha1.HostStatusChange) bool {
	return SameStatus(a.HostStatus, b.HostStatus) && a.Reason == b.Reason && a.Since.Equal(b.Since)
}
