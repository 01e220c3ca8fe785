// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// worseFirst is the priority of Servers whose host has changed for the worse:
// their owners may have to act. Everything else has priority 0 or less.
const worseFirst = 10

// anyChange passes every update of a Server that changed anything. One that left the
// host fields as they were may hide two: after a watch was cut, our own write and one
// that undid it arrive as one. Reconcile reads from the cache and writes nothing if
// there is nothing to do, so this costs little.
var anyChange = predicate.ResourceVersionChangedPredicate{}

// fanOut wakes the Servers on a ComputeService.
type fanOut struct {
	serversOn serversOn
	tracker   *tracker
}

// serversOn returns the keys, namespace/name, of the Servers on a host.
type serversOn func(host string) ([]string, error)

type requests = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Create wakes the Servers that named the ComputeService before it existed. For
// ComputeServices that existed when the process started, each Server wakes itself.
func (f *fanOut) Create(ctx context.Context, e event.CreateEvent, queue requests) {
	if !e.IsInInitialList {
		f.wake(ctx, e.Object.GetName(), 0, queue)
	}
}

// Update wakes the Servers if there is something new for them.
func (f *fanOut) Update(ctx context.Context, e event.UpdateEvent, queue requests) {
	before, ok := e.ObjectOld.(*v1alpha1.ComputeService)
	after, ok2 := e.ObjectNew.(*v1alpha1.ComputeService)
	if ok && ok2 && (before.UID != after.UID || hoststatus.NewsForServers(before, after)) {
		f.wake(ctx, after.Name, priorityOf(before.Status.HostStatus, after.Status.HostStatus), queue)
	}
}

// Delete wakes the Servers, which now name a host that does not exist.
func (f *fanOut) Delete(ctx context.Context, e event.DeleteEvent, queue requests) {
	if service, ok := e.Object.(*v1alpha1.ComputeService); ok {
		f.wake(ctx, service.Name, priorityOf(service.Status.HostStatus, ptr.To(v1alpha1.HostStatusNone)), queue)
	}
}

// Generic is not used.
func (f *fanOut) Generic(context.Context, event.GenericEvent, requests) {}

func priorityOf(before, after *v1alpha1.HostStatus) int {
	if hoststatus.Worse(before, after) {
		return worseFirst
	}
	return 0
}

func (f *fanOut) wake(ctx context.Context, host string, priority int, queue requests) {
	keys, err := f.serversOn(host)
	if err != nil {
		log.FromContext(ctx).Error(err, "Looking up the servers of a host failed", "ComputeService", klog.KRef("", host))
		return
	}
	for _, key := range keys {
		namespace, name, _ := strings.Cut(key, "/")
		request := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
		f.tracker.begin(host, request)
		if pq, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
			pq.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, request)
		} else {
			queue.Add(request)
		}
	}
}
