// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	space   = "leases"
	latency = 5 * time.Millisecond
)

// epoch is where the wall clock of every simulation stands at 0.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sim is a world around one core: an API server with a watch, hosts that renew,
// and a clock that moves only when it is set. Everything happens in one goroutine.
type sim struct {
	t    *testing.T
	core *core
	now  time.Duration
	// wallOffset is what the wall clock has been set forward by.
	wallOffset time.Duration

	apiDown      bool
	watchStalled bool
	paused       bool
	// dripping delays what the watch brings, in order.
	watchDelay time.Duration

	leases  map[string]Lease
	canary  token
	backlog []func()
	events  simEvents
	hosts   map[string]*simHost

	canaries  int
	reopened  int
	changes   []string
	blindness []string
	skews     []string
	steps     int
}

type simHost struct {
	alive    bool
	interval time.Duration
	skew     time.Duration
	duration time.Duration
	node     types.UID
	renewals int
	// silentSince is when it renewed last.
	renewedAt time.Duration
}

type simEvent struct {
	at  time.Duration
	seq int
	do  func()
}

type simEvents []simEvent

func (e simEvents) Len() int { return len(e) }
func (e simEvents) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e simEvents) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)   { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// newSim returns a world with a core that leads and whose watch has brought the
// Leases that exist so far.
func newSim(t *testing.T, existing ...string) *sim {
	t.Helper()
	s := unsyncedSim(t)
	for _, name := range existing {
		s.leases[name] = Lease{RenewTime: epoch.Add(-time.Hour)}
	}
	s.list()
	s.core.lead(s.now)
	return s
}

func unsyncedSim(t *testing.T) *sim {
	s := &sim{t: t, leases: map[string]Lease{}, hosts: map[string]*simHost{}}
	s.restart()
	return s
}

// takeOver replaces the core by that of a new process, which leads, knows the verdicts
// in the ComputeServices, and gets its first list after delay.
func (s *sim) takeOver(delay time.Duration, names []string, durations map[string]time.Duration) {
	verdicts := map[string]Reporting{}
	for _, name := range names {
		verdicts[name] = s.verdictOn(name)
	}
	s.restart()
	s.core.lead(s.now)
	for _, name := range names {
		s.track(durations[name], verdicts[name], name)
	}
	s.watchStalled = true
	s.run(delay)
	s.watchStalled, s.backlog = false, nil
	s.list()
}

// restart replaces the core by that of a new process, which has seen nothing.
func (s *sim) restart() {
	s.core = newCore([]string{space}, time.Minute, hooks{
		changed: func(name string) { s.changes = append(s.changes, name) },
		blind: func(_ string, blind bool, lasted time.Duration) {
			s.blindness = append(s.blindness, fmt.Sprintf("%v %v", blind, lasted.Round(time.Second)))
		},
		skewed: func(lease types.NamespacedName, _ time.Duration, skewed bool) {
			s.skews = append(s.skews, fmt.Sprintf("%s %v", lease.Name, skewed))
		},
		clockStepped: func(time.Duration) { s.steps++ },
	})
}

func (s *sim) wall() time.Time { return epoch.Add(s.now + s.wallOffset) }

// list brings the core a whole list.
func (s *sim) list() {
	leases := map[string]Lease{}
	for name, l := range s.leases {
		leases[name] = l
	}
	s.core.replaced(s.now, s.wall(), space, leases, s.canary)
}

func (s *sim) after(d time.Duration, do func()) {
	heap.Push(&s.events, simEvent{at: s.now + d, seq: len(s.events) + s.canaries*1000, do: do})
}

// run lets d pass.
func (s *sim) run(d time.Duration) {
	until := s.now + d
	for {
		if !s.paused {
			writes, stalled := s.core.advance(s.now, s.wall())
			s.reopened += len(stalled)
			for _, w := range writes {
				s.write(w)
			}
		}
		next := until
		if len(s.events) > 0 {
			next = min(next, s.events[0].at)
		}
		if at, ok := s.core.next(); ok && !s.paused {
			if at <= s.now {
				// A core that asks to be called again at once, for ever, would burn a
				// processor.
				at = s.now + time.Microsecond
			}
			next = min(next, at)
		}
		if next >= until && (len(s.events) == 0 || s.events[0].at > until) {
			s.now = until
			return
		}
		s.now = max(s.now, next)
		for len(s.events) > 0 && s.events[0].at <= s.now {
			heap.Pop(&s.events).(simEvent).do()
		}
	}
}

func (s *sim) write(w canaryWrite) {
	s.canaries++
	core := s.core // A process that has ended gets no answer.
	s.after(latency, func() {
		var err error
		if s.apiDown {
			err = errors.New("the API server is down")
		} else {
			s.canary = w.token
			s.deliver(func() { s.core.echoed(s.now, space, w.token) })
		}
		s.process(func() { core.canaryDone(s.now, space, w.token, err) })
	})
}

// deliver lets the watch bring something, in order.
func (s *sim) deliver(do func()) {
	if s.watchStalled || s.paused || len(s.backlog) > 0 {
		s.backlog = append(s.backlog, do)
		return
	}
	if s.watchDelay > 0 {
		s.after(s.watchDelay, do)
		return
	}
	do()
}

// process lets something happen in our process, which may be paused.
func (s *sim) process(do func()) {
	if s.paused {
		s.backlog = append(s.backlog, do)
		return
	}
	do()
}

// resume ends a stall of the watch and a pause of the process.
func (s *sim) resume() {
	s.watchStalled, s.paused = false, false
	backlog := s.backlog
	s.backlog = nil
	for _, do := range backlog {
		do()
	}
}

// host adds a host that renews its Lease every interval, beginning now.
func (s *sim) host(name string, interval time.Duration) *simHost {
	h := &simHost{alive: true, interval: interval}
	s.hosts[name] = h
	var beat func()
	beat = func() {
		if h.alive {
			pause := h.interval
			if s.apiDown {
				pause = h.interval * 3 / 10 // It retries at D/10.
			} else {
				h.renewals++
				h.renewedAt = s.now
				s.renew(name, h)
			}
			s.after(pause, beat)
		}
	}
	beat()
	return h
}

func (s *sim) renew(name string, h *simHost) {
	l := Lease{RenewTime: s.wall().Add(h.skew).Add(time.Duration(h.renewals) * time.Microsecond), Duration: h.duration, Node: h.node}
	s.leases[name] = l
	s.deliver(func() { s.core.observe(s.now, s.wall(), space, name, l) })
}

func subjectNamed(name string, d time.Duration, memory Reporting) Subject {
	return Subject{
		Name: name, UID: types.UID(name), Generation: 1, Duration: d, Memory: memory,
		Lease: types.NamespacedName{Namespace: space, Name: name},
	}
}

// track adds ComputeServices with duration d and memory.
func (s *sim) track(d time.Duration, memory Reporting, names ...string) {
	for _, name := range names {
		s.core.track(s.now, subjectNamed(name, d, memory))
	}
}

func (s *sim) verdictOn(name string) Reporting {
	s.t.Helper()
	v, ok := s.core.verdict(s.now, name, types.UID(name))
	if !ok {
		s.t.Fatalf("%v: %s is not tracked", s.now, name)
	}
	return v.Reporting
}

func (s *sim) want(name string, want Reporting) {
	s.t.Helper()
	if got := s.verdictOn(name); got != want {
		s.t.Fatalf("at %v: verdict on %s is %d, want %d", s.now, name, got, want)
	}
}

// never runs for d and fails as soon as the verdict on name is bad.
func (s *sim) never(name string, bad Reporting, d time.Duration) {
	s.t.Helper()
	for end := s.now + d; s.now < end; {
		s.run(10 * time.Millisecond)
		if s.verdictOn(name) == bad {
			s.t.Fatalf("at %v: verdict on %s became %d", s.now, name, bad)
		}
	}
}

// until runs until the verdict on name is want, and returns when that was.
func (s *sim) until(name string, want Reporting, limit time.Duration) time.Duration {
	s.t.Helper()
	for end := s.now + limit; s.now < end; {
		s.run(time.Millisecond)
		if s.verdictOn(name) == want {
			return s.now
		}
	}
	s.t.Fatalf("at %v: verdict on %s is %d, and did not become %d within %v", s.now, name, s.verdictOn(name), want, limit)
	return 0
}

func within(t *testing.T, what string, got, from, to time.Duration) {
	t.Helper()
	if got < from || got > to {
		t.Fatalf("%s: %v, want %v to %v", what, got, from, to)
	}
}

func (s *sim) wantBlindness(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.blindness, want) {
		s.t.Fatalf("edges of blindness are %q, want %q", s.blindness, want)
	}
}
