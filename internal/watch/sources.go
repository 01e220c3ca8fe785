// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

// Sources are where the caches of one process get their objects from. The zero value
// is ready to use.
type Sources struct {
	mu  sync.Mutex
	all map[reflect.Type][]*Source
}

// NewInformer makes an informer of the kind of obj whose list and watch survive
// interruptions. It is a cache.NewInformerFunc of controller-runtime.
func (s *Sources) NewInformer(from cache.ListerWatcher, obj runtime.Object, resync time.Duration, indexers cache.Indexers) cache.SharedIndexInformer {
	kind := reflect.Indirect(reflect.ValueOf(obj)).Type()
	source := New(from).Of(kind.Name())
	s.mu.Lock()
	if s.all == nil {
		s.all = map[reflect.Type][]*Source{}
	}
	s.all[kind] = append(s.all[kind], source)
	s.mu.Unlock()
	informer := cache.NewSharedIndexInformer(source.ListWatch(), obj, resync, indexers)
	source.Into(informer)
	return informer
}

// Reopen opens all watches again.
func (s *Sources) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sources := range s.all {
		for _, source := range sources {
			source.Reopen()
		}
	}
}

// Renew opens all watches again, and returns once the caches of the kind of obj hold the
// current state. A standby's watches may have stalled for a minute, unnoticed, and would
// then deliver what happened meanwhile one by one, as if it happened now.
func (s *Sources) Renew(ctx context.Context, obj runtime.Object) error {
	s.mu.Lock()
	var renewed []<-chan struct{}
	for _, source := range s.all[reflect.Indirect(reflect.ValueOf(obj)).Type()] {
		renewed = append(renewed, source.Renew())
	}
	s.mu.Unlock()
	s.Reopen()
	for _, done := range renewed {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the current state: %w", ctx.Err())
		}
	}
	return nil
}
