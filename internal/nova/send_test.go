// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"hoststatus.dev/hoststatus/internal/fairqueue"
)

// pipes is a listener whose connections have no buffer: what nobody reads blocks.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.accepted <- theirs
	return ours, nil
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accepted:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// One client takes the only seat, and its answer in its own time. Another may want the seat.
func TestASlowClientHoldsASeatWhileNobodyWantsIt(t *testing.T) {
	const size = 1 << 20
	for name, c := range map[string]struct {
		reads, wanted time.Duration // when the answer is read, and the seat is wanted
		whole         bool
		waited        time.Duration
	}{
		"nobody wants it":                      {reads: time.Minute, whole: true},
		"another wants it":                     {reads: time.Minute, wanted: time.Second, waited: slowAfter - time.Second},
		"another wants it much later":          {reads: time.Minute, wanted: 4*slowAfter + time.Second, waited: slowAfter - time.Second},
		"another wants it, and it is read now": {reads: 2 * time.Second, wanted: time.Second, whole: true, waited: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				queue := fairqueue.New[caller](fairqueue.Limits{Seats: 1, SeatsPerCaller: 1, WaitingPerCaller: 1, MaxWait: time.Hour})
				listener := &pipes{make(chan net.Conn), make(chan struct{})}
				server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					seat, err := queue.Acquire(r.Context(), caller{})
					if err != nil {
						t.Error(err)
						return
					}
					defer seat.Release()
					w.Header().Set("Content-Length", fmt.Sprint(size))
					send(w, bytes.Repeat([]byte("x"), size), seat)
				})}
				go func() { _ = server.Serve(listener) }()
				client := &http.Client{Transport: &http.Transport{DialContext: listener.dial, DisableKeepAlives: true}}
				answer, err := client.Get("http://pipe/")
				if err != nil {
					t.Error(err)
					return
				}
				synctest.Wait()
				var waited time.Duration
				other := make(chan struct{})
				go func() {
					defer close(other)
					if c.wanted == 0 {
						return
					}
					time.Sleep(c.wanted)
					begin := time.Now()
					seat, err := queue.Acquire(t.Context(), caller{1})
					if err != nil {
						t.Error(err)
						return
					}
					waited = time.Since(begin)
					seat.Release()
				}()
				time.Sleep(c.reads)
				content, err := io.ReadAll(answer.Body)
				if whole := err == nil && len(content) == size; whole != c.whole {
					t.Errorf("%d bytes arrived, %v; want all: %t", len(content), err, c.whole)
				}
				_ = answer.Body.Close()
				<-other
				if waited != c.waited {
					t.Errorf("the other waited %s, want %s", waited, c.waited)
				}
				if err := server.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
