// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/reported"
)

// index has the report of each host, as Keep made it. It is filled by the events and not
// read from the cache, which would make whoever asks wait until the kind is installed.
type index struct {
	mu      sync.RWMutex
	reports map[string]*agentv1alpha1.HostReport
}

func newIndex() *index { return &index{reports: map[string]*agentv1alpha1.HostReport{}} }

// get returns the report of a host, or nil.
func (x *index) get(host string) *agentv1alpha1.HostReport {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.reports[host]
}

func (x *index) set(report *agentv1alpha1.HostReport) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reports[report.Name] = report
}

func (x *index) remove(host string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.reports, host)
}

type requests = workqueue.TypedRateLimitingInterface[reconcile.Request]

// reportEvents wakes the controller for a host whose report changes.
type reportEvents struct{ index *index }

// Create implements handler.EventHandler.
func (h *reportEvents) Create(_ context.Context, e event.CreateEvent, queue requests) {
	h.changed(e.Object, queue)
}

// Update implements handler.EventHandler.
func (h *reportEvents) Update(_ context.Context, e event.UpdateEvent, queue requests) {
	h.changed(e.ObjectNew, queue)
}

// Delete leaves the Servers as they are: a report that is gone reports nothing.
func (h *reportEvents) Delete(_ context.Context, e event.DeleteEvent, queue requests) {
	h.index.remove(e.Object.GetName())
	queue.AddAfter(requestFor(e.Object.GetName()), goneAfter)
}

// Generic implements handler.EventHandler.
func (h *reportEvents) Generic(context.Context, event.GenericEvent, requests) {}

func (h *reportEvents) changed(obj client.Object, queue requests) {
	if report, ok := obj.(*agentv1alpha1.HostReport); ok {
		h.index.set(report)
		queue.Add(requestFor(report.Name))
	}
}

// serverEvents wakes the controller for the host of a Server that its report lists, when
// that may have something to do with the report.
type serverEvents struct {
	index    *index
	concerns func(host string, server *v1alpha1.Server) bool
}

// Create implements handler.EventHandler.
func (h *serverEvents) Create(_ context.Context, e event.CreateEvent, queue requests) {
	h.cameOrWent(e.Object, queue)
}

// Delete implements handler.EventHandler.
func (h *serverEvents) Delete(_ context.Context, e event.DeleteEvent, queue requests) {
	h.cameOrWent(e.Object, queue)
}

// Generic implements handler.EventHandler.
func (h *serverEvents) Generic(context.Context, event.GenericEvent, requests) {}

// Update wakes both hosts when a Server moves, and its host when something else begins or
// ceases to report on it: that changes the counts.
func (h *serverEvents) Update(_ context.Context, e event.UpdateEvent, queue requests) {
	before, ok := e.ObjectOld.(*v1alpha1.Server)
	after, ok2 := e.ObjectNew.(*v1alpha1.Server)
	if !ok || !ok2 {
		return
	}
	if before.Spec.Host != after.Spec.Host || h.concerns(before.Spec.Host, before) != h.concerns(after.Spec.Host, after) {
		h.cameOrWent(before, queue)
		h.cameOrWent(after, queue)
		return
	}
	entry, ok := entryFor(h.index.get(after.Spec.Host), client.ObjectKeyFromObject(after))
	if ok && h.concerns(after.Spec.Host, after) && !reported.Equal(fieldsOf(entry), reported.Of(&after.Status)) {
		queue.Add(requestFor(after.Spec.Host))
	}
}

func (h *serverEvents) cameOrWent(obj client.Object, queue requests) {
	server, ok := obj.(*v1alpha1.Server)
	if !ok {
		return
	}
	if _, listed := entryFor(h.index.get(server.Spec.Host), client.ObjectKeyFromObject(server)); listed {
		queue.Add(requestFor(server.Spec.Host))
	}
}

// serviceEvents wakes the controller for a ComputeService that appears, and for one whose
// counts change or are not there: it was made again, or its status was wiped, or they were
// decided from a version of it that was old.
func serviceEvents(x *index) handler.Funcs {
	wake := func(service *v1alpha1.ComputeService, changed bool, queue requests) {
		switch reports, counts := x.get(service.Name) != nil, service.Status.Report != nil; {
		case reports && (changed || !counts):
			queue.Add(requestFor(service.Name))
		case !reports && counts:
			queue.AddAfter(requestFor(service.Name), goneAfter)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, queue requests) {
			if service, ok := e.Object.(*v1alpha1.ComputeService); ok {
				wake(service, true, queue)
			}
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue requests) {
			before, ok := e.ObjectOld.(*v1alpha1.ComputeService)
			after, ok2 := e.ObjectNew.(*v1alpha1.ComputeService)
			if ok && ok2 {
				wake(after, !equality.Semantic.DeepEqual(before.Status.Report, after.Status.Report), queue)
			}
		},
	}
}
