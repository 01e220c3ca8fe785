// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// fleetServer is one of many servers as the watch brings it: with a window, a full history, and
// no memory in common with another.
func fleetServer(i, version int, status v1alpha1.HostStatus) *tenantv1alpha1.Server {
	s := &tenantv1alpha1.Server{}
	s.Namespace, s.Name, s.ResourceVersion = fmt.Sprintf("customer-%03d", i%200), fmt.Sprintf("web-frontend-%05d", i), fmt.Sprint(100_000_000+version*10_000+i)
	s.UID = types.UID(fmt.Sprintf("81953cd7-7c5e-4729-aefb-%012d", i))
	s.Labels = map[string]string{}
	for _, key := range []string{"app", "tier", "app.kubernetes.io/name", "app.kubernetes.io/instance"} {
		s.Labels[own(key)] = fmt.Sprintf("shop-%05d", i)
	}
	s.Status.HostID = fmt.Sprintf("%064x", i/30)
	h := &s.Status.HostFields
	*h = *full(own(status))
	for len(h.HostHistory) < v1alpha1.MaxHostHistory {
		h.HostHistory = append(h.HostHistory, h.HostHistory[0])
	}
	at := func() *metav1.Time { return ptr.To(metav1.NewTime(start)) }
	for i := range h.HostHistory {
		h.HostHistory[i] = v1alpha1.HostStatusChange{HostStatus: ptr.To(own(status)), Reason: own(v1alpha1.ReasonWindowAnnounced), Since: at()}
	}
	h.HostStatusReason, h.HostReporting = own(h.HostStatusReason), own(h.HostReporting)
	w := h.MaintenanceWindow
	w.StartTime, w.OpensAt, w.LatestStartTime, w.EndTime = at(), at(), at(), at()
	w.Category, w.Impact, w.Answer = own(w.Category), own(w.Impact), own(w.Answer)
	return s
}

// own is a text with memory of its own, as a decoder makes it.
func own[S ~string](text S) S { return S(strings.Clone(string(text))) }

// attempt sends a sink all that waits for it, and takes in what becomes of that.
func attempt[P any](c *courier[P], what outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.done(c.queue.take(1<<20, func() {}), what, 0)
}

// From these figures comes what docs/use/notifier.md says of the memory to allow.
func TestTheMemoryForAServerIsBoundedHoweverOftenItChangesWhileSinksAreDown(t *testing.T) {
	const servers = 10_000
	config := &Config{
		Namespaces: []string{"*"},
		Sinks: []SinkConfig{
			{Name: "bus", CloudEvents: &CloudEventsConfig{URL: "http://bus.example.com"}},
			{Name: "pager", Alertmanager: &AlertmanagerConfig{URL: "http://pager.example.com"}},
		},
		Routes: []RouteConfig{{Name: "everything", Sink: "bus"}, {Name: "page", Sink: "pager"}},
	}
	config.complete("", "")
	expect.NoError(t, config.Validate().ToAggregate())
	c := testingclock.NewFakeClock(start)
	n, err := newNotifier(config, "test", c, logr.Discard())
	expect.NoError(t, err)
	bus, pager := n.boxes[0].(*courier[telling]), n.boxes[1].(*courier[[]Alert])
	live := func() int64 {
		for range 2 { // The second takes what the first one's finalizers held.
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	empty := live()
	check := func(when string, most int64) int64 {
		t.Helper()
		each := (live() - empty) / servers
		t.Logf("%s: %d bytes for each server", when, each)
		if each > most {
			t.Errorf("%s: %d bytes for each server, want at most %d", when, each, most)
		}
		return each
	}
	deliver := func() {
		c.Step(2 * longestPause)
		attempt(bus, delivered)
		attempt(pager, delivered)
		for _, b := range n.boxes {
			if u := b.usage(); u.waiting != 0 {
				t.Errorf("for %s %d wait", u.name, u.waiting)
			}
		}
	}

	to := &store{scope: n.scopes[0]}
	var all []any
	for i := range servers {
		all = append(all, fleetServer(i, 0, v1alpha1.HostStatusDown))
	}
	expect.NoError(t, to.Replace(all, "1"))
	deliver()
	check("told to both", 8<<10)

	// Twice through all that can be an alert: one that may have arrived is kept, to be resolved.
	statuses := []v1alpha1.HostStatus{
		v1alpha1.HostStatusUnknown, v1alpha1.HostStatusMaintenance, v1alpha1.HostStatusNeedsMaintenance, v1alpha1.HostStatusDown, v1alpha1.HostStatusUp,
	}
	var after [2]int64
	version := 0
	for half := range after {
		for _, status := range statuses {
			version++
			for i := range servers {
				expect.NoError(t, to.Update(fleetServer(i, version, status)))
			}
			c.Step(2 * longestPause)
			attempt(bus, failed)
			attempt(pager, failed)
			for _, b := range n.boxes {
				if u := b.usage(); u.waiting != servers {
					t.Errorf("for %s %d wait, want one for each server", u.name, u.waiting)
				}
			}
		}
		after[half] = check(fmt.Sprintf("after %d changes while both are down", version), 16<<10)
	}
	if after[1] > after[0]+after[0]/20 {
		t.Error("it grows with the number of changes")
	}
	deliver()
	check("told to both again", 8<<10)
	runtime.KeepAlive(n)
}
