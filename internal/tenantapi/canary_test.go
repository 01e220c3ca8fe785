// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

func canary(second int) *coordinationv1.Lease {
	return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{
		// Years from the time here: only the arrival of a change counts.
		RenewTime:            ptr.To(metav1.NewMicroTime(time.Date(2040, 1, 1, 0, 0, second, 0, time.UTC))),
		LeaseDurationSeconds: ptr.To[int32](5),
	}}
}

func TestHostStatusIsStaleWhenACanaryIsOverdue(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(instant)
	c := newCanaries([]string{"a", "b"}, clock)
	a, b := canaryStore{c, "a"}, canaryStore{c, "b"}
	stale := func(when string, want bool) {
		t.Helper()
		if got := c.stale(); (got != "") != want {
			t.Errorf("%s: %q", when, got)
		}
	}
	at := func(seconds int) { clock.SetTime(instant.Add(time.Duration(seconds) * time.Second)) }

	check(t, a.Replace([]any{canary(0)}, "1"))
	if c.hasSynced() {
		t.Error("synced with one canary not looked for")
	}
	check(t, b.Replace(nil, "1"))
	if !c.hasSynced() {
		t.Error("not synced")
	}
	stale("a manager that never wrote one of its canaries", true)
	check(t, b.Add(canary(0)))
	stale("both just seen", false)
	at(5)
	stale("for as long as declared", false)
	at(6)
	stale("both overdue", true)
	if got := c.stale(); !strings.Contains(got, "6s") {
		t.Errorf("the warning does not say since when: %q", got)
	}
	check(t, a.Update(canary(1)))
	stale("one overdue", true)
	check(t, b.Update(canary(1)))
	stale("both renewed", false)
	at(12)
	check(t, a.Replace([]any{canary(1)}, "2"))
	check(t, b.Update(canary(2)))
	stale("listed again, unchanged", true)
	check(t, a.Update(canary(3)))
	check(t, b.Delete(canary(2)))
	stale("a canary that was deleted", true)
}

func TestACanaryThatWasThereFirstIsAsOldAsItSays(t *testing.T) {
	at := func(renewed time.Time) *coordinationv1.Lease {
		return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{
			RenewTime: ptr.To(metav1.NewMicroTime(renewed)), LeaseDurationSeconds: ptr.To[int32](15),
		}}
	}
	for name, c := range map[string]struct {
		lease *coordinationv1.Lease
		want  string
	}{
		"of a manager that is dead for an hour": {at(instant.Add(-time.Hour)), "host status may be out of date: the hoststatus manager has not reported for 1h0m0s"},
		"of a manager that is alive":            {at(instant.Add(-2 * time.Second)), ""},
		"of a manager whose clock is ahead":     {at(instant.Add(time.Hour)), ""},
		"without a time":                        {&coordinationv1.Lease{}, "host status is not being kept up to date: the hoststatus manager has not reported yet"},
	} {
		t.Run(name, func(t *testing.T) {
			clock := testingclock.NewFakePassiveClock(instant)
			canaries := newCanaries([]string{"a"}, clock)
			store := canaryStore{canaries, "a"}
			check(t, store.Replace([]any{c.lease}, "1"))
			if got := canaries.stale(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			// From here on a renewal counts when it arrives, whatever the time in it.
			check(t, store.Update(at(instant.Add(-2*time.Hour))))
			if got := canaries.stale(); got != "" {
				t.Errorf("after a renewal: %q", got)
			}
		})
	}
}
