// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

const (
	// turnsPerCPU is how many lists are made at once, for each CPU: one is worked on
	// while another waits for kube-apiserver.
	turnsPerCPU = 2
	// readerPatience is for how long a reader that does not read keeps its turn.
	readerPatience = 50 * time.Millisecond
)

// turns lets a few lists be made at a time, in the order in which they came. A list is
// mostly work, so more of them at once are not faster. But each holds all that it
// returns in memory, and what is light waits behind them: gets, and the probe by which
// kube-apiserver finds out whether this API is there, without which it is gone for
// everybody. kube-apiserver's priority and fairness, which each request has passed, is
// fair among users, but does not know how large the lists of an aggregated API are.
type turns struct {
	// free has one element for each list that may begin.
	free  chan struct{}
	clock clock.WithDelayedExecution
	// refuse answers a request.
	refuse func(error, http.ResponseWriter, *http.Request)
}

func newTurns(n int, c clock.WithDelayedExecution, s runtime.NegotiatedSerializer) *turns {
	t := &turns{
		free:  make(chan struct{}, n),
		clock: c,
		refuse: func(err error, w http.ResponseWriter, r *http.Request) {
			responsewriters.ErrorNegotiated(err, s, v1alpha1.SchemeGroupVersion, w, r)
		},
	}
	for range n {
		t.give()
	}
	return t
}

func (t *turns) give() { t.free <- struct{}{} }

func (t *turns) take(ctx context.Context) error {
	select {
	case <-t.free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// handler lets lists wait for their turn, and passes everything else on.
func (t *turns) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := request.RequestInfoFrom(r.Context()); !ok || !info.IsResourceRequest || info.Verb != "list" {
			next.ServeHTTP(w, r)
			return
		}
		if t.take(r.Context()) != nil {
			t.refuse(apierrors.NewTooManyRequests("more servers are being listed than can be at once; try again, with a limit or resourceVersion=0", 1), w, r)
			return
		}
		answer := &turnWriter{ResponseWriter: w, turns: t, ctx: r.Context(), mine: true}
		defer answer.end()
		next.ServeHTTP(responsewriter.WrapForHTTP1Or2(answer), r)
	})
}

// turnWriter writes an answer whose turn it is. While the reader does not read, the
// turn is another's, so that nobody can keep it.
type turnWriter struct {
	http.ResponseWriter
	turns *turns
	ctx   context.Context
	mine  bool
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *turnWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements http.ResponseWriter.
func (w *turnWriter) Write(p []byte) (int, error) {
	if !w.mine { // The request has ended before its turn came again.
		return 0, context.Cause(w.ctx)
	}
	lent := w.turns.clock.AfterFunc(readerPatience, w.turns.give)
	defer func() {
		if !lent.Stop() {
			w.mine = w.turns.take(w.ctx) == nil
		}
	}()
	return w.ResponseWriter.Write(p)
}

func (w *turnWriter) end() {
	if w.mine {
		w.turns.give()
	}
}
