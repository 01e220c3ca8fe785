// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Reporting is the monitor's verdict on whether a host reports.
type Reporting int

// The values of Reporting. The zero value is no verdict at all.
const (
	// NoVerdict is only used as a memory: there was no verdict before.
	NoVerdict Reporting = iota
	// Waiting means that the host is new here and its first renewal may still come.
	Waiting
	// Reports means that the host renews its Lease in time.
	Reports
	// Expired means that the host reported once and is proven silent.
	Expired
	// NeverReported means that the host was waited for and is proven silent.
	NeverReported
	// NotReadable means that the Lease is in a namespace that is not watched.
	NotReadable
)

func (r Reporting) silent() bool { return r == Expired || r == NeverReported || r == NotReadable }

// Lease is what the watch shows of a Lease.
type Lease struct {
	// RenewTime is zero if the Lease was never renewed.
	RenewTime time.Time
	// Duration is the Lease's own D; zero or less if it gives none.
	Duration time.Duration
	// Node is the Node that owns the Lease, as a kubelet writes it; empty if none does.
	Node types.UID
}

// hooks report events of the core. They are called with the core locked, so they must
// return at once and not call back.
type hooks struct {
	// changed: the verdict on this ComputeService changed, or stands for a new spec.
	changed func(name string)
	// blind: blindness began or ended; lasted is its length, at the end of it.
	blind func(namespace string, blind bool, lasted time.Duration)
	// skewed: a host's clock is now far from ours, or no longer is.
	skewed func(lease types.NamespacedName, skew time.Duration, skewed bool)
	// echo: a canary came back; after is the time since its write began. May be nil.
	echo func(namespace string, after time.Duration)
	// clockStepped: our wall clock has moved against the monotonic one.
	clockStepped func(by time.Duration)
}

// core holds what was observed and what follows from it. now, in each method,
// is the monotonic time since some fixed moment. It is not safe for concurrent
// use.
type core struct {
	hooks           hooks
	defaultDuration time.Duration
	leader          bool
	lastToken       token
	wallAtZero      time.Time
	watches         map[string]*namespace
	unreadable      *namespace
	subjects        map[string]*subject
}

// namespace is one lease namespace. Its watch delivers in order.
type namespace struct {
	name      string
	readable  bool
	leases    map[string]*lease
	deadlines deadlines
	durations durations

	// synced: the first list has arrived.
	synced bool
	// current: one of our own canaries has come back since this process leads. What comes
	// before that may have waited in a stalled watch, and be old.
	current bool
	// seen is the last canary that the watch showed, and lastEcho when.
	seen     token
	lastEcho time.Duration
	// blind: the watch shows nothing although it should. blindEnd is when the last
	// blind time ended, checkAt when to check whether one has begun or still goes on.
	blind    bool
	blindEnd time.Duration
	checkAt  time.Duration
	// doubted is the length of the last blind time, if the canary that ended it may have
	// waited in the watch, so that its end is uncertain; else 0.
	doubted time.Duration
	// doubtedOther is set if that canary was another process's. Our own tell how late they
	// are, and may be so for as long as the API server is slow.
	doubtedOther bool
	// blindTime adds up the blind spells that have ended; skewed counts the hosts
	// whose clock is far from ours.
	blindTime time.Duration
	skewed    int

	// The canaries that this process wrote: how many writes have not ended, which
	// were not seen yet, when the last was begun, and, if a write failed, when to
	// try again.
	inFlight int
	pending  []sentCanary
	everSent bool
	lastSent time.Duration
	retry    bool
	retryAt  time.Duration
}

type lease struct {
	name      types.NamespacedName
	renewTime int64
	duration  time.Duration
	renewedAt time.Duration
	renewed   bool
	// gaps are the last two times between renewals; 0 where there was none yet.
	gaps   [2]time.Duration
	exists bool
	// skewed: its clock is far from ours, and was so last when it renewed at skewedAt.
	skewed   bool
	skewedAt time.Duration
	node     types.UID
	subjects []*subject
}

func newCore(namespaces []string, defaultDuration time.Duration, h hooks) *core {
	c := &core{
		hooks:           h,
		defaultDuration: defaultDuration,
		watches:         map[string]*namespace{},
		unreadable:      &namespace{leases: map[string]*lease{}, durations: durations{}},
		subjects:        map[string]*subject{},
	}
	for _, ns := range namespaces {
		c.watches[ns] = &namespace{name: ns, readable: true, leases: map[string]*lease{}, durations: durations{}}
	}
	return c
}

// replaced takes the whole content of a namespace, from a list. The first list
// shows which Leases exist; what differs in a later one happened since. Everything
// in it counts before the canary in it does, because a list has no order.
func (c *core) replaced(now time.Duration, wall time.Time, namespace string, leases map[string]Lease, canary token) {
	w := c.watches[namespace]
	first := !w.synced
	for name, seen := range leases {
		c.observed(now, wall, w, name, seen, first)
	}
	if first {
		c.firstSight(now, w, canary)
	}
	for name := range w.leases {
		if _, ok := leases[name]; !ok {
			c.deleted(namespace, name)
		}
	}
	c.echoed(now, namespace, canary)
}

// firstSight begins to judge: hosts that have waited for it have one D from now on.
// Only now is each D known, since many are set by the Lease.
func (c *core) firstSight(now time.Duration, w *namespace, canary token) {
	w.synced, w.seen = true, canary
	for _, s := range w.deadlines.items {
		s.from, s.deadline = now, now+s.duration
	}
	w.deadlines.restore()
	c.endBlindness(now, w)
}

// observe takes a Lease that was added or changed. A change of its renewTime is
// a renewal.
func (c *core) observe(now time.Duration, wall time.Time, namespace, name string, seen Lease) {
	c.observed(now, wall, c.watches[namespace], name, seen, false)
}

func (c *core) observed(now time.Duration, wall time.Time, w *namespace, name string, seen Lease, initial bool) {
	l := w.leases[name]
	if l == nil {
		l = w.lease(name)
	}
	appeared := !l.exists
	l.exists = true
	if d := clampDuration(seen.Duration); d != l.duration {
		l.duration = d
		for _, s := range l.subjects {
			c.durationChanged(s)
		}
	}
	l.node = seen.Node
	renewTime := seen.RenewTime.UnixMicro()
	changed := renewTime != l.renewTime
	l.renewTime = renewTime
	if initial || seen.RenewTime.IsZero() || !changed && !appeared {
		return
	}
	if l.renewed {
		l.gaps = [2]time.Duration{l.gaps[1], now - l.renewedAt}
	}
	l.renewedAt, l.renewed = now, true
	// A renewal that has waited while we were blind looks old, whatever the host's clock is.
	waited := now - w.lastEcho
	c.compareWithHost(now, w, l, seen.RenewTime.Sub(wall), waited)
	for _, s := range l.subjects {
		if !s.ofAnotherNode() {
			c.renewed(l.renewedAt, s)
		}
	}
}

// interval is about how often a Lease is renewed; 0 if that is not known. It is the
// shorter of the last two gaps, since one may have a failure in it.
func (l *lease) interval() time.Duration { return min(l.gaps[0], l.gaps[1]) }

// renewed moves the deadline of s, and does nothing else while s reports anyway. A
// leader that has just taken over does not contradict the last one by it: the renewal
// may be older than the last one's verdict.
func (c *core) renewed(at time.Duration, s *subject) {
	if c.leader && !s.watch.current && s.reporting.silent() {
		return
	}
	s.from, s.witnessed = at, c.leader && s.watch.current
	s.watch.deadlines.set(s, at+s.duration)
	c.setReporting(s, Reports)
}

// deleted takes the deletion of a Lease. The verdict and the deadline stand.
func (c *core) deleted(namespace, name string) {
	w := c.watches[namespace]
	if l := w.leases[name]; l != nil {
		l.exists = false
		if l.skewed {
			c.setSkewed(w, l, 0, false)
		}
		w.drop(l)
	}
}

func (w *namespace) lease(name string) *lease {
	l := &lease{name: types.NamespacedName{Namespace: w.name, Name: name}}
	w.leases[name] = l
	return l
}

// drop forgets a Lease that does not exist and that no host waits for.
func (w *namespace) drop(l *lease) {
	if l.exists || len(l.subjects) > 0 {
		return
	}
	if w.readable {
		delete(w.leases, l.name.Name)
	} else {
		delete(w.leases, l.name.String())
	}
}
