// SPDX-License-Identifier: Apache-2.0

package steadywatch

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
	// HasSynced says whether the first list is in the store.
	HasSynced() bool
	GetStore() cache.Store
}

// settleLimit is how long a cache may take for what it was sent.
const settleLimit = 10 * time.Second

// Into tells s where its objects end up. With that, a watch that the API server
// cannot continue begins anew by itself: kube-apiserver says so (410 Gone) of nearly
// every watch after it has restarted, and an informer waits for up to 30 s then. s has
// to be the only source of c. It returns s.
func (s *Source) Into(c Cache) *Source {
	s.into = c
	return s
}

// anew says whether the next watch can begin with all objects, since err says that it
// cannot go on from where it stands. Of those, what has not changed will not be passed on
// again, and what is gone will be passed on as deleted.
func (w *stream) anew(err error) bool {
	if w.source.into == nil || !w.resumable() || !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		return false
	}
	w.begin()
	return true
}

// begin makes the next watch begin with all objects. Without a version it shows what
// there is when it is opened, no matter which API server answers.
func (w *stream) begin() {
	w.options.SendInitialEvents = ptr.To(true)
	w.options.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
	w.options.ResourceVersion = ""
	w.options.AllowWatchBookmarks = true
	w.present = map[string]struct{}{}
}

// Renew lets the cache of s have what there is now, without what was in between, also
// if a watch brings nothing any more. The channel is closed once it has. Without a cache,
// or with an API server that cannot do that, s does not promise so much.
func (s *Source) Renew() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.into == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	if s.renewal == nil {
		s.renewal = make(chan struct{})
	}
	for w := range s.open {
		if w.continues {
			w.inner.Stop()
		}
	}
	return s.renewal
}

// renewed ends the renewal that a watch was opened for, if any.
func (s *Source) renewed(renewal chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if renewal != nil && renewal == s.renewal {
		close(renewal)
		s.renewal = nil
	}
}

// due says whether a watch that could go on has to begin with all objects instead.
func (w *stream) due() bool {
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	return w.source.renewal != nil && w.resumable()
}

// replay takes an event of a watch that begins with all objects, and says whether it is
// to be passed on.
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

// bury passes on as deleted what the cache has and a beginning has not shown. It fails
// if the cache does not take in what it was sent before.
func (w *stream) bury(ctx context.Context) bool {
	store := w.source.into.GetStore()
	for end := time.Now().Add(settleLimit); !w.source.into.HasSynced() || !w.hasLast(store); {
		if time.Now().After(end) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	for _, key := range store.ListKeys() {
		if _, ok := w.present[key]; ok {
			continue
		}
		gone, exists, err := store.GetByKey(key)
		if object, ok := gone.(runtime.Object); ok && exists && err == nil && !w.send(ctx, watch.Event{Type: watch.Deleted, Object: object}) {
			return false
		}
	}
	return true
}

// sent is the last change that was passed on. A cache takes changes in order, so once
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

func (w *stream) hasLast(store cache.Store) bool {
	if w.last.Name == "" {
		return true
	}
	have, exists, err := store.GetByKey(w.last.String())
	if err != nil || !exists {
		return err == nil && w.last.version == ""
	}
	return versionOf(have) == w.last.version
}

func versionOf(object any) string {
	m, err := meta.Accessor(object)
	if err != nil {
		return ""
	}
	return m.GetResourceVersion()
}
