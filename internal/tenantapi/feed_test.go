// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// server makes one version of a server.
func server(rv int, namespace, name string, change ...func(*computev1alpha1.Server)) *computev1alpha1.Server {
	s := &computev1alpha1.Server{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: namespace, UID: types.UID(namespace + "/" + name), ResourceVersion: strconv.Itoa(rv),
		Labels: map[string]string{"app": "web"},
	}}
	s.Status.State = "ACTIVE"
	s.Status.HostStatus = ptr.To(computev1alpha1.HostStatusUp)
	for _, c := range change {
		c(s)
	}
	return s
}

func state(v computev1alpha1.ServerState) func(*computev1alpha1.Server) {
	return func(s *computev1alpha1.Server) { s.Status.State = v }
}

func host(v computev1alpha1.HostStatus) func(*computev1alpha1.Server) {
	return func(s *computev1alpha1.Server) { s.Status.HostStatus = &v }
}

func label(v string) func(*computev1alpha1.Server) {
	return func(s *computev1alpha1.Server) { s.Labels["app"] = v }
}

// newTestFeed has web and db in ns, listed at 10.
func newTestFeed(t *testing.T) *feed {
	t.Helper()
	f := newFeed(testProjector(), testingclock.NewFakePassiveClock(instant), logr.Discard())
	check(t, f.Replace([]any{server(8, "ns", "web"), server(9, "ns", "db")}, "10"))
	return f
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testWatch is a watcher under test, whose questions the test answers.
type testWatch struct {
	*watcher
	clock  *testingclock.FakeClock
	grant  grant
	broken bool
	live   context.Context
	// asks counts how often the watcher asked what it may show.
	asks atomic.Int32
}

func startWatch(t *testing.T, f *feed, rv uint64, g grant, options metainternalversion.ListOptions, with ...func(*watcher)) *testWatch {
	t.Helper()
	c, err := f.open(rv)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &testWatch{clock: testingclock.NewFakeClock(instant), grant: g, live: ctx}
	set := func(context.Context) (grantSet, error) {
		if w.broken {
			return grantSet{}, errors.New("unreachable")
		}
		return grantSet{within: true, byNamespace: map[string]grant{"ns": w.grant}, column: w.grant != grantNone}, nil
	}
	granted, err := set(ctx)
	check(t, err)
	w.watcher = &watcher{
		feed: f, ask: set, clock: w.clock, log: logr.Discard(), namespace: "ns", selectors: newSelectors(&options),
		bookmarks: options.AllowWatchBookmarks, rv: rv, told: rv, cursor: c, grants: granted, checked: instant, shared: newSharing(w.clock),
		result: make(chan watch.Event, watchBuffer), cancel: cancel,
	}
	for _, change := range with {
		change(w.watcher)
	}
	go w.run(ctx)
	return w
}

// next returns the next event as "TYPE name@resourceVersion host status".
func (w *testWatch) next(t *testing.T) string {
	t.Helper()
	select {
	case e, ok := <-w.result:
		if !ok {
			return "END"
		}
		if status, ok := e.Object.(*metav1.Status); ok {
			return fmt.Sprintf("%s %d", e.Type, status.Code)
		}
		v := viewIn(e.Object)
		out := fmt.Sprintf("%s %s@%s", e.Type, v.Name, v.ResourceVersion)
		if v.Status.HostStatus != nil {
			out += " " + string(*v.Status.HostStatus)
		}
		if v.newColumns {
			out += " new columns"
		}
		return out
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	return ""
}

func (w *testWatch) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, event := range want {
		if got := w.next(t); got != event {
			t.Errorf("event %q, want %q", got, event)
		}
	}
}

// tick steps the clock, to the next recheck or bookmark, once the watcher waits.
func (w *testWatch) tick(t *testing.T, d time.Duration) {
	t.Helper()
	for !w.clock.HasWaiters() {
		time.Sleep(time.Millisecond)
	}
	w.clock.Step(d)
}

func TestAWatchSendsWhatItsCallerSees(t *testing.T) {
	for name, c := range map[string]struct {
		grant grant
		want  []string
	}{
		"no grant":     {grantNone, []string{"MODIFIED web@14", "ADDED new@15", "DELETED new@17", "MODIFIED web@99"}},
		"unknown only": {grantUnknown, []string{"MODIFIED web@12 UNKNOWN", "MODIFIED web@13", "MODIFIED web@14", "ADDED new@15", "DELETED new@17", "MODIFIED web@99"}},
		"full": {grantFull, []string{"MODIFIED web@11 DOWN", "MODIFIED web@12 UNKNOWN", "MODIFIED web@13 UP", "MODIFIED web@14 UP", "ADDED new@15 UP",
			"MODIFIED new@16 DOWN", "DELETED new@17 DOWN", "MODIFIED web@99 UP"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTestFeed(t)
			w := startWatch(t, f, 10, c.grant, metainternalversion.ListOptions{})
			check(t, f.Update(server(11, "ns", "web", host("DOWN"))))
			check(t, f.Update(server(12, "ns", "web", host("UNKNOWN"))))
			check(t, f.Update(server(13, "ns", "web")))
			check(t, f.Update(server(14, "ns", "web", state("SHUTOFF"))))
			check(t, f.Add(server(15, "ns", "new")))
			check(t, f.Update(server(16, "ns", "new", host("DOWN"))))
			check(t, f.Delete(server(17, "ns", "new", host("DOWN"))))
			check(t, f.Add(server(18, "elsewhere", "web")))
			check(t, f.Update(server(99, "ns", "web", state("PAUSED"))))
			w.expect(t, c.want...)
		})
	}
}

func TestAWatchThatComesBackInTheMiddleIsAsSilentAsOneThatStayed(t *testing.T) {
	f := newTestFeed(t)
	for rv := 11; rv < 31; rv++ {
		status := computev1alpha1.HostStatusUp
		if rv%2 == 0 {
			status = computev1alpha1.HostStatusDown
		}
		check(t, f.Update(server(rv, "ns", "web", host(status))))
	}
	var watches []*testWatch
	for _, rv := range []uint64{10, 15, 25, 30} {
		watches = append(watches, startWatch(t, f, rv, grantNone, metainternalversion.ListOptions{}))
	}
	check(t, f.Update(server(31, "ns", "web", state("PAUSED"))))
	for _, w := range watches {
		w.expect(t, "MODIFIED web@31")
	}
}

func TestAWatchAheadOfTheFeedSkipsWhatItsClientHas(t *testing.T) {
	f := newTestFeed(t)
	w := startWatch(t, f, 12, grantNone, metainternalversion.ListOptions{})
	check(t, f.Update(server(11, "ns", "web", state("PAUSED"))))
	check(t, f.Update(server(12, "ns", "db", state("PAUSED"))))
	check(t, f.Update(server(13, "ns", "web", state("SHUTOFF"))))
	w.expect(t, "MODIFIED web@13")
}

func TestAWatchFromBeforeTheHistoryIsGone(t *testing.T) {
	f := newTestFeed(t)
	if _, err := f.open(9); !apierrors.IsResourceExpired(err) {
		t.Errorf("error %v", err)
	}
	for rv := range historyLength + 10 {
		check(t, f.Update(server(rv+11, "ns", "web", state(computev1alpha1.ServerState(strconv.Itoa(rv))))))
	}
	if _, err := f.open(11); !apierrors.IsResourceExpired(err) {
		t.Errorf("after the history moved on: error %v", err)
	}
	if len(f.history) > historyLength || len(f.versions) > historyLength+2 {
		t.Errorf("%d changes and %d versions are kept", len(f.history), len(f.versions))
	}
	if _, err := f.open(f.latest); err != nil {
		t.Errorf("a watch from now: %v", err)
	}
}

func TestTheHistoryOfLargeServersIsShorter(t *testing.T) {
	large := func(s *computev1alpha1.Server) {
		for range 32 {
			s.Status.Networks = append(s.Status.Networks, computev1alpha1.ServerNetwork{Addresses: make([]string, 32)})
		}
	}
	f := newTestFeed(t)
	for rv := range 4000 {
		check(t, f.Update(server(rv+11, "ns", "web", large, state(computev1alpha1.ServerState(fmt.Sprint(rv))))))
		if f.size > historySize {
			t.Fatalf("%d bytes are kept", f.size)
		}
	}
	kept := 0
	for _, c := range f.history {
		kept += c.size()
	}
	if len(f.history) < 100 || len(f.versions) > len(f.history)+2 || kept != f.size {
		t.Errorf("%d changes and %d versions are kept, of %d bytes, not %d", len(f.history), len(f.versions), f.size, kept)
	}
}

func TestAWatcherThatFallsBehindOrSeesTheHistoryBeginAnewStartsOver(t *testing.T) {
	f := newTestFeed(t)
	c, err := f.open(10)
	check(t, err)
	for rv := range historyLength + 10 {
		check(t, f.Update(server(rv+11, "ns", "web", state(computev1alpha1.ServerState(strconv.Itoa(rv))))))
	}
	if _, err := f.next(&c, noNamespace); !apierrors.IsResourceExpired(err) {
		t.Errorf("a watcher that fell behind: %v", err)
	}
	w := startWatch(t, f, f.latest, grantNone, metainternalversion.ListOptions{})
	check(t, f.Replace([]any{server(100_001, "ns", "web")}, "100002"))
	w.expect(t, "ERROR 410", "END")
}

// readAll reads what the feed has for namespace at c, and returns how to wait for more.
func readAll(t *testing.T, f *feed, c *cursor, namespace string) (changes int, wake <-chan struct{}) {
	t.Helper()
	for {
		r, err := f.next(c, unique.Make(namespace))
		check(t, err)
		changes += len(r.changes)
		if r.wake != nil {
			return changes, r.wake
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestAWatchWakesForItsOwnNamespaceOnly(t *testing.T) {
	f := newTestFeed(t)
	c, err := f.open(10)
	check(t, err)
	_, wake := readAll(t, f, &c, "ns")
	check(t, f.Add(server(11, "other", "web")))
	check(t, f.Update(server(12, "other", "web", state("PAUSED"))))
	if isClosed(wake) {
		t.Error("a change in another namespace woke it")
	}
	check(t, f.Update(server(13, "ns", "web", state("PAUSED"))))
	if !isClosed(wake) {
		t.Error("a change in its namespace did not wake it")
	}
	if n, _ := readAll(t, f, &c, "ns"); n != 1 {
		t.Errorf("it read %d changes, not the one of its namespace", n)
	}
	_, wake = readAll(t, f, &c, "")
	check(t, f.Update(server(14, "other", "web")))
	if !isClosed(wake) {
		t.Error("a change did not wake a watch of all namespaces")
	}
}

func TestAWatchWhereNothingHappensGoesOnWhileOthersFillTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newTestFeed(t)
		w := startWatch(t, f, 10, grantNone, metainternalversion.ListOptions{})
		rv := 10
		for rv < 3*historyLength {
			for range historyLength / 16 {
				rv++
				check(t, f.Update(server(rv, "other", "web", state(computev1alpha1.ServerState(strconv.Itoa(rv))))))
			}
			synctest.Wait()
		}
		check(t, f.Update(server(rv+1, "ns", "web", state("PAUSED"))))
		w.expect(t, fmt.Sprintf("MODIFIED web@%d", rv+1))
	})
}

func TestAGrantChangesARunningWatch(t *testing.T) {
	f := newTestFeed(t)
	w := startWatch(t, f, 12, grantNone, metainternalversion.ListOptions{AllowWatchBookmarks: true})
	w.grant = grantFull
	w.tick(t, recheckInterval)
	// The feed has seen everything up to 10, and does not know which version before showed
	// something.
	w.expect(t, "MODIFIED db@10 UP new columns", "MODIFIED web@10 UP", "BOOKMARK @10")
	w.grant = grantUnknown
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED db@10", "MODIFIED web@10", "BOOKMARK @10")
	check(t, f.Update(server(13, "ns", "web", host("UNKNOWN"))))
	w.expect(t, "MODIFIED web@13 UNKNOWN")
	w.grant = grantNone
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED web@10 new columns", "BOOKMARK @13")
}

func TestAWatchWhoseGrantCannotBeCheckedAgainEndsWithoutAWord(t *testing.T) {
	w := startWatch(t, newTestFeed(t), 10, grantFull, metainternalversion.ListOptions{})
	w.broken = true
	w.tick(t, recheckInterval)
	w.expect(t, "END")
}

func TestARevokedWatchThatSelectsOnHostStatusIsGone(t *testing.T) {
	f := newTestFeed(t)
	w := startWatch(t, f, 10, grantFull, metainternalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("status.hostStatus", "DOWN")})
	check(t, f.Update(server(11, "ns", "web", host("DOWN"))))
	w.expect(t, "ADDED web@11 DOWN")
	check(t, f.Update(server(12, "ns", "web")))
	w.expect(t, "DELETED web@12 DOWN")
	w.grant = grantNone
	w.tick(t, recheckInterval)
	w.expect(t, "ERROR 410", "END")
}

func TestServersComeAndGoAsASelectorMatchesThem(t *testing.T) {
	f := newTestFeed(t)
	w := startWatch(t, f, 10, grantNone, metainternalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{"app": "db"})})
	check(t, f.Update(server(11, "ns", "web", label("db"))))
	check(t, f.Update(server(12, "ns", "web", label("db"), host("DOWN"))))
	check(t, f.Update(server(13, "ns", "web", label("web"))))
	w.expect(t, "ADDED web@11", "DELETED web@13")
}

func TestBookmarksComeByTheClockAlone(t *testing.T) {
	f := newTestFeed(t)
	w := startWatch(t, f, 10, grantNone, metainternalversion.ListOptions{AllowWatchBookmarks: true})
	check(t, f.Update(server(11, "ns", "web", host("DOWN"))))
	check(t, f.Bookmark("20"))
	check(t, f.Update(server(21, "ns", "web", state("PAUSED"))))
	w.expect(t, "MODIFIED web@21")
	w.tick(t, bookmarkInterval)
	w.expect(t, "BOOKMARK @21")
}

func TestAClientThatTakesNothingLosesItsWatch(t *testing.T) {
	f := newTestFeed(t)
	w := startWatch(t, f, 10, grantNone, metainternalversion.ListOptions{})
	for rv := range watchBuffer + 2 {
		check(t, f.Update(server(rv+11, "ns", "web", state(computev1alpha1.ServerState(strconv.Itoa(rv))))))
	}
	// Time passes until the watcher, which waits for its client, has given up.
	for deadline := time.Now().Add(10 * time.Second); w.live.Err() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the watch goes on")
		}
		w.clock.Step(slowWatcherTimeout)
	}
	for range watchBuffer {
		<-w.result
	}
	w.expect(t, "END")
}

func TestTheFeedFindsOldVersionsAndListsWaitForNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &storage{feed: newTestFeed(t)}
		find := func(ctx context.Context, versions ...uint64) []*record {
			found, _, err := s.find(ctx, versions, math.MaxUint64)
			check(t, err)
			return found
		}
		check(t, s.feed.Update(server(11, "ns", "web", state("PAUSED"))))
		check(t, s.feed.Delete(server(12, "ns", "db")))
		found := find(t.Context(), 8, 9, 11)
		for i, want := range []string{"8", "9", "11"} {
			if found[i] == nil || strconv.FormatUint(found[i].rv, 10) != want {
				t.Errorf("version %s is %v", want, found[i])
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if found := find(ended, 13); found[0] != nil {
			t.Errorf("a version that is not there is %v", found[0])
		}
		answer := make(chan []*record, 1)
		go func() { answer <- find(t.Context(), 13) }()
		synctest.Wait()
		check(t, s.feed.Add(server(13, "ns", "new")))
		if found := <-answer; found[0] == nil || found[0].known.name != "new" {
			t.Errorf("the version that came is %v", found)
		}
		began := time.Now()
		if found := find(t.Context(), 14); found[0] != nil || time.Since(began) != cachePatience {
			t.Errorf("a version that does not come is %v after %s", found[0], time.Since(began))
		}
	})
}

func TestTheFeedKnowsTheNamespacesThatHaveServers(t *testing.T) {
	f := newTestFeed(t)
	check(t, f.Add(server(11, "b", "web")))
	check(t, f.Add(server(12, "a", "web")))
	check(t, f.Delete(server(13, "b", "web")))
	if diff := cmp.Diff([]string{"a", "ns"}, f.namespaces()); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
}

func TestTheFeedTakesNoChangeTwice(t *testing.T) {
	f := newTestFeed(t)
	check(t, f.Update(server(11, "ns", "web", state("PAUSED"))))
	check(t, f.Update(server(11, "ns", "web", state("PAUSED"))))
	check(t, f.Update(server(9, "ns", "web")))
	check(t, f.Delete(server(10, "ns", "never")))
	if len(f.history) != 1 {
		t.Errorf("history %v", f.history)
	}
}

// BenchmarkAChangeAmongWatchesOfOtherNamespaces shows what a change costs that one of a
// thousand watches sends.
func BenchmarkAChangeAmongWatchesOfOtherNamespaces(b *testing.B) {
	f := newFeed(testProjector(), testingclock.NewFakePassiveClock(instant), logr.Discard())
	check(b, f.Replace([]any{server(9, "ns", "web")}, "10"))
	var told atomic.Int64
	shared := newSharing(testingclock.NewFakePassiveClock(instant))
	for i := range 1000 {
		namespace := "ns"
		if i > 0 {
			namespace += strconv.Itoa(i)
		}
		c, err := f.open(10)
		check(b, err)
		ctx, cancel := context.WithCancel(b.Context())
		b.Cleanup(cancel)
		w := &watcher{
			feed: f, clock: testingclock.NewFakeClock(instant), log: logr.Discard(), namespace: namespace, selectors: newSelectors(&metainternalversion.ListOptions{}),
			rv: 10, told: 10, cursor: c, checked: instant, shared: shared, result: make(chan watch.Event, watchBuffer), cancel: cancel,
			grants: grantSet{within: true, byNamespace: map[string]grant{namespace: grantFull}},
		}
		go w.run(ctx)
		go func() {
			for range w.result {
				told.Add(1)
			}
		}()
	}
	changes := int64(0)
	for b.Loop() {
		changes++
		check(b, f.Update(server(10+int(changes), "ns", "web", state(computev1alpha1.ServerState(strconv.FormatInt(changes, 10))))))
		for told.Load() < changes {
			runtime.Gosched()
		}
	}
}
