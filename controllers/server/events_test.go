// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// fakeQueue notes which servers are woken, and at which priority.
type fakeQueue struct {
	priorityqueue.PriorityQueue[reconcile.Request] // nil: only AddWithOpts is expected.
	woken                                          map[string]int
}

func (q *fakeQueue) AddWithOpts(o priorityqueue.AddOpts, items ...reconcile.Request) {
	for _, r := range items {
		q.woken[r.String()] = *o.Priority
	}
}

// plainQueue is one without priorities.
type plainQueue struct {
	requests // nil: only Add is expected.
	woken    map[string]int
}

func (q *plainQueue) Add(r reconcile.Request) { q.woken[r.String()] = 0 }

func TestFanOut(t *testing.T) {
	onHostA := func(priority int) map[string]int { return map[string]int{"one/vm": priority, "two/vm": priority} }
	nobody := map[string]int{}
	before := service("host-a", up)
	another := service("host-a", up)
	another.UID = "of another with the same name"
	for name, c := range map[string]struct {
		happens func(*fanOut, requests)
		want    map[string]int
	}{
		"a host that appears wakes the servers that name it": {create(event.CreateEvent{Object: before}), onHostA(0)},
		"the initial list wakes none":                        {create(event.CreateEvent{Object: before, IsInInitialList: true}), nobody},
		"a host that nobody is on wakes none":                {create(event.CreateEvent{Object: service("host-c", up)}), nobody},
		"a host that is deleted wakes its servers": {
			func(f *fanOut, q requests) { f.Delete(t.Context(), event.DeleteEvent{Object: before}, q) }, onHostA(worseFirst),
		},
		"UP to UNKNOWN goes first":                        {update(before, service("host-a", unknown)), onHostA(worseFirst)},
		"UP to DOWN goes first":                           {update(before, service("host-a", down)), onHostA(worseFirst)},
		"UNKNOWN to DOWN goes first":                      {update(service("host-a", unknown), service("host-a", down)), onHostA(worseFirst)},
		"UNKNOWN to UP does not":                          {update(service("host-a", unknown), before), onHostA(0)},
		"another reason does not":                         {update(before, service("host-a", up, because("Other"))), onHostA(0)},
		"a host that goes silent in maintenance does not": {update(before, service("host-a", up, reporting("False"))), onHostA(0)},
		"a window that appears does not":                  {update(before, service("host-a", up, announced)), onHostA(0)},
		"what servers do not show wakes none": {update(before, service("host-a", up, func(s *v1alpha1.ComputeService) {
			s.Status.LastSeenUpTime, s.Labels = at(0), map[string]string{"a": "b"}
		})), nobody},
		"a host that was recreated between two events wakes its servers": {update(before, another), onHostA(0)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t,
				serverOn("host-a", as("one", "vm")), serverOn("host-a", as("two", "vm")),
				serverOn("host-b", as("one", "other-host")), serverOn("", as("one", "no-host")))
			queue := &fakeQueue{woken: map[string]int{}}
			c.happens(&fanOut{w.serversOn, leadingTracker()}, queue)
			if diff := cmp.Diff(c.want, queue.woken); diff != "" {
				t.Errorf("woken, at which priority (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("a queue without priorities will do", func(t *testing.T) {
		w := newWorld(t, serverOn("host-a", as("one", "vm")), serverOn("host-a", as("two", "vm")))
		queue := &plainQueue{woken: map[string]int{}}
		update(before, service("host-a", down))(&fanOut{w.serversOn, leadingTracker()}, queue)
		if diff := cmp.Diff(onHostA(0), queue.woken); diff != "" {
			t.Errorf("woken (-want +got):\n%s", diff)
		}
	})
}

func create(e event.CreateEvent) func(*fanOut, requests) {
	return func(f *fanOut, q requests) { f.Create(context.Background(), e, q) }
}

func update(before, after *v1alpha1.ComputeService) func(*fanOut, requests) {
	return func(f *fanOut, q requests) {
		f.Update(context.Background(), event.UpdateEvent{ObjectOld: before, ObjectNew: after}, q)
	}
}

func TestEveryChangeOfAServerWakesIt(t *testing.T) {
	before := serverOn("host-a", settled(up))
	before.ResourceVersion = "1"
	passes := func(version string) bool {
		after := before.DeepCopy()
		after.ResourceVersion = version
		return anyChange.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after})
	}
	// The same fields may be the outcome of a write of ours and one that undid it.
	if !passes("3") {
		t.Error("a new version with the same fields is held back")
	}
	if passes("1") {
		t.Error("the same version, as a new list brings it, passes")
	}
	if !anyChange.Create(event.CreateEvent{Object: before}) {
		t.Error("a new one is held back")
	}
}

// A whole change, from the verdict on the host to its servers and no others.
func TestAChangeOfAHostReachesItsServers(t *testing.T) {
	before, after := service("host-a", up), service("host-a", down)
	w := newWorld(t, after, service("host-b", up),
		serverOn("host-a", as("one", "vm"), settled(up)), serverOn("host-a", as("two", "vm"), settled(up)), serverOn("host-b", settled(up)))
	queue := &fakeQueue{woken: map[string]int{}}
	update(before, after)(&fanOut{w.serversOn, leadingTracker()}, queue)
	for key := range queue.woken {
		namespace, name, _ := strings.Cut(key, "/")
		request := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
		if _, err := reconcile.AsReconciler(w.Client, w.reconciler).Reconcile(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	var servers v1alpha1.ServerList
	if err := w.List(t.Context(), &servers); err != nil {
		t.Fatal(err)
	}
	got := map[string]v1alpha1.HostStatus{}
	for _, s := range servers.Items {
		got[s.Namespace+"/"+s.Name] = *s.Status.HostStatus
	}
	want := map[string]v1alpha1.HostStatus{"one/vm": *down, "two/vm": *down, "tenant/vm": *up}
	if diff := cmp.Diff(want, got); diff != "" || w.writes != 2 {
		t.Errorf("%d writes (-want +got):\n%s", w.writes, diff)
	}
}
