// SPDX-License-Identifier: Apache-2.0

// Package judge decides whether what was said of hosts was true. It knows what
// an observer outside of hoststatus has recorded: when each renewal can have
// reached etcd, when which status was seen, and when nobody could see.
package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Unknown, Up and Absent are values of Status; the others are those of the API.
const (
	Up      = "UP"
	Unknown = "UNKNOWN"
	// Absent is what an object without a host status has.
	Absent = "absent"
)

const (
	// Grace is by how much a verdict may be later than D of sighted time, and by
	// how much the last Server may be later than its pending writes.
	Grace = time.Second
	// race is how long before a status was seen it can have been decided, while
	// the API server answers as quickly as it should.
	race = time.Second
	// proofAndVerdict are the two writes that come one after the other between a
	// deadline and a status.
	proofAndVerdict = 2
	// tolerance is by how much two observers of one watch may differ on how long
	// it brought nothing.
	tolerance = 300 * time.Millisecond
	// blindPerDuration: a gap of up to a quarter of its D is not blind for a host.
	blindPerDuration = 4
)

// Renewal is one renewal that has reached etcd, at some moment between Sent and
// Confirmed.
type Renewal struct{ Sent, Confirmed time.Time }

// Status is one value of a host status.
type Status struct {
	Value string
	// At is when the observer saw it.
	At time.Time
	// Since is its hostStatusTransitionTime, in whole seconds.
	Since time.Time
	// Generation is that of the object when the status was last seen: it grows when
	// somebody sets or clears a flag.
	Generation int64
}

// decidedBy is the latest moment at which the status can have been decided.
func (s Status) decidedBy() time.Time {
	if end := s.Since.Add(time.Second); !s.Since.IsZero() && end.Before(s.At) {
		return end
	}
	return s.At
}

// Span is a stretch of time.
type Span struct{ From, To time.Time }

func (s Span) length() time.Duration { return s.To.Sub(s.From) }

// Takeover is the moment at which a leader wrote its first canary.
type Takeover struct {
	At time.Time
	// Started is when its process had listed what there is. What it has not lived through
	// it cannot know.
	Started time.Time
}

// Sight is what the leader of the managers can have seen of one lease namespace.
type Sight struct {
	// Blind is when no canary came back on the watch, for longer than a quarter of
	// the shortest D. In order, without overlaps. For each host only what is longer
	// than a quarter of its own D counts.
	Blind []Span
	// BlindAtBest is when no canary was to be seen at all, neither on a watch nor in
	// a list; for each host what is longer than half of its own D. A verdict may come
	// as late as Blind allows, and as early as this.
	BlindAtBest []Span
	// Takeovers are in order.
	Takeovers []Takeover
	// Latency is what a write takes more than usual.
	Latency time.Duration
	// Bare are the verdicts of a bare client: the two writes that the proof and the
	// status of a silent host are, each seen on a watch, by a user to whom the API
	// server gives precedence over all.
	Bare []Span
	// Busy are samples of how busy the machine was, in order.
	Busy []Load
}

// Load is how many threads were ready to run at a moment, for each CPU. With N of them,
// what has to compute takes N times as long, and a bare client, which hardly does, does not
// show that.
type Load struct {
	At     time.Time
	PerCPU float64
}

// ownLoad is the load that the managers, the API server and the observer come to by
// themselves. It is no excuse.
const ownLoad = 2

// Host is what is known of one host.
type Host struct {
	Name     string
	Duration time.Duration
	// Renewals are in order.
	Renewals []Renewal
	// Statuses are those of its ComputeService, in order.
	Statuses []Status
	// Deletions are when others began to delete its Lease. A process that starts later
	// does not find there how long D is, until the host has made another.
	Deletions []time.Time
}

// DefaultDuration is D where no Lease says how long it is: the manager's default.
const DefaultDuration = time.Minute

// Finding is something that should not have been said, or not so late.
type Finding struct {
	Kind Kind
	What string
	At   time.Time
}

// Kind tells findings apart.
type Kind int

// The kinds of findings.
const (
	// FalseUnknown: declared UNKNOWN although a renewal had reached etcd within D
	// of sighted time.
	FalseUnknown Kind = iota
	// Late: not declared UNKNOWN in time, or never.
	Late
	// FalseState: a state that no event led to: UP without a renewal, or no status
	// at all where there was one; or an owner was shown a state that had passed.
	FalseState
	// LateServer: a Server that does not follow its host in time.
	LateServer
	// LateAsAll: declared UNKNOWN, or a Server written, later than it should be, but no
	// later than what a bare client's verdict took longer than usual then. No fault of the
	// managers.
	LateAsAll
)

func (k Kind) String() string {
	return [...]string{"false UNKNOWN", "late or missed", "false state", "late server", "late as a bare client"}[k]
}

// Judge returns what is wrong with the statuses of a host, from the moment begin
// until the moment end, at which the record ends.
func Judge(h Host, sight Sight, begin, end time.Time) (findings []Finding) {
	add := func(kind Kind, at time.Time, format string, args ...any) {
		findings = append(findings, Finding{kind, h.Name + ": " + fmt.Sprintf(format, args...), at})
	}
	for i, s := range h.Statuses {
		if s.At.Before(begin) || s.At.After(end) {
			continue
		}
		var before Status
		if i > 0 {
			before = h.Statuses[i-1]
		}
		switch {
		case s.Value == Absent && i > 0:
			add(FalseState, s.At, "had the host status %s, and then none", before.Value)
		case s.Value == Unknown && !h.silent(s, sight) && !h.remembered(s, sight):
			add(FalseUnknown, s.At, "UNKNOWN at %s, decided by %s, with a D of %v, although %s; nothing was to be seen %s",
				s.At.Format(stamp), s.decidedBy().Format(stamp), h.Duration, h.lastBefore(s.decidedBy()), sight.lately(s.At))
		case s.Value == before.Value && !s.Since.Equal(before.Since) && s.Generation == before.Generation && !h.silent(s, sight):
			add(FalseUnknown, s.At, "%s as before, but since %s: it was something else meanwhile", s.Value, s.Since.Format(stamp))
		case s.Value == Up && before.Value == Unknown && !h.renewedBetween(earlier(before.At.Add(-race-sight.Latency), before.decidedBy().Add(-race)), s.At):
			add(FalseState, s.At, "UP at %s after UNKNOWN at %s, decided by %s, without a renewal: %s",
				s.At.Format(stamp), before.At.Format(stamp), before.decidedBy().Format(stamp), h.lastBefore(s.At))
		}
	}
	for i, r := range h.Renewals {
		until, next := end, "the end"
		if i+1 < len(h.Renewals) {
			until, next = h.Renewals[i+1].Sent, "the next renewal"
		}
		due := sight.due(r.Confirmed, h.Duration, h.deletedBetween(r.Confirmed, until))
		if due.Before(begin) || !due.Before(until) {
			continue
		}
		if value, since := h.at(due); !isWarning(value) {
			kind, declared, more := Late, "never", sight.allowance(due.Add(-Grace-proofAndVerdict*sight.Latency), due)
			if at, ok := h.declaredAfter(due); ok {
				declared = fmt.Sprintf("%v too late", at.Sub(due).Round(time.Millisecond))
				if !at.After(due.Add(more)) {
					kind = LateAsAll
				}
			}
			if until.Before(due.Add(more)) {
				kind = LateAsAll // It renewed before anybody could have known.
			}
			add(kind, due, "silent from %s to %s at %s, but %s since %s; UNKNOWN was due at %s and came %s; %v more are allowed for what slowed the API server or the machine down",
				r.Confirmed.Format(stamp), next, until.Format(stamp), value, since.Format(stamp), due.Format(stamp), declared, more.Round(time.Millisecond))
		}
	}
	return findings
}

// OfServer returns where a Server on h said UNKNOWN although neither its host was
// silent then nor its ComputeService UNKNOWN, now or a moment before.
func OfServer(name string, statuses []Status, h Host, sight Sight, begin, end time.Time) (findings []Finding) {
	for _, s := range statuses {
		if s.Value != Unknown || s.At.Before(begin) || s.At.After(end) || h.silent(s, sight) {
			continue
		}
		from, to := s.decidedBy().Add(-race-sight.Latency), s.At.Add(race)
		said := slices.ContainsFunc(h.Statuses, func(host Status) bool {
			return host.Value == Unknown && host.At.After(from) && host.At.Before(to)
		})
		if value := h.At(from); value != Unknown && !said {
			findings = append(findings, Finding{FalseUnknown, fmt.Sprintf("%s: UNKNOWN at %s, decided by %s, although its host was %s; %s",
				name, s.At.Format(stamp), s.decidedBy().Format(stamp), value, h.lastBefore(s.decidedBy())), s.At})
		}
	}
	return findings
}

const stamp = "15:04:05.000"

// isWarning says whether a status tells an owner not to trust a silent host.
func isWarning(value string) bool { return value != Up && value != Absent && value != "" }

// silent says whether the host had been silent for D of sighted time, at some
// moment at which the status can have been decided. A renewal that arrives
// between a verdict and the moment at which the verdict is seen takes nothing
// from the verdict.
func (h Host) silent(s Status, sight Sight) bool {
	decided := s.decidedBy()
	from := decided.Add(-race - sight.Latency)
	from = from.Add(-sight.allowance(from, decided))
	for i, r := range h.Renewals {
		if r.Confirmed.After(decided) {
			break
		}
		until := decided
		if i+1 < len(h.Renewals) && h.Renewals[i+1].Confirmed.Before(until) {
			until = h.Renewals[i+1].Confirmed
		}
		if until.Before(from) {
			continue
		}
		// Who looks at the canaries by requests sees them later by what those take.
		if sight.sighted(r.Sent, until, h.Duration) >= h.Duration-tolerance-sight.Latency {
			return true
		}
	}
	return len(h.Renewals) == 0 || h.Renewals[0].Confirmed.After(decided)
}

// remembered says whether s is what the leader before had decided, under a flag that hid it:
// that the host was silent. It came back while nobody led, and the next leader keeps what was
// decided until a renewal that it has seen as such.
func (h Host) remembered(s Status, sight Sight) bool {
	i := slices.IndexFunc(sight.Takeovers, func(t Takeover) bool { return t.At.After(s.At) })
	if i < 0 {
		i = len(sight.Takeovers)
	}
	if i == 0 {
		return false
	}
	takeover := sight.Takeovers[i-1].At
	if h.renewedBetween(takeover, s.decidedBy().Add(-race-sight.Latency)) {
		return false
	}
	return slices.ContainsFunc(sight.BlindAtBest, func(unled Span) bool {
		if !unled.From.Before(takeover) || unled.To.Before(takeover.Add(-race)) {
			return false
		}
		for i := 1; i < len(h.Renewals); i++ {
			before, back := h.Renewals[i-1], h.Renewals[i]
			if back.Sent.After(unled.From) && back.Sent.Before(takeover) && sight.sighted(before.Sent, unled.From, h.Duration) >= h.Duration-tolerance {
				return true
			}
		}
		return false
	})
}

func (h Host) lastBefore(t time.Time) string {
	for _, r := range slices.Backward(h.Renewals) {
		if !r.Confirmed.After(t) {
			return fmt.Sprintf("a renewal sent at %s had arrived at %s", r.Sent.Format(stamp), r.Confirmed.Format(stamp))
		}
	}
	return "nothing was known of it"
}

func (h Host) renewedBetween(from, to time.Time) bool {
	return slices.ContainsFunc(h.Renewals, func(r Renewal) bool {
		return r.Confirmed.After(from) && r.Sent.Before(to)
	})
}

// At returns the status that was seen at t.
func (h Host) At(t time.Time) string {
	value, _ := h.at(t)
	return value
}

// at returns the status that was seen at t, and when it was first.
func (h Host) at(t time.Time) (value string, since time.Time) {
	for _, s := range h.Statuses {
		if s.At.After(t) {
			break
		}
		value, since = s.Value, s.At
	}
	return value, since
}

func (h Host) declaredAfter(t time.Time) (time.Time, bool) {
	for _, s := range h.Statuses {
		if s.At.After(t) && isWarning(s.Value) {
			return s.At, true
		}
	}
	return time.Time{}, false
}

// due returns when a host whose last renewal arrived at t has to be UNKNOWN, at
// the latest: after D of sighted time, and half of D for each blind spell. A
// leader that has not lived through the renewal keeps the host for one D, which is the
// default if its process has not lived through the deletion of the Lease either.
func (s Sight) due(t time.Time, d time.Duration, deleted time.Time) time.Time {
	for {
		due := s.dueFrom(t, d)
		i := slices.IndexFunc(s.Takeovers, func(o Takeover) bool {
			return o.Started.After(t) && o.At.After(t) && o.At.Before(due)
		})
		if i < 0 {
			return due
		}
		t = s.Takeovers[i].At
		if !deleted.IsZero() && s.Takeovers[i].Started.After(deleted) {
			d = max(d, DefaultDuration)
		}
	}
}

// deletedBetween returns when the Lease was deleted first between two renewals; the zero
// time for never.
func (h Host) deletedBetween(from, to time.Time) time.Time {
	for _, at := range h.Deletions {
		if at.After(from.Add(-race)) && at.Before(to) {
			return at
		}
	}
	return time.Time{}
}

func (s Sight) dueFrom(t time.Time, d time.Duration) time.Time {
	due := t.Add(d + Grace + proofAndVerdict*s.Latency)
	for _, b := range s.Blind {
		if !b.To.After(t) {
			continue
		}
		if b.From.After(due) {
			break
		}
		if b.length() <= d/blindPerDuration-tolerance {
			// Too short to be blind. But nothing can be proven before its end.
			if proven := b.To.Add(Grace + proofAndVerdict*s.Latency); !b.From.After(due.Add(-Grace)) && proven.After(due) {
				due = proven
			}
			continue
		}
		due = due.Add(b.To.Sub(later(b.From, t)) + d/2)
	}
	return due
}

// bareExcess returns how much longer than usual a bare client's verdict took at most,
// in the time that ends at t: as much as the managers have for a verdict. What it had
// waited before that does not count.
func (s Sight) bareExcess(t time.Time) time.Duration {
	return s.excess(t.Add(-Grace-proofAndVerdict*s.Latency), t)
}

// excess is bareExcess for the time from begin to t.
func (s Sight) excess(begin, t time.Time) (longest time.Duration) {
	usual := median(s.Bare)
	for _, b := range s.Bare {
		if b.To.After(begin) && b.From.Before(t) {
			longest = max(longest, b.To.Sub(later(b.From, begin))-usual)
		}
	}
	return longest
}

// allowance is how much later than it should something may be that had to be done from one
// moment to another: as much as a bare client was slower than usual, and as what computes was
// slowed down by what else ran on the machine.
func (s Sight) allowance(from, to time.Time) time.Duration {
	sum, n := 0.0, 0
	for _, l := range s.Busy {
		if !l.At.Before(from) && !l.At.After(to) {
			sum, n = sum+l.PerCPU, n+1
		}
	}
	allowed := s.excess(from, to)
	if n > 0 {
		allowed += time.Duration(max(0, sum/float64(n)-ownLoad) * float64(Grace))
	}
	return allowed
}

// Unexplained returns how much longer nothing was to be seen than what slowed the API server or
// the machine down then explains.
func (s Sight) Unexplained(blind Span) time.Duration {
	return max(0, blind.length()-s.allowance(blind.From, blind.To))
}

// median returns the median length of spans; 0 for none.
func median(spans []Span) time.Duration {
	if len(spans) == 0 {
		return 0
	}
	lengths := make([]time.Duration, len(spans))
	for i, s := range spans {
		lengths[i] = s.length()
	}
	slices.Sort(lengths)
	return lengths[len(lengths)/2]
}

// sighted returns how much of the time from one moment to another was sighted, at
// best, for hosts with D d. The managers can have seen a canary as much earlier than
// the observer as a bare client was slower than usual then.
func (s Sight) sighted(from, to time.Time, d time.Duration) time.Duration {
	all := to.Sub(from)
	for _, b := range s.BlindAtBest {
		if b.length() <= 2*d/blindPerDuration || !b.To.After(from) || !b.From.Before(to) {
			continue
		}
		if lost := earlier(b.To.Add(-s.bareExcess(b.To)), to).Sub(later(b.From, from)); lost > 0 {
			all -= lost
		}
	}
	return all
}

// lately says when nothing was to be seen in the minute before t.
func (s Sight) lately(t time.Time) string {
	var spans []string
	for _, b := range s.BlindAtBest {
		if b.To.After(t.Add(-time.Minute)) && b.From.Before(t) {
			spans = append(spans, b.From.Format(stamp)+" to "+b.To.Format(stamp))
		}
	}
	return strings.Join(spans, ", ")
}

// BlindSpans returns where more than limit passed without an echo.
func BlindSpans(echoes []time.Time, limit time.Duration, begin, end time.Time) (blind []Span) {
	last := begin
	for _, e := range append(slices.Clone(echoes), end) {
		if e.Before(last) {
			continue
		}
		if e.Sub(last) > limit {
			blind = append(blind, Span{last, e})
		}
		last = e
	}
	return blind
}

// Relisted returns blind time without what managers saw of it after the last echo. One whose
// watch had brought nothing lists anew, up to limit later, and sees the last canary only then:
// up to then it knows of each host that it was silent.
func Relisted(blind []Span, lists []time.Time, limit time.Duration) []Span {
	out := slices.Clone(blind)
	for i, b := range blind {
		for _, at := range lists {
			if at.After(out[i].From) && at.Before(b.To) && at.Sub(b.From) <= limit {
				out[i].From = at
			}
		}
	}
	return out
}

// Change is a change of a host's status that its Servers have to follow.
type Change struct {
	At time.Time
	// Writes is how many Servers there are on the host.
	Writes int
}

// LastWrite returns when the last of the writes that these changes cause has to
// be done that were pending when change i came. All writes of one busy time share
// its end, because their order is not promised. rate is in writes per second;
// while nobody leads or sees, nothing is written.
func LastWrite(changes []Change, i int, rate float64, blind []Span) time.Time {
	var busyUntil time.Time
	for j, c := range changes {
		if j > i && c.At.After(busyUntil) {
			break
		}
		busyUntil = stretched(later(busyUntil, c.At), time.Duration(float64(c.Writes)/rate*float64(time.Second)), blind)
	}
	return stretched(busyUntil, Grace, blind)
}

// OfLateServer returns what it is that a Server which had to follow the change of its host
// at changed by due has done so at followed only; never if that is zero.
func (s Sight) OfLateServer(changed, due, followed time.Time) Kind {
	if !followed.IsZero() && !followed.After(due.Add(s.allowance(changed, due))) {
		return LateAsAll
	}
	return LateServer
}

// stretched returns when d of sighted time have passed since t.
func stretched(t time.Time, d time.Duration, blind []Span) time.Time {
	end := t.Add(d)
	for _, b := range blind {
		if b.To.After(t) && b.From.Before(end) {
			end = end.Add(b.To.Sub(later(b.From, t)))
		}
	}
	return end
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
