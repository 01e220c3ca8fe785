// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Reporting is what the monitor says of one host.
type Reporting int

// The values of Reporting. The zero value is no word at all.
const (
	// NoWord is only used as a memory: nothing was said before.
	NoWord Reporting = iota
	// Waiting means that the host is new here and its first renewal may come.
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

// Subject is what the monitor needs to know of a ComputeService.
type Subject struct {
	Name       string
	UID        types.UID
	Generation int64
	// Version is the resourceVersion of the ComputeService.
	Version string
	// Lease carries the heartbeats.
	Lease types.NamespacedName
	// Duration is D as the ComputeService sets it; zero leaves it to the Lease.
	Duration time.Duration
	// Node is the Node that the host is, where that is known. A Lease that belongs to
	// another one, of the same name, says nothing of it.
	Node types.UID
	// Memory is the last word that was written down for this host.
	Memory Reporting
}

// Lease is what the watch shows of a Lease.
type Lease struct {
	// RenewTime is zero if the Lease was never renewed.
	RenewTime time.Time
	// Duration is the Lease's own D; zero or less if it gives none.
	Duration time.Duration
	// Node is the Node that owns the Lease, as a kubelet writes it; empty if none does.
	Node types.UID
}

// Verdict is the monitor's word on one host.
type Verdict struct {
	Reporting Reporting
	// Version is the resourceVersion of the ComputeService as the monitor has last
	// taken it in.
	Version string
	// Duration is the D in force.
	Duration time.Duration
	// SinceRenewal is how long ago the last renewal was seen; negative if none
	// was seen by this process.
	SinceRenewal time.Duration
	// Overdue is how long ago the deadline passed of a host that this process has
	// declared silent; zero if it has not.
	Overdue time.Duration
}

// canaryWrite asks for a write of a canary Lease.
type canaryWrite struct {
	namespace string
	token     token
}

// token identifies one write of a canary: its renewTime in microseconds, which
// is what a Lease keeps.
type token int64

// hooks tell the world of the core what happened. They are called with the
// core locked, so they must return at once and not call back.
type hooks struct {
	// changed: the word on this ComputeService changed, or stands for a new spec.
	changed func(name string)
	// blind: an edge of blindness; for is its length, at the end of it.
	blind func(namespace string, blind bool, lasted time.Duration)
	// skewed: an edge of a host's clock being far from ours.
	skewed func(lease types.NamespacedName, skew time.Duration, skewed bool)
	// echo: a canary came back so long after its write was begun. May be nil.
	echo func(namespace string, after time.Duration)
	// clockStepped: our wall clock has moved against the monotonic one.
	clockStepped func(by time.Duration)
}

const (
	// A canary is written every tenth of the shortest D, so that some ten of them
	// fall into each, within limits that keep it cheap and prompt.
	canaryPerDuration = 10
	minCanaryInterval = 250 * time.Millisecond
	maxCanaryInterval = 2 * time.Second
	// blindPerDuration: a gap of more than a quarter of D is blind time for a host. A
	// shorter one cannot hurt a host that renews at D/3 and retries at D/10; and a slow
	// API server must not hide dead hosts for ever. The namespace is called blind by
	// the shortest D in it; a host of a longer one is not held up by that.
	blindPerDuration = 4
	// proofInterval is the least time between two canaries, so that hosts which
	// fall silent one after the other share a handful of proofs.
	proofInterval = 50 * time.Millisecond
	// maxCanariesInFlight lets canaries follow each other while the API server is
	// slow: their rate, not their delay, is what keeps us sighted.
	maxCanariesInFlight = 8
	// maxCanariesPending bounds the memory of canaries that were not seen yet; an
	// older one would prove nothing that a newer does not.
	maxCanariesPending = 4 * maxCanariesInFlight
	// maxClockSkew is the difference between a host's clock and ours above which
	// we warn: more than a renewal takes on a slow API server.
	maxClockSkew = 10 * time.Second
	// maxAgreement is the difference below which it agrees with ours again, and
	// agreementHolds for how long it must have been: a clock that goes to and fro, or
	// two hosts that renew one Lease, log once. It is shorter than the alert waits, so
	// that one odd renewal raises none.
	maxAgreement   = maxClockSkew / 2
	agreementHolds = 5 * time.Minute
	// maxClockDrift is how far the wall clock may move against the monotonic one
	// before everything that depends on the time of day is looked at again.
	maxClockDrift = time.Second
)

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

// namespace is one lease namespace: what its watch brings, it brings in order.
type namespace struct {
	name      string
	readable  bool
	leases    map[string]*lease
	deadlines deadlines
	durations durations

	// synced: the first list has arrived.
	synced bool
	// current: a canary of our own has come back since this process leads. What comes
	// before that may have waited in a watch that brought nothing, and is old.
	current bool
	// seen is the last canary that the watch showed, and lastEcho when.
	seen     token
	lastEcho time.Duration
	// blind: the watch shows nothing although it should. blindEnd is when the
	// last blind time ended, checkAt when to look whether this one has begun or
	// still goes on.
	blind    bool
	blindEnd time.Duration
	checkAt  time.Duration
	// doubted is how long the last blind time was, if the canary that ended it may have
	// waited in the watch, so that it is not certain when it ended; else 0.
	doubted time.Duration
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

type sentCanary struct {
	token token
	at    time.Duration
	// written: the API server has acknowledged it.
	written bool
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

type subject struct {
	name       string
	uid        types.UID
	generation int64
	version    string
	watch      *namespace
	lease      *lease
	node       types.UID
	override   time.Duration
	duration   time.Duration
	reporting  Reporting
	memory     Reporting
	// from is the moment that the deadline counts from.
	from     time.Duration
	deadline time.Duration
	place    int
	// declared: the word that stands was given because the deadline passed.
	declared bool
	// witnessed: a renewal was seen while this process led.
	witnessed bool
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

// --- What the watch brings -------------------------------------------------

// replaced takes the whole content of a namespace, from a list. The first list
// tells which Leases there are; what differs in a later one happened since.
// Everything in it counts before the canary in it does, because within a list
// there is no order.
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

// firstSight begins to judge: what has waited for it has one D from now on. Only
// now each D is known, since many are the Lease's own.
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
	// A renewal that has waited while we were blind looks old, whatever the host's clock.
	waited := now - w.lastEcho
	c.compareWithHost(now, w, l, seen.RenewTime.Sub(wall), waited)
	for _, s := range l.subjects {
		if !s.ofAnotherNode() {
			c.renewed(l.renewedAt, s)
		}
	}
}

// compareWithHost notices that a host's clock is far from ours, and that it is not any
// more; waited is how much older its renewal may be than the moment it is seen.
func (c *core) compareWithHost(now time.Duration, w *namespace, l *lease, skew, waited time.Duration) {
	if skew > maxClockSkew || skew < -maxClockSkew-waited {
		l.skewedAt = now
		if !l.skewed {
			c.setSkewed(w, l, skew, true)
		}
		return
	}
	if l.skewed && skew <= maxAgreement && skew >= -maxAgreement-waited && now-l.skewedAt >= agreementHolds {
		c.setSkewed(w, l, skew, false)
	}
}

// ofAnotherNode says that the Lease belongs to another Node than s is: a machine that
// was replaced by one of the same name may still renew it.
func (s *subject) ofAnotherNode() bool {
	return s.node != "" && s.lease.node != "" && s.node != s.lease.node
}

// interval is about how often a Lease is renewed; 0 if that is not known. It is the
// shorter of the last two gaps, since one may have a failure in it.
func (l *lease) interval() time.Duration { return min(l.gaps[0], l.gaps[1]) }

// renewed moves the deadline of s, and that is all while s reports anyway. A leader
// that has just taken over does not contradict the last one by it: the renewal may
// be older than what that one said.
func (c *core) renewed(at time.Duration, s *subject) {
	if c.leader && !s.watch.current && s.reporting.silent() {
		return
	}
	s.from, s.witnessed = at, c.leader && s.watch.current
	s.watch.deadlines.set(s, at+s.duration)
	c.say(s, Reports)
}

// deleted takes the deletion of a Lease. It is no verdict: the deadline stands.
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

func (c *core) setSkewed(w *namespace, l *lease, skew time.Duration, skewed bool) {
	l.skewed = skewed
	if skewed {
		w.skewed++
	} else {
		w.skewed--
	}
	c.hooks.skewed(l.name, skew, skewed)
}

// --- Sight and proof -------------------------------------------------------

// lead makes this process the one that writes canaries and declares silence. A
// namespace whose first list it still waits for is one that it does not see.
func (c *core) lead(now time.Duration) {
	c.leader = true
	for _, w := range c.watches {
		if !w.synced {
			w.lastEcho, w.checkAt = now, now+w.blindAfter(c.defaultDuration)
		}
	}
	// What a standby takes for a renewal may be one from before its leader's last word,
	// if its watches had brought nothing for a while: they have no order among them.
	for _, s := range c.subjects {
		if s.memory.silent() {
			c.recall(now, s, s.memory)
		}
	}
}

// echoed takes the canary as the watch shows it. Any new one shows that we see;
// one of our own also proves the silence of every host whose deadline had
// passed when it was sent, since a renewal made by then came before it.
func (c *core) echoed(now time.Duration, namespace string, canary token) {
	w := c.watches[namespace]
	if canary == w.seen {
		return
	}
	w.seen = canary
	sentAt, ours := w.settle(canary)
	c.sighted(now, w, sentAt, ours)
	if ours && c.hooks.echo != nil {
		c.hooks.echo(namespace, now-sentAt)
	}
	if ours && c.leader {
		w.current = true
		c.declare(w, sentAt)
	}
}

// sighted ends a stretch of time without an echo. Every deadline of a host for whose
// D that was blind moves by as much of it as it has waited through, and falls no
// sooner than when half its D has been sighted.
//
// A pause of this process is such a stretch too: a verdict needs an echo, and
// the first one after the pause comes here before it proves anything. But that one may
// have been written during the pause and have waited, and so may one of another process
// or one that took long after any blind time: nothing was seen until the next one comes.
func (c *core) sighted(now time.Duration, w *namespace, sentAt time.Duration, ours bool) {
	gap := now - w.lastEcho
	switch blindAfter := w.blindAfter(c.defaultDuration); {
	case gap > blindAfter:
		c.moveDeadlines(now, w, gap)
		w.doubted = 0
		if !ours || now-sentAt > blindAfter {
			w.doubted = gap
		}
	case w.doubted > 0:
		c.moveDeadlines(now, w, w.doubted)
		if ours || gap >= w.canaryInterval(c.defaultDuration)/2 {
			w.doubted = 0 // Those that have waited come together.
		}
	}
	c.endBlindness(now, w)
}

// moveDeadlines moves those of the hosts for whose D a blind time is one that took so
// long, by what has passed since the last echo.
func (c *core) moveDeadlines(now time.Duration, w *namespace, took time.Duration) {
	for _, s := range w.deadlines.items {
		if took <= s.duration/blindPerDuration {
			continue
		}
		s.deadline += now - max(w.lastEcho, s.from)
		s.deadline = max(s.deadline, now+s.duration/2)
	}
	w.deadlines.restore()
	w.blindEnd = now
}

func (c *core) endBlindness(now time.Duration, w *namespace) {
	gap := now - w.lastEcho
	w.lastEcho = now
	w.checkAt = now + w.blindAfter(c.defaultDuration)
	if w.blind {
		w.blind = false
		w.blindTime += gap
		c.hooks.blind(w.name, false, gap)
	}
}

// settle finds a canary of ours, and forgets it and those sent before it.
func (w *namespace) settle(canary token) (sentAt time.Duration, ours bool) {
	i := slices.IndexFunc(w.pending, func(p sentCanary) bool { return p.token == canary })
	if i < 0 {
		return 0, false
	}
	sentAt = w.pending[i].at
	w.pending = slices.DeleteFunc(w.pending, func(p sentCanary) bool { return p.at <= sentAt })
	return sentAt, true
}

// declare gives the verdict on every host whose deadline is not after until.
func (c *core) declare(w *namespace, until time.Duration) {
	for s := w.deadlines.first(); s != nil && s.deadline <= until; s = w.deadlines.first() {
		w.deadlines.clear(s)
		switch {
		case !w.readable:
			c.say(s, NotReadable)
		case s.reporting == Waiting:
			c.say(s, NeverReported)
		default:
			c.say(s, Expired)
		}
		s.declared = true
	}
}

// advance does what is due, and returns the canaries to write and the
// namespaces whose watch delivers nothing although canaries are written, or should be.
func (c *core) advance(now time.Duration, wall time.Time) (writes []canaryWrite, stalled []string) {
	// Nothing can be proven, nor needs to be, of a Lease that we do not read.
	c.declare(c.unreadable, now)
	if !c.leader {
		return nil, c.unseenLeader(now)
	}
	c.compareClocks(now, wall)
	for _, w := range c.watches {
		if now > w.checkAt {
			w.checkAt = now + w.blindAfter(c.defaultDuration)
			if !w.blind {
				w.blind = true
				c.hooks.blind(w.name, true, 0)
			}
			if w.unseenWrites() {
				stalled = append(stalled, w.name)
			}
		}
		if !w.synced {
			continue
		}
		if at, ok := w.canaryDue(c.defaultDuration); ok && at <= now {
			t := c.newToken(wall)
			w.lastSent, w.everSent, w.retry = now, true, false
			w.inFlight++
			if len(w.pending) == maxCanariesPending {
				w.pending = slices.Delete(w.pending, 0, 1)
			}
			w.pending = append(w.pending, sentCanary{token: t, at: now})
			writes = append(writes, canaryWrite{namespace: w.name, token: t})
		}
	}
	return writes, stalled
}

// unseenLeader returns the namespaces in which a standby has seen no canary for too
// long. Either nobody leads, or their watch brings nothing, and whoever takes over then
// knows nothing of what happened meanwhile.
func (c *core) unseenLeader(now time.Duration) (stalled []string) {
	for _, w := range c.watches {
		if w.synced && now > w.checkAt {
			w.checkAt = now + w.blindAfter(c.defaultDuration)
			stalled = append(stalled, w.name)
		}
	}
	return stalled
}

// compareClocks notices that the wall clock was set, or that it has drifted.
func (c *core) compareClocks(now time.Duration, wall time.Time) {
	wallAtZero := wall.Round(0).Add(-now)
	if c.wallAtZero.IsZero() {
		c.wallAtZero = wallAtZero
	}
	if by := wallAtZero.Sub(c.wallAtZero); by.Abs() > maxClockDrift {
		c.wallAtZero = wallAtZero
		c.hooks.clockStepped(by)
	}
}

// canaryDone takes the end of a canary's write.
func (c *core) canaryDone(now time.Duration, namespace string, t token, err error) {
	w := c.watches[namespace]
	w.inFlight--
	if err != nil {
		// It may have been written all the same, so it stays pending.
		w.retry, w.retryAt = true, now+minCanaryInterval
		return
	}
	for i := range w.pending {
		if w.pending[i].token == t {
			w.pending[i].written = true
		}
	}
}

// next returns when advance has something to do, if nothing else happens.
func (c *core) next() (time.Duration, bool) {
	var next time.Duration
	found := false
	earlier := func(at time.Duration) {
		if !found || at < next {
			next, found = at, true
		}
	}
	if s := c.unreadable.deadlines.first(); s != nil {
		earlier(s.deadline)
	}
	for _, w := range c.watches {
		if at, ok := w.canaryDue(c.defaultDuration); ok && w.synced && c.leader {
			earlier(at)
		}
		if w.synced || c.leader {
			earlier(w.checkAt + 1)
		}
	}
	return next, found
}

// canaryDue returns when the next canary of w is to be written; not before one
// of those in flight ends, if they are too many.
func (w *namespace) canaryDue(fallback time.Duration) (time.Duration, bool) {
	switch {
	case w.inFlight >= maxCanariesInFlight:
		return 0, false
	case !w.everSent:
		return 0, true
	}
	at := w.lastSent + w.canaryInterval(fallback)
	if s := w.deadlines.first(); s != nil && s.deadline > w.lastSent {
		// The canaries on their way prove nothing about this deadline.
		at = min(at, max(s.deadline, w.lastSent+proofInterval))
	}
	if w.retry {
		at = min(at, w.retryAt)
	}
	return at, true
}

func (w *namespace) canaryInterval(fallback time.Duration) time.Duration {
	return min(max(w.durations.shortest(fallback)/canaryPerDuration, minCanaryInterval), maxCanaryInterval)
}

func (w *namespace) blindAfter(fallback time.Duration) time.Duration {
	return w.durations.shortest(fallback) / blindPerDuration
}

// unseenWrites says whether canaries were written that the watch does not show,
// and forgets the canaries sent so far: a watch that is opened again shows the
// last of them at most.
func (w *namespace) unseenWrites() bool {
	unseen := slices.ContainsFunc(w.pending, func(p sentCanary) bool { return p.written })
	if unseen {
		w.pending = w.pending[:0]
	}
	return unseen
}

// newToken follows the wall clock, which people read in the canary, and never
// repeats or goes back.
func (c *core) newToken(wall time.Time) token {
	c.lastToken = max(c.lastToken+1, token(wall.UnixMicro()))
	return c.lastToken
}

// --- What the ComputeServices say ------------------------------------------

// track takes a ComputeService as it is now.
func (c *core) track(now time.Duration, in Subject) {
	s := c.subjects[in.Name]
	if s != nil && s.uid != in.UID {
		c.forget(in.Name, s.uid)
		s = nil
	}
	if s == nil {
		s = &subject{name: in.Name, uid: in.UID, generation: in.Generation, version: in.Version, node: in.Node, override: in.Duration, place: noPlace}
		c.subjects[in.Name] = s
		c.attach(s, in.Lease)
		c.begin(now, s, in.Memory)
		c.hooks.changed(s.name)
		return
	}
	if in.Generation < s.generation {
		return
	}
	s.version = in.Version
	before := s.ofAnotherNode()
	s.node = in.Node
	if s.lease.name != in.Lease {
		c.detach(s)
		s.override = in.Duration
		c.attach(s, in.Lease)
		c.repoint(now, s)
	} else if s.override != in.Duration {
		s.override = in.Duration
		c.durationChanged(s)
	}
	if s.ofAnotherNode() != before {
		c.repoint(now, s)
	}
	if in.Memory != s.memory {
		s.memory = in.Memory
		// A word of the last leader may reach us when we lead already. Ours counts
		// more only where we have seen for ourselves what it says.
		if !c.leader || !s.witnessed && !s.declared {
			c.recall(now, s, in.Memory)
		}
	}
	if in.Generation > s.generation {
		s.generation = in.Generation
		c.hooks.changed(s.name)
	}
}

// forget takes the deletion of a ComputeService. What was observed of its Lease
// stays as long as the Lease does.
func (c *core) forget(name string, uid types.UID) {
	if s := c.subjects[name]; s != nil && s.uid == uid {
		c.detach(s)
		delete(c.subjects, name)
	}
}

// verdict returns the word on a ComputeService.
func (c *core) verdict(now time.Duration, name string, uid types.UID) (Verdict, bool) {
	s := c.subjects[name]
	if s == nil || s.uid != uid {
		return Verdict{}, false
	}
	v := Verdict{Reporting: s.reporting, Version: s.version, Duration: s.duration, SinceRenewal: -1}
	if s.lease.renewed && !s.ofAnotherNode() {
		v.SinceRenewal = now - s.lease.renewedAt
	}
	if s.declared {
		v.Overdue = now - s.deadline
	}
	return v, true
}

// begin gives a subject that is new to this process its first word: the one
// that was written down before, or what its Lease is known to do.
func (c *core) begin(now time.Duration, s *subject, memory Reporting) {
	s.memory = memory
	s.reporting = memory
	if memory == NoWord {
		s.reporting = Waiting
	}
	c.settleIn(now, s)
}

// recall follows the word of another process that leads.
func (c *core) recall(now time.Duration, s *subject, memory Reporting) {
	if memory == NotReadable && s.watch.readable {
		memory = NeverReported
	}
	if memory == NoWord || memory == s.reporting {
		return
	}
	s.reporting, s.declared = memory, false
	if memory.silent() {
		s.watch.deadlines.clear(s)
	} else {
		s.from = now
		s.watch.deadlines.set(s, now+s.duration)
	}
	c.hooks.changed(s.name)
}

// repoint keeps the last word for one D, on another Lease.
func (c *core) repoint(now time.Duration, s *subject) {
	before := s.reporting
	c.settleIn(now, s)
	if s.reporting != before {
		c.hooks.changed(s.name)
	}
}

// settleIn fits the word of s to the Lease it has just been attached to.
func (c *core) settleIn(now time.Duration, s *subject) {
	s.declared = false
	switch {
	case !s.watch.readable && s.reporting != Reports:
		s.reporting = NotReadable
	case s.reporting == NotReadable:
		s.reporting = NeverReported
	}
	if s.reporting != Reports && s.lease.renewed && !s.ofAnotherNode() && now-s.lease.renewedAt < s.duration {
		s.reporting = Reports
		s.from = s.lease.renewedAt
		s.watch.deadlines.set(s, max(s.from, s.watch.blindEnd)+s.duration)
		return
	}
	if !s.reporting.silent() {
		s.from = now
		s.watch.deadlines.set(s, now+s.duration)
	}
}

// durationChanged moves the deadline of s by the change of its D.
func (c *core) durationChanged(s *subject) {
	before := s.duration
	s.watch.durations.remove(before)
	s.duration = c.durationOf(s)
	s.watch.durations.add(s.duration)
	if s.place != noPlace && s.duration != before {
		s.watch.deadlines.set(s, max(s.deadline+s.duration-before, s.watch.blindEnd+s.duration/2))
	}
}

func (c *core) durationOf(s *subject) time.Duration {
	switch {
	case s.override > 0:
		return s.override
	case s.lease.duration > 0:
		return s.lease.duration
	default:
		return c.defaultDuration
	}
}

func (c *core) attach(s *subject, name types.NamespacedName) {
	s.watch = c.unreadable
	key := name.String()
	if w := c.watches[name.Namespace]; w != nil {
		s.watch, key = w, name.Name
	}
	s.lease = s.watch.leases[key]
	if s.lease == nil {
		s.lease = &lease{name: name}
		s.watch.leases[key] = s.lease
	}
	s.lease.subjects = append(s.lease.subjects, s)
	s.duration = c.durationOf(s)
	s.watch.durations.add(s.duration)
}

func (c *core) detach(s *subject) {
	s.watch.deadlines.clear(s)
	s.watch.durations.remove(s.duration)
	s.lease.subjects = slices.DeleteFunc(s.lease.subjects, func(other *subject) bool { return other == s })
	s.watch.drop(s.lease)
}

// say gives the word r on s, if it is a new one.
func (c *core) say(s *subject, r Reporting) {
	if s.reporting != r {
		s.reporting, s.declared = r, false
		c.hooks.changed(s.name)
	}
}

func (w *namespace) lease(name string) *lease {
	l := &lease{name: types.NamespacedName{Namespace: w.name, Name: name}}
	w.leases[name] = l
	return l
}

// drop forgets a Lease that neither exists nor is waited for.
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

// durations counts which values of D are in use, to know the shortest: there
// are few different ones, however many hosts there are.
type durations map[time.Duration]int

func (d durations) add(v time.Duration) { d[v]++ }

func (d durations) remove(v time.Duration) {
	if d[v]--; d[v] == 0 {
		delete(d, v)
	}
}

func (d durations) shortest(fallback time.Duration) time.Duration {
	shortest := time.Duration(0)
	for v := range d {
		if shortest == 0 || v < shortest {
			shortest = v
		}
	}
	if shortest == 0 {
		return fallback
	}
	return shortest
}

// clampDuration brings a Lease's own duration into the range that heartbeats
// are judged by; zero or less means that the Lease gives none.
func clampDuration(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return min(max(d, v1alpha1.MinLeaseDurationSeconds*time.Second), v1alpha1.MaxLeaseDurationSeconds*time.Second)
}
