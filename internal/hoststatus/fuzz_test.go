// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// FuzzDerive looks for input by which a status appears that the flags and the
// heartbeats do not carry, or time that moves the result backwards.
func FuzzDerive(f *testing.F) {
	f.Add(true, false, true, int64(0), int64(10), true, int64(5), uint8(0))
	f.Add(false, true, true, int64(10), int64(5), true, int64(7), uint8(1))
	f.Add(false, false, true, int64(1<<40), int64(0), false, int64(-1<<40), uint8(3))
	f.Fuzz(func(t *testing.T, forced, disabled, hasWindow bool, start, end int64, hasEnd bool, at int64, heartbeat uint8) {
		spec := &v1alpha1.ComputeServiceSpec{ForcedDown: &forced, Disabled: &disabled}
		if hasWindow {
			spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: &metav1.Time{Time: time.Unix(start, 0)}}
			if hasEnd {
				end := metav1.Unix(end, 0)
				spec.MaintenanceWindow.EndTime = &end
			}
		}
		seen := []Observation{
			{Reporting: v1alpha1.HostReportingTrue, Reason: v1alpha1.ReasonReporting},
			{Reporting: v1alpha1.HostReportingFalse, Reason: v1alpha1.ReasonLeaseExpired},
			{Reporting: v1alpha1.HostReportingUnknown, Reason: v1alpha1.ReasonLeaseNotReadable},
			{Reporting: v1alpha1.HostReportingUnknown, Reason: v1alpha1.ReasonWaitingForHeartbeat},
		}[heartbeat%4]
		now := time.Unix(at, 0)
		got := Derive(spec, seen, now)
		status := v1alpha1.HostStatus("absent")
		if got.Status != nil {
			status = *got.Status
		}
		if (status == v1alpha1.HostStatusDown) != forced {
			t.Errorf("%s with forcedDown %t", status, forced)
		}
		if status == v1alpha1.HostStatusUp && (seen.Reporting != v1alpha1.HostReportingTrue || disabled) {
			t.Errorf("UP with disabled %t and a host whose reporting is %s", disabled, seen.Reporting)
		}
		if status == v1alpha1.HostStatusUnknown && seen.Reporting == v1alpha1.HostReportingTrue {
			t.Error("UNKNOWN although the host reports")
		}
		if !got.Next.IsZero() && !got.Next.After(now) {
			t.Errorf("to be looked at again at %v, which is not after %v", got.Next, now)
		}
	})
}
