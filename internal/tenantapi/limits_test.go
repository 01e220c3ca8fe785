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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"hoststatus.dev/hoststatus/internal/fairqueue"
)

// lists are requests to a server with a few seats, which note where they are.
type lists struct {
	handler http.Handler
	limits  *limits

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
	l.limits = newLimits(n, serializer.NewCodecFactory(scheme))
	l.handler = l.limits.handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.note(r.Header.Get("Name") + " begins")
		work(l, r.Header.Get("Name"), w)
	}))
	return l
}

// ask makes a request of a user without a name, or of the one before the slash in name.
func (l *lists) ask(ctx context.Context, verb, name string, w http.ResponseWriter) {
	if caller, _, ok := strings.Cut(name, "/"); ok {
		ctx = request.WithUser(ctx, &user.DefaultInfo{Name: caller})
	}
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

func TestListsNeedSeatsAndNothingElseDoes(t *testing.T) {
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

func TestAReaderThatDoesNotReadKeepsNoSeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 1, answer)
		go l.ask(t.Context(), "list", "slow", slowReader{httptest.NewRecorder(), time.Minute})
		synctest.Wait()
		go l.ask(t.Context(), "list", "next", httptest.NewRecorder())
		l.want(t, "slow begins")
		time.Sleep(readerPatience)
		l.want(t, "slow begins", "next begins", "next has written")
		// The seat is free, so the one that reads again goes on, and gives it back.
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

// A list whose reader stalls, and whose seat another has when its request ends, writes no
// more and gives back nothing that it does not have.
func TestARequestThatEndsWhileAnotherHasItsSeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 1, func(l *lists, name string, w http.ResponseWriter) {
			if _, err := w.Write(nil); err == nil {
				_, err = w.Write([]byte(name))
				l.note(fmt.Sprintf("%s wrote: %v", name, err))
			}
			if name != "stalled" {
				time.Sleep(10 * time.Second)
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

// untilAllEnd is long enough for all lists of these tests.
const untilAllEnd = 10 * time.Minute

func (l *lists) begun() (names []string) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, note := range l.notes {
		if name, ok := strings.CutSuffix(note, " begins"); ok {
			names = append(names, name)
		}
	}
	return names
}

// idle checks that everything has been given back.
func (l *limits) idle(t *testing.T) {
	t.Helper()
	for name, q := range map[string]*fairqueue.Queue[string]{"lists": l.lists, "requests": l.requests, "watches": l.watches} {
		if u := q.Usage(); u != (fairqueue.Usage{}) {
			t.Errorf("%s: %+v is left", name, u)
		}
	}
}

// idle checks that everything has been given back.
func (l *lists) idle(t *testing.T) {
	t.Helper()
	synctest.Wait()
	l.limits.idle(t)
}

func TestOneCallerCannotHaveAllSeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 4, answer)
		for i := range 20 {
			go l.ask(t.Context(), "list", fmt.Sprintf("mallory/%d", i), httptest.NewRecorder())
			synctest.Wait()
		}
		go l.ask(t.Context(), "list", "ann/1", httptest.NewRecorder())
		if got := l.begun(); !slices.Equal(got, []string{"mallory/0", "mallory/1", "ann/1"}) {
			t.Errorf("%v have begun", got)
		}
		time.Sleep(untilAllEnd)
		l.idle(t)
	})
}

func TestServiceAccountsOfOneNamespaceAreOneCaller(t *testing.T) {
	for name, want := range map[string]string{
		"ann":                          "ann",
		"system:serviceaccount:team:a": "system:serviceaccounts:team",
		"system:serviceaccount:team:b": "system:serviceaccounts:team",
		"system:serviceaccount:odd":    "system:serviceaccount:odd",
	} {
		if got := callerOf(request.WithUser(t.Context(), &user.DefaultInfo{Name: name})); got != want {
			t.Errorf("%s counts as %s", name, got)
		}
	}
}

// Whatever one caller does, it is refused from some number on, and others are not.
func TestWhatOneCallerCanHoldIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		verb  string
		limit int
		says  string
	}{
		"lists that wait": {"list", maxWaiting + 2, "wait for their turn"},
		"gets":            {"get", maxRequests, "being answered"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLists(t, 4, func(*lists, string, http.ResponseWriter) { time.Sleep(time.Second) })
				for i := range c.limit {
					go l.ask(t.Context(), c.verb, fmt.Sprintf("mallory/%d", i), httptest.NewRecorder())
				}
				synctest.Wait()
				refused, good := httptest.NewRecorder(), httptest.NewRecorder()
				began := time.Now()
				l.ask(t.Context(), c.verb, "mallory/more", refused)
				if refused.Code != http.StatusTooManyRequests || !strings.Contains(refused.Body.String(), c.says) || time.Since(began) > 0 {
					t.Errorf("one more is answered %d %s after %s", refused.Code, refused.Body, time.Since(began))
				}
				go l.ask(t.Context(), c.verb, "ann/1", good)
				synctest.Wait()
				if got := l.begun(); got[len(got)-1] != "ann/1" {
					t.Errorf("another caller waits: %v", got)
				}
				time.Sleep(untilAllEnd)
				l.idle(t)
			})
		})
	}
}

func TestAListWaitsForASeatForAWhileOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, 1, func(*lists, string, http.ResponseWriter) { time.Sleep(time.Hour) })
		go l.ask(t.Context(), "list", "ann/1", httptest.NewRecorder())
		synctest.Wait()
		refused, began := httptest.NewRecorder(), time.Now()
		l.ask(t.Context(), "list", "bob/1", refused)
		if refused.Code != http.StatusTooManyRequests || refused.Header().Get("Retry-After") == "" || time.Since(began) != seatPatience {
			t.Errorf("answered %d %s, with %v, after %s", refused.Code, refused.Body, refused.Header(), time.Since(began))
		}
		time.Sleep(time.Hour)
		l.idle(t)
	})
}

func TestWatchesOfOneCallerAreBounded(t *testing.T) {
	l := newLists(t, 1, answer)
	ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "ann"})
	other := request.WithUser(t.Context(), &user.DefaultInfo{Name: "bob"})
	var done []func()
	for range maxWatches {
		end, err := l.limits.startWatch(ctx)
		check(t, err)
		done = append(done, end)
	}
	if _, err := l.limits.startWatch(ctx); !apierrors.IsTooManyRequests(err) {
		t.Errorf("one more: %v", err)
	}
	end, err := l.limits.startWatch(other)
	check(t, err)
	end()
	for _, end := range done {
		end()
	}
	l.limits.idle(t)
}
