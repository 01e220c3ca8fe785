// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

const (
	// turnsPerCPU is how many lists are worked on at once, for each CPU. One caller can
	// have half of them.
	turnsPerCPU = 2
	// readerPatience is for how long a reader that does not read keeps its turn.
	readerPatience = 50 * time.Millisecond
	// turnPatience is for how long a list waits for a turn. It is less than the minute
	// that a request has, so that its answer says what it waited for.
	turnPatience = 30 * time.Second
	// maxWaiting is how many lists of one caller wait for their turn, and maxRequests how
	// many requests of one caller are answered at once, those that wait included. The
	// generic server answers 400 of all callers; but each also holds a seat of
	// kube-apiserver's priority and fairness, where a level like global-default has a few
	// dozen for everybody.
	maxWaiting  = 16
	maxRequests = 32
	// maxWatches is how many watches one caller can have open.
	maxWatches = 1000
)

// Why a request was refused.
const (
	refusedWaiting  = "waiting"
	refusedPatience = "patience"
	refusedRequests = "requests"
	refusedWatches  = "watches"
	refusedSelector = "selector"
)

// turns lets a few lists be worked on at a time. A list is mostly work, so more of them
// at once are not faster. But each holds all that it returns in memory, and what is
// light waits behind them: gets, and the probe by which kube-apiserver finds out whether
// this API is there, without which it is gone for everybody. kube-apiserver's priority
// and fairness, which each request has passed, does not know how large the lists of an
// aggregated API are.
//
// Whatever a caller can make the server hold is counted for that caller: requests,
// watches, lists that have begun (which hold memory), turns (which hold CPU), and lists
// that wait. Callers that wait are served in turn, however many lists each has waiting.
type turns struct {
	// share is how many turns one caller can have, and places how many of its lists can
	// have begun: those that have a turn, that wait for kube-apiserver, and whose readers
	// do not read.
	share, places int
	clock         clock.WithDelayedExecution
	// refuse answers a request.
	refuse func(error, http.ResponseWriter, *http.Request)

	mu sync.Mutex
	// free is how many turns nobody has.
	free     int
	accounts map[string]*account
	// waiting are the accounts that have lists waiting; whose turn is next comes first.
	waiting []*account
}

// account is what one caller holds.
type account struct {
	name              string
	requests, watches int
	begun, held       int
	// again are the lists that have begun and wait for their turn once more, fresh those
	// that have not begun.
	again, fresh []chan struct{}
}

func newTurns(n int, c clock.WithDelayedExecution, s runtime.NegotiatedSerializer) *turns {
	return &turns{
		free:     n,
		share:    max(1, n/2),
		places:   2 * n,
		clock:    c,
		accounts: map[string]*account{},
		refuse: func(err error, w http.ResponseWriter, r *http.Request) {
			responsewriters.ErrorNegotiated(err, s, v1alpha1.SchemeGroupVersion, w, r)
		},
	}
}

// refused returns the error of a request that is one too many.
func refused(reason, message string) error {
	refusals.WithLabelValues(reason).Inc()
	return apierrors.NewTooManyRequests(message, 1)
}

// callerOf returns for whom a request counts. The service accounts of one namespace are
// one caller, because whoever can make one there can make as many as needed.
func callerOf(ctx context.Context) string {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return ""
	}
	if namespace, _, err := serviceaccount.SplitUsername(u.GetName()); err == nil {
		return serviceaccount.MakeNamespaceGroupName(namespace)
	}
	return u.GetName()
}

// account returns the caller's, with t.mu held.
func (t *turns) account(name string) *account {
	a := t.accounts[name]
	if a == nil {
		a = &account{name: name}
		t.accounts[name] = a
	}
	return a
}

// tidy forgets an account that holds nothing, with t.mu held.
func (t *turns) tidy(a *account) {
	if a.requests == 0 && a.watches == 0 && a.begun == 0 && len(a.again) == 0 && len(a.fresh) == 0 {
		delete(t.accounts, a.name)
	}
}

// count adds one to what counter finds in the caller's account, unless it is limit
// already. It returns how to take it away.
func (t *turns) count(caller string, limit int, counter func(*account) *int) (done func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.account(caller)
	n := counter(a)
	if *n >= limit {
		return nil, false
	}
	*n++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		*n--
		t.tidy(a)
	}, true
}

// take waits for a turn.
func (t *turns) take(ctx context.Context, caller string, fresh bool) error {
	ready := make(chan struct{})
	t.mu.Lock()
	a := t.account(caller)
	queue := &a.again
	if fresh {
		queue = &a.fresh
		if len(a.fresh) >= maxWaiting {
			t.mu.Unlock()
			return refused(refusedWaiting, "too many of your lists of servers wait for their turn; try again, with fewer at once")
		}
	}
	*queue = append(*queue, ready)
	if !slices.Contains(t.waiting, a) {
		t.waiting = append(t.waiting, a)
	}
	t.pass()
	t.mu.Unlock()
	select {
	case <-ready:
		return nil
	default:
	}
	listsWaiting.WithLabelValues().Inc()
	defer listsWaiting.WithLabelValues().Dec()
	patience := t.clock.NewTimer(turnPatience)
	defer patience.Stop()
	var err error
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-patience.C():
		err = refused(refusedPatience, "more servers are being listed than can be at once; try again, with a limit or resourceVersion=0")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(*queue, ready); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
		t.pass() // It drops the account from those that wait.
		t.tidy(a)
		return err
	}
	t.give(a, fresh) // It came at that moment.
	return err
}

// give takes a turn back, and with ends the place of its list, with t.mu held.
func (t *turns) give(a *account, ends bool) {
	t.free++
	a.held--
	if ends {
		a.begun--
	}
	t.pass()
	t.tidy(a)
}

// pass gives the free turns to those that wait, with t.mu held.
func (t *turns) pass() {
	for i := 0; i < len(t.waiting); {
		a := t.waiting[i]
		if len(a.again) == 0 && len(a.fresh) == 0 {
			t.waiting = slices.Delete(t.waiting, i, i+1)
			continue
		}
		if t.free == 0 {
			i++
			continue
		}
		ready := t.next(a)
		if ready == nil {
			i++
			continue
		}
		t.free--
		a.held++
		close(ready)
		t.waiting = append(slices.Delete(t.waiting, i, i+1), a)
	}
}

// next returns which list of the caller may go on, nil if none may, with t.mu held.
func (t *turns) next(a *account) (ready chan struct{}) {
	switch {
	case a.held >= t.share:
		return nil
	case len(a.again) > 0:
		ready = a.again[0]
		a.again = slices.Delete(a.again, 0, 1)
	case len(a.fresh) > 0 && a.begun < t.places:
		ready = a.fresh[0]
		a.fresh = slices.Delete(a.fresh, 0, 1)
		a.begun++
	}
	return ready
}

// turn is that of one list, or of the list that a watch begins with. It is used by one
// goroutine at a time. A nil turn is that of a list which needs none.
type turn struct {
	turns  *turns
	caller string
	// held and ended are under turns.mu.
	held, ended bool
}

// begin waits for the turn of a list that has not begun.
func (t *turns) begin(ctx context.Context, caller string) (*turn, error) {
	if err := t.take(ctx, caller, true); err != nil {
		return nil, err
	}
	return &turn{turns: t, caller: caller, held: true}, nil
}

// release lets others have the turn, until retake.
func (t *turn) release() {
	if t == nil {
		return
	}
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	if t.held {
		t.held = false
		t.turns.give(t.turns.account(t.caller), false)
	}
}

// retake waits for the turn, if it has been released.
func (t *turn) retake(ctx context.Context) error {
	if t == nil || t.has() {
		return nil
	}
	if err := t.turns.take(ctx, t.caller, false); err != nil {
		return err
	}
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	t.held = true
	return nil
}

// has says whether there is nothing to wait for: others do not have the turn.
func (t *turn) has() bool {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	return t.held || t.ended
}

// await waits for done, which is closed when ctx ends at the latest, without the turn.
func (t *turn) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	t.release()
	<-done
	return t.retake(ctx)
}

// end gives back what the list held.
func (t *turn) end() {
	if t == nil {
		return
	}
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	a := t.turns.account(t.caller)
	if t.held {
		t.held = false
		t.turns.give(a, true)
		return
	}
	a.begun--
	t.turns.pass()
	t.turns.tidy(a)
}

type contextKey int

const (
	turnsKey contextKey = iota
	turnKey
)

func withTurn(ctx context.Context, t *turn) context.Context {
	return context.WithValue(ctx, turnKey, t)
}

// turnOf returns the turn that the work of a request has, nil if it needs none.
func turnOf(ctx context.Context) *turn {
	t, _ := ctx.Value(turnKey).(*turn)
	return t
}

// turnsOf returns the turns of the server that answers a request.
func turnsOf(ctx context.Context) *turns {
	t, _ := ctx.Value(turnsKey).(*turns)
	return t
}

// beginWatch counts a watch of the caller.
func beginWatch(ctx context.Context) (done func(), err error) {
	t := turnsOf(ctx)
	if t == nil {
		return func() {}, nil
	}
	done, ok := t.count(callerOf(ctx), maxWatches, func(a *account) *int { return &a.watches })
	if !ok {
		return nil, refused(refusedWatches, "you have too many watches of servers open; close some, or watch more with one")
	}
	return done, nil
}

// beginList waits for the turn of the list that a watch begins with.
func beginList(ctx context.Context) (*turn, error) {
	t := turnsOf(ctx)
	if t == nil {
		return nil, nil
	}
	return t.begin(ctx, callerOf(ctx))
}

// handler lets lists wait for their turn, and counts everything else.
func (t *turns) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || !info.IsResourceRequest {
			next.ServeHTTP(w, r)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), turnsKey, t))
		if info.Verb == "watch" {
			next.ServeHTTP(w, r)
			return
		}
		caller := callerOf(r.Context())
		done, ok := t.count(caller, maxRequests, func(a *account) *int { return &a.requests })
		if !ok {
			t.refuse(refused(refusedRequests, "too many of your requests are being answered; try again, with fewer at once"), w, r)
			return
		}
		defer done()
		if info.Verb != "list" {
			next.ServeHTTP(w, r)
			return
		}
		mine, err := t.begin(r.Context(), caller)
		if err != nil {
			t.refuse(explainTurn(err), w, r)
			return
		}
		defer mine.end()
		r = r.WithContext(withTurn(r.Context(), mine))
		next.ServeHTTP(responsewriter.WrapForHTTP1Or2(&turnWriter{ResponseWriter: w, turn: mine, ctx: r.Context()}), r)
	})
}

// explainTurn makes an answer of why a turn did not come.
func explainTurn(err error) error {
	if apierrors.IsTooManyRequests(err) {
		return err
	}
	return apierrors.NewTooManyRequests("the request ended before the turn of its list came; try again, with a limit or resourceVersion=0", 1)
}

// turnWriter writes an answer whose turn it is. While the reader does not read, the
// turn is another's, so that nobody can keep it.
type turnWriter struct {
	http.ResponseWriter
	turn *turn
	ctx  context.Context
	// lost is why the turn did not come again.
	lost error
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *turnWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements http.ResponseWriter.
func (w *turnWriter) Write(p []byte) (int, error) {
	if w.lost == nil {
		// Nobody reads what a request that has ended writes, and the work for it stops.
		w.lost = context.Cause(w.ctx)
	}
	if w.lost != nil {
		return 0, w.lost
	}
	released := make(chan struct{})
	lend := w.turn.turns.clock.AfterFunc(readerPatience, func() {
		w.turn.release()
		close(released)
	})
	defer func() {
		if !lend.Stop() {
			<-released
			w.lost = w.turn.retake(w.ctx)
		}
	}()
	return w.ResponseWriter.Write(p)
}
