// SPDX-License-Identifier: Apache-2.0

package fairqueue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// requests are made by tests, and named by the letter of their caller and a number.
type requests struct {
	t *testing.T
	*Queue[byte]

	mu     sync.Mutex // of what follows
	seated []string
	seats  map[string]*Seat[byte]
	errs   map[string]error
}

func newRequests(t *testing.T, limits Limits) *requests {
	return &requests{t: t, Queue: New[byte](limits), seats: map[string]*Seat[byte]{}, errs: map[string]error{}}
}

func (r *requests) begin(ctx context.Context, names ...string) {
	for _, name := range names {
		go func() {
			seat, err := r.Acquire(ctx, name[0])
			r.note(name, seat, err)
		}()
		synctest.Wait()
	}
}

func (r *requests) resume(ctx context.Context, name string) {
	seat := r.seat(name)
	go func() { r.note(name, seat, seat.Resume(ctx)) }()
	synctest.Wait()
}

func (r *requests) note(name string, seat *Seat[byte], err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.errs[name] = err; err == nil {
		r.seated, r.seats[name] = append(r.seated, name), seat
	}
}

func (r *requests) seat(name string) *Seat[byte] {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seats[name] == nil {
		r.t.Fatalf("%s has no seat: %v", name, r.seated)
	}
	return r.seats[name]
}

func (r *requests) end(names ...string) {
	r.t.Helper()
	for _, name := range names {
		r.seat(name).Release()
		synctest.Wait()
	}
}

// want checks which requests got a seat, in their order.
func (r *requests) want(names ...string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.seated, names) {
		r.t.Fatalf("%v got a seat, want %v", r.seated, names)
	}
}

func (r *requests) wantError(name string, want error) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !errors.Is(r.errs[name], want) {
		r.t.Errorf("%s got the error %v, want %v", name, r.errs[name], want)
	}
}

// idle checks that nothing is left of any request.
func (r *requests) idle() {
	r.t.Helper()
	synctest.Wait()
	if u := r.Usage(); u != (Usage{}) || len(r.waiting) > 0 {
		r.t.Errorf("%+v and %v are left", u, r.waiting)
	}
}

func TestOneCallerCannotHaveAllSeatsAndWaitsBehindItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(t, Limits{Seats: 3, SeatsPerCaller: 2, WaitingPerCaller: 3, MaxWait: time.Minute})
		r.begin(t.Context(), "a1", "a2", "a3", "a4", "a5", "a6")
		r.want("a1", "a2")
		r.wantError("a6", ErrFull)
		r.begin(t.Context(), "b1")
		r.want("a1", "a2", "b1")
		r.begin(t.Context(), "b2", "c1")
		r.want("a1", "a2", "b1")
		if u := r.Usage(); u != (Usage{Callers: 3, Seats: 3, Waiting: 5}) {
			t.Errorf("%+v is in use", u)
		}
		r.end("b1")
		r.want("a1", "a2", "b1", "b2") // a has as many as it may.
		r.end("a1", "a1")              // Twice is once.
		r.want("a1", "a2", "b1", "b2", "a3")
		r.end("a2")
		r.want("a1", "a2", "b1", "b2", "a3", "c1") // a was served, and goes to the end.
		r.end("a3")
		r.want("a1", "a2", "b1", "b2", "a3", "c1", "a4")
		r.end("b2", "b2", "c1", "c1", "a4", "a4")
		if u := r.Usage(); u != (Usage{Callers: 1, Seats: 1}) {
			t.Errorf("%+v is in use", u)
		}
		r.end("a5")
		r.idle()
	})
}

func TestCallersAreServedRoundRobin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(t, Limits{Seats: 1, SeatsPerCaller: 1, WaitingPerCaller: 3, MaxWait: time.Minute})
		r.begin(t.Context(), "a1", "a2", "a3", "a4", "b1", "b2", "c1")
		order := []string{"a1", "a2", "b1", "c1", "a3", "b2", "a4"}
		r.end(order...)
		r.want(order...)
		r.idle()
	})
}

func TestASeatIsWantedWhileItWouldServeAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(t, Limits{Seats: 3, SeatsPerCaller: 2, WaitingPerCaller: 3, MaxWait: time.Minute})
		wanted := func(when string, a1, b1 bool) {
			t.Helper()
			if a, b := r.seat("a1").Wanted(), r.seat("b1").Wanted(); a != a1 || b != b1 {
				t.Errorf("%s: that of a is wanted: %t, want %t; that of b: %t, want %t", when, a, a1, b, b1)
			}
		}
		r.begin(t.Context(), "a1", "b1")
		wanted("one is free", false, false)
		r.begin(t.Context(), "a2", "a3")
		wanted("a waits for its own", false, false)
		r.begin(t.Context(), "b2")
		wanted("b waits for a part of its share", true, false)
		r.begin(t.Context(), "c1")
		wanted("c waits, too", true, true)
		r.seat("a1").Yield() // Which b2 takes.
		wanted("a has yielded it", false, true)
		r.end("a1", "a2", "b1", "b2", "c1", "a3")
		if r.seat("b1").Wanted() {
			t.Error("one that was released is wanted")
		}
		r.idle()
	})
}

func TestARequestThatNoLongerWaitsTakesNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(t, Limits{Seats: 1, SeatsPerCaller: 1, WaitingPerCaller: 2, MaxWait: time.Minute})
		r.begin(t.Context(), "a1")
		ctx, cancel := context.WithCancel(t.Context())
		r.begin(ctx, "a2", "b1")
		r.begin(t.Context(), "b2")
		cancel()
		r.wantError("a2", context.Canceled)
		r.wantError("b1", context.Canceled)
		r.end("a1")
		r.want("a1", "b2")
		r.end("b2")
		r.idle()
	})
}

func TestARequestWaitsForAWhileOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(t, Limits{Seats: 1, SeatsPerCaller: 1, StartedPerCaller: 2, WaitingPerCaller: 1, MaxWait: time.Minute})
		r.begin(t.Context(), "a1")
		r.seat("a1").Yield()
		r.begin(t.Context(), "b1")
		r.resume(t.Context(), "a1")
		r.begin(t.Context(), "a2")
		time.Sleep(time.Minute - time.Nanosecond)
		if u := r.Usage(); u.Waiting != 2 {
			t.Errorf("%d requests wait", u.Waiting)
		}
		time.Sleep(time.Nanosecond)
		r.wantError("a1", ErrTimeout)
		r.wantError("a2", ErrTimeout)
		r.end("b1", "a1") // A request has to end, also without its seat.
		r.idle()
	})
}

func TestARequestWithoutAQueueStartsAtOnceOrNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(t, Limits{Seats: math.MaxInt, SeatsPerCaller: 2})
		r.begin(t.Context(), "a1", "a2", "a3", "b1")
		r.want("a1", "a2", "b1")
		r.wantError("a3", ErrFull)
		r.end("a1", "a2", "b1")
		r.idle()
	})
}

func TestAYieldedSeatIsFreeForOthersAndItsRequestStillCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(t, Limits{Seats: 1, SeatsPerCaller: 1, StartedPerCaller: 2, WaitingPerCaller: 2, MaxWait: time.Minute})
		r.begin(t.Context(), "a1", "a2", "a3")
		r.seat("a1").Yield()
		r.want("a1", "a2")
		r.seat("a2").Yield()
		r.want("a1", "a2") // The seat is free, but two of a have started.
		r.begin(t.Context(), "b1")
		r.want("a1", "a2", "b1")
		r.resume(t.Context(), "a2")
		r.end("a1") // Then a3 may start, but a2 has started.
		r.end("b1")
		r.want("a1", "a2", "b1", "a2")
		r.end("a2")
		r.want("a1", "a2", "b1", "a2", "a3")
		r.end("a3")
		r.idle()
		if err := r.seat("a3").Resume(t.Context()); err != nil {
			t.Errorf("a request that has ended: %v", err)
		}
		r.idle()
		r.seat("a3").Yield()
		r.idle()
	})
}

func TestARequestThatNeedsNoSeat(t *testing.T) {
	var none *Seat[byte]
	none.Yield()
	if err := none.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	none.Release()
}

// Requests that start, yield, resume and are cancelled at random: no caller has more than
// its share, and at the end nothing is missing.
func TestSeatsAreNeitherLostNorMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Seats: 4, SeatsPerCaller: 2, StartedPerCaller: 8, WaitingPerCaller: 16, MaxWait: 30 * time.Second}
		q := New[string](limits)
		check := func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			taken := 0
			for _, f := range q.flows {
				taken += f.seats
				if f.seats > limits.SeatsPerCaller || f.started > limits.StartedPerCaller || f.seats > f.started || len(f.fresh) > limits.WaitingPerCaller {
					t.Errorf("%s has %d seats for %d requests, and %d wait", f.caller, f.seats, f.started, len(f.fresh))
				}
			}
			if taken != q.taken || taken > limits.Seats {
				t.Errorf("%d seats are held, %d are taken", taken, q.taken)
			}
		}
		random := func(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d))) }
		var asking sync.WaitGroup
		for i := range 500 {
			asking.Go(func() {
				time.Sleep(random(10 * time.Second))
				ctx, cancel := context.WithTimeout(t.Context(), random(5*time.Second))
				defer cancel()
				seat, err := q.Acquire(ctx, fmt.Sprint(i%7))
				check()
				if err != nil {
					return
				}
				defer check()
				defer seat.Release()
				for range rand.IntN(5) {
					time.Sleep(random(100 * time.Millisecond))
					seat.Yield()
					check()
					time.Sleep(random(100 * time.Millisecond))
					if seat.Resume(ctx) != nil {
						return
					}
					check()
				}
			})
		}
		asking.Wait()
		if u := q.Usage(); u != (Usage{}) || len(q.waiting) > 0 {
			t.Errorf("%+v and %v are left", u, q.waiting)
		}
	})
}
