// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"slices"
	"time"
)

// canaryWrite asks for a write of a canary Lease.
type canaryWrite struct {
	namespace string
	token     token
}

// token identifies one write of a canary: its renewTime in microseconds, which
// is what a Lease keeps.
type token int64

const (
	// A canary is written every tenth of the shortest D, so that some ten of them
	// fall into each, within limits that keep it cheap and prompt.
	canaryPerDuration = 10
	minCanaryInterval = 250 * time.Millisecond
	maxCanaryInterval = 2 * time.Second
	// blindPerDuration: a gap of more than a quarter of D is blind time for a host. A
	// shorter one cannot hurt a host that renews at D/3 and retries at D/10; and a slow
	// API server must not hide dead hosts forever. The namespace counts as blind by the
	// shortest D in it; that does not delay the verdict on a host with a longer one.
	blindPerDuration = 4
	// proofInterval is the least time between two canaries, so that hosts which
	// fall silent one after the other share a handful of proofs.
	proofInterval = 50 * time.Millisecond
	// maxCanariesInFlight lets canaries follow each other while the API server is
	// slow: we stay sighted by their rate, not their delay.
	maxCanariesInFlight = 8
	// maxCanariesPending bounds the memory for canaries that were not seen yet; an
	// older one would prove nothing that a newer does not.
	maxCanariesPending = 4 * maxCanariesInFlight
)

type sentCanary struct {
	token token
	at    time.Duration
	// written: the API server has acknowledged it.
	written bool
}

// lead makes this process the one that writes canaries and declares silence. It does
// not see a namespace whose first list it still waits for.
func (c *core) lead(now time.Duration) {
	c.leader = true
	for _, w := range c.watches {
		if !w.synced {
			w.lastEcho, w.checkAt = now, now+w.blindAfter(c.defaultDuration)
		}
	}
	// What a standby takes for a renewal may be from before its leader's last verdict, if
	// its watches had stalled for a while: there is no order between watches.
	for _, s := range c.subjects {
		if s.memory.silent() {
			c.recall(now, s, s.memory)
		}
	}
}

// echoed takes the canary as the watch shows it. Any new one shows that we see; one
// of our own also proves the silence of every host whose deadline had passed when it
// was sent, since a renewal made by then would have come before it.
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
		took := gap
		if w.doubtedOther {
			took += w.doubted // The canary of a leader before showed nothing: both are one blind time.
		}
		c.moveDeadlines(now, w, took)
		w.doubted, w.doubtedOther = 0, false
		if !ours || now-sentAt > blindAfter {
			w.doubted, w.doubtedOther = gap, !ours
		}
	case w.doubted > 0:
		c.moveDeadlines(now, w, w.doubted)
		if ours || gap >= w.canaryInterval(c.defaultDuration)/2 {
			w.doubted, w.doubtedOther = 0, false // Those that have waited come together.
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

// declare declares every host silent whose deadline is not after until.
func (c *core) declare(w *namespace, until time.Duration) {
	for s := w.deadlines.first(); s != nil && s.deadline <= until; s = w.deadlines.first() {
		w.deadlines.clear(s)
		switch {
		case !w.readable:
			c.setReporting(s, NotReadable)
		case s.reporting == Waiting:
			c.setReporting(s, NeverReported)
		default:
			c.setReporting(s, Expired)
		}
		s.declared = true
	}
}

// advance does what is due, and returns the canaries to write and the
// namespaces whose watch delivers nothing although canaries are written, or should be.
func (c *core) advance(now time.Duration, wall time.Time) (writes []canaryWrite, stalled []string) {
	// For a Lease that we do not read, nothing can be proven, or needs to be.
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
// long. Either nobody leads, or their watch has stalled, and this standby would take
// over without knowing what happened meanwhile.
func (c *core) unseenLeader(now time.Duration) (stalled []string) {
	for _, w := range c.watches {
		if w.synced && now > w.checkAt {
			w.checkAt = now + w.blindAfter(c.defaultDuration)
			stalled = append(stalled, w.name)
		}
	}
	return stalled
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

// canaryDue returns when to write the next canary of w; if too many are in flight,
// not before one of them ends.
func (w *namespace) canaryDue(fallback time.Duration) (time.Duration, bool) {
	switch {
	case w.inFlight >= maxCanariesInFlight:
		return 0, false
	case !w.everSent:
		return 0, true
	}
	at := w.lastSent + w.canaryInterval(fallback)
	if s := w.deadlines.first(); s != nil && s.deadline > w.lastSent {
		// The canaries in flight prove nothing about this deadline.
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

// unseenWrites reports whether canaries were written that the watch does not show,
// and if so forgets the canaries sent so far: a reopened watch shows at most the last.
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
