// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

// recheckInterval is how often the right to watch is asked for, while a watch runs and while
// there is none: a running watch does not end with that right. What is left of ten seconds is
// for the answer.
const recheckInterval = 3 * time.Second

// confirmAfter is after how long a no is asked for again before it counts: a server that has
// just started may say no until it has read the roles.
const confirmAfter = time.Second

// reconnect is between attempts to list and watch. There may be a notifier in each namespace.
var reconnect = wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 5 * time.Second}

// scope is what one watch is about: a namespace, or with "" all of them. The notifier's lock
// protects it.
type scope struct {
	notifier  *notifier
	namespace string
	// synced is set while all servers are known.
	synced bool
	// refused is set while the right to watch them is missing.
	refused bool
	// failing is set while they cannot be read for another reason.
	failing bool
}

// where is how logs name it.
func (s *scope) where() string {
	if s.namespace == "" {
		return allNamespaces
	}
	return s.namespace
}

// answered reports whether it is known what there is to see, if only nothing.
func (s *scope) answered() bool { return s.synced || s.refused }

// watching runs the watches of scopes.
type watching struct {
	client ctrlclient.WithWatch
	grants asker
}

// run watches while there is the right to, until ctx ends.
func (w *watching) run(ctx context.Context, s *scope) error {
	for ctx.Err() == nil {
		if w.refused(ctx, s) {
			s.refuse()
		} else {
			w.watch(ctx, s)
		}
		pause(ctx, s.notifier.clock, recheckInterval)
	}
	return nil
}

// refused reports whether the right to watch is missing. An answer that does not come changes
// nothing: while the API server is away, so are those who could take the right.
func (w *watching) refused(ctx context.Context, s *scope) bool {
	for attempt := range 2 {
		if attempt > 0 {
			pause(ctx, s.notifier.clock, confirmAfter)
		}
		allowed, err := w.grants.may(ctx, "watch", "", s.namespace)
		if allowed || err != nil || ctx.Err() != nil {
			return false
		}
	}
	return true
}

// watch watches until the right to is gone, or ctx ends.
func (w *watching) watch(ctx context.Context, s *scope) {
	ctx, stop := context.WithCancel(ctx)
	to := &store{scope: s, forbidden: make(chan struct{}, 1)}
	defer to.close()
	options := func(raw *metav1.ListOptions) *ctrlclient.ListOptions {
		return &ctrlclient.ListOptions{Raw: raw, Namespace: s.namespace}
	}
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, raw metav1.ListOptions) (runtime.Object, error) {
			list := &tenantv1alpha1.ServerList{}
			err := w.client.List(ctx, list, options(&raw))
			to.heard(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, raw metav1.ListOptions) (watch.Interface, error) {
			stream, err := w.client.Watch(ctx, &tenantv1alpha1.ServerList{}, options(&raw))
			to.heard(err)
			return stream, err
		},
	}
	silent, again := logr.Discard(), reconnect // heard logs.
	reflector := cache.NewReflectorWithOptions(source, &tenantv1alpha1.Server{}, to, cache.ReflectorOptions{
		Name: "servers", Logger: &silent, Backoff: &again,
	})
	var reflecting sync.WaitGroup
	reflecting.Go(func() { reflector.RunWithContext(logr.NewContext(ctx, silent)) })
	defer reflecting.Wait()
	defer stop()
	ticker := s.notifier.clock.NewTicker(recheckInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-to.forbidden:
		case <-ticker.C():
		}
		if w.refused(ctx, s) {
			to.close()
			s.refuse()
			return
		}
	}
}

// refuse forgets what was seen, since it may not be seen any more.
func (s *scope) refuse() {
	n := s.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	s.synced = false
	n.engine.hide(s.namespace)
	for _, b := range n.boxes {
		b.hideEnded(s.namespace)
	}
	if !s.refused {
		s.refused = true
		n.log.Info("The right to watch servers is missing, so nobody is told of them; bind the ClusterRole hoststatus-server-viewer, and hoststatus-host-status-viewer for host status", "namespace", s.where())
	}
}

// store takes what a reflector brings. Once closed it takes nothing any more.
type store struct {
	scope  *scope
	closed bool
	// forbidden gets a value when a list or watch is refused: it may be for the lack of rights,
	// or because the server of the view has just started.
	forbidden chan struct{}
}

func (t *store) close() {
	t.scope.notifier.mu.Lock()
	defer t.scope.notifier.mu.Unlock()
	t.closed = true
}

// heard gets the result of a list, or of opening a watch.
func (t *store) heard(err error) {
	s, n := t.scope, t.scope.notifier
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		wake(t.forbidden)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err != nil && !s.failing && !errors.Is(err, context.Canceled):
		s.failing = true
		n.log.Error(err, "Reading servers fails; trying again", "namespace", s.where())
	case err == nil && s.failing:
		s.failing = false
		n.log.Info("Reading servers works again", "namespace", s.where())
	}
}

// locked calls do with the lock, unless the store is closed.
func (t *store) locked(do func(n *notifier, now time.Time)) {
	n := t.scope.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.closed {
		return
	}
	do(n, n.clock.Now())
	n.wakeTimer()
}

func serverOf(obj any) (*tenantv1alpha1.Server, error) {
	s, ok := obj.(*tenantv1alpha1.Server)
	if !ok {
		return nil, fmt.Errorf("watching servers: unexpected %T", obj)
	}
	return s, nil
}

// Add implements cache.ReflectorStore.
func (t *store) Add(obj any) error { return t.Update(obj) }

// Update implements cache.ReflectorStore.
func (t *store) Update(obj any) error {
	s, err := serverOf(obj)
	if err != nil {
		return err
	}
	seen := sightingOf(s)
	t.locked(func(n *notifier, now time.Time) { n.see(seen, now, false) })
	return nil
}

// Delete implements cache.ReflectorStore.
func (t *store) Delete(obj any) error {
	s, err := serverOf(obj)
	if err != nil {
		return err
	}
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	t.locked(func(n *notifier, now time.Time) { n.engine.gone(name, now) })
	return nil
}

// Replace implements cache.ReflectorStore.
func (t *store) Replace(list []any, version string) error {
	seen := make([]*sighting, 0, len(list))
	for _, obj := range list {
		s, err := serverOf(obj)
		if err != nil {
			return err
		}
		seen = append(seen, sightingOf(s))
	}
	t.locked(func(n *notifier, now time.Time) {
		n.engine.advance(version)
		t.scope.replace(seen, now)
	})
	return nil
}

// Resync implements cache.ReflectorStore: every change is taken in when it comes.
func (t *store) Resync() error { return nil }

// replace takes in all servers; the lock is held.
func (s *scope) replace(seen []*sighting, now time.Time) {
	n := s.notifier
	there := make(map[types.NamespacedName]bool, len(seen))
	for _, one := range seen {
		there[one.NamespacedName] = true
	}
	var gone []types.NamespacedName
	for name := range n.engine.servers {
		if (s.namespace == "" || name.Namespace == s.namespace) && !there[name] {
			gone = append(gone, name)
		}
	}
	for _, name := range gone {
		n.engine.gone(name, now)
	}
	for _, one := range seen {
		n.see(one, now, !s.synced)
	}
	if !s.answered() || s.refused {
		n.log.Info("Servers are watched", "namespace", s.where(), "servers", len(seen))
	}
	s.synced, s.refused = true, false
	for _, b := range n.boxes {
		n.findEnded(b, s.namespace)
	}
}
