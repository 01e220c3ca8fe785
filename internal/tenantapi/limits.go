// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/fairqueue"
)

const (
	// seatsPerCPU is how many lists are worked on at once, for each CPU. One caller can
	// have half of them.
	seatsPerCPU = 2
	// readerPatience is for how long a list keeps its seat while its reader reads nothing.
	readerPatience = 50 * time.Millisecond
	// seatPatience is for how long a list waits for a seat. It is less than the minute that
	// a request has, so that the answer can state what it waited for.
	seatPatience = 30 * time.Second
	// maxWaiting is how many lists of one caller wait to start, and maxRequests how many
	// requests of one caller are answered at once, those that wait included. The generic
	// server answers 400 of all callers; but each also holds a seat of kube-apiserver's
	// priority and fairness, where a level like global-default has a few dozen for all.
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

// limits bounds what one caller can make the server hold.
//
// Lists need a seat. A list is mostly work, so more of them at once are not faster. But
// each holds all that it returns in memory, and light requests wait behind them: gets,
// and the probe by which kube-apiserver finds out whether this API is there, without
// which it is gone for all callers. kube-apiserver's priority and fairness, which each
// request has passed, does not know how large the lists of an aggregated API are. A seat
// stands for CPU, and a list that has started for memory. So a list that waits for
// kube-apiserver or for its reader yields its seat, but still counts as started.
type limits struct {
	lists, requests, watches *fairqueue.Queue[string]
	// refuse answers a request with an error.
	refuse func(error, http.ResponseWriter, *http.Request)
}

func newLimits(seats int, s runtime.NegotiatedSerializer) *limits {
	return &limits{
		lists: fairqueue.New[string](fairqueue.Limits{
			Seats: seats, SeatsPerCaller: max(1, seats/2),
			StartedPerCaller: 2 * seats, WaitingPerCaller: maxWaiting, MaxWait: seatPatience,
		}),
		requests: fairqueue.New[string](fairqueue.Limits{Seats: math.MaxInt, SeatsPerCaller: maxRequests}),
		watches:  fairqueue.New[string](fairqueue.Limits{Seats: math.MaxInt, SeatsPerCaller: maxWatches}),
		refuse: func(err error, w http.ResponseWriter, r *http.Request) {
			responsewriters.ErrorNegotiated(err, s, v1alpha1.SchemeGroupVersion, w, r)
		},
	}
}

// refused counts a request that is one too many, and returns its error.
func refused(reason, message string) error {
	refusals.WithLabelValues(reason).Inc()
	return apierrors.NewTooManyRequests(message, 1)
}

// callerOf returns the caller that a request counts for. The service accounts of one
// namespace are one caller, because anyone who can create one there can create as many as
// needed.
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

// listSeat is the seat of one list, or of the list that a watch begins with. The zero
// listSeat is that of a request which needs none.
type listSeat struct{ *fairqueue.Seat[string] }

// startList waits for the seat of a list.
func (l *limits) startList(ctx context.Context) (listSeat, error) {
	seat, err := l.lists.Acquire(ctx, callerOf(ctx))
	return listSeat{seat}, seatError(err)
}

// Resume waits for the seat again if it was yielded.
func (s listSeat) Resume(ctx context.Context) error {
	return seatError(s.Seat.Resume(ctx))
}

// await waits, without the seat, for done, which is closed when ctx ends at the latest.
func (s listSeat) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	s.Yield()
	<-done
	return s.Resume(ctx)
}

// seatError counts a list that gets no seat, and returns its error. An error of the
// request itself stays as it is.
func seatError(err error) error {
	switch {
	case errors.Is(err, fairqueue.ErrFull):
		return refused(refusedWaiting, "too many of your lists of servers wait for their turn; try again, with fewer at once")
	case errors.Is(err, fairqueue.ErrTimeout):
		return refused(refusedPatience, "more servers are being listed than can be at once; try again, with a limit or resourceVersion=0")
	}
	return err
}

// explainSeat returns the answer to a list that gets no seat.
func explainSeat(err error) error {
	if apierrors.IsTooManyRequests(err) {
		return err
	}
	return apierrors.NewTooManyRequests("the request ended before the turn of its list came; try again, with a limit or resourceVersion=0", 1)
}

// startWatch counts a watch of the caller until release is called.
func (l *limits) startWatch(ctx context.Context) (release func(), err error) {
	seat, err := l.watches.Acquire(ctx, callerOf(ctx))
	if err != nil {
		return nil, refused(refusedWatches, "you have too many watches of servers open; close some, or watch more with one")
	}
	return seat.Release, nil
}

type contextKey struct{}

func withSeat(ctx context.Context, seat listSeat) context.Context {
	return context.WithValue(ctx, contextKey{}, seat)
}

// seatOf returns the seat of the list that ctx is of, the zero listSeat if it needs none.
func seatOf(ctx context.Context) listSeat {
	seat, _ := ctx.Value(contextKey{}).(listSeat)
	return seat
}

// handler counts requests, and lets lists wait for a seat. Watches are counted by storage,
// where a watch begins and ends.
func (l *limits) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		info, ok := request.RequestInfoFrom(ctx)
		if !ok || !info.IsResourceRequest || info.Verb == "watch" {
			next.ServeHTTP(w, r)
			return
		}
		counted, err := l.requests.Acquire(ctx, callerOf(ctx))
		if err != nil {
			l.refuse(refused(refusedRequests, "too many of your requests are being answered; try again, with fewer at once"), w, r)
			return
		}
		defer counted.Release()
		if info.Verb != "list" {
			next.ServeHTTP(w, r)
			return
		}
		seat, err := l.startList(ctx)
		if err != nil {
			l.refuse(explainSeat(err), w, r)
			return
		}
		defer seat.Release()
		ctx = withSeat(ctx, seat)
		next.ServeHTTP(responsewriter.WrapForHTTP1Or2(&listWriter{ResponseWriter: w, seat: seat, ctx: ctx}), r.WithContext(ctx))
	})
}

// listWriter writes the answer to a list. While the reader does not read, the list yields
// its seat, so that no reader can keep it.
type listWriter struct {
	http.ResponseWriter
	seat listSeat
	ctx  context.Context
	// lost is why there is no seat to go on with.
	lost error
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *listWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements http.ResponseWriter.
func (w *listWriter) Write(p []byte) (int, error) {
	if w.lost == nil {
		// Nobody reads the answer to a request that has ended, so the work for it stops.
		w.lost = context.Cause(w.ctx)
	}
	if w.lost != nil {
		return 0, w.lost
	}
	yielded := make(chan struct{})
	patience := time.AfterFunc(readerPatience, func() {
		w.seat.Yield()
		close(yielded)
	})
	defer func() {
		if !patience.Stop() {
			<-yielded
			w.lost = w.seat.Resume(w.ctx)
		}
	}()
	return w.ResponseWriter.Write(p)
}
