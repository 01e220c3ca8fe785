// SPDX-License-Identifier: Apache-2.0

package computeservice

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/telemetry"
)

var (
	transitions = telemetry.Manager.Counter(telemetry.Metric{
		Name: "hoststatus_host_transitions_total", Replicas: telemetry.LeaderCounts,
		Help: "Changes of hosts' host status that were written.",
		Labels: []telemetry.Label{
			{Name: "from", Values: "a host status, or `NOT_DERIVED`"},
			{Name: "to", Values: "a host status, or `NOT_DERIVED`"},
		},
	})
	detectionLag = telemetry.Manager.Histogram(telemetry.Metric{
		Name: "hoststatus_detection_lag_seconds", Replicas: telemetry.LeaderCounts,
		Help: "Time from a silent host's deadline, which is its last renewal, its D and blind time, until its silence was written.",
	}, []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60})
)

// The series exist from the start, so that the first change is an increase.
func init() {
	for _, from := range hoststatus.HostLabels() {
		for _, to := range hoststatus.HostLabels() {
			if from != to {
				transitions.WithLabelValues(from, to)
			}
		}
	}
}

// measure records a status that was written; verdict was asked for at asked.
func (r *Reconciler) measure(before, after *v1alpha1.ComputeServiceStatus, verdict heartbeat.Verdict, asked time.Time) {
	if !hoststatus.SameStatus(before.HostStatus, after.HostStatus) {
		transitions.WithLabelValues(hoststatus.Label(before.HostStatus), hoststatus.Label(after.HostStatus)).Inc()
	}
	wasSilent := meta.IsStatusConditionFalse(before.Conditions, v1alpha1.ConditionReporting)
	isSilent := meta.IsStatusConditionFalse(after.Conditions, v1alpha1.ConditionReporting)
	if isSilent && !wasSilent && verdict.Overdue > 0 {
		detectionLag.WithLabelValues().Observe((verdict.Overdue + r.clock.Since(asked)).Seconds())
	}
}
