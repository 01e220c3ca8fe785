// SPDX-License-Identifier: Apache-2.0

package steadywatch

import (
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

func TestAWatchThatCannotBeContinuedBeginsAnew(t *testing.T) {
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
		"told in the stream": func() []any {
			first, then := fake(), fake()
			first.Modify(named("kept", 5))
			first.Error(statusOf(errGone))
			second(then)
			return []any{first, then}
		},
		"told when it is opened again": func() []any {
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
				t.Errorf("began anew with %v", last)
			}
			w.Stop()
		})
	}
}

func TestAWatchThatHasBegunAnewGoesOnFromThere(t *testing.T) {
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
	// brief has come, is gone when the watch begins anew, and is not in the cache yet.
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
	t.Run("of one that begins anew already, which it does again", func(t *testing.T) {
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
	t.Run("if the API server cannot begin with all objects, when the reflector is told", func(t *testing.T) {
		_, source, w := open(t, options, fake(), errRefused, apierrors.NewBadRequest("sendInitialEvents is forbidden"))
		done := source.Renew()
		want(t, w, 0, -1)
		<-done
	})
	t.Run("without a cache at once", func(t *testing.T) {
		<-(&server{t: t}).source().Renew()
	})
}
