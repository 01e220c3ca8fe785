// SPDX-License-Identifier: Apache-2.0

package computeservice

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
)

func TestDetectionIsMeasuredOnceAndToTheWrite(t *testing.T) {
	asked := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	written := asked.Add(200 * time.Millisecond)
	status := func(host v1alpha1.HostStatus, reporting metav1.ConditionStatus) *v1alpha1.ComputeServiceStatus {
		return &v1alpha1.ComputeServiceStatus{
			HostStatus: ptr.To(host), Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReporting, Status: reporting}},
		}
	}
	up, unknown := status(v1alpha1.HostStatusUp, metav1.ConditionTrue), status(v1alpha1.HostStatusUnknown, metav1.ConditionFalse)
	inMaintenance := status(v1alpha1.HostStatusMaintenance, metav1.ConditionTrue)
	diesInMaintenance := status(v1alpha1.HostStatusMaintenance, metav1.ConditionFalse)
	for name, c := range map[string]struct {
		before, after *v1alpha1.ComputeServiceStatus
		overdue       time.Duration
		samples       uint64
		sum           float64
		from, to      string
		transitions   float64
	}{
		"a host falls silent":                                {up, unknown, time.Second, 1, 1.2, "UP", "UNKNOWN", 1},
		"a silent host stays silent":                         {unknown, unknown, time.Minute, 0, 0, "UP", "UNKNOWN", 0},
		"a host returns":                                     {unknown, up, 0, 0, 0, "UNKNOWN", "UP", 1},
		"a host that another process declared silent":        {up, unknown, 0, 0, 0, "UP", "UNKNOWN", 1},
		"a host dies in maintenance, which is no new status": {inMaintenance, diesInMaintenance, time.Second, 1, 1.2, "MAINTENANCE", "UNKNOWN", 0},
		"a first status":                                     {&v1alpha1.ComputeServiceStatus{}, up, 0, 0, 0, "NOT_DERIVED", "UP", 1},
	} {
		t.Run(name, func(t *testing.T) {
			read := func() (lag *dto.Histogram, count float64) {
				var h, n dto.Metric
				if err := detectionLag.WithLabelValues().(prometheus.Metric).Write(&h); err != nil {
					t.Fatal(err)
				}
				if err := transitions.WithLabelValues(c.from, c.to).Write(&n); err != nil {
					t.Fatal(err)
				}
				return h.Histogram, n.Counter.GetValue()
			}
			lagBefore, countBefore := read()
			r := &Reconciler{clock: clocktesting.NewFakePassiveClock(written)}
			r.measure(c.before, c.after, heartbeat.Verdict{Overdue: c.overdue}, asked)
			lag, count := read()
			if got := lag.GetSampleCount() - lagBefore.GetSampleCount(); got != c.samples {
				t.Errorf("%d measurements, want %d", got, c.samples)
			}
			if got := lag.GetSampleSum() - lagBefore.GetSampleSum(); got < c.sum-1e-6 || got > c.sum+1e-6 {
				t.Errorf("a lag of %v s, want %v s", got, c.sum)
			}
			if got := count - countBefore; got != c.transitions {
				t.Errorf("%v transitions from %s to %s, want %v", got, c.from, c.to, c.transitions)
			}
		})
	}
}
