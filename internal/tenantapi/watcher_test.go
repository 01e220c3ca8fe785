// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/watch"
	testingclock "k8s.io/utils/clock/testing"
)

// startWatchOfAll starts a watch of all namespaces for ann, whose rights f knows.
func startWatchOfAll(t *testing.T, f *feed, rv uint64, a *fakeAuthorizer, initial ...*record) *testWatch {
	t.Helper()
	fake := testingclock.NewFakeClock(instant)
	g := newGrants(a, fake)
	granted, err := g.set(t.Context(), ann, "", "", f.namespaces)
	check(t, err)
	c, err := f.open(rv)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &testWatch{clock: fake, live: ctx}
	w.watcher = &watcher{
		feed: f, clock: fake, log: logr.Discard(), selectors: newSelectors(&metainternalversion.ListOptions{}), rv: rv, told: rv, cursor: c, grants: granted,
		initial: initial, checked: instant, shared: newSharing(fake),
		ask: func(ctx context.Context) (grantSet, error) {
			w.asks.Add(1)
			return g.set(ctx, ann, "", "", f.namespaces)
		},
		askOne: func(ctx context.Context, namespace string) (grant, error) {
			return g.of(ctx, ann, namespace, "")
		},
		result: make(chan watch.Event, watchBuffer), cancel: cancel,
	}
	go w.run(ctx)
	return w
}

func TestAWatchOfAllNamespacesFollowsTheGrantOfEach(t *testing.T) {
	f := newTestFeed(t)
	check(t, f.Add(server(11, "a", "one")))
	check(t, f.Add(server(12, "b", "two")))
	a := &fakeAuthorizer{}
	a.set("status/a/")
	w := startWatchOfAll(t, f, 12, a)
	check(t, f.Update(server(13, "a", "one", host("DOWN"))))
	check(t, f.Update(server(14, "b", "two", host("DOWN"))))
	check(t, f.Update(server(15, "b", "two", state("PAUSED"), host("DOWN"))))
	// Namespaces that come later are asked for when they come.
	a.set("status/a/", "status/new/")
	check(t, f.Add(server(16, "new", "three")))
	check(t, f.Add(server(17, "newer", "four")))
	w.expect(t, "MODIFIED one@13 DOWN", "MODIFIED two@15", "ADDED three@16 UP", "ADDED four@17")

	a.set("status/b/", "status/new/")
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED one@11", "MODIFIED two@15 DOWN")
	a.set("status//")
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED one@13 DOWN", "MODIFIED four@17 UP", "MODIFIED db@10 UP", "MODIFIED web@10 UP")
	a.set()
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED one@11 new columns", "MODIFIED two@15", "MODIFIED three@16", "MODIFIED four@17", "MODIFIED db@10", "MODIFIED web@10")
}

func TestANewNamespaceWhoseGrantCannotBeFoundIsHidden(t *testing.T) {
	f := newTestFeed(t)
	a := &fakeAuthorizer{}
	a.set("status/new/")
	w := startWatchOfAll(t, f, 10, a)
	a.setBroken(true)
	check(t, f.Add(server(11, "new", "web")))
	w.expect(t, "ADDED web@11")
	a.setBroken(false)
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED web@11 UP new columns")
}

// tooMany is more than a watch holds for a client that takes nothing.
const tooMany = watchBuffer + 10

// newLargeFeed has too many servers, all of which came one by one.
func newLargeFeed(t *testing.T) *feed {
	t.Helper()
	f := newTestFeed(t)
	for rv := range tooMany {
		check(t, f.Add(server(rv+11, "ns", fmt.Sprintf("web-%03d", rv))))
	}
	return f
}

// waitUntilFull waits until the watcher waits for its client.
func (w *testWatch) waitUntilFull(t *testing.T) {
	t.Helper()
	waitFor(t, "the watch's buffer is full", func() bool { return len(w.result) == watchBuffer })
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

// drain returns how many servers come with host status, and what comes after them.
func (w *testWatch) drain(t *testing.T) (shown int, last string) {
	t.Helper()
	for {
		event := w.next(t)
		if !strings.HasSuffix(strings.TrimSuffix(event, " new columns"), " UP") {
			return shown, event
		}
		shown++
	}
}

// slowWatches are those of a client that has taken nothing yet, in each place where
// they may wait for it.
var slowWatches = map[string]func(*testing.T, *feed, *fakeAuthorizer) *testWatch{
	"in the servers to begin with": func(t *testing.T, f *feed, a *fakeAuthorizer) *testWatch {
		servers, rv := f.list("")
		return startWatchOfAll(t, f, rv, a, servers...)
	},
	"in the changes": func(t *testing.T, f *feed, a *fakeAuthorizer) *testWatch {
		return startWatchOfAll(t, f, 10, a)
	},
	"in what a grant shows": func(t *testing.T, f *feed, a *fakeAuthorizer) *testWatch {
		a.set()
		w := startWatchOfAll(t, f, f.latest, a)
		a.set("status/ns/")
		w.tick(t, recheckInterval)
		return w
	},
}

func TestASlowReaderIsSentNothingMoreByAGrantThatWasRevoked(t *testing.T) {
	for name, start := range slowWatches {
		t.Run(name, func(t *testing.T) {
			a := &fakeAuthorizer{}
			a.set("status/ns/")
			w := start(t, newLargeFeed(t), a)
			w.waitUntilFull(t)
			a.set()
			w.clock.Step(recheckInterval + 1)
			// One more event may have been made before.
			if shown, last := w.drain(t); shown > watchBuffer+1 || last != "ERROR 410" {
				t.Errorf("%d servers with host status, then %q", shown, last)
			}
			w.expect(t, "END")
		})
	}
}

func TestASlowReaderIsSentNothingMoreWhileGrantsCannotBeChecked(t *testing.T) {
	for name, start := range slowWatches {
		t.Run(name, func(t *testing.T) {
			a := &fakeAuthorizer{}
			a.set("status/ns/")
			w := start(t, newLargeFeed(t), a)
			w.waitUntilFull(t)
			a.setBroken(true)
			w.clock.Step(recheckInterval + 1)
			if shown, last := w.drain(t); shown > watchBuffer+1 || last != "END" {
				t.Errorf("%d servers with host status, then %q", shown, last)
			}
		})
	}
}

func TestASlowReaderWhoseGrantsHoldGetsEverything(t *testing.T) {
	for name, start := range slowWatches {
		t.Run(name, func(t *testing.T) {
			f := newLargeFeed(t)
			a := &fakeAuthorizer{}
			a.set("status/ns/")
			w := start(t, f, a)
			w.waitUntilFull(t)
			before := a.count()
			// A namespace that the watch has not come to yet is no change of its grants.
			check(t, f.Add(server(1000, "new", "last")))
			w.clock.Step(recheckInterval + 1)
			want := tooMany
			if name != "in the changes" {
				want += 2 // Those that were there before.
			}
			if shown, last := w.drain(t); shown != want || last != "ADDED last@1000" {
				t.Errorf("%d servers with host status, then %q; want %d", shown, last, want)
			}
			if a.count() == before {
				t.Error("the grants were not checked")
			}
		})
	}
}

func TestTheGrantInANamespaceWhoseServersHaveGoneIsCheckedToo(t *testing.T) {
	f := newLargeFeed(t)
	a := &fakeAuthorizer{}
	a.set("status/ns/")
	w := startWatchOfAll(t, f, 10, a)
	w.waitUntilFull(t)
	servers, _ := f.list("ns")
	for i, r := range servers {
		check(t, f.Delete(server(tooMany+11+i, "ns", r.known.name)))
	}
	a.set()
	w.clock.Step(recheckInterval + 1)
	if shown, last := w.drain(t); shown > watchBuffer+1 || last != "ERROR 410" {
		t.Errorf("%d servers with host status, then %q", shown, last)
	}
}

func TestAWatchThatKeepsUpAsksByTheClockAlone(t *testing.T) {
	f := newTestFeed(t)
	a := &fakeAuthorizer{}
	a.set("status//")
	w := startWatchOfAll(t, f, 10, a)
	for range 3 {
		before := w.asks.Load()
		w.tick(t, recheckInterval)
		waitFor(t, "the recheck asks", func() bool { return w.asks.Load() > before })
	}
	check(t, f.Add(server(11, "ns", "new")))
	w.expect(t, "ADDED new@11 UP")
	if got := w.asks.Load(); got != 3 {
		t.Errorf("asked %d times for 3 ticks and an event", got)
	}
}
