// SPDX-License-Identifier: Apache-2.0

// Package answers finds what the owners of servers have answered to maintenance windows,
// for the controllers that act on it.
package answers

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// +kubebuilder:rbac:groups=owner.hoststatus.dev,resources=maintenanceanswers,verbs=get;list;watch

// Servers finds Servers. The answers are about them.
type Servers interface {
	// AddEventHandler calls handler with every change of a Server.
	AddEventHandler(handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error)
	// OnHost returns the Servers on a host.
	OnHost(host string) ([]*v1alpha1.Server, error)
	// Get returns the Server with a key, namespace/name, or nil.
	Get(key string) (*v1alpha1.Server, error)
}

// Listeners are what is to be called when answers change. They must not block.
type Listeners struct {
	// Server is called with the Server whose answer has changed, and Host with the host
	// for which other answers may count: one has changed, or a server has come or gone. nil
	// is for those whom that does not concern.
	Server func(types.NamespacedName)
	Host   func(host string)
	// Known is called once all answers are known, also if they already are.
	Known func()
}

// Answers are the owners' answers, as the manager's cache has them. They are known once
// they have been listed, and MarkFresh has been called. While the kind is not installed, or
// may not be read, they are not known; nobody waits for them.
type Answers struct {
	cache   cache.Cache
	servers Servers

	mu        sync.Mutex
	listeners []Listeners
	// store has the answers once they have been listed; nil before.
	store toolscache.Store
	// fresh is set by MarkFresh.
	fresh bool
}

// New returns the answers in c. It is to be added to the manager, which runs it in standbys
// too.
func New(c cache.Cache, servers Servers) *Answers {
	return &Answers{cache: c, servers: servers}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*Answers) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable. It begins after the cache has started, which would wait
// for this kind, and with it everything else, if it knew of it before.
func (a *Answers) Start(ctx context.Context) error {
	informer, err := a.cache.GetInformer(ctx, &ownerv1alpha1.MaintenanceAnswer{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("making the informer of MaintenanceAnswers: %w", err)
	}
	shared, ok := informer.(toolscache.SharedIndexInformer)
	if !ok {
		return fmt.Errorf("watching MaintenanceAnswers: the informer is a %T, which has no store", informer)
	}
	ofServers, err := a.servers.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(obj any, initially bool) {
			if !initially { // What was there before is counted when all is known.
				a.cameOrWent(obj)
			}
		},
		UpdateFunc: a.serverChanged,
		DeleteFunc: a.cameOrWent,
	})
	if err != nil {
		return fmt.Errorf("watching Servers for their answers: %w", err)
	}
	ofAnswers, err := shared.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    a.answerChanged,
		UpdateFunc: func(_, obj any) { a.answerChanged(obj) },
		DeleteFunc: a.answerChanged,
	})
	if err != nil {
		return fmt.Errorf("watching MaintenanceAnswers: %w", err)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), ofServers.HasSynced, ofAnswers.HasSynced) {
		return nil // It ends before they are known.
	}
	a.learn(func() { a.store = shared.GetStore() })
	<-ctx.Done()
	return nil
}

// MarkFresh says that the cache of answers is as new as this process's leadership. Before
// that, answers are not known: the watch of a standby may have stalled, and an answer that it
// has not heard of may have put a window off.
func (a *Answers) MarkFresh() { a.learn(func() { a.fresh = true }) }

// learn tells the listeners if all answers are known after what happens.
func (a *Answers) learn(happens func()) {
	a.mu.Lock()
	happens()
	listeners, known := a.listeners, a.isKnown()
	a.mu.Unlock()
	if !known {
		return
	}
	for _, l := range listeners {
		l.Known()
	}
}

func (a *Answers) isKnown() bool { return a.store != nil && a.fresh }

// Listen adds listeners.
func (a *Answers) Listen(l Listeners) {
	a.mu.Lock()
	a.listeners = append(a.listeners, l)
	known := a.isKnown()
	a.mu.Unlock()
	if known {
		l.Known()
	}
}

// Get returns the answer for a server, nil if there is none; known is false while that is
// not known.
func (a *Answers) Get(server types.NamespacedName) (answer *ownerv1alpha1.MaintenanceAnswer, known bool) {
	store := a.known()
	if store == nil {
		return nil, false
	}
	return find(store, server.String()), true
}

// Count returns what the owners of the servers on a host have answered to a window; known
// is false while that is not known. It costs as much as there are servers on the host.
func (a *Answers) Count(host string, window *v1alpha1.MaintenanceWindow) (counts hoststatus.Answers, known bool) {
	store := a.known()
	if store == nil {
		return counts, false
	}
	servers, err := a.servers.OnHost(host)
	if err != nil {
		return counts, false
	}
	for _, server := range servers {
		counts.Add(window, server, find(store, server.Namespace+"/"+server.Name))
	}
	return counts, true
}

func (a *Answers) known() toolscache.Store {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.isKnown() {
		return nil
	}
	return a.store
}

func find(store toolscache.Store, key string) *ownerv1alpha1.MaintenanceAnswer {
	obj, _, err := store.GetByKey(key)
	if err != nil {
		return nil
	}
	answer, _ := obj.(*ownerv1alpha1.MaintenanceAnswer)
	return answer
}

func (a *Answers) answerChanged(obj any) {
	key, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return
	}
	namespace, name, _ := strings.Cut(key, "/")
	listeners := a.listening()
	for _, l := range listeners {
		if l.Server != nil {
			l.Server(types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
	if server, err := a.servers.Get(key); err == nil && server != nil {
		tell(listeners, server.Spec.Host)
	}
}

func (a *Answers) serverChanged(from, to any) {
	before, ok := from.(*v1alpha1.Server)
	after, ok2 := to.(*v1alpha1.Server)
	if ok && ok2 && (before.Spec.Host != after.Spec.Host || before.UID != after.UID) {
		a.cameOrWent(before)
		a.cameOrWent(after)
	}
}

func (a *Answers) cameOrWent(obj any) {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if server, ok := obj.(*v1alpha1.Server); ok {
		tell(a.listening(), server.Spec.Host)
	}
}

func (a *Answers) listening() []Listeners {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.listeners
}

func tell(listeners []Listeners, host string) {
	if host == "" {
		return
	}
	for _, l := range listeners {
		if l.Host != nil {
			l.Host(host)
		}
	}
}

// Keep is the cache's transformation of MaintenanceAnswers: it keeps what is decided by. A
// namespace can have as many as its owner is allowed to make.
func Keep(obj any) (any, error) {
	answer, ok := obj.(*ownerv1alpha1.MaintenanceAnswer)
	if !ok {
		return obj, nil
	}
	return &ownerv1alpha1.MaintenanceAnswer{
		ObjectMeta: metav1.ObjectMeta{Namespace: unique.Make(answer.Namespace).Value(), Name: answer.Name, UID: answer.UID, ResourceVersion: answer.ResourceVersion},
		Spec:       answer.Spec,
	}, nil
}
