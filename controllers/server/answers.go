// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/answers"
)

// answersDelay is how long an answer waits until its Server shows it, so that several of
// them are one write.
const answersDelay = 250 * time.Millisecond

// listen lets the owners' answers wake the controller.
func (r *Reconciler) listen(ctx context.Context, serversOn serversOn, queue requests) {
	if r.answers == nil {
		return
	}
	r.answers.Listen(answers.Listeners{
		Server: func(server types.NamespacedName) { addLater(queue, reconcile.Request{NamespacedName: server}) },
		Known:  func() { go r.requeueWithWindows(ctx, serversOn, queue) },
	})
}

func addLater(queue requests, request reconcile.Request) {
	if pq, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		pq.AddWithOpts(priorityqueue.AddOpts{After: answersDelay, Priority: ptr.To(handler.LowPriority)}, request)
	} else {
		queue.AddAfter(request, answersDelay)
	}
}

// requeueWithWindows wakes every Server whose host has a maintenance window: what it shows
// of its answer may be from before this process began.
func (r *Reconciler) requeueWithWindows(ctx context.Context, serversOn serversOn, queue requests) {
	var services v1alpha1.ComputeServiceList
	if err := r.client.List(ctx, &services, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing ComputeServices after the answers to their maintenance windows were listed failed")
		return
	}
	for i := range services.Items {
		if services.Items[i].Spec.MaintenanceWindow == nil {
			continue
		}
		keys, err := serversOn(services.Items[i].Name)
		if err != nil {
			log.FromContext(ctx).Error(err, "Looking up the servers of a host with a maintenance window failed")
			continue
		}
		for _, key := range keys {
			namespace, name, _ := strings.Cut(key, "/")
			addLater(queue, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
		}
	}
}
