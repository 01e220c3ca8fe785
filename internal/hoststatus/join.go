// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Host is what the servers on a host show of it, as of one version of its ComputeService.
type Host struct {
	// Version is the resourceVersion of the ComputeService. Those of custom resources can be
	// compared as numbers.
	Version uint64
	// Fields are what ForServer made of it.
	Fields v1alpha1.HostFields
}

// Copy is what a Server has stored of its host.
type Copy struct {
	// Version is the server's status.hostVersion, 0 if that is absent.
	Version uint64
	// Current says that status.observedGeneration is the server's generation. If it is not, the
	// server may have moved, and its controller is about to write it.
	Current bool
	Fields  v1alpha1.HostFields
}

// Join returns the host fields of a server: those of the newer of what is stored in it and
// its host, which is nil if it is not known. It makes of a host what the server's controller
// writes when it copies it, so that nothing changes when the copy arrives.
func Join(stored Copy, host *Host) v1alpha1.HostFields {
	if host == nil || !stored.Current || stored.Version == 0 || stored.Version >= host.Version {
		return stored.Fields
	}
	if host.Fields.HostStatusTransitionTime == nil {
		return stored.Fields // Its time will be that at which the controller writes.
	}
	return Take(stored.Fields, host.Fields, false, time.Time{})
}

// Take returns the host fields of a server that had have, and whose host has want. now is
// the time of the change where the host does not know it: of a server that moved, and where
// want has no time.
//
// The time is never before the host's, even if hostStatus is what it was: then it was
// something else in between. Nor is it if the server has moved and the clock is behind the one
// by which the host was judged: the next copy would move the time again. The history of the
// server gains an entry whenever the time moves, and where its newest is not what holds: a
// manager without a history has written since. A server without one gets its first entry
// together with another change. What has become of the owner's answer is kept as long as the
// window is the same, if want does not have it: that of a host does not.
func Take(have, want v1alpha1.HostFields, moved bool, now time.Time) v1alpha1.HostFields {
	since, arrived := want.HostStatusTransitionTime, metav1.NewTime(now.Truncate(time.Second))
	if SameStatus(have.HostStatus, want.HostStatus) {
		if before := have.HostStatusTransitionTime; before != nil && (since == nil || before.After(since.Time)) {
			since = before
		}
	} else if moved && since != nil && arrived.After(since.Time) {
		since = nil
	}
	if since == nil {
		since = &arrived
	}
	want.HostStatusTransitionTime = since
	want.MaintenanceWindow = keepAnswer(have.MaintenanceWindow, want.MaintenanceWindow)
	want.HostHistory = have.HostHistory
	if len(have.HostHistory) == 0 && SameFields(have, want) {
		return want
	}
	return Remember(want)
}

// Remember returns fields with their present status as the newest in their history.
func Remember(fields v1alpha1.HostFields) v1alpha1.HostFields {
	before := fields.HostHistory
	if len(before) > 0 && SameStatus(before[0].HostStatus, fields.HostStatus) && before[0].Since.Equal(fields.HostStatusTransitionTime) {
		return fields
	}
	fields.HostHistory = slices.Concat(
		[]v1alpha1.HostStatusChange{{HostStatus: fields.HostStatus, Reason: fields.HostStatusReason, Since: fields.HostStatusTransitionTime}},
		before[:min(len(before), v1alpha1.MaxHostHistory-1)])
	return fields
}

// keepAnswer returns window want with the answer that have has, if want has none and both
// are the same window. It does not change want, which servers share.
func keepAnswer(have, want *v1alpha1.AnnouncedWindow) *v1alpha1.AnnouncedWindow {
	if have == nil || want == nil || have.Answer == "" || want.Answer != "" || !SameSecond(have.StartTime, want.StartTime) {
		return want
	}
	kept := *want
	kept.Answer = have.Answer
	return &kept
}
