// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// Cache is where the objects of a Source end up, such as an informer.
type Cache interface {
	// HasSynced reports whether the first list is in the store.
	HasSynced() bool
	GetStore() cache.Store
}

const (
	// settleLimit is how long a cache may take to store what it was sent.
	settleLimit = 10 * time.Second
	// beginLimit is how long the API server may answer a watch that is to begin with all
	// objects with errors, before the reflector is made to list them.
	beginLimit = 5 * time.Second
)

// Into sets where the objects of s end up. With that, a watch that the API server
// cannot continue begins again by itself: after a restart kube-apiserver answers nearly
// every watch with 410 Gone, and an informer then waits for up to 30 s. s must be the
// only source of c. It returns s.
func (s *Source) Into(c Cache) *Source {
	s.into = c
	return s
}

// restarts reports whether the next watch can begin with all objects, because err means that
// it cannot continue. Objects that have not changed will not be passed on again, and those
// that are gone will be passed on as deleted.
func (w *stream) restarts(err error) bool {
	if w.source.into == nil || !w.resumable() || !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		return false
	}
	w.begin()
	return true
}

// begin makes the next watch begin with all objects. Without a version it shows the state
// at the time it is opened, no matter which API server answers.
func (w *stream) begin() {
	w.options.SendInitialEvents = ptr.To(true)
	w.options.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
	w.options.ResourceVersion = ""
	w.options.AllowWatchBookmarks = true
	w.present, w.refused, w.unheard = map[string]struct{}{}, time.Time{}, 0
}

// replay takes an event of a watch that begins with all objects, and reports whether to
// pass it on.
func (w *stream) replay(event watch.Event) (news bool) {
	key, err := cache.MetaNamespaceKeyFunc(event.Object)
	if err != nil || event.Type == watch.Bookmark {
		return true
	}
	if event.Type == watch.Deleted {
		delete(w.present, key)
		return true
	}
	w.present[key] = struct{}{}
	have, exists, err := w.source.into.GetStore().GetByKey(key)
	return err != nil || !exists || versionOf(have) != versionOf(event.Object)
}

// deleteAbsent passes on as deleted what the cache has and the new watch has not shown. It
// fails if the cache does not store what it was sent before.
func (w *stream) deleteAbsent(ctx context.Context) bool {
	if !w.source.settles(ctx, w.last.in) {
		return false
	}
	store := w.source.into.GetStore()
	for _, key := range store.ListKeys() {
		if _, ok := w.present[key]; ok {
			continue
		}
		gone, exists, err := store.GetByKey(key)
		// A copy, since the receiver may change it.
		if object, ok := gone.(runtime.Object); ok && exists && err == nil && !w.send(ctx, watch.Event{Type: watch.Deleted, Object: object.DeepCopyObject()}) {
			return false
		}
	}
	return true
}

// settles waits until done is true of the cache, and reports whether it became so.
func (s *Source) settles(ctx context.Context, done func(cache.Store) bool) bool {
	store := s.into.GetStore()
	for end := time.Now().Add(settleLimit); !s.into.HasSynced() || !done(store); {
		if time.Now().After(end) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return true
}

// sent is the last change that was passed on. A cache stores changes in order, so once
// it has this one, it has all.
type sent struct {
	cache.ObjectName
	// version is empty for a deletion.
	version string
}

// remember notes what is about to be passed on.
func (w *stream) remember(event watch.Event) {
	if w.source.into == nil || event.Type == watch.Bookmark {
		return
	}
	name, err := cache.ObjectToName(event.Object)
	if err != nil {
		return
	}
	w.last = sent{ObjectName: name}
	if event.Type != watch.Deleted {
		w.last.version = versionOf(event.Object)
	}
}

// in reports whether store has it.
func (l sent) in(store cache.Store) bool {
	if l.Name == "" {
		return true
	}
	have, exists, err := store.GetByKey(l.String())
	if err != nil || !exists {
		return err == nil && l.version == ""
	}
	return versionOf(have) == l.version
}

func versionOf(object any) string {
	m, err := meta.Accessor(object)
	if err != nil {
		return ""
	}
	return m.GetResourceVersion()
}
