// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

// Renew brings the cache of s to the current state, without the changes in between, even
// if a watch has stalled. The channel is closed once that is done; without a cache, at
// once.
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

// due reports whether a watch that could go on has to begin with all objects instead.
func (w *stream) due() bool {
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	return w.source.renewal != nil && w.resumable()
}

func (s *Source) pending() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewal
}

// listed is a list by which a renewal ends where the API server cannot begin a watch with
// all objects, because that is turned off or its etcd is too old.
type listed struct {
	renewal chan struct{}
	count   int
	last    sent
}

// noteList records a list, or a further page of it.
func (s *Source) noteList(renewal chan struct{}, list runtime.Object, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first {
		s.listed = nil
		if renewal != nil {
			s.listed = &listed{renewal: renewal}
		}
	}
	l := s.listed
	if l == nil {
		return
	}
	err := meta.EachListItem(list, func(object runtime.Object) error {
		name, err := cache.ObjectToName(object)
		l.count++
		l.last = sent{name, versionOf(object)}
		return err
	})
	if err != nil {
		s.listed = nil
	}
}

// settleList ends the renewal that a list was for, once the cache has stored the list. A
// reflector opens no watch before it has passed on its list.
func (s *Source) settleList(ctx context.Context) {
	s.mu.Lock()
	l := s.listed
	s.listed = nil
	s.mu.Unlock()
	if l != nil && s.settles(ctx, func(store cache.Store) bool { return len(store.ListKeys()) == l.count && l.last.in(store) }) {
		s.renewed(l.renewal)
	}
}
