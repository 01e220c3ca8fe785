// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// stored is a cache that takes in what take is given.
type stored struct{ cache.Store }

func (stored) HasSynced() bool         { return true }
func (s stored) GetStore() cache.Store { return s.Store }

// take returns the next event, as "ADDED a 2", after it is in the store.
func (s stored) take(t *testing.T, w watch.Interface) string {
	t.Helper()
	event, ok := <-w.ResultChan()
	if !ok {
		return "end"
	}
	l, ok := event.Object.(*coordinationv1.Lease)
	if !ok {
		return string(event.Type)
	}
	err := error(nil)
	switch event.Type {
	case watch.Added, watch.Modified:
		err = s.Add(l)
	case watch.Deleted:
		err = s.Delete(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s %s", event.Type, l.Name, l.ResourceVersion)
}

func named(name string, version int) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "hosts", Name: name, ResourceVersion: strconv.Itoa(version)}}
}

// whole is the bookmark after all objects.
func whole(version int) *coordinationv1.Lease {
	l := lease(version)
	l.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	return l
}

func TestAWatchThatCannotBeContinuedBeginsAgain(t *testing.T) {
	options := metav1.ListOptions{ResourceVersion: "4", AllowWatchBookmarks: true}
	whatIsNew := []string{"MODIFIED kept 5", "ADDED changed 7", "ADDED new 8", "DELETED gone 2", "BOOKMARK  9", "MODIFIED kept 10"}
	second := func(w *watch.FakeWatcher) {
		w.Add(named("kept", 5))
		w.Add(named("changed", 7))
		w.Add(named("new", 8))
		w.Action(watch.Bookmark, whole(9))
		w.Modify(named("kept", 10))
	}
	for name, answers := range map[string]func() []any{
		"reported in the stream": func() []any {
			first, then := fake(), fake()
			first.Modify(named("kept", 5))
			first.Error(statusOf(errGone))
			second(then)
			return []any{first, then}
		},
		"reported when it is opened again": func() []any {
			first, then := fake(), fake()
			first.Modify(named("kept", 5))
			first.Stop()
			second(then)
			return []any{first, errRefused, errGone, then}
		},
		"cut before it has shown all": func() []any {
			first, cut, then := fake(), fake(), fake()
			first.Modify(named("kept", 5))
			first.Error(statusOf(errGone))
			cut.Add(named("gone", 2))
			cut.Stop()
			second(then)
			return []any{first, cut, then}
		},
		"the object goes while all are shown": func() []any {
			first, then := fake(), fake()
			first.Modify(named("kept", 5))
			first.Error(statusOf(errGone))
			then.Add(named("kept", 5))
			then.Add(named("changed", 7))
			then.Add(named("new", 8))
			then.Add(named("gone", 2))
			then.Delete(named("gone", 2))
			then.Action(watch.Bookmark, whole(9))
			then.Modify(named("kept", 10))
			return []any{first, then}
		},
	} {
		t.Run(name, func(t *testing.T) {
			into := stored{cache.NewStore(cache.MetaNamespaceKeyFunc)}
			for _, l := range []*coordinationv1.Lease{named("kept", 1), named("gone", 2), named("changed", 3)} {
				if err := into.Add(l); err != nil {
					t.Fatal(err)
				}
			}
			s := &server{t: t, answers: answers()}
			w, err := s.source().Into(into).ListWatch().WatchWithContext(t.Context(), options)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for range whatIsNew {
				got = append(got, into.take(t, w))
			}
			if diff := cmp.Diff(whatIsNew, got); diff != "" {
				t.Errorf("passed on (-want +got):\n%s", diff)
			}
			last := s.asked[len(s.asked)-1]
			if !ptr.Deref(last.SendInitialEvents, false) || last.ResourceVersionMatch != metav1.ResourceVersionMatchNotOlderThan || last.ResourceVersion != "" {
				t.Errorf("began again with %v", last)
			}
			w.Stop()
		})
	}
}

func TestAWatchThatHasBegunAgainGoesOnFromThere(t *testing.T) {
	first, second, third := fake(), fake(), fake()
	into := stored{cache.NewStore(cache.MetaNamespaceKeyFunc)}
	s := &server{t: t, answers: []any{first, second, third}}
	w, err := s.source().Into(into).ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "4"})
	if err != nil {
		t.Fatal(err)
	}
	first.Error(statusOf(errGone))
	second.Action(watch.Bookmark, whole(9))
	second.Stop()
	third.Add(named("a", 10))
	for _, wanted := range []string{"BOOKMARK  9", "ADDED a 10"} {
		if got := into.take(t, w); got != wanted {
			t.Errorf("got %s, want %s", got, wanted)
		}
	}
	if last := s.asked[2]; last.SendInitialEvents != nil || last.ResourceVersionMatch != "" || last.ResourceVersion != "9" {
		t.Errorf("went on with %v", last)
	}
	w.Stop()
}

// What the cache has not taken in yet when all are shown, and is not among them, must go.
func TestWhatIsGoneIsLookedForOnceTheCacheHasTakenInAll(t *testing.T) {
	// brief has come, is gone when the watch begins again, and is not in the cache yet.
	brief := func(t *testing.T) (stored, watch.Interface, watch.Event) {
		t.Helper()
		first, second := fake(), fake()
		into := stored{cache.NewStore(cache.MetaNamespaceKeyFunc)}
		s := &server{t: t, answers: []any{first, second}}
		w, err := s.source().Into(into).ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "4"})
		if err != nil {
			t.Fatal(err)
		}
		first.Add(named("brief", 5))
		first.Error(statusOf(errGone))
		second.Action(watch.Bookmark, whole(9))
		return into, w, <-w.ResultChan()
	}
	synctest.Test(t, func(t *testing.T) {
		into, w, late := brief(t)
		time.Sleep(time.Second)
		if err := into.Add(late.Object); err != nil {
			t.Fatal(err)
		}
		for _, wanted := range []string{"DELETED brief 5", "BOOKMARK  9"} {
			if got := into.take(t, w); got != wanted {
				t.Errorf("got %s, want %s", got, wanted)
			}
		}
		w.Stop()
		synctest.Wait()
	})
	t.Run("and if it never does, the reflector lists", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, w, _ := brief(t)
			want(t, w, 0, -1)
		})
	})
}

func TestARenewalEndsOnceTheCacheHasWhatThereIsNow(t *testing.T) {
	options := metav1.ListOptions{ResourceVersion: "4", AllowWatchBookmarks: true}
	ended := func(done <-chan struct{}) bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	open := func(t *testing.T, options metav1.ListOptions, answers ...any) (stored, *Source, watch.Interface) {
		t.Helper()
		into := stored{cache.NewStore(cache.MetaNamespaceKeyFunc)}
		if err := into.Add(named("gone", 2)); err != nil {
			t.Fatal(err)
		}
		source := (&server{t: t, answers: answers}).source().Into(into)
		w, err := source.ListWatch().WatchWithContext(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
		return into, source, w
	}
	t.Run("of a watch that brings nothing", func(t *testing.T) {
		second := fake()
		into, source, w := open(t, options, fake(), second)
		done := source.Renew()
		second.Add(named("new", 8))
		if got := into.take(t, w); got != "ADDED new 8" || ended(done) {
			t.Errorf("got %s, ended is %v", got, ended(done))
		}
		second.Action(watch.Bookmark, whole(9))
		if got := into.take(t, w); got != "DELETED gone 2" {
			t.Errorf("got %s", got)
		}
		<-done
	})
	t.Run("of one that begins again already, which it does again", func(t *testing.T) {
		first, second, third := fake(), fake(), fake()
		into, source, w := open(t, options, first, second, third)
		first.Error(statusOf(errGone))
		second.Add(named("older", 8))
		into.take(t, w)
		done := source.Renew()
		third.Action(watch.Bookmark, whole(9))
		into.take(t, w)
		into.take(t, w)
		<-done
	})
	t.Run("asked for while the reflector has its first objects, after those", func(t *testing.T) {
		first, second := fake(), fake()
		whileListing := metav1.ListOptions{SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}
		into, source, w := open(t, whileListing, first, second)
		done := source.Renew()
		first.Action(watch.Bookmark, whole(5))
		if got := into.take(t, w); got != "BOOKMARK  5" || ended(done) {
			t.Errorf("got %s, ended is %v", got, ended(done))
		}
		second.Action(watch.Bookmark, whole(9))
		if got := into.take(t, w); got != "DELETED gone 2" {
			t.Errorf("got %s", got)
		}
		<-done
	})
	t.Run("if the API server cannot begin with all objects, once the reflector has listed them", func(t *testing.T) {
		into, source, w := open(t, options, fake(), errRefused, apierrors.NewBadRequest("sendInitialEvents is forbidden"), &coordinationv1.LeaseList{}, fake())
		done := source.Renew()
		want(t, w, 0, -1)
		if _, err := source.ListWatch().ListWithContext(t.Context(), options); err != nil || ended(done) {
			t.Errorf("%v, ended is %v", err, ended(done))
		}
		if err := into.Delete(named("gone", 2)); err != nil {
			t.Fatal(err)
		}
		if w, err := source.ListWatch().WatchWithContext(t.Context(), options); err != nil {
			t.Error(err)
		} else {
			w.Stop()
		}
		<-done
	})
	t.Run("without a cache at once", func(t *testing.T) {
		<-(&server{t: t}).source().Renew()
	})
}

// An API server may answer such a watch with errors only, within the stream.
func TestAWatchThatNeverBeginsLetsTheReflectorList(t *testing.T) {
	disabled := apierrors.NewInternalError(errors.New("a feature of the storage is disabled"))
	tooLarge := apierrors.NewTimeoutError("Too large resource version", 1)
	tooLarge.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
	for name, refusal := range map[string]*apierrors.StatusError{"disabled": disabled, "behind": tooLarge} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				into := stored{cache.NewStore(cache.MetaNamespaceKeyFunc)}
				s := &server{t: t, answers: []any{fake()}}
				for range 100 {
					refused := fake()
					refused.Error(statusOf(refusal))
					s.answers = append(s.answers, refused)
				}
				source := s.source().Into(into)
				listWatch := source.ListWatch()
				w, err := listWatch.WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "4", AllowWatchBookmarks: true})
				if err != nil {
					t.Fatal(err)
				}
				done := source.Renew()
				begun := time.Now()
				event := <-w.ResultChan()
				if status, ok := event.Object.(*metav1.Status); !ok || status.Reason != metav1.StatusReasonExpired {
					t.Errorf("the reflector is sent %v", event)
				}
				if after := time.Since(begun); after > 2*beginLimit {
					t.Errorf("it is sent after %s", after)
				}
				want(t, w, -1)

				// What a reflector does then: it lists, hands that on, and watches from there.
				s.mu.Lock()
				s.answers = []any{&coordinationv1.LeaseList{Items: []coordinationv1.Lease{*named("a", 5), *named("b", 6)}}, fake()}
				s.mu.Unlock()
				if _, err := listWatch.ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "4"}); err != nil {
					t.Fatal(err)
				}
				if asked := s.versions(); asked[len(asked)-1] != "" {
					t.Errorf("listed what there was at %s, not what there is", asked[len(asked)-1])
				}
				go func() {
					time.Sleep(time.Second)
					select {
					case <-done:
						t.Error("the renewal has ended before the cache has the list")
					default:
					}
					for _, l := range []*coordinationv1.Lease{named("a", 5), named("b", 6)} {
						if err := into.Add(l); err != nil {
							t.Error(err)
						}
					}
				}()
				w, err = listWatch.WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "6", AllowWatchBookmarks: true})
				if err != nil {
					t.Fatal(err)
				}
				<-done
				w.Stop()
				want(t, w, -1)
			})
		})
	}
}

func TestReopenLeavesAWatchAloneThatShowsAllObjects(t *testing.T) {
	first, second, third := fake(), fake(), fake()
	into := stored{cache.NewStore(cache.MetaNamespaceKeyFunc)}
	s := &server{t: t, answers: []any{first, second, third}}
	source := s.source().Into(into)
	w, err := source.ListWatch().WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "4", AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	first.Error(statusOf(errGone))
	second.Add(named("a", 5))
	into.take(t, w)
	source.Reopen()
	second.Add(named("b", 6))
	if got := into.take(t, w); got != "ADDED b 6" {
		t.Errorf("got %s", got)
	}
	source.Reopen()
	source.Reopen() // Nothing has come since.
	third.Add(named("a", 5))
	third.Add(named("c", 7))
	if got := into.take(t, w); got != "ADDED c 7" {
		t.Errorf("got %s", got)
	}
	w.Stop()
}
