// SPDX-License-Identifier: Apache-2.0

// Package hoststatus is the table by which a host's status is derived. It is
// pure: values in, values out, no clock and no client.
package hoststatus

import (
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Observation is what is known about a host's heartbeats.
type Observation struct {
	// Reporting is True while the host renews its Lease in time, False once its
	// silence is proven, else Unknown.
	Reporting v1alpha1.HostReporting
	// Reason is ReasonReporting, ReasonLeaseExpired, ReasonNeverReported,
	// ReasonWaitingForHeartbeat or ReasonLeaseNotReadable.
	Reason v1alpha1.HostStatusReason
	// WindowOpened remembers that the maintenance window of this generation of the
	// spec has been open before: an opened window stays open until its end, whatever
	// owners answer.
	WindowOpened bool
	// Answers are what owners have answered to the maintenance window.
	Answers Answers
}

// WindowPhase is the phase of a maintenance window.
type WindowPhase int

// The phases of a maintenance window.
const (
	WindowNone WindowPhase = iota
	WindowAnnounced
	WindowOpen
	WindowClosed
)

// Result is the derived status of a host.
type Result struct {
	// Status is nil while too little is known to derive it.
	Status *v1alpha1.HostStatus
	// Reason is the row of the table that decided.
	Reason v1alpha1.HostStatusReason
	// Window is the phase of spec.maintenanceWindow, also where another row
	// decided.
	Window WindowPhase
	// Next is when time alone changes the result; zero if never.
	Next time.Time
}

// Derive applies the table of Nova's host_status to one host; the first row that
// matches decides. now is the wall clock: only maintenance windows depend on it.
func Derive(spec *v1alpha1.ComputeServiceSpec, seen Observation, now time.Time) Result {
	phase, next := window(spec.MaintenanceWindow, &seen, now)
	decided := func(status v1alpha1.HostStatus, reason v1alpha1.HostStatusReason) Result {
		return Result{Status: &status, Reason: reason, Window: phase, Next: next}
	}
	switch {
	case isTrue(spec.ForcedDown):
		return decided(v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown)
	case isTrue(spec.Disabled):
		return decided(v1alpha1.HostStatusMaintenance, v1alpha1.ReasonDisabled)
	case phase == WindowOpen:
		return decided(v1alpha1.HostStatusMaintenance, v1alpha1.ReasonWindowOpen)
	case seen.Reason == v1alpha1.ReasonWaitingForHeartbeat:
		return Result{Reason: seen.Reason, Window: phase, Next: next}
	case seen.Reporting != v1alpha1.HostReportingTrue:
		return decided(v1alpha1.HostStatusUnknown, seen.Reason)
	case phase == WindowAnnounced:
		return decided(v1alpha1.HostStatusNeedsMaintenance, v1alpha1.ReasonWindowAnnounced)
	default:
		return decided(v1alpha1.HostStatusUp, v1alpha1.ReasonReporting)
	}
}

// window returns the phase of w at now, and when it ends by itself.
func window(w *v1alpha1.MaintenanceWindow, seen *Observation, now time.Time) (WindowPhase, time.Time) {
	switch {
	case w == nil:
		return WindowNone, time.Time{}
	case w.EndTime != nil && !now.Before(w.EndTime.Time):
		return WindowClosed, time.Time{}
	case w.StartTime == nil:
		return WindowAnnounced, time.Time{}
	}
	opensAt := OpensAt(w, seen.Answers, now)
	switch {
	case !seen.WindowOpened && now.Before(opensAt):
		return WindowAnnounced, opensAt
	case w.EndTime != nil:
		return WindowOpen, w.EndTime.Time
	default:
		return WindowOpen, time.Time{}
	}
}

func isTrue(flag *bool) bool { return flag != nil && *flag }
