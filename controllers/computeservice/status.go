// SPDX-License-Identifier: Apache-2.0

package computeservice

import (
	"fmt"
	"math"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// owners is what the owners of the servers on a host have answered to its maintenance
// window, and whether that is known.
type owners struct {
	hoststatus.Answers
	known bool
}

// decide returns the status that service should have, given the monitor's verdict
// on it and what its owners have answered, whether that differs from the one it has, and
// when the passing of time alone will change it (zero if never).
func decide(service *v1alpha1.ComputeService, verdict heartbeat.Verdict, answered owners, now time.Time) (after v1alpha1.ComputeServiceStatus, changed bool, next time.Time) {
	before := &service.Status
	reporting, reason := reportingOf(verdict.Reporting)
	opened := hoststatus.WindowOpened(service, now)
	if record := hoststatus.RecordOf(service); !answered.known && record != nil && record.OpensAt != nil {
		answered.Latest = record.OpensAt.Time // What was known of them last.
	}
	result := hoststatus.Derive(&service.Spec, hoststatus.Observation{
		Reporting:    reporting,
		Reason:       reason,
		WindowOpened: opened,
		Answers:      answered.Answers,
	}, now)
	var opensAt time.Time
	if w := service.Spec.MaintenanceWindow; w != nil {
		opensAt = hoststatus.OpensAt(w, answered.Answers, now)
	}

	stamp := metav1.NewTime(now.Truncate(time.Second))
	after = *before.DeepCopy()
	after.ObservedGeneration = service.Generation
	after.HostStatus = result.Status
	after.HostStatusReason = result.Reason
	if !hoststatus.SameStatus(before.HostStatus, result.Status) || before.HostStatusTransitionTime == nil {
		after.HostStatusTransitionTime = &stamp
	}
	setCondition(&after.Conditions, metav1.Condition{
		Type:               v1alpha1.ConditionReporting,
		Status:             metav1.ConditionStatus(reporting),
		Reason:             string(reason),
		Message:            reportingMessage(service, verdict),
		ObservedGeneration: service.Generation,
		LastTransitionTime: stamp,
	})
	after.Maintenance = maintenanceOf(service, answered, result.Window, opensAt, opened)
	if window := windowCondition(service.Spec.MaintenanceWindow, result.Window, opensAt); window != nil {
		window.ObservedGeneration = service.Generation
		window.LastTransitionTime = stamp
		setCondition(&after.Conditions, *window)
	} else {
		meta.RemoveStatusCondition(&after.Conditions, v1alpha1.ConditionWindowOpen)
	}
	if equality.Semantic.DeepEqual(*before, after) {
		return after, false, result.Next
	}
	// Only now, since a renewal alone is no reason to write.
	if verdict.SinceRenewal >= 0 {
		seen := metav1.NewTime(now.Add(-verdict.SinceRenewal).Truncate(time.Second))
		after.LastSeenUpTime = &seen
	}
	return after, true, result.Next
}

// reportingOf translates the monitor's verdict into the API's values.
func reportingOf(r heartbeat.Reporting) (v1alpha1.HostReporting, v1alpha1.HostStatusReason) {
	switch r {
	case heartbeat.Reports:
		return v1alpha1.HostReportingTrue, v1alpha1.ReasonReporting
	case heartbeat.Expired:
		return v1alpha1.HostReportingFalse, v1alpha1.ReasonLeaseExpired
	case heartbeat.NeverReported:
		return v1alpha1.HostReportingFalse, v1alpha1.ReasonNeverReported
	case heartbeat.NotReadable:
		return v1alpha1.HostReportingUnknown, v1alpha1.ReasonLeaseNotReadable
	default:
		return v1alpha1.HostReportingUnknown, v1alpha1.ReasonWaitingForHeartbeat
	}
}

// memoryOf reads back what reportingOf wrote.
func memoryOf(conditions []metav1.Condition) heartbeat.Reporting {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionReporting)
	if c == nil {
		return heartbeat.NoVerdict
	}
	for _, r := range []heartbeat.Reporting{heartbeat.Reports, heartbeat.Expired, heartbeat.NeverReported, heartbeat.NotReadable, heartbeat.Waiting} {
		if status, reason := reportingOf(r); string(status) == string(c.Status) && string(reason) == c.Reason {
			return r
		}
	}
	return heartbeat.NoVerdict
}

// subjectOf returns what the monitor needs to know about a ComputeService.
func subjectOf(service *v1alpha1.ComputeService) heartbeat.Subject {
	return heartbeat.Subject{
		Name:       service.Name,
		UID:        service.UID,
		Generation: service.Generation,
		Version:    service.ResourceVersion,
		Lease:      service.HeartbeatLease(),
		Duration:   time.Duration(service.Spec.LeaseDurationSeconds) * time.Second,
		Memory:     memoryOf(service.Status.Conditions),
	}
}

// reportingMessage is constant for as long as the verdict stands, so that it is no
// reason to write.
func reportingMessage(service *v1alpha1.ComputeService, verdict heartbeat.Verdict) string {
	lease := service.HeartbeatLease()
	switch verdict.Reporting {
	case heartbeat.Reports:
		return fmt.Sprintf("Lease %s is renewed in time", lease)
	case heartbeat.Expired:
		prefix := fmt.Sprintf("Lease %s was not renewed for ", lease)
		// After a restart the monitor may know another duration than the one by which the
		// host was judged: the Lease that set it may be gone.
		c := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionReporting)
		if c != nil && c.Reason == string(v1alpha1.ReasonLeaseExpired) && c.ObservedGeneration == service.Generation && strings.HasPrefix(c.Message, prefix) {
			return c.Message
		}
		return prefix + verdict.Duration.String()
	case heartbeat.NeverReported:
		return fmt.Sprintf("Lease %s was never renewed; check that the agent runs on the host, and spec.leaseRef", lease)
	case heartbeat.NotReadable:
		return fmt.Sprintf("The manager does not read Leases in namespace %s; add it to --lease-namespaces, or change spec.leaseRef.namespace", lease.Namespace)
	default:
		return fmt.Sprintf("Waiting for the first renewal of Lease %s", lease)
	}
}

// maintenanceOf returns what follows from the answers. Of a window that has opened before
// it stays as it was, and so do the counts while the answers are not known.
func maintenanceOf(service *v1alpha1.ComputeService, answered owners, phase hoststatus.WindowPhase, opensAt time.Time, opened bool) *v1alpha1.MaintenanceStatus {
	record := hoststatus.RecordOf(service)
	switch {
	case phase != hoststatus.WindowAnnounced && phase != hoststatus.WindowOpen:
		return nil
	case opened || !answered.known && record == nil:
		return record
	case !answered.known:
		record = record.DeepCopy()
	default:
		record = &v1alpha1.MaintenanceStatus{
			StartTime: seconds(service.Spec.MaintenanceWindow.StartTime),
			Servers:   count(answered.Servers), Ready: count(answered.Ready), PutOff: count(answered.PutOff),
		}
	}
	record.OpensAt = nil
	if !opensAt.IsZero() {
		record.OpensAt = seconds(&metav1.Time{Time: opensAt})
	}
	return record
}

// seconds returns a time as it is stored.
func seconds(t *metav1.Time) *metav1.Time {
	if t == nil {
		return nil
	}
	return &metav1.Time{Time: t.Truncate(time.Second)}
}

func count(n int) *int32 {
	return ptr.To(int32(min(n, math.MaxInt32))) //nolint:gosec // limited
}

func windowCondition(w *v1alpha1.MaintenanceWindow, phase hoststatus.WindowPhase, opensAt time.Time) *metav1.Condition {
	c := &metav1.Condition{Type: v1alpha1.ConditionWindowOpen, Status: metav1.ConditionFalse}
	switch phase {
	case hoststatus.WindowAnnounced:
		c.Reason = string(v1alpha1.ReasonWindowAnnounced)
		c.Message = "Planned, at a time that is not known yet"
		if w.StartTime != nil {
			c.Message = "Opens at " + opensAt.UTC().Format(time.RFC3339)
		}
	case hoststatus.WindowOpen:
		c.Status, c.Reason = metav1.ConditionTrue, string(v1alpha1.ReasonWindowOpen)
		c.Message = "Stays open until spec.maintenanceWindow is removed"
		if w.EndTime != nil {
			c.Message = "Closes at " + w.EndTime.UTC().Format(time.RFC3339)
		}
	case hoststatus.WindowClosed:
		c.Reason = v1alpha1.WindowOpenReasonClosed
		c.Message = "Closed at " + w.EndTime.UTC().Format(time.RFC3339)
	default:
		return nil
	}
	return c
}

// setCondition keeps the time of the last transition where the status stays.
func setCondition(conditions *[]metav1.Condition, c metav1.Condition) {
	if old := meta.FindStatusCondition(*conditions, c.Type); old != nil && old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	meta.SetStatusCondition(conditions, c)
}
