// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// server answers lists and watches with its answers, one after the other.
type server struct {
	t       *testing.T
	mu      sync.Mutex
	answers []any // error, *watch.FakeWatcher, or hang
	asked   []metav1.ListOptions
}

// hang is no answer, until the client gives up.
type hang struct{}

func (s *server) next(options metav1.ListOptions) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) == 0 {
		s.t.Error("asked once too often")
		return errors.New("nothing more")
	}
	s.asked = append(s.asked, options)
	answer := s.answers[0]
	s.answers = s.answers[1:]
	return answer
}

func (s *server) source() *Source {
	return New(&cache.ListWatch{
		ListWithContextFunc: func(_ context.Context, options metav1.ListOptions) (runtime.Object, error) {
			switch a := s.next(options).(type) {
			case error:
				return nil, a
			case *coordinationv1.LeaseList:
				return a, nil
			default:
				return &coordinationv1.LeaseList{}, nil
			}
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			switch a := s.next(options).(type) {
			case hang:
				<-ctx.Done()
				return nil, ctx.Err()
			case error:
				return nil, a
			case watch.Interface:
				return a, nil
			}
			return nil, errors.New("no answer")
		},
	})
}

// versions returns the resourceVersions from which watches were asked for.
func (s *server) versions() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.asked {
		out = append(out, o.ResourceVersion)
	}
	return out
}

func lease(version int) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(version)}}
}

func fake() *watch.FakeWatcher { return watch.NewFakeWithChanSize(10, false) }

var (
	errRefused = errors.New("connection errRefused")
	errGone    = apierrors.NewResourceExpired("too old")
)

func statusOf(err *apierrors.StatusError) *metav1.Status { return &err.ErrStatus }

// want checks which resourceVersions come next; 0 stands for an error, -1 for the
// end.
func want(t *testing.T, w watch.Interface, versions ...int) {
	t.Helper()
	for _, v := range versions {
		event, ok := <-w.ResultChan()
		got := -1
		if ok {
			got = 0
			if l, isLease := event.Object.(*coordinationv1.Lease); isLease {
				got, _ = strconv.Atoi(l.ResourceVersion)
			}
		}
		if got != v {
			t.Fatalf("got %d (%v), want %d", got, event, v)
		}
	}
}

func TestAWatchThatEndsGoesOnFromWhereItStood(t *testing.T) {
	for name, end := range map[string]func(*watch.FakeWatcher){
		"closed":  func(w *watch.FakeWatcher) { w.Stop() },
		"broken":  func(w *watch.FakeWatcher) { w.Error(statusOf(apierrors.NewInternalError(errors.New("decode")))) },
		"timeout": func(w *watch.FakeWatcher) { w.Error(statusOf(apierrors.NewTimeoutError("etcd", 0))) },
	} {
		t.Run(name, func(t *testing.T) {
			first, second := fake(), fake()
			s := &server{t: t, answers: []any{first, errRefused, apierrors.NewServiceUnavailable("starting"), second}}
			w, err := s.source().ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
			if err != nil {
				t.Fatal(err)
			}
			first.Add(lease(2))
			first.Action(watch.Bookmark, lease(5))
			want(t, w, 2, 5)
			end(first)
			second.Modify(lease(6))
			want(t, w, 6)
			if diff := cmp.Diff([]string{"1", "5", "5", "5"}, s.versions()); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			w.Stop()
			want(t, w, -1)
		})
	}
}

func TestWhatTheAPIServerSaysIsPassedOn(t *testing.T) {
	t.Run("in the stream", func(t *testing.T) {
		first := fake()
		s := &server{t: t, answers: []any{first}}
		w, err := s.source().ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
		if err != nil {
			t.Fatal(err)
		}
		first.Error(statusOf(errGone))
		want(t, w, 0, -1)
	})
	t.Run("when a watch is opened again", func(t *testing.T) {
		first := fake()
		s := &server{t: t, answers: []any{first, errGone}}
		w, err := s.source().ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
		if err != nil {
			t.Fatal(err)
		}
		first.Stop()
		event := <-w.ResultChan()
		if !apierrors.IsResourceExpired(apierrors.FromObject(event.Object)) {
			t.Errorf("got %v", event)
		}
		want(t, w, -1)
	})
	t.Run("when a watch is opened", func(t *testing.T) {
		s := &server{t: t, answers: []any{errRefused, errGone}}
		if _, err := s.source().ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"}); !apierrors.IsResourceExpired(err) {
			t.Error(err)
		}
	})
	t.Run("to a list", func(t *testing.T) {
		s := &server{t: t, answers: []any{errRefused, apierrors.NewTooManyRequests("busy", 0), errGone}}
		if _, err := s.source().ListWatch().ListWithContext(t.Context(), metav1.ListOptions{}); !apierrors.IsResourceExpired(err) {
			t.Error(err)
		}
	})
	t.Run("to a list, after a backup was restored", func(t *testing.T) {
		// As kube-apiserver sends it.
		tooLarge := apierrors.NewTimeoutError("Too large resource version: 9, current: 5", 1)
		tooLarge.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
		s := &server{t: t, answers: []any{tooLarge}}
		if _, err := s.source().ListWatch().ListWithContext(t.Context(), metav1.ListOptions{}); !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
			t.Error(err)
		}
	})
}

func TestAListIsRepeatedUntilThereIsAnAnswer(t *testing.T) {
	resource := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	for name, starting := range map[string]error{
		"the API server is away":                            errRefused,
		"it has not read the roles yet":                     apierrors.NewForbidden(resource, "", errors.New("no role")),
		"it has not read the CustomResourceDefinitions yet": apierrors.NewNotFound(resource, ""),
		"it cannot authenticate callers yet":                apierrors.NewUnauthorized(""),
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{t: t, answers: []any{starting, starting, "a list"}}
			if _, err := s.source().ListWatch().ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAWatchThatIsToBeginWithAllObjectsIsContinuedOnlyOnceTheyWereThere(t *testing.T) {
	options := metav1.ListOptions{SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}
	t.Run("cut before", func(t *testing.T) {
		first := fake()
		s := &server{t: t, answers: []any{first}}
		w, err := s.source().ListWatch().WatchWithContext(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		first.Add(lease(2))
		first.Stop()
		want(t, w, 2, -1)
	})
	t.Run("cut after", func(t *testing.T) {
		first, second := fake(), fake()
		s := &server{t: t, answers: []any{first, second}}
		w, err := s.source().ListWatch().WatchWithContext(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		end := lease(3)
		end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		first.Add(lease(2))
		first.Action(watch.Bookmark, end)
		first.Stop()
		second.Add(lease(4))
		want(t, w, 2, 3, 4)
		if last := s.asked[1]; last.SendInitialEvents != nil || last.ResourceVersionMatch != "" || last.ResourceVersion != "3" {
			t.Errorf("went on with %v", last)
		}
		w.Stop()
		want(t, w, -1)
	})
}

func TestAWatchThatIsNotOpenedIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := fake()
		w, err := (&server{t: t, answers: []any{hang{}, second}}).source().ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
		if err != nil {
			t.Fatal(err)
		}
		second.Add(lease(2))
		want(t, w, 2)
		w.Stop()
		want(t, w, -1)
	})
}

func TestReopenPutsAFreshWatchBelow(t *testing.T) {
	first, second := fake(), fake()
	s := &server{t: t, answers: []any{first, second}}
	source := s.source()
	w, err := source.ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
	if err != nil {
		t.Fatal(err)
	}
	source.Reopen()
	second.Add(lease(2))
	want(t, w, 2)
	w.Stop()
	want(t, w, -1)
	source.Reopen() // Of none.
}

func TestAWatchThatBringsNotEvenABookmarkIsOpenedAgain(t *testing.T) {
	first, second := fake(), fake()
	s := &server{t: t, answers: []any{first, second}}
	for range 100 { // For a machine that is slow: the second will be given up, too.
		s.answers = append(s.answers, fake())
	}
	source := s.source()
	source.silence = 50 * time.Millisecond
	w, err := source.ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1", AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	first.Action(watch.Bookmark, lease(5))
	want(t, w, 5)
	second.Add(lease(6)) // Nobody looks there before the first is given up.
	want(t, w, 6)
	if diff := cmp.Diff([]string{"1", "5"}, s.versions()[:2]); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	w.Stop()
	want(t, w, -1)
}

// endsWithError is a watch that reports a broken stream when it is stopped, as those of
// client-go do.
type endsWithError struct {
	*watch.FakeWatcher
	once *sync.Once
}

func (w endsWithError) Stop() {
	w.once.Do(func() {
		w.Error(statusOf(apierrors.NewInternalError(errors.New("http2: response body closed"))))
		w.FakeWatcher.Stop()
	})
}

// After a restore of etcd a watch may stand at a version that is not there yet, from
// where the API server shows nothing for as long as that takes.
func TestAWatchThatBringsNothingWhenItIsOpenedAgainBeginsWithAllObjects(t *testing.T) {
	ahead := metav1.ListOptions{ResourceVersion: "1000", AllowWatchBookmarks: true}
	t.Run("in a cache", func(t *testing.T) {
		for name, reopen := range map[string]time.Duration{"by itself": 0, "also if it is opened again all the time": time.Second} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					into := stored{cache.NewStore(cache.MetaNamespaceKeyFunc)}
					if err := into.Add(named("undone", 999)); err != nil {
						t.Fatal(err)
					}
					begun := time.Now()
					source := New(&cache.ListWatch{WatchFuncWithContext: func(_ context.Context, options metav1.ListOptions) (watch.Interface, error) {
						w := fake()
						if ptr.Deref(options.SendInitialEvents, false) {
							w.Add(named("restored", 7))
							w.Action(watch.Bookmark, whole(9))
						}
						return endsWithError{w, &sync.Once{}}, nil
					}}).Into(into)
					w, err := source.ListWatch().WatchWithContext(t.Context(), ahead)
					if err != nil {
						t.Fatal(err)
					}
					if reopen > 0 {
						go func() {
							for ; time.Since(begun) < 2*silence+time.Minute; time.Sleep(reopen) {
								source.Reopen()
							}
						}()
					}
					for _, wanted := range []string{"ADDED restored 7", "DELETED undone 999", "BOOKMARK  9"} {
						if got := into.take(t, w); got != wanted {
							t.Errorf("got %s, want %s", got, wanted)
						}
					}
					if after := time.Since(begun); after < 2*silence || after > 3*silence {
						t.Errorf("after %v", after)
					}
					w.Stop()
					time.Sleep(time.Hour)
				})
			})
		}
	})
	t.Run("by a list, without a cache", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &server{t: t, answers: []any{fake(), fake()}}
			w, err := s.source().ListWatch().WatchWithContext(t.Context(), ahead)
			if err != nil {
				t.Fatal(err)
			}
			event := <-w.ResultChan()
			if status, ok := event.Object.(*metav1.Status); !ok || status.Reason != metav1.StatusReasonExpired {
				t.Errorf("the reflector is sent %v", event)
			}
			want(t, w, -1)
		})
	})
}

func TestAWatchThatWasNotAskedForBookmarksMayBeSilent(t *testing.T) {
	first := fake()
	s := &server{t: t, answers: []any{first}}
	source := s.source()
	source.silence = time.Millisecond
	w, err := source.ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case event := <-w.ResultChan():
		t.Errorf("got %v", event)
	case <-time.After(50 * time.Millisecond):
	}
	w.Stop()
	want(t, w, -1)
}

func TestStoppingEndsAWatchThatNobodyReadsAndOneThatTriesToComeBack(t *testing.T) {
	first := fake()
	s := &server{t: t, answers: []any{first}}
	w, err := s.source().ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
	if err != nil {
		t.Fatal(err)
	}
	first.Add(lease(2))
	w.Stop()
	for range w.ResultChan() {
	}
	if !first.IsStopped() {
		t.Error("the watch below is still open")
	}
}

var seconds = regexp.MustCompile(`[0-9]+s`)

// logged returns a context, and the lines that are logged to its logger.
func logged(t *testing.T) (context.Context, *[]string) {
	var lines []string
	logger := funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
	return logr.NewContext(t.Context(), logger), &lines
}

func TestAListThatKeepsOnFailingIsLoggedOnceForEachErrorAndOnceWhenItWorksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errDecode := errors.New("parsing time")
		begun := time.Now()
		source := New(&cache.ListWatch{ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			switch d := time.Since(begun); {
			case d < time.Minute:
				return nil, errRefused
			case d < 2*time.Minute:
				return nil, errDecode
			default:
				return &coordinationv1.LeaseList{}, nil
			}
		}}).Of("Lease")
		ctx, lines := logged(t)
		if _, err := source.ListWatch().ListWithContext(ctx, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		for i := range *lines {
			(*lines)[i] = seconds.ReplaceAllString((*lines)[i], "s") // How exactly falls to chance.
		}
		if diff := cmp.Diff([]string{
			`"msg"="Reading from the API server failed; retrying" "error"="connection errRefused" "kind"="Lease" "verb"="list" "for"="s"`,
			`"msg"="Reading from the API server failed; retrying" "error"="parsing time" "kind"="Lease" "verb"="list" "for"="1ms"`,
			`"level"=0 "msg"="Reading from the API server works again" "kind"="Lease" "verb"="list" "after"="2ms"`,
		}, *lines); diff != "" {
			t.Errorf("logged (-want +got):\n%s", diff)
		}
	})
}

func TestWhatFailsForAMomentIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		source := New(&cache.ListWatch{ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			if time.Since(begun) < patience-time.Second {
				return nil, errRefused
			}
			return &coordinationv1.LeaseList{}, nil
		}})
		ctx, lines := logged(t)
		for range 2 {
			if _, err := source.ListWatch().ListWithContext(ctx, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
			begun = time.Now()
		}
		if len(*lines) > 0 {
			t.Errorf("logged %q", *lines)
		}
	})
}

// What a client makes of an object that it cannot decode.
func TestAWatchThatBringsNothingButErrorsIsLogged(t *testing.T) {
	for name, heal := range map[string]func(*watch.FakeWatcher){
		"until it brings something": func(w *watch.FakeWatcher) { w.Add(lease(2)) },
		"until it stays open":       func(*watch.FakeWatcher) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				source := New(&cache.ListWatch{WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
					w := fake()
					if time.Since(begun) < time.Hour {
						w.Error(statusOf(apierrors.NewInternalError(errors.New("unable to decode an event"))))
					} else {
						heal(w)
					}
					return w, nil
				}})
				ctx, lines := logged(t)
				w, err := source.ListWatch().WatchWithContext(ctx, metav1.ListOptions{ResourceVersion: "1"})
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					for range w.ResultChan() {
					}
				}()
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				w.Stop()
				synctest.Wait()
				if len(*lines) != 2 || !strings.Contains((*lines)[0], "unable to decode an event") || !strings.Contains((*lines)[1], "works again") {
					t.Errorf("logged %q", *lines)
				}
			})
		})
	}
}

// The text of an error may hold a port.
func TestErrorsThatDifferEachTimeAreLoggedEverMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, n := time.Now(), 0
		source := New(&cache.ListWatch{ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			if n++; time.Since(begun) < time.Hour {
				return nil, errors.New("reset by peer, port " + strconv.Itoa(n))
			}
			return &coordinationv1.LeaseList{}, nil
		}})
		ctx, lines := logged(t)
		if _, err := source.ListWatch().ListWithContext(ctx, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := len(*lines); got < 5 || got > 15 {
			t.Errorf("%d lines in an hour", got)
		}
	})
}
