// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"
)

// lists are requests to a server with a few turns, which note where they are.
type lists struct {
	handler http.Handler

	mu    sync.Mutex
	notes []string
}

func (l *lists) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = append(l.notes, what)
}

// newLists makes each list with work.
func newLists(t *testing.T, n int, work func(l *lists, name string, w http.ResponseWriter)) *lists {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	l := &lists{}
	l.handler = newTurns(n, clock.RealClock{}, serializer.NewCodecFactory(scheme)).handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.note(r.Header.Get("Name") + " begins")
		work(l, r.Header.Get("Name"), w)
	}))
	return l
}

func (l *lists) ask(ctx context.Context, verb, name string, w http.ResponseWriter) {
	r := httptest.NewRequestWithContext(request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, Verb: verb}), http.MethodGet, "/", nil)
	r.Header.Set("Name", name)
	l.handler.ServeHTTP(w, r)
}

func (l *lists) want(t *testing.T, notes ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.notes, notes) {
		t.Errorf("%q, want %q", l.notes, notes)
	}
}

// slowReader takes a while for all that it reads.
type slowReader struct {
	*httptest.ResponseRecorder
	takes time.Duration
}

func (r slowReader) Write(p []byte) (int, error) {
	time.Sleep(r.takes)
	return r.ResponseRecorder.Write(p)
}

func answer(l *lists, name string, w http.ResponseWriter) {
	_, _ = w.Write([]byte(name))
	l.note(name + " has written")
	time.Sleep(time.Second)
}

func TestListsTakeTurnsAndNothingElseDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 1, answer)
		for _, name := range []string{"a", "b"} {
			go l.ask(t.Context(), "list", name, httptest.NewRecorder())
			synctest.Wait()
		}
		l.want(t, "a begins", "a has written")
		for _, verb := range []string{"get", "watch"} {
			go l.ask(t.Context(), verb, verb, httptest.NewRecorder())
			synctest.Wait()
		}
		l.want(t, "a begins", "a has written", "get begins", "get has written", "watch begins", "watch has written")
		time.Sleep(time.Second)
		l.want(t, "a begins", "a has written", "get begins", "get has written", "watch begins", "watch has written", "b begins", "b has written")
		time.Sleep(time.Second)
	})
}

func TestWhoDoesNotReadKeepsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 1, answer)
		go l.ask(t.Context(), "list", "slow", slowReader{httptest.NewRecorder(), time.Minute})
		synctest.Wait()
		go l.ask(t.Context(), "list", "next", httptest.NewRecorder())
		l.want(t, "slow begins")
		time.Sleep(readerPatience)
		l.want(t, "slow begins", "next begins", "next has written")
		// The turn is free, so the one that reads again goes on, and gives it back.
		time.Sleep(time.Minute)
		l.want(t, "slow begins", "next begins", "next has written", "slow has written")
		time.Sleep(time.Second)
		go l.ask(t.Context(), "list", "last", httptest.NewRecorder())
		l.want(t, "slow begins", "next begins", "next has written", "slow has written", "last begins", "last has written")
		time.Sleep(time.Second)
	})
}

func TestARequestThatEndsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 1, answer)
		go l.ask(t.Context(), "list", "a", httptest.NewRecorder())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		refused := httptest.NewRecorder()
		l.ask(ctx, "list", "b", refused)
		if refused.Code != http.StatusTooManyRequests || !strings.Contains(refused.Body.String(), "try again") {
			t.Errorf("%d %s", refused.Code, refused.Body)
		}
		time.Sleep(time.Second)
		go l.ask(t.Context(), "list", "c", httptest.NewRecorder())
		l.want(t, "a begins", "a has written", "c begins", "c has written")
		time.Sleep(time.Second)
	})
}

// A reader that stalls, whose turn another has when its request ends, writes no more and
// gives back nothing that it does not have.
func TestARequestThatEndsWhileAnotherHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 1, func(l *lists, name string, w http.ResponseWriter) {
			if _, err := w.Write(nil); err == nil {
				_, err = w.Write([]byte(name))
				l.note(fmt.Sprintf("%s wrote: %v", name, err))
			}
			if name != "stalled" {
				time.Sleep(time.Minute)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		go l.ask(ctx, "list", "stalled", slowReader{httptest.NewRecorder(), time.Second})
		synctest.Wait()
		go l.ask(t.Context(), "list", "a", httptest.NewRecorder())
		time.Sleep(3 * time.Second)
		l.want(t, "stalled begins", "a begins", "a wrote: <nil>", "stalled wrote: context deadline exceeded")
		go l.ask(t.Context(), "list", "b", httptest.NewRecorder())
		l.want(t, "stalled begins", "a begins", "a wrote: <nil>", "stalled wrote: context deadline exceeded")
		time.Sleep(2 * time.Minute)
		l.want(t, "stalled begins", "a begins", "a wrote: <nil>", "stalled wrote: context deadline exceeded", "b begins", "b wrote: <nil>")
	})
}
