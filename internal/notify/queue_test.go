// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// said is a state of a server or, with an end, its last one.
func said(r *route, name, version string, status v1alpha1.HostStatus, e end) *state {
	s := &state{route: r, namespace: "team-a", server: name, uid: "uid", version: version, end: e, facts: string(e), at: start}
	if e == "" {
		s.host = sightingOf(row(name, version, status)).host
		s.facts = factsOf(s.host, false)
	}
	return s
}

// plainRoute is about everything.
var plainRoute = &route{name: "r"}

func keyed(name string) slotKey { return slotKey{"r", "team-a/" + name} }

// taken shows what was taken, as "a UP>DOWN".
func taken(items []item[telling]) (out []string) {
	for _, i := range items {
		before, now := "-", string(i.payload.now.end)
		if b := i.payload.before; b != nil {
			before = hoststatus.Label(b.status())
		}
		if now == "" {
			now = hoststatus.Label(i.payload.now.status())
		}
		out = append(out, fmt.Sprintf("%s %s>%s", i.want.server, before, now))
	}
	return out
}

func TestTheQueue(t *testing.T) {
	type q = queue[telling]
	up := func(name string) *state { return said(plainRoute, name, "1", v1alpha1.HostStatusUp, "") }
	down := func(name string) *state { return said(plainRoute, name, "2", v1alpha1.HostStatusDown, "") }
	unknown := func(name string) *state { return said(plainRoute, name, "3", v1alpha1.HostStatusUnknown, "") }
	take := func(t *testing.T, q *q, n int, want ...string) []item[telling] {
		t.Helper()
		items := q.take(n, func() {})
		if diff := cmp.Diff(want, taken(items)); diff != "" {
			t.Errorf("taken (-want +got):\n%s", diff)
		}
		return items
	}
	// tell lets the sink have a state of a.
	tell := func(t *testing.T, q *q, s *state) {
		t.Helper()
		q.want(keyed("a"), s)
		q.done(q.take(1, func() {}), delivered, 0)
	}
	for name, run := range map[string]func(t *testing.T, q *q, c *testingclock.FakeClock){
		"the newest state wins, with what the sink had": func(t *testing.T, q *q, _ *testingclock.FakeClock) {
			tell(t, q, up("a"))
			q.want(keyed("a"), down("a"))
			q.want(keyed("a"), unknown("a"))
			take(t, q, 9, "a UP>UNKNOWN")
			take(t, q, 9)
		},
		"nothing is left of a change that was taken back before anybody heard": func(t *testing.T, q *q, _ *testingclock.FakeClock) {
			tell(t, q, up("a"))
			q.want(keyed("a"), down("a"))
			q.want(keyed("a"), up("a"))
			take(t, q, 9)
		},
		"but of one that the sink may have heard": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			tell(t, q, up("a"))
			q.want(keyed("a"), down("a"))
			q.done(take(t, q, 9, "a UP>DOWN"), failed, 0)
			q.want(keyed("a"), up("a"))
			c.Step(time.Minute)
			q.done(take(t, q, 9, "a UP>UP"), delivered, 0)
			take(t, q, 9)
		},
		"what comes while something is on its way follows it": func(t *testing.T, q *q, _ *testingclock.FakeClock) {
			q.want(keyed("a"), up("a"))
			items := take(t, q, 9, "a ->UP")
			q.want(keyed("a"), down("a"))
			take(t, q, 9)
			q.done(items, delivered, 0)
			take(t, q, 9, "a UP>DOWN")
		},
		"in the order in which they came": func(t *testing.T, q *q, _ *testingclock.FakeClock) {
			for _, name := range []string{"c", "a", "b"} {
				q.want(keyed(name), up(name))
			}
			q.want(keyed("c"), down("c"))
			take(t, q, 2, "c ->DOWN", "a ->UP")
			take(t, q, 2, "b ->UP")
		},
		"a sink that fails is spared, twice as long each time, up to a bound": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			q.want(keyed("a"), up("a"))
			var pauses []time.Duration
			for range 10 {
				q.done(take(t, q, 9, "a ->UP"), failed, 0)
				take(t, q, 9)
				next, ok := q.next()
				if !ok {
					t.Fatal("nothing waits")
				}
				pauses = append(pauses, next.Sub(c.Now()))
				c.SetTime(next)
			}
			if pauses[0] != firstPause || pauses[1] != 2*firstPause || pauses[9] != longestPause {
				t.Errorf("pauses of %v", pauses)
			}
			q.done(take(t, q, 9, "a ->UP"), delivered, 0)
			q.want(keyed("a"), down("a"))
			take(t, q, 9, "a UP>DOWN")
		},
		"and as long as it asks for": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			q.want(keyed("a"), up("a"))
			q.done(take(t, q, 9, "a ->UP"), failed, time.Hour)
			if next, _ := q.next(); next.Sub(c.Now()) != longestRetryAfter {
				t.Errorf("it waits for %v", next.Sub(c.Now()))
			}
		},
		"what is refused does not hold up the rest, and is found among others": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			for _, name := range []string{"a", "b", "c"} {
				q.want(keyed(name), up(name))
			}
			q.done(take(t, q, 9, "a ->UP", "b ->UP", "c ->UP"), refused, 0)
			q.done(take(t, q, 9, "a ->UP"), refused, 0)
			q.done(take(t, q, 9, "b ->UP"), delivered, 0)
			q.done(take(t, q, 9, "c ->UP"), delivered, 0)
			take(t, q, 9)
			if q.failed != 1 {
				t.Errorf("%d fail", q.failed)
			}
			c.Step(longestPause)
			q.done(take(t, q, 9, "a ->UP"), delivered, 0)
			if q.failed != 0 {
				t.Errorf("%d fail", q.failed)
			}
		},
		"what is hidden is recalled and forgotten": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			q.want(keyed("a"), down("a"))
			q.want(keyed("b"), down("b"))
			stopped := false
			items := q.take(1, func() { stopped = true })
			q.hide(keyed("a"))
			q.hide(keyed("b"))
			if !stopped {
				t.Error("it is still on its way")
			}
			q.done(items, recalled, 0)
			c.Step(time.Hour)
			take(t, q, 9)
			if len(q.slots) > 0 || q.failed > 0 {
				t.Errorf("%d are kept", len(q.slots))
			}
			q.want(keyed("a"), down("a"))
			take(t, q, 9, "a ->DOWN")
		},
		"what was taken back after an attempt that failed is sent again, whatever the sink was told before": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			for _, what := range []outcome{failed, refused, recalled} {
				tell(t, q, up("a"))
				q.want(keyed("a"), down("a"))
				items := take(t, q, 9, "a UP>DOWN")
				if what == recalled {
					q.hide(keyed("a"))
				}
				q.done(items, what, 0)
				q.hide(keyed("a"))
				c.Step(time.Hour)
				q.want(keyed("a"), up("a"))
				q.done(take(t, q, 9, "a UP>UP"), delivered, 0)
				take(t, q, 9)
			}
		},
		"a server that leaves the route is no event, even if the sink may have missed one": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			left := said(plainRoute, "a", "3", "", endLeft)
			tell(t, q, up("a"))
			q.want(keyed("a"), down("a"))
			q.done(take(t, q, 9, "a UP>DOWN"), failed, 0)
			q.want(keyed("a"), left)
			c.Step(time.Hour)
			take(t, q, 9)
			q.want(keyed("a"), down("a"))
			items := take(t, q, 9, "a ->DOWN")
			q.want(keyed("a"), left)
			q.done(items, failed, 0)
			c.Step(time.Hour)
			take(t, q, 9)
			if len(q.slots) > 0 {
				t.Errorf("%d are kept", len(q.slots))
			}
		},
		"another server with the name is news, even if its host is as that of the one before": func(t *testing.T, q *q, _ *testingclock.FakeClock) {
			tell(t, q, down("a"))
			q.want(keyed("a"), said(plainRoute, "a", "3", "", endDeleted))
			another := down("a")
			another.uid = "another"
			q.want(keyed("a"), another)
			q.done(take(t, q, 9, "a ->DOWN"), delivered, 0)
			take(t, q, 9)
		},
		"a deleted server leaves nothing": func(t *testing.T, q *q, _ *testingclock.FakeClock) {
			tell(t, q, up("a"))
			tell(t, q, said(plainRoute, "a", "2", "", endDeleted))
			if n := len(q.slots) + len(q.ledger.(*eventLedger).last); n > 0 {
				t.Errorf("%d are kept", n)
			}
		},
		"nor does one that is gone while it may not be seen and something of it is on its way": func(t *testing.T, q *q, _ *testingclock.FakeClock) {
			for _, what := range []outcome{delivered, recalled} {
				q.want(keyed("a"), up("a"))
				items := take(t, q, 9, "a ->UP")
				q.hide(keyed("a"))
				q.forget(keyed("a"))
				q.done(items, what, 0)
				q.ledger.known(func(key slotKey, _ *state) { t.Errorf("%s is known, by outcome %d", key.subject, what) })
			}
		},
		"its length, and since when": func(t *testing.T, q *q, c *testingclock.FakeClock) {
			q.want(keyed("a"), up("a"))
			c.Step(time.Second)
			q.want(keyed("b"), up("b"))
			q.done(take(t, q, 1, "a ->UP"), failed, 0)
			if n, oldest := q.length(); n != 2 || !oldest.Equal(start) {
				t.Errorf("%d since %v", n, oldest)
			}
			q.hide(keyed("a"))
			if n, oldest := q.length(); n != 1 || !oldest.Equal(start.Add(time.Second)) {
				t.Errorf("%d since %v", n, oldest)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := testingclock.NewFakeClock(start)
			q := newQueue(ledger[telling](newEventLedger()), c)
			q.random = func() float64 { return 0 }
			run(t, q, c)
		})
	}
}

func TestARouteThatIsAboutSomeHostStatusesTellsWhenTheyBeginAndEnd(t *testing.T) {
	r := &route{name: "r", statuses: map[v1alpha1.HostStatus]bool{v1alpha1.HostStatusDown: true}}
	q := newQueue(ledger[telling](newEventLedger()), testingclock.NewFakeClock(start))
	for i, step := range []struct {
		to    v1alpha1.HostStatus
		first bool
		end   end
		want  []string
	}{
		{to: v1alpha1.HostStatusUp, first: true, want: []string{"a ->UP"}}, // It may have been DOWN before.
		{to: v1alpha1.HostStatusUnknown},
		{to: v1alpha1.HostStatusDown, want: []string{"a UP>DOWN"}},
		{to: v1alpha1.HostStatusUnknown, want: []string{"a DOWN>UNKNOWN"}},
		{to: v1alpha1.HostStatusUp},
		{end: endDeleted, want: []string{"a UNKNOWN>Deleted"}},
	} {
		s := said(r, "a", fmt.Sprint(i), step.to, step.end)
		s.first = step.first
		q.want(keyed("a"), s)
		items := q.take(9, func() {})
		if diff := cmp.Diff(step.want, taken(items)); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i+1, diff)
		}
		q.done(items, delivered, 0)
	}
}

// Before a restart the sink may have been told DOWN, or UNKNOWN.
func TestWhatChangesBeforeTheSinkHasTheSnapshotIsToldAnyway(t *testing.T) {
	for name, c := range map[string]struct {
		status v1alpha1.HostStatus
		change func(*engine)
		want   string
	}{
		"the host is back": {v1alpha1.HostStatusDown, func(e *engine) { e.see(sightingOf(row("a", "2", v1alpha1.HostStatusUp)), start, false) }, "a ->UP"},
		"it has left UNKNOWN, which alone is shown": {v1alpha1.HostStatusUnknown, func(e *engine) {
			e.see(sightingOf(row("a", "2", v1alpha1.HostStatusUp, hidden)), start, false)
			e.leftUnknown(types.NamespacedName{Namespace: "team-a", Name: "a"}, start)
		}, "a ->NoLongerUnknown"},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(ledger[telling](newEventLedger()), testingclock.NewFakeClock(start))
			r, err := newRoute(&RouteConfig{Name: "r", HostStatuses: []v1alpha1.HostStatus{c.status}}, q)
			if err != nil {
				t.Fatal(err)
			}
			e := newEngine([]*route{r})
			e.see(sightingOf(row("a", "1", c.status)), start, true)
			c.change(e)
			if diff := cmp.Diff([]string{c.want}, taken(q.take(9, func() {}))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAServerThatIsBackInARouteIsToldAsItIs(t *testing.T) {
	q := newQueue(ledger[telling](newEventLedger()), testingclock.NewFakeClock(start))
	r, err := newRoute(&RouteConfig{Name: "r", Selector: "app=web", HostStatuses: []v1alpha1.HostStatus{v1alpha1.HostStatusDown}}, q)
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine([]*route{r})
	for i, step := range []struct {
		status v1alpha1.HostStatus
		app    string
		want   []string
	}{
		{v1alpha1.HostStatusDown, "web", []string{"a ->DOWN"}},
		{v1alpha1.HostStatusDown, "db", nil},
		{v1alpha1.HostStatusUp, "db", nil},
		{v1alpha1.HostStatusUp, "web", []string{"a ->UP"}},
	} {
		e.see(sightingOf(row("a", fmt.Sprint(i+1), step.status, labelled("app", step.app))), start, false)
		items := q.take(9, func() {})
		if diff := cmp.Diff(step.want, taken(items)); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i+1, diff)
		}
		q.done(items, delivered, 0)
	}
}

func TestTheEndOfAServerIsToldToWhoeverMayKnowIt(t *testing.T) {
	r := &route{name: "r", statuses: map[v1alpha1.HostStatus]bool{v1alpha1.HostStatusDown: true}}
	for name, c := range map[string]struct {
		status         v1alpha1.HostStatus
		initial, fails bool
		told, want     []string
	}{
		"nobody was told of it": {status: v1alpha1.HostStatusUp},
		"it was told":           {status: v1alpha1.HostStatusDown, told: []string{"a ->DOWN"}, want: []string{"a DOWN>Deleted"}},
		"it may have been told": {status: v1alpha1.HostStatusDown, fails: true, told: []string{"a ->DOWN"}, want: []string{"a ->Deleted"}},
		"it may have been told before a restart, but not since": {status: v1alpha1.HostStatusUp, initial: true, fails: true, told: []string{"a ->UP"}, want: []string{"a ->Deleted"}},
	} {
		t.Run(name, func(t *testing.T) {
			clock := testingclock.NewFakeClock(start)
			q := newQueue(ledger[telling](newEventLedger()), clock)
			s, last := said(r, "a", "1", c.status, ""), said(r, "a", "2", "", endDeleted)
			s.initial, last.initial = c.initial, c.initial
			what := delivered
			if c.fails {
				what = failed
			}
			q.want(keyed("a"), s)
			items := q.take(9, func() {})
			if diff := cmp.Diff(c.told, taken(items)); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			q.done(items, what, 0)
			clock.Step(time.Minute)
			q.want(keyed("a"), last)
			if diff := cmp.Diff(c.want, taken(q.take(9, func() {}))); diff != "" {
				t.Errorf("at the end (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever happens on the way, the sink ends with the newest state of each server, no server is
// on its way twice at once, and there are never more entries than servers.
func TestASinkEndsWithTheNewestState(t *testing.T) {
	names := []string{"a", "b", "c"}
	statuses := []v1alpha1.HostStatus{v1alpha1.HostStatusUp, v1alpha1.HostStatusDown, v1alpha1.HostStatusUnknown}
	rapid.Check(t, func(t *rapid.T) {
		c := testingclock.NewFakeClock(start)
		q := newQueue(ledger[telling](newEventLedger()), c)
		newest, has := map[string]string{}, map[string]string{}
		var flying [][]item[telling]
		version := 0
		// land is a request that has ended: whether the sink took it in and what is known here
		// of that are two things.
		land := func(t *rapid.T, what outcome, takenIn bool) {
			i := rapid.IntRange(0, len(flying)-1).Draw(t, "request")
			items := flying[i]
			flying = slices.Delete(flying, i, i+1)
			for _, one := range items {
				if takenIn {
					has[one.want.server] = one.want.facts
				}
			}
			q.done(items, what, 0)
		}
		take := func(t *rapid.T) {
			items := q.take(rapid.IntRange(1, 2).Draw(t, "batch"), func() {})
			if len(items) == 0 {
				return
			}
			for _, other := range slices.Concat(flying...) {
				for _, one := range items {
					if other.key == one.key {
						t.Fatalf("%s is on its way twice", one.key.subject)
					}
				}
			}
			flying = append(flying, items)
		}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				version++
				name := rapid.SampledFrom(names).Draw(t, "server")
				s := said(plainRoute, name, fmt.Sprint(version), rapid.SampledFrom(statuses).Draw(t, "status"), "")
				newest[name] = s.facts
				q.want(keyed(name), s)
			},
			"take": take,
			"land": func(t *rapid.T) {
				if len(flying) == 0 {
					return
				}
				what := rapid.SampledFrom([]outcome{delivered, failed, refused, recalled}).Draw(t, "outcome")
				land(t, what, what == delivered || rapid.Bool().Draw(t, "taken in"))
			},
			"time": func(t *rapid.T) { c.Step(time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second) },
			"": func(t *rapid.T) {
				if n, _ := q.length(); n > len(names) || len(q.slots) > len(names) {
					t.Fatalf("%d entries", n)
				}
			},
		})
		// From now on the sink works.
		for range 1000 {
			for len(flying) > 0 {
				land(t, delivered, true)
			}
			take(t)
			if n, _ := q.length(); n == 0 {
				break
			}
			c.Step(time.Second)
		}
		if diff := cmp.Diff(newest, has); diff != "" {
			t.Fatalf("the sink has (-want +got):\n%s", diff)
		}
		if q.failed != 0 {
			t.Fatalf("%d count as failing", q.failed)
		}
	})
}
