// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
)

func from(n byte) caller { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 32) }

// A queue is what asks for turns, by letters: who has got one is in got.
type queue struct {
	t     *testing.T
	turns *turns
	mu    sync.Mutex // of what follows
	got   []string
	gives map[string]func()
	errs  map[string]error
}

func newQueue(t *testing.T, turns *turns) *queue {
	return &queue{t: t, turns: turns, gives: map[string]func(){}, errs: map[string]error{}}
}

func (q *queue) ask(ctx context.Context, name string, who caller) {
	go func() {
		give, err := q.turns.take(ctx, who)
		q.mu.Lock()
		defer q.mu.Unlock()
		if err != nil {
			q.errs[name] = err
			return
		}
		q.got, q.gives[name] = append(q.got, name), give
	}()
	synctest.Wait()
}

func (q *queue) give(name string) {
	q.t.Helper()
	if q.gives[name] == nil {
		q.t.Fatalf("%s has no turn: %v", name, q.got)
	}
	q.gives[name]()
	synctest.Wait()
}

func (q *queue) has(want ...string) {
	q.t.Helper()
	if len(q.got) != len(want) {
		q.t.Fatalf("%v have got a turn, want %v", q.got, want)
	}
	for i := range want {
		if q.got[i] != want[i] {
			q.t.Fatalf("%v have got a turn, want %v", q.got, want)
		}
	}
}

func TestOneCallerCannotHaveAllTurnsAndWaitsBehindHimself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, newTurns(3, 2, 3))
		for _, name := range []string{"a1", "a2", "a3", "a4", "a5", "a6"} {
			q.ask(t.Context(), name, from(1))
		}
		q.has("a1", "a2")
		if !errors.Is(q.errs["a6"], errBusy) {
			t.Errorf("the sixth of one caller is told %v", q.errs["a6"])
		}
		q.ask(t.Context(), "b1", from(2))
		q.has("a1", "a2", "b1")
		q.ask(t.Context(), "b2", from(2))
		q.ask(t.Context(), "c1", from(3))
		q.has("a1", "a2", "b1")
		q.give("b1")
		q.has("a1", "a2", "b1", "b2") // a has as many as he may.
		q.give("a1")
		q.has("a1", "a2", "b1", "b2", "a3")
		q.give("a2")
		q.has("a1", "a2", "b1", "b2", "a3", "c1") // a had his turn, and goes behind.
		q.give("a3")
		q.has("a1", "a2", "b1", "b2", "a3", "c1", "a4")
		for _, name := range []string{"b2", "c1", "a4"} {
			q.give(name)
			q.gives[name]() // Twice is once.
		}
		q.give("a5")
		if q.turns.used != 0 || len(q.turns.callers) != 0 || len(q.turns.next) != 0 {
			t.Errorf("left behind: %d turns, %v, %v", q.turns.used, q.turns.callers, q.turns.next)
		}
	})
}

func TestWhoDoesNotWaitAnyLongerLosesNothingForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, newTurns(1, 1, 2))
		q.ask(t.Context(), "a1", from(1))
		ctx, cancel := context.WithCancel(t.Context())
		q.ask(ctx, "a2", from(1))
		q.ask(ctx, "b1", from(2))
		q.ask(t.Context(), "b2", from(2))
		cancel()
		synctest.Wait()
		for _, name := range []string{"a2", "b1"} {
			if !errors.Is(q.errs[name], context.Canceled) {
				t.Errorf("%s: %v", name, q.errs[name])
			}
		}
		q.give("a1")
		q.has("a1", "b2")
		q.give("b2")
		if q.turns.used != 0 || len(q.turns.callers) != 0 || len(q.turns.next) != 0 {
			t.Errorf("left behind: %d turns, %v, %v", q.turns.used, q.turns.callers, q.turns.next)
		}
	})
}
