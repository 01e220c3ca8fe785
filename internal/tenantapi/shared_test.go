// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/runtime"
	testingclock "k8s.io/utils/clock/testing"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

func testRecord(t *testing.T, s *computev1alpha1.Server) *record {
	t.Helper()
	r, err := testProjector().record(s)
	check(t, err)
	return r
}

// viewIn returns the view that a watch sends.
func viewIn(object runtime.Object) *view {
	if s, ok := object.(*sharedView); ok {
		return s.view
	}
	return object.(*view)
}

func TestWatchesWhoseCallersSeeTheSameAreSentTheSameObject(t *testing.T) {
	f := newTestFeed(t)
	shared := newSharing(testingclock.NewFakePassiveClock(instant))
	sent := func(g grant, options metainternalversion.ListOptions) runtime.Object {
		w := startWatch(t, f, 10, g, options, func(w *watcher) { w.shared = shared })
		return (<-w.result).Object
	}
	check(t, f.Update(server(11, "ns", "web", host("UNKNOWN"), state("PAUSED"))))
	all := map[grant]runtime.Object{}
	for _, g := range []grant{grantNone, grantUnknown, grantFull} {
		a, b := sent(g, metainternalversion.ListOptions{}), sent(g, metainternalversion.ListOptions{AllowWatchBookmarks: true})
		if a != b {
			t.Errorf("grant %d: two watches are sent two objects", g)
		}
		for other, object := range all {
			if object == a {
				t.Errorf("grants %d and %d are sent one object", g, other)
			}
		}
		all[g] = a
		if shown := viewIn(a).Status.HostStatus != nil; shown != (g != grantNone) {
			t.Errorf("grant %d: host status shown: %t", g, shown)
		}
	}
}

func TestAnEventIsEncodedOnceForAllWhoAreSentIt(t *testing.T) {
	v := newSharing(testingclock.NewFakePassiveClock(instant)).view(sharedKey{record: testRecord(t, server(11, "ns", "web"))}).(*sharedView)
	encoded := map[runtime.Identifier]*atomic.Int32{}
	ids := make([]runtime.Identifier, maxEncodings+2)
	for i := range ids {
		ids[i] = runtime.Identifier(fmt.Sprintf("encoding %d", i))
		encoded[ids[i]] = &atomic.Int32{}
	}
	const watches = 20
	var all sync.WaitGroup
	for _, id := range ids {
		for range watches {
			all.Go(func() {
				var b strings.Builder
				err := v.CacheEncode(id, func(object runtime.Object, w io.Writer) error {
					encoded[id].Add(1)
					if object != runtime.Object(v.view) {
						t.Error("it is not the view that is encoded")
					}
					_, err := io.WriteString(w, string(id))
					return err
				}, &b)
				if err != nil || b.String() != string(id) {
					t.Errorf("%s: sent %q, %v", id, b.String(), err)
				}
			})
		}
	}
	all.Wait()
	once, each := 0, 0
	for _, n := range encoded {
		switch n.Load() {
		case 1:
			once++
		case watches:
			each++
		}
	}
	if once != maxEncodings || each != 2 {
		t.Errorf("%d encodings were made once and %d for each watch, not %d and 2", once, each, maxEncodings)
	}
}

func TestAnEventThatCannotBeEncodedFailsForAll(t *testing.T) {
	v := newSharing(testingclock.NewFakePassiveClock(instant)).view(sharedKey{record: testRecord(t, server(11, "ns", "web"))}).(*sharedView)
	broken := errors.New("broken")
	for range 2 {
		if err := v.CacheEncode("any", func(runtime.Object, io.Writer) error { return broken }, io.Discard); !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
	}
}

func TestSharedEventsAreFewAndSmallAndYoung(t *testing.T) {
	now := testingclock.NewFakeClock(instant)
	s := newSharing(now)
	first := sharedKey{record: testRecord(t, server(11, "ns", "web"))}
	object := s.view(first)
	now.Step(sharedFor - 1)
	if s.view(first) != object {
		t.Error("an event that was sent a moment ago is made again")
	}
	now.Step(1)
	again := s.view(first)
	if again == object {
		t.Errorf("an event is kept for %s", sharedFor)
	}
	for rv := range uint64(maxShared - 1) {
		s.view(sharedKey{record: first.record, rv: rv + 1})
	}
	if s.view(first) != again {
		t.Errorf("one of %d events is not kept", maxShared)
	}
	s.view(sharedKey{record: first.record, rv: maxShared})
	if len(s.known) != maxShared || s.view(first) == again {
		t.Errorf("%d events are kept, the oldest of them: %t", len(s.known), s.view(first) == again)
	}

	large := sharedKey{record: testRecord(t, server(12, "ns", "large", func(s *computev1alpha1.Server) {
		s.Status.Networks = []computev1alpha1.ServerNetwork{{Name: "net", Addresses: make([]string, 1000)}}
	}))}
	if _, shared := s.view(large).(*sharedView); shared {
		t.Error("a server with a thousand addresses is kept")
	}
}

func TestTheEndOfOneWatchDoesNotSpoilTheTableOfOthers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := tableConvertor{testingclock.NewFakePassiveClock(instant)}.ConvertToTable(ctx, &view{}, nil)
	check(t, err)
}

func TestInAStormEventsAreSentTogether(t *testing.T) {
	f := newTestFeed(t)
	w := startWatch(t, f, 10, grantFull, metainternalversion.ListOptions{}, func(w *watcher) { w.gather = gatherInterval })
	statuses := []computev1alpha1.HostStatus{"UP", "DOWN"}
	rv := 10
	change := func() (event string) {
		rv++
		status := statuses[rv%2]
		check(t, f.Update(server(rv, "ns", "web", host(status))))
		return fmt.Sprintf("MODIFIED web@%d %s", rv, status)
	}
	atOnce := func() {
		t.Helper()
		for range eagerSends {
			w.expect(t, change())
		}
	}
	atOnce()
	waiting := w.clock.Waiters()
	for range 3 {
		together := []string{change()}
		waitFor(t, "the watch gathers", func() bool { return w.clock.Waiters() > waiting })
		together = append(together, change(), change())
		w.clock.Step(gatherInterval - time.Nanosecond)
		if len(w.result) > 0 {
			t.Errorf("%d events are not gathered", len(w.result))
		}
		w.clock.Step(time.Nanosecond)
		w.expect(t, together...)
		waitFor(t, "the watch waits", func() bool { return w.clock.Waiters() == waiting })
	}
	w.clock.Step(gatherInterval)
	atOnce()
}
