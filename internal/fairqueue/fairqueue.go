// SPDX-License-Identifier: Apache-2.0

// Package fairqueue bounds what callers can hold at once, as kube-apiserver's priority
// and fairness does: a request takes a seat, or waits in the queue of its caller. The
// queues are served round-robin, so that a caller with many requests waits behind its
// own, not others behind them.
package fairqueue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

var (
	// ErrFull is returned if too many requests of the caller wait already.
	ErrFull = errors.New("too many requests of the same caller wait for a seat")
	// ErrTimeout is returned if no seat came free for MaxWait.
	ErrTimeout = errors.New("no seat came free in time")
)

// Limits are the bounds of a Queue.
type Limits struct {
	// Seats is how many requests have a seat at once, and SeatsPerCaller how many of one
	// caller.
	Seats, SeatsPerCaller int
	// StartedPerCaller is how many requests of one caller have started and not ended,
	// whether they have their seat or have yielded it. It matters only where seats are
	// yielded; less than SeatsPerCaller means SeatsPerCaller.
	StartedPerCaller int
	// WaitingPerCaller is how many requests of one caller wait to start. With 0 a request
	// starts at once or not at all.
	WaitingPerCaller int
	// MaxWait is how long a request waits for a seat.
	MaxWait time.Duration
}

// Queue gives seats to the requests of callers.
type Queue[C comparable] struct {
	limits Limits

	mu    sync.Mutex
	taken int
	flows map[C]*flow[C]
	// waiting are the flows with requests that wait, the next to be served first.
	waiting []*flow[C]
}

// flow is what one caller holds, and what it waits for. A channel is closed when its
// request gets a seat.
type flow[C comparable] struct {
	caller         C
	seats, started int
	// resuming are the requests that have yielded their seat and want it back. They go
	// before those in fresh, which have not started: they hold memory already.
	resuming, fresh []chan struct{}
}

// New returns a Queue without requests.
func New[C comparable](limits Limits) *Queue[C] {
	limits.StartedPerCaller = max(limits.StartedPerCaller, limits.SeatsPerCaller)
	return &Queue[C]{limits: limits, flows: map[C]*flow[C]{}}
}

// Seat is that of one request, from Acquire to Release. One goroutine uses it at a time.
// A nil Seat is that of a request which needs none.
type Seat[C comparable] struct {
	queue *Queue[C]
	flow  *flow[C]
	// held and released are guarded by queue.mu.
	held, released bool
}

// Acquire waits for a seat. It returns ErrFull, ErrTimeout or the cause of ctx's end if
// there is none.
func (q *Queue[C]) Acquire(ctx context.Context, caller C) (*Seat[C], error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flows[caller]
	if f == nil {
		f = &flow[C]{caller: caller}
		q.flows[caller] = f
	}
	if err := q.wait(ctx, f, &f.fresh, q.limits.WaitingPerCaller); err != nil {
		return nil, err
	}
	return &Seat[C]{queue: q, flow: f, held: true}, nil
}

// Yield gives the seat to others until Resume.
func (s *Seat[C]) Yield() {
	if s == nil {
		return
	}
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	s.leave()
	s.queue.dispatch(s.flow)
}

// Resume waits for a seat again if it was yielded. It returns ErrTimeout or the cause of
// ctx's end if there is none.
func (s *Seat[C]) Resume(ctx context.Context) error {
	if s == nil {
		return nil
	}
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	if s.held || s.released {
		return nil
	}
	if err := s.queue.wait(ctx, s.flow, &s.flow.resuming, s.queue.limits.StartedPerCaller); err != nil {
		return err
	}
	s.held = true
	return nil
}

// Release ends the request, whether it has its seat or has yielded it. Later calls of any
// method do nothing.
func (s *Seat[C]) Release() {
	if s == nil {
		return
	}
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	if s.released {
		return
	}
	s.released = true
	s.flow.started--
	s.leave()
	s.queue.dispatch(s.flow)
}

// Wanted reports whether another caller waits that this seat would serve: all are taken, and
// that caller holds less than its share.
func (s *Seat[C]) Wanted() bool {
	if s == nil {
		return false
	}
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	q := s.queue
	return s.held && q.taken >= q.limits.Seats && slices.ContainsFunc(q.waiting, func(f *flow[C]) bool {
		return f != s.flow && f.seats < q.limits.SeatsPerCaller
	})
}

// leave frees the seat if it is held. The caller holds queue.mu.
func (s *Seat[C]) leave() {
	if s.held {
		s.held = false
		s.flow.seats--
		s.queue.taken--
	}
}

// wait waits in line, one of the two of f, for a seat, unless limit requests wait there
// already. The caller holds q.mu, which is unlocked during the wait.
func (q *Queue[C]) wait(ctx context.Context, f *flow[C], line *[]chan struct{}, limit int) error {
	ready := make(chan struct{})
	*line = append(*line, ready)
	if !slices.Contains(q.waiting, f) {
		q.waiting = append(q.waiting, f)
	}
	q.dispatch(f)
	if !slices.Contains(*line, ready) {
		return nil
	}
	err := ErrFull
	if len(*line) <= limit {
		ctx, cancel := context.WithTimeoutCause(ctx, q.limits.MaxWait, ErrTimeout)
		defer cancel()
		q.mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
		}
		q.mu.Lock()
		err = context.Cause(ctx)
	}
	i := slices.Index(*line, ready)
	if i < 0 {
		return nil // Also if the seat came at the moment when the wait ended.
	}
	*line = slices.Delete(*line, i, i+1)
	q.dispatch(f)
	return err
}

// dispatch gives free seats to requests that wait, after something of f has changed, and
// drops f if nothing is left of it. The caller holds q.mu.
func (q *Queue[C]) dispatch(f *flow[C]) {
	for i := 0; i < len(q.waiting); {
		next := q.waiting[i]
		if !q.seat(next) && next.waits() {
			i++
			continue
		}
		q.waiting = slices.Delete(q.waiting, i, i+1)
		if next.waits() {
			q.waiting = append(q.waiting, next)
		}
	}
	if f.started == 0 && !f.waits() {
		delete(q.flows, f.caller)
	}
}

// seat gives a seat to the next request of f, and reports whether it could.
func (q *Queue[C]) seat(f *flow[C]) bool {
	line := &f.resuming
	switch {
	case q.taken >= q.limits.Seats || f.seats >= q.limits.SeatsPerCaller:
		return false
	case len(f.resuming) > 0:
	case len(f.fresh) > 0 && f.started < q.limits.StartedPerCaller:
		line = &f.fresh
		f.started++
	default:
		return false
	}
	close((*line)[0])
	*line = slices.Delete(*line, 0, 1)
	f.seats++
	q.taken++
	return true
}

func (f *flow[C]) waits() bool { return len(f.resuming) > 0 || len(f.fresh) > 0 }

// Usage is what callers hold of a Queue.
type Usage struct {
	// Callers is how many hold or wait for something.
	Callers int
	// Seats is how many seats are taken, and Waiting how many requests wait for one.
	Seats, Waiting int
}

// Usage returns what callers hold now.
func (q *Queue[C]) Usage() Usage {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := Usage{Callers: len(q.flows), Seats: q.taken}
	for _, f := range q.waiting {
		u.Waiting += len(f.resuming) + len(f.fresh)
	}
	return u
}
