// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"container/list"
	"math/rand/v2"
	"time"

	"k8s.io/utils/clock"
)

// The waits after a failure: each is twice the last, and shortened by up to half at random.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 30 * time.Second
	// longestRetryAfter bounds the wait that a sink asks for.
	longestRetryAfter = 5 * time.Minute
)

// ledger knows what a sink was told. P is what is sent of one state.
type ledger[P any] interface {
	// news reports whether the sink has to be told, if it knows what the ledger says.
	news(key slotKey, want *state) bool
	// compose makes what is sent, nil if nothing has to be.
	compose(key slotKey, want *state, now time.Time) P
	// told notes that the sink has it, and maybeTold that it may or may not have.
	told(key slotKey, want *state)
	maybeTold(key slotKey, want *state)
	// forget notes that a subject is gone of which nobody is told.
	forget(key slotKey)
	// expire drops what the sink does not have any more by itself.
	expire(now time.Time)
	// known are the subjects of which something is known, as the sink was told it last.
	known(func(key slotKey, last *state))
	// wasUnknown reports whether the sink was told that a subject is UNKNOWN.
	wasUnknown(key slotKey) bool
}

// queue holds what a sink has to be told: of each subject the newest state, and nothing once
// the sink has it. It does no I/O, and is not for concurrent use.
type queue[P any] struct {
	ledger ledger[P]
	clock  clock.PassiveClock
	slots  map[slotKey]*slot
	// waiting are slots that have something to send, in the order in which they came.
	waiting *list.List
	// pausedUntil is when the sink is tried again, and failures how often it has failed since
	// it last worked.
	pausedUntil time.Time
	failures    int
	// failed is how many slots have failed since their last delivery.
	failed int
	// random is from 0 to 1.
	random func() float64
}

// slot is a subject.
type slot struct {
	key  slotKey
	want *state // nil: nothing is to be said
	// place is where it waits, nil if it does not.
	place *list.Element
	// sent is the state that is on its way, nil for none, and recall stops that.
	sent   *state
	recall func()
	// gone is set while nobody is to be told any more of a subject that is gone.
	gone bool
	// again is set if it has to be sent once more, whatever the ledger says.
	again bool
	// attempts is how often it has failed; it is tried again at notBefore.
	attempts  int
	notBefore time.Time
	// alone is set if the sink refused what it was sent together with.
	alone bool
	// since is from when on it has had something to send; zero while it has not.
	since time.Time
}

// item is what is sent of one subject.
type item[P any] struct {
	key     slotKey
	want    *state
	payload P
	// fresh is set if it is news, and not a repetition.
	fresh bool
}

func newQueue[P any](l ledger[P], c clock.PassiveClock) *queue[P] {
	return &queue[P]{ledger: l, clock: c, slots: map[slotKey]*slot{}, waiting: list.New(), random: rand.Float64}
}

// want sets the newest state of a subject.
func (q *queue[P]) want(key slotKey, s *state) {
	at := q.slot(key)
	at.want, at.gone = s, false
	q.settle(at)
}

// hide drops what there is to say of a subject, and recalls what is on its way.
func (q *queue[P]) hide(key slotKey) {
	at := q.slots[key]
	if at == nil {
		return
	}
	at.want, at.again, at.alone = nil, false, false
	if at.recall != nil {
		at.recall()
	}
	q.succeed(at)
	q.settle(at)
}

// repeat lets everything that selected accepts be sent once more.
func (q *queue[P]) repeat(selected func(slotKey, *state) bool) {
	q.ledger.expire(q.clock.Now())
	for key, at := range q.slots {
		if at.want != nil && selected(key, at.want) {
			at.again = true
			q.settle(at)
		}
	}
}

// review looks at every subject again, after the ledger has learned something.
func (q *queue[P]) review() {
	for _, at := range q.slots {
		q.settle(at)
	}
}

func (q *queue[P]) slot(key slotKey) *slot {
	at := q.slots[key]
	if at == nil {
		at = &slot{key: key}
		q.slots[key] = at
	}
	return at
}

// hideEnded is hide for the subjects of a namespace or, with "", of all that are gone and whose
// end is not told yet.
func (q *queue[P]) hideEnded(namespace string) {
	for key, at := range q.slots {
		if in, _, _ := parseSubject(key.subject); at.want != nil && at.want.end != "" && (namespace == "" || in == namespace) {
			q.hide(key)
		}
	}
}

// ended calls each with the namespaces of subjects that are gone and whose end is not told yet.
func (q *queue[P]) ended(each func(namespace string)) {
	for key, at := range q.slots {
		if at.want != nil && at.want.end != "" {
			in, _, _ := parseSubject(key.subject)
			each(in)
		}
	}
}

// forget is hide, for a subject that is gone.
func (q *queue[P]) forget(key slotKey) {
	q.ledger.forget(key)
	if at := q.slots[key]; at != nil {
		at.gone = true
		q.hide(key)
	}
}

// settle lets a slot wait if it has something to send, and drops one that will have nothing.
func (q *queue[P]) settle(at *slot) {
	due := at.want != nil && (at.again || q.ledger.news(at.key, at.want))
	switch {
	case at.sent != nil:
		// What follows is seen when it is back.
	case due && at.place == nil:
		at.place = q.waiting.PushBack(at)
		if at.since.IsZero() {
			at.since = q.clock.Now()
		}
	case !due:
		if at.place != nil {
			q.waiting.Remove(at.place)
			at.place = nil
		}
		at.since = time.Time{}
		q.succeed(at) // What failed is not needed any more.
		if at.want == nil || at.want.end != "" {
			delete(q.slots, at.key)
		}
	}
}

// take returns what to send now, at most n of it together. recall is called if something of it
// must not be sent any more.
func (q *queue[P]) take(n int, recall func()) (items []item[P]) {
	now := q.clock.Now()
	if now.Before(q.pausedUntil) {
		return nil
	}
	for place := q.waiting.Front(); place != nil && len(items) < n; {
		at := place.Value.(*slot)
		place = place.Next()
		if now.Before(at.notBefore) || at.alone && len(items) > 0 {
			continue
		}
		q.waiting.Remove(at.place)
		fresh := q.ledger.news(at.key, at.want)
		at.place, at.sent, at.recall, at.again = nil, at.want, recall, false
		items = append(items, item[P]{at.key, at.want, q.ledger.compose(at.key, at.want, now), fresh})
		if at.alone {
			break
		}
	}
	return items
}

// next returns when take may have something, if it may.
func (q *queue[P]) next() (at time.Time, ok bool) {
	for place := q.waiting.Front(); place != nil; place = place.Next() {
		due := place.Value.(*slot).notBefore
		if !ok || due.Before(at) {
			at, ok = due, true
		}
		if !due.After(q.pausedUntil) {
			break
		}
	}
	if ok && at.Before(q.pausedUntil) {
		at = q.pausedUntil
	}
	return at, ok
}

// outcome is what became of a request.
type outcome int

const (
	// delivered: the sink has it.
	delivered outcome = iota
	// failed: the sink does not work; it may or may not have it.
	failed
	// refused: the sink does not want what it was sent.
	refused
	// recalled: the request was stopped here, and the sink may or may not have it.
	recalled
)

// done takes back what was taken. retryAfter is for how long the sink asked to be spared.
func (q *queue[P]) done(items []item[P], what outcome, retryAfter time.Duration) {
	now := q.clock.Now()
	switch what {
	case delivered:
		q.failures, q.pausedUntil = 0, time.Time{}
	case failed:
		// Several requests that fail together are one failure.
		if !now.Before(q.pausedUntil) {
			q.pausedUntil = now.Add(max(q.pause(q.failures), min(retryAfter, longestRetryAfter)))
			q.failures++
		}
	}
	for _, i := range items {
		at := q.slots[i.key]
		if at == nil {
			continue // Not reached: a slot stays while something of it is on its way.
		}
		at.sent, at.recall = nil, nil
		if what == delivered {
			q.ledger.told(i.key, i.want)
		} else {
			q.ledger.maybeTold(i.key, i.want)
		}
		if at.gone {
			q.ledger.forget(i.key)
		}
		if what == delivered {
			if at.want == i.want && i.want.end != "" {
				at.want = nil // There is nothing more to say.
			}
			at.alone, at.since = false, time.Time{}
			q.succeed(at)
			q.settle(at)
			continue
		}
		if at.want == nil {
			q.settle(at)
			continue
		}
		if what != recalled {
			if at.attempts == 0 {
				q.failed++
			}
			at.attempts++
		}
		if what == refused {
			at.notBefore = now.Add(q.pause(at.attempts))
			if len(items) > 1 {
				// One of them may be the reason.
				at.alone, at.notBefore = true, time.Time{}
			}
		}
		q.settle(at)
	}
}

// succeed notes that a slot does not fail any more.
func (q *queue[P]) succeed(at *slot) {
	if at.attempts > 0 {
		q.failed--
		at.attempts = 0
	}
	at.notBefore = time.Time{}
}

// pause is the wait after a number of failures before the last one.
func (q *queue[P]) pause(before int) time.Duration {
	longest := longestPause
	if before < 7 { // 250 ms × 2^7 is 32 s.
		longest = min(longestPause, firstPause<<before)
	}
	return longest - time.Duration(q.random()*float64(longest)/2)
}

// length is how many subjects have something to send or on its way, and oldest since when the
// one has that waits longest.
func (q *queue[P]) length() (n int, oldest time.Time) {
	for _, at := range q.slots {
		if at.place == nil && at.sent == nil {
			continue
		}
		n++
		if oldest.IsZero() || at.since.Before(oldest) {
			oldest = at.since
		}
	}
	return n, oldest
}
