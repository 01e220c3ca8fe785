// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/retry"
)

// world is a Reconciler and all that is around it.
type world struct {
	*testing.T
	client.Client
	reconciler *Reconciler
	clock      *clocktesting.FakePassiveClock

	mu          sync.Mutex
	writes      []string
	atOnce, max int
	writeError  map[string]error
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), agentv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, clock: clocktesting.NewFakePassiveClock(now), writeError: map[string]error{}}
	w.Client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Server{}, &v1alpha1.ComputeService{}).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
				w.mu.Lock()
				w.writes = append(w.writes, obj.GetName())
				w.atOnce++
				w.max = max(w.max, w.atOnce)
				err := w.writeError[obj.GetName()]
				w.mu.Unlock()
				defer func() {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.atOnce--
				}()
				if err != nil {
					return err
				}
				return c.SubResource(name).Patch(ctx, obj, patch, opts...)
			},
		}).Build()
	w.reconciler = NewReconciler(w.Client, w.clock)
	return w
}

func (w *world) reports(report *agentv1alpha1.HostReport) {
	w.Helper()
	w.reconciler.index.set(kept(w.T, report))
}

func (w *world) reconcile(host string) (reconcile.Result, error) {
	return w.reconciler.Reconcile(w.Context(), requestFor(host))
}

// want reconciles the host and checks what was written.
func (w *world) want(host string, writes ...string) {
	w.Helper()
	w.clock.SetTime(w.clock.Now().Add(time.Hour))
	w.writes = nil
	if result, err := w.reconcile(host); err != nil || result != (reconcile.Result{}) {
		w.Errorf("result %+v, error %v", result, err)
	}
	slices.Sort(w.writes)
	if diff := cmp.Diff(writes, w.writes); diff != "" {
		w.Errorf("writes (-want +got):\n%s", diff)
	}
}

func (w *world) status(namespace, name string) v1alpha1.ServerStatus {
	w.Helper()
	s := &v1alpha1.Server{}
	if err := w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: name}, s); err != nil {
		w.Fatal(err)
	}
	return s.Status
}

func (w *world) counts(host string) string {
	w.Helper()
	s := &v1alpha1.ComputeService{}
	if err := w.Get(w.Context(), client.ObjectKey{Name: host}, s); err != nil {
		w.Fatal(err)
	}
	if s.Status.Report == nil {
		return "none"
	}
	return fmt.Sprintf("%d servers, %d not here", *s.Status.Report.Servers, *s.Status.Report.NotHere)
}

func server(namespace, name, host string) *v1alpha1.Server {
	return &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.ServerSpec{Host: host}}
}

func service(name string) *v1alpha1.ComputeService {
	return &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func TestWhatAHostReportsReachesItsServersAndNoOthers(t *testing.T) {
	w := newWorld(t, service("host-a"), server("team", "mine", "host-a"), server("team", "other", "host-b"), server("team", "homeless", ""), server("team", "silent", "host-a"))
	w.reports(reportOf("host-a", entry("team", "mine", "ACTIVE"), entry("team", "other", "ERROR"), entry("team", "homeless", "ERROR"), entry("team", "missing", "ERROR")))
	w.want("host-a", "host-a", "mine")
	for name, want := range map[string]v1alpha1.ServerState{"mine": "ACTIVE", "other": "", "homeless": "", "silent": ""} {
		if got := w.status("team", name).State; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := w.counts("host-a"); got != "4 servers, 3 not here" {
		t.Errorf("counts: %s", got)
	}
	w.want("host-a") // Nothing has changed.
}

func TestServersOnWhichSomethingElseReportsAreLeftAlone(t *testing.T) {
	w := newWorld(t, service("host-a"), server("team", "mine", "host-a"), server("team", "mirrored", "host-a"))
	w.reconciler.LeaveOut(func(s *v1alpha1.Server) bool { return s.Name == "mirrored" })
	w.reports(reportOf("host-a", entry("team", "mine", "ACTIVE"), entry("team", "mirrored", "ERROR")))
	w.want("host-a", "host-a", "mine")
	if got := w.counts("host-a"); got != "2 servers, 1 not here" {
		t.Errorf("counts: %s", got)
	}
}

func TestTheReportedFieldsAreReplacedAndTheHostFieldsStay(t *testing.T) {
	before := server("team", "mine", "host-a")
	before.Status = v1alpha1.ServerStatus{
		State: "ACTIVE", TaskState: "rebooting", PowerState: "RUNNING", Networks: []v1alpha1.ServerNetwork{{Name: "x", Addresses: []string{"10.0.0.4"}}},
		ObservedGeneration: 3, HostFields: v1alpha1.HostFields{HostStatusReason: "Reporting", HostReporting: "True"},
	}
	w := newWorld(t, service("host-a"), before)
	w.reports(reportOf("host-a", entry("team", "mine", "SHUTOFF", agentv1alpha1.ReportedNetwork{Name: "y"})))
	w.want("host-a", "host-a", "mine")
	want := before.Status
	want.State, want.TaskState, want.PowerState, want.Networks = "SHUTOFF", "", "", []v1alpha1.ServerNetwork{{Name: "y"}}
	if diff := cmp.Diff(want, w.status("team", "mine")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAReportThatIsGoneLeavesTheServersAndTakesTheCountsAlong(t *testing.T) {
	w := newWorld(t, service("host-a"), server("team", "mine", "host-a"))
	w.reports(reportOf("host-a", entry("team", "mine", "ACTIVE")))
	w.want("host-a", "host-a", "mine")
	w.reconciler.index.remove("host-a")
	w.want("host-a", "host-a")
	if got := w.counts("host-a"); got != "none" {
		t.Errorf("counts: %s", got)
	}
	if got := w.status("team", "mine").State; got != "ACTIVE" {
		t.Errorf("the server is %s", got)
	}
}

func TestAHostWithoutAComputeServiceReportsNonetheless(t *testing.T) {
	w := newWorld(t, server("team", "mine", "host-a"))
	w.reports(reportOf("host-a", entry("team", "mine", "ACTIVE")))
	w.want("host-a", "mine")
}

func TestOneServerThatCannotBeWrittenHoldsUpNoOther(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		failed bool
		delay  time.Duration
	}{
		"a conflict is decided again": {apierrors.NewConflict(v1alpha1.SchemeGroupVersion.WithResource("servers").GroupResource(), "odd", errors.New("changed")), false, retry.ConflictDelay},
		"a server that has gone":      {apierrors.NewNotFound(v1alpha1.SchemeGroupVersion.WithResource("servers").GroupResource(), "odd"), false, 0},
		"another error":               {apierrors.NewInternalError(errors.New("etcd is away")), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, server("team", "a", "host-a"), server("team", "odd", "host-a"), server("team", "z", "host-a"))
			w.writeError["odd"] = c.answer
			w.reports(reportOf("host-a", entry("team", "a", "ACTIVE"), entry("team", "odd", "ACTIVE"), entry("team", "z", "ACTIVE")))
			result, err := w.reconcile("host-a")
			if (err != nil) != c.failed || result.RequeueAfter != c.delay {
				t.Errorf("result %+v, error %v", result, err)
			}
			if c.failed && !strings.Contains(err.Error(), "team/odd") {
				t.Errorf("error %v does not name the Server", err)
			}
			for _, name := range []string{"a", "z"} {
				if w.status("team", name).State != "ACTIVE" {
					t.Errorf("%s is not written", name)
				}
			}
		})
	}
}

// What is new is not forgotten because the counts could not be written.
func TestTheTimeOfAReportFollowsAfterAConflict(t *testing.T) {
	w := newWorld(t, service("host-a"), server("team", "mine", "host-a"))
	w.reports(reportOf("host-a", entry("team", "mine", "ACTIVE")))
	w.want("host-a", "host-a", "mine")
	later := reportOf("host-a", entry("team", "mine", "PAUSED"))
	later.CreationTimestamp = at(time.Minute)
	w.reports(later)
	w.writeError["host-a"] = apierrors.NewConflict(v1alpha1.SchemeGroupVersion.WithResource("computeservices").GroupResource(), "host-a", errors.New("changed"))
	w.clock.SetTime(w.clock.Now().Add(time.Hour))
	if result, err := w.reconcile("host-a"); err != nil || result.RequeueAfter != retry.ConflictDelay {
		t.Errorf("result %+v, error %v", result, err)
	}
	w.writeError = nil
	w.want("host-a", "host-a")
	s := &v1alpha1.ComputeService{}
	if err := w.Get(t.Context(), client.ObjectKey{Name: "host-a"}, s); err != nil || !s.Status.Report.Time.Equal(&later.CreationTimestamp) {
		t.Errorf("error %v, time %s", err, s.Status.Report.Time)
	}
	w.want("host-a")
}

// A server that has moved since it was read keeps what its new host reports.
func TestAServerThatHasMovedMeanwhileIsNotWritten(t *testing.T) {
	w := newWorld(t, server("team", "mine", "host-a"))
	w.reports(reportOf("host-a", entry("team", "mine", "ACTIVE")))
	servers, _, err := w.reconciler.differing(t.Context(), "host-a", w.reconciler.index.get("host-a"))
	if err != nil || len(servers) != 1 {
		t.Fatalf("%d servers, error %v", len(servers), err)
	}
	moved := &v1alpha1.Server{}
	if err := w.Get(t.Context(), client.ObjectKey{Namespace: "team", Name: "mine"}, moved); err != nil {
		t.Fatal(err)
	}
	moved.Spec.Host = "host-b"
	if err := w.Update(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	if err := w.reconciler.write(t.Context(), servers[0]); !apierrors.IsConflict(err) {
		t.Errorf("got %v", err)
	}
}

// Whatever a host reports, it causes no more than fifty writes a second in the long run,
// and no more than a few at a time.
func TestAHostRestsForTheWritesThatItCaused(t *testing.T) {
	objects := []client.Object{service("host-a"), service("host-b"), server("team", "b", "host-b")}
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("vm-%02d", i))
		objects = append(objects, server("team", names[i], "host-a"))
	}
	w := newWorld(t, objects...)
	report := func(state v1alpha1.ServerState) {
		var entries []agentv1alpha1.ReportedServer
		for _, name := range names {
			entries = append(entries, entry("team", name, state))
		}
		w.reports(reportOf("host-a", entries...))
	}
	report("ACTIVE")
	if _, err := w.reconcile("host-a"); err != nil || len(w.writes) != 101 || w.max > writesPerHost {
		t.Fatalf("%d writes, %d at a time, error %v", len(w.writes), w.max, err)
	}
	report("ERROR")
	result, err := w.reconcile("host-a")
	if want := (100 + costOfCounts) * restPerWrite; err != nil || result.RequeueAfter != want || len(w.writes) != 101 {
		t.Errorf("result %+v, error %v, %d writes; want a rest of %s", result, err, len(w.writes), want)
	}
	w.reports(reportOf("host-b", entry("team", "b", "ACTIVE")))
	if _, err := w.reconcile("host-b"); err != nil || w.status("team", "b").State != "ACTIVE" {
		t.Error("another host waits, too")
	}
	w.clock.SetTime(now.Add(result.RequeueAfter))
	if _, err := w.reconcile("host-a"); err != nil || w.status("team", "vm-99").State != "ERROR" {
		t.Errorf("not written after the rest: %v", err)
	}
}

func TestEventsWakeTheHostsThatTheyConcern(t *testing.T) {
	x := newIndex()
	r := NewReconciler(nil, clocktesting.NewFakePassiveClock(now)).LeaveOut(func(s *v1alpha1.Server) bool { return s.Namespace == "mirrored" })
	reports, servers := &reportEvents{index: x}, &serverEvents{index: x, concerns: r.concerns}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer queue.ShutDown()
	want := func(what string, hosts ...string) {
		t.Helper()
		var got []string
		for queue.Len() > 0 {
			request, _ := queue.Get()
			queue.Done(request)
			got = append(got, request.Name)
		}
		slices.Sort(got)
		if diff := cmp.Diff(hosts, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	ctx := t.Context()
	reports.Create(ctx, event.CreateEvent{Object: kept(t, reportOf("host-a", entry("team", "vm", "ACTIVE")))}, queue)
	want("a report", "host-a")
	reports.Update(ctx, event.UpdateEvent{ObjectNew: kept(t, reportOf("host-a", entry("team", "vm", "ERROR"), entry("mirrored", "vm", "ERROR")))}, queue)
	want("another report", "host-a")
	reports.Create(ctx, event.CreateEvent{Object: kept(t, reportOf("host-b", entry("team", "vm", "ACTIVE")))}, queue)
	want("a report of another host", "host-b")

	onA, onB, elsewhere, unlisted := server("team", "vm", "host-a"), server("team", "vm", "host-b"), server("team", "vm", "host-c"), server("team", "new", "host-a")
	reported := onA.DeepCopy()
	reported.Status.State = "ERROR"
	mirrored := server("mirrored", "vm", "host-a")
	changed := mirrored.DeepCopy()
	changed.Status.State = "PAUSED"
	for _, c := range []struct {
		what          string
		before, after *v1alpha1.Server
		hosts         []string
	}{
		{"a server appears", nil, onA, []string{"host-a"}},
		{"a server disappears", onA, nil, []string{"host-a"}},
		{"a server that is not listed appears", nil, unlisted, nil},
		{"a server on a host without a report appears", nil, elsewhere, nil},
		{"a server moves", onA, onB, []string{"host-a", "host-b"}},
		{"a server moves away from where it is listed", onA, elsewhere, []string{"host-a"}},
		{"a server has what is reported", onA, reported, nil},
		{"somebody changes what is reported", reported, onA, []string{"host-a"}},
		{"something else reports on a server", mirrored, changed, nil},
	} {
		switch {
		case c.before == nil:
			servers.Create(ctx, event.CreateEvent{Object: c.after}, queue)
		case c.after == nil:
			servers.Delete(ctx, event.DeleteEvent{Object: c.before}, queue)
		default:
			servers.Update(ctx, event.UpdateEvent{ObjectOld: c.before, ObjectNew: c.after}, queue)
		}
		want(c.what, c.hosts...)
	}
	services := serviceEvents(x)
	services.Create(ctx, event.CreateEvent{Object: service("host-a")}, queue)
	want("a ComputeService appears whose host has reported", "host-a")
	services.Create(ctx, event.CreateEvent{Object: service("host-c")}, queue)
	want("a ComputeService appears whose host has not")
	counted := service("host-a")
	counted.Status.Report = &v1alpha1.ReportCounts{Servers: ptr.To[int32](1)}
	derived := counted.DeepCopy()
	derived.Status.ObservedGeneration = 2
	services.Update(ctx, event.UpdateEvent{ObjectOld: counted, ObjectNew: derived}, queue)
	want("a ComputeService changes otherwise")
	services.Update(ctx, event.UpdateEvent{ObjectOld: counted, ObjectNew: service("host-a")}, queue)
	want("a ComputeService has lost its counts", "host-a")
	reports.Delete(ctx, event.DeleteEvent{Object: reportOf("host-a")}, queue)
	want("a report goes, and may come back")
	servers.Create(ctx, event.CreateEvent{Object: onA}, queue)
	want("a server on a host whose report is gone appears")
}
