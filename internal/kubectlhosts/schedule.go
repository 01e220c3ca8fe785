// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"slices"
	"time"
)

// span is a time in which a host can be in maintenance: from its beginning up to its end,
// which is not part of it. A zero end is none.
type span struct{ from, to time.Time }

func (s span) endless() bool { return s.to.IsZero() }

// overlaps reports whether two spans have a time in common.
func (s span) overlaps(other span) bool {
	return (other.endless() || s.from.Before(other.to)) && (s.endless() || other.from.Before(s.to))
}

// candidate is a host for which a window is planned, or which counts in the plan.
type candidate struct {
	name string
	// taken is when it can be in maintenance already; nil for never.
	taken *span
	// keeps is true if no window is planned for it.
	keeps bool
}

// schedule gives each host that does not keep what it has a span of the same length, not
// before start, such that no more than limit of all hosts are taken at any time in it. The
// hosts get the earliest spans that there are, in their order. A host that is taken without
// an end counts all the time, so its own span costs nothing more, and is the earliest in
// which there are not too many without it. The spans are in the order of the hosts, and
// those of hosts that keep what they have are zero. It returns false if there is no room,
// because too many hosts are taken without an end.
func schedule(hosts []candidate, start time.Time, length time.Duration, limit int) (spans []span, fits bool) {
	var taken []span
	for _, host := range hosts {
		if host.taken != nil {
			taken = append(taken, *host.taken)
		}
	}
	// earliest returns the first span, from s on, in which there is room for so many more.
	earliest := func(s span, more int) (span, bool) {
		for most(taken, s)+more > limit {
			from, ok := firstEnd(taken, s)
			if !ok {
				return span{}, false
			}
			s = span{from, from.Add(length)}
		}
		return s, true
	}
	first := span{start, start.Add(length)}
	spans = make([]span, len(hosts))
	out := func(host candidate) bool { return !host.keeps && host.taken != nil && host.taken.endless() }
	if slices.ContainsFunc(hosts, out) {
		s, ok := earliest(first, 0)
		if !ok {
			return nil, false
		}
		for i, host := range hosts {
			if out(host) {
				spans[i] = s
			}
		}
	}
	// What is too early for one host is too early for those after it as well, since spans
	// only become taken. room is how many can have next: each that gets it takes all of it.
	next, room := first, 0
	for i, host := range hosts {
		if host.keeps || out(host) {
			continue
		}
		if room == 0 {
			var ok bool
			if next, ok = earliest(next, 1); !ok {
				return nil, false
			}
			taken = slices.DeleteFunc(taken, func(s span) bool { return !s.endless() && !next.from.Before(s.to) })
			room = limit - most(taken, next)
		}
		spans[i] = next
		taken = append(taken, next)
		room--
	}
	return spans, true
}

// most returns how many spans have a time in common with each other and with the span
// within, at the most.
func most(spans []span, within span) (n int) {
	type change struct {
		at time.Time
		by int
	}
	var changes []change
	for _, s := range spans {
		if !s.overlaps(within) {
			continue
		}
		changes = append(changes, change{s.from, 1})
		if !s.endless() {
			changes = append(changes, change{s.to, -1})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.by, b.by)) })
	count := 0
	for _, c := range changes {
		if !within.endless() && !c.at.Before(within.to) {
			break
		}
		// What ends before within has been left out, so all that has begun by its beginning
		// counts at its beginning.
		count += c.by
		n = max(n, count)
	}
	return n
}

// firstEnd returns the first time at which one of the spans ends that overlap s.
func firstEnd(spans []span, s span) (first time.Time, ok bool) {
	for _, other := range spans {
		if !other.endless() && other.overlaps(s) && (!ok || other.to.Before(first)) {
			first, ok = other.to, true
		}
	}
	return first, ok
}
