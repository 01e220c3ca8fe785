// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// errBusy is for a caller who has too many waiting already.
var errBusy = errors.New("too many of the same caller are waiting")

// turns lets a few go on at a time, and fewer of one caller than of all. Those who wait
// are let in caller by caller, so that one who sends much waits behind himself only.
type turns struct {
	total, each, waiting int

	mu      sync.Mutex
	used    int
	callers map[caller]*turnsOf
	// next are the callers who have somebody waiting, in their order.
	next []*turnsOf
}

// turnsOf is what one caller has: turns, and those who wait for one.
type turnsOf struct {
	caller  caller
	holds   int
	waiting []chan struct{}
}

// newTurns makes total turns, of which one caller has at most each, while as many as
// waiting of his wait.
func newTurns(total, each, waiting int) *turns {
	return &turns{total: total, each: each, waiting: waiting, callers: map[caller]*turnsOf{}}
}

// take waits for a turn, which give gives back.
func (t *turns) take(ctx context.Context, who caller) (give func(), err error) {
	t.mu.Lock()
	of := t.callers[who]
	if of == nil {
		of = &turnsOf{caller: who}
		t.callers[who] = of
	}
	give = sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.back(of)
	})
	if t.used < t.total && of.holds < t.each && len(of.waiting) == 0 {
		t.used++
		of.holds++
		t.mu.Unlock()
		return give, nil
	}
	if len(of.waiting) >= t.waiting {
		t.forget(of)
		t.mu.Unlock()
		return nil, errBusy
	}
	mine := make(chan struct{})
	if len(of.waiting) == 0 {
		t.next = append(t.next, of)
	}
	of.waiting = append(of.waiting, mine)
	t.mu.Unlock()

	select {
	case <-mine:
		return give, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(of.waiting, mine); i >= 0 {
		of.waiting = slices.Delete(of.waiting, i, i+1)
		if len(of.waiting) == 0 {
			t.next = slices.DeleteFunc(t.next, func(o *turnsOf) bool { return o == of })
		}
		t.forget(of)
	} else {
		t.back(of) // It came at the same moment.
	}
	return nil, context.Cause(ctx)
}

// back gives a turn back and lets in who is next.
func (t *turns) back(of *turnsOf) {
	t.used--
	of.holds--
	for i := 0; i < len(t.next) && t.used < t.total; {
		next := t.next[i]
		if next.holds >= t.each {
			i++
			continue
		}
		t.used++
		next.holds++
		close(next.waiting[0])
		next.waiting = slices.Delete(next.waiting, 0, 1)
		t.next = slices.Delete(t.next, i, i+1)
		if len(next.waiting) > 0 {
			t.next = append(t.next, next)
		}
	}
	t.forget(of)
}

// forget drops a caller who has nothing here.
func (t *turns) forget(of *turnsOf) {
	if of.holds == 0 && len(of.waiting) == 0 {
		delete(t.callers, of.caller)
	}
}
