// SPDX-License-Identifier: Apache-2.0

package computeservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/retry"
)

// fakeMonitor returns the verdicts it is given, and notes what it is called with.
type fakeMonitor struct {
	reporting heartbeat.Reporting
	lagging   bool // It has taken in an older version only.
	tracked   map[string]bool
	version   func(name string) string // of what is there now
	listeners heartbeat.Listeners
	events    *[]string
}

func (m *fakeMonitor) Listen(l heartbeat.Listeners) { m.listeners = l }
func (m *fakeMonitor) Track(s heartbeat.Subject) {
	m.tracked[s.Name] = true
	*m.events = append(*m.events, fmt.Sprintf("track %s %d", s.Name, s.Generation))
}
func (m *fakeMonitor) Forget(name string, uid types.UID) {
	delete(m.tracked, name)
	*m.events = append(*m.events, fmt.Sprintf("forget %s %s", name, uid))
}
func (m *fakeMonitor) Verdict(name string, _ types.UID) (heartbeat.Verdict, bool) {
	verdict := heartbeat.Verdict{Reporting: m.reporting, Version: m.version(name), Duration: time.Minute, SinceRenewal: 5 * time.Second}
	if m.lagging {
		verdict.Version = "older"
	}
	return verdict, m.tracked[name]
}

// fakeQueue notes what is added.
type fakeQueue struct {
	requests // nil: only Add is expected.
	events   *[]string
}

func (q *fakeQueue) Add(r reconcile.Request) { *q.events = append(*q.events, "wake "+r.Name) }

// world is a reconciler and all that is around it.
type world struct {
	*testing.T
	client.Client
	monitor    *fakeMonitor
	queue      *fakeQueue
	clock      *clocktesting.FakePassiveClock
	reconciler *Reconciler
	events     []string
	writes     int
	writeError error
}

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return scheme
}

// newWorld has these services, which the monitor has taken in and which report.
func newWorld(t *testing.T, services ...*v1alpha1.ComputeService) *world {
	t.Helper()
	w := &world{T: t, clock: clocktesting.NewFakePassiveClock(now)}
	w.monitor = &fakeMonitor{reporting: heartbeat.Reports, tracked: map[string]bool{}, events: &w.events}
	w.queue = &fakeQueue{events: &w.events}
	c := fake.NewClientBuilder().WithScheme(newScheme(t)).WithStatusSubresource(&v1alpha1.ComputeService{})
	for _, s := range services {
		c.WithObjects(s)
		w.monitor.tracked[s.Name] = true
	}
	w.Client = c.WithInterceptorFuncs(interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			w.writes++
			if w.writeError != nil {
				return w.writeError
			}
			return c.SubResource(name).Patch(ctx, obj, patch, opts...)
		},
	}).Build()
	w.monitor.version = func(name string) string {
		s := &v1alpha1.ComputeService{}
		if err := w.Get(t.Context(), client.ObjectKey{Name: name}, s); err != nil {
			t.Error(err)
		}
		return s.ResourceVersion
	}
	w.reconciler = NewReconciler(w.Client, w.monitor, w.clock)
	return w
}

func (w *world) read(name string) *v1alpha1.ComputeService {
	w.Helper()
	s := &v1alpha1.ComputeService{}
	if err := w.Get(w.Context(), client.ObjectKey{Name: name}, s); err != nil {
		w.Fatal(err)
	}
	return s
}

// reconcile reconciles the service as it is now.
func (w *world) reconcile(name string) reconcile.Result {
	w.Helper()
	result, err := reconcile.AsReconciler(w.Client, w.reconciler).Reconcile(w.Context(), requestFor(name))
	if err != nil {
		w.Fatal(err)
	}
	return result
}

// want checks the status of host-a and how often it has been written.
func (w *world) want(status *v1alpha1.HostStatus, writes int) {
	w.Helper()
	if diff := cmp.Diff(status, w.read("host-a").Status.HostStatus); diff != "" {
		w.Errorf("host status (-want +got):\n%s", diff)
	}
	if w.writes != writes {
		w.Errorf("%d writes, want %d", w.writes, writes)
	}
}

func TestReconcileWritesOnceAndNotTwice(t *testing.T) {
	w := newWorld(t, serviceWith())
	for range 3 {
		if result := w.reconcile("host-a"); result != (reconcile.Result{}) {
			t.Errorf("asks to come again: %+v", result)
		}
		w.want(ptr.To(v1alpha1.HostStatusUp), 1)
		w.clock.SetTime(w.clock.Now().Add(time.Hour))
	}
	w.monitor.reporting = heartbeat.Expired
	for range 3 {
		w.reconcile("host-a")
		w.want(ptr.To(v1alpha1.HostStatusUnknown), 2)
	}
}

func TestReconcileWritesTheWholeStatus(t *testing.T) {
	s := serviceWith(window(time.Hour, 0))
	w := newWorld(t, s)
	w.reconcile("host-a")
	want, _ := decideOn(s, heartbeat.Reports, now)
	if diff := cmp.Diff(want, w.read("host-a").Status); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReconcileRemovesWhatNoLongerHolds(t *testing.T) {
	w := newWorld(t, serviceWith(window(-time.Hour, 0), settled(heartbeat.Reports, at(-time.Minute)), noWindow, generation(2)))
	w.monitor.reporting = heartbeat.Waiting
	w.reconcile("host-a")
	w.want(nil, 1)
	if c := meta.FindStatusCondition(w.read("host-a").Status.Conditions, v1alpha1.ConditionWindowOpen); c != nil {
		t.Errorf("condition of a window that is gone: %+v", c)
	}
}

func TestReconcileRepairsAStatusThatSomebodyElseWrote(t *testing.T) {
	w := newWorld(t, serviceWith(settled(heartbeat.Reports, at(-time.Hour)), func(s *v1alpha1.ComputeService) {
		s.Status.HostStatus = ptr.To(v1alpha1.HostStatusDown)
	}))
	w.reconcile("host-a")
	w.want(ptr.To(v1alpha1.HostStatusUp), 1)
}

func TestReconcileWaitsForTheMonitor(t *testing.T) {
	for name, prepare := range map[string]func(*fakeMonitor){
		"to take in what is there now": func(m *fakeMonitor) { m.lagging = true },
		"to know the service":          func(m *fakeMonitor) { delete(m.tracked, "host-a") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, serviceWith(generation(2), window(time.Hour, 0)))
			prepare(w.monitor)
			if result := w.reconcile("host-a"); result != (reconcile.Result{}) {
				t.Errorf("asks to come again: %+v", result)
			}
			w.want(nil, 0)
		})
	}
}

func TestReconcileDecidesAgainAfterAConflict(t *testing.T) {
	w := newWorld(t, serviceWith())
	stale := w.read("host-a")
	w.reconcile("host-a") // What the successor wrote.
	w.monitor.reporting = heartbeat.Expired
	now := w.monitor.version
	w.monitor.version = func(string) string { return stale.ResourceVersion } // Both the cache and the monitor are behind.
	result, err := w.reconciler.Reconcile(t.Context(), stale)
	w.monitor.version = now
	if err != nil || result.RequeueAfter != retry.ConflictDelay {
		t.Errorf("error %v, result %+v", err, result)
	}
	w.want(ptr.To(v1alpha1.HostStatusUp), 2)
	w.reconcile("host-a")
	w.want(ptr.To(v1alpha1.HostStatusUnknown), 3)
}

func TestReconcileAndErrorsOfTheAPIServer(t *testing.T) {
	resource := schema.GroupResource{Group: v1alpha1.SchemeGroupVersion.Group, Resource: "computeservices"}
	for name, c := range map[string]struct {
		answer error
		delay  time.Duration
		failed bool
	}{
		"conflict is no error and is tried again soon": {apierrors.NewConflict(resource, "host-a", errors.New("changed")), retry.ConflictDelay, false},
		"not found is no error":                        {apierrors.NewNotFound(resource, "host-a"), 0, false},
		"another error is returned":                    {apierrors.NewInternalError(errors.New("etcd is away")), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, serviceWith(window(time.Hour, 0)))
			w.writeError = c.answer
			result, err := w.reconciler.Reconcile(t.Context(), w.read("host-a"))
			if (err != nil) != c.failed || result.RequeueAfter != c.delay {
				t.Errorf("error %v, result %+v", err, result)
			}
		})
	}
	t.Run("a service that is gone is no error", func(t *testing.T) {
		w := newWorld(t)
		w.reconcile("host-a")
	})
}

func TestReconcileComesAgainAtTheBoundariesOfAWindow(t *testing.T) {
	w := newWorld(t, serviceWith(window(time.Hour, 3*time.Hour)))
	for i, step := range []struct {
		at     time.Time
		status v1alpha1.HostStatus
		again  time.Duration
		writes int
	}{
		{at(0), v1alpha1.HostStatusNeedsMaintenance, time.Hour, 1},
		{at(time.Hour - time.Second), v1alpha1.HostStatusNeedsMaintenance, time.Second, 1},
		{at(time.Hour), v1alpha1.HostStatusMaintenance, 2 * time.Hour, 2},
		{at(time.Minute), v1alpha1.HostStatusMaintenance, 3*time.Hour - time.Minute, 2}, // The clock was set back.
		{at(3 * time.Hour), v1alpha1.HostStatusUp, 0, 3},
	} {
		w.clock.SetTime(step.at)
		if result := w.reconcile("host-a"); result.RequeueAfter != step.again {
			t.Errorf("step %d: comes again after %s, want %s", i, result.RequeueAfter, step.again)
		}
		w.want(&step.status, step.writes)
	}
}

func TestTheMonitorWakesTheController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t,
			serviceWith(named("plain")),
			serviceWith(named("announced"), window(time.Hour, 0)),
			serviceWith(named("closed"), window(-2*time.Hour, -time.Hour)))
		if err := w.reconciler.listen(t.Context(), w.queue); err != nil {
			t.Fatal(err)
		}
		w.monitor.listeners.Changed("plain")
		w.monitor.listeners.ClockStepped()
		synctest.Wait()
		slices.Sort(w.events[1:])
		if diff := cmp.Diff([]string{"wake plain", "wake announced", "wake closed"}, w.events); diff != "" {
			t.Errorf("a verdict wakes the service, a step of the clock those with a window (-want +got):\n%s", diff)
		}
	})
}

func TestTrackerTellsTheMonitorBeforeItWakesTheController(t *testing.T) {
	w := newWorld(t)
	tracker := &tracker{monitor: w.monitor}
	first, second := serviceWith(), serviceWith(generation(2))
	tracker.Create(t.Context(), event.CreateEvent{Object: first}, w.queue)
	tracker.Update(t.Context(), event.UpdateEvent{ObjectOld: first, ObjectNew: second}, w.queue)
	tracker.Delete(t.Context(), event.DeleteEvent{Object: second}, w.queue)
	want := []string{"track host-a 1", "wake host-a", "track host-a 2", "wake host-a", "forget host-a uid-a", "wake host-a"}
	if diff := cmp.Diff(want, w.events); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A field that is added to the status and not to the patch could never be removed
// once somebody has set it.
func TestThePatchHasEveryFieldOfTheStatusAlsoWhenItIsEmpty(t *testing.T) {
	body, err := json.Marshal(fieldsOf(&v1alpha1.ComputeServiceStatus{}))
	if err != nil {
		t.Fatal(err)
	}
	var patch map[string]any
	if err := json.Unmarshal(body, &patch); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[v1alpha1.ComputeServiceStatus]()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key != "report" { // Of controllers/reports.
			want = append(want, key)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(patch))); diff != "" {
		t.Errorf("(-status +patch):\n%s", diff)
	}
}

func TestReconcileLogsChangesOfTheHostStatusOnly(t *testing.T) {
	w := newWorld(t, serviceWith(settled(heartbeat.Reports, at(-time.Hour)), generation(2)))
	var lines []string
	ctx := log.IntoContext(t.Context(), funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
	for _, reporting := range []heartbeat.Reporting{heartbeat.Reports, heartbeat.Expired, heartbeat.Expired} {
		w.monitor.reporting = reporting
		if _, err := w.reconciler.Reconcile(ctx, w.read("host-a")); err != nil {
			t.Fatal(err)
		}
	}
	w.want(ptr.To(v1alpha1.HostStatusUnknown), 2)
	if len(lines) != 1 || !strings.Contains(lines[0], `"old"="UP" "new"="UNKNOWN" "reason"="LeaseExpired"`) {
		t.Errorf("logged %q", lines)
	}
}
