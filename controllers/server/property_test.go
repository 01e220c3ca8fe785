// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/test/framework/mergepatch"
)

// Whatever happens, and in whatever order the controller learns of it: in the end
// the host fields of each Server are those of its host's present status, and nothing
// is written any more.
func TestTheHostStatusOfAServerIsAFunctionOfItsHostsStatusWhateverTheOrderOfEvents(t *testing.T) {
	const runs, steps = 1500, 60
	for seed := range uint64(runs) {
		h := newHistory(seed)
		for range steps {
			h.step()
		}
		h.settle()
		h.check()
		if len(h.complaints) > 0 {
			t.Fatalf("seed %d: %s\nwhat happened:\n%s", seed, h.complaints[0], h)
		}
	}
}

// history is a small API server, what a controller's two caches know of it, each in
// its own time, and the controller's queue.
type history struct {
	*rand.Rand
	version    int
	clock      *clocktesting.FakePassiveClock
	reconciler *Reconciler
	fanOut     *fanOut

	servers, seenServers   map[string]*v1alpha1.Server
	services, seenServices map[string]*v1alpha1.ComputeService
	// What the watches have not brought yet.
	serverNews, serviceNews []news

	queue map[reconcile.Request]bool

	log, complaints []string
}

// news is what a watch brings of one object: its present state, nil once deleted.
type news struct {
	name   string
	object client.Object
}

var (
	propertyHosts    = []string{"", "host-a", "host-b", "host-c"}
	propertyServers  = []string{"vm-1", "vm-2", "vm-3"}
	propertyStatuses = func() (all []*v1alpha1.HostStatus) {
		for row := range hoststatus.Rows() {
			all = append(all, row.Status)
		}
		return all
	}()
)

func newHistory(seed uint64) *history {
	h := &history{
		Rand:    rand.New(rand.NewPCG(seed, 0)),
		clock:   clocktesting.NewFakePassiveClock(now),
		servers: map[string]*v1alpha1.Server{}, seenServers: map[string]*v1alpha1.Server{},
		services: map[string]*v1alpha1.ComputeService{}, seenServices: map[string]*v1alpha1.ComputeService{},
		queue: map[reconcile.Request]bool{},
	}
	h.reconciler = NewReconciler(historyClient{h: h}, h.clock)
	h.fanOut = &fanOut{serversOn: h.serversOn, tracker: leadingTracker()}
	return h
}

// String describes what happened.
func (h *history) String() (out string) {
	for _, line := range h.log {
		out += "  " + line + "\n"
	}
	return out
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *history) complain(format string, args ...any) {
	h.complaints = append(h.complaints, fmt.Sprintf(format, args...))
}

func pick[T any](h *history, from []T) T { return from[h.IntN(len(from))] }

// step lets one thing happen.
func (h *history) step() {
	h.clock.SetTime(h.clock.Now().Add(time.Second))
	switch n := h.IntN(24); {
	case n < 5:
		h.changeServer(pick(h, propertyServers))
	case n < 10:
		h.changeService(pick(h, propertyHosts[1:]))
	case n < 13:
		h.deliver(&h.serverNews, h.learnOfServer)
	case n < 16:
		h.deliver(&h.serviceNews, h.learnOfService)
	case n < 19:
		h.reconcileOne(h.IntN(8) == 0)
	case n < 23:
		h.relist()
	default:
		h.restart()
	}
}

func (h *history) changeServer(name string) {
	s := h.servers[name]
	if s == nil {
		s = &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: name, Generation: 1, UID: h.uid()}}
		s.Spec.Host = pick(h, propertyHosts)
		s.Status = reported()
		h.note("%s is created on %q", name, s.Spec.Host)
		h.putServer(s)
		return
	}
	s = s.DeepCopy()
	switch h.IntN(6) {
	case 0, 1:
		if host := pick(h, propertyHosts); host != s.Spec.Host {
			s.Spec.Host = host
			s.Generation++
		}
		h.note("%s moves to %q", name, s.Spec.Host)
	case 2:
		h.note("%s is deleted", name)
		delete(h.servers, name)
		h.serverNews = append(h.serverNews, news{name: name})
		return
	case 3:
		s.Status = v1alpha1.ServerStatus{}
		h.note("the status of %s is wiped", name)
	case 4:
		s.Status.HostStatus, s.Status.MaintenanceWindow = down, &v1alpha1.AnnouncedWindow{StartTime: at(0)}
		h.note("somebody writes DOWN to %s", name)
	default:
		s.Status.TaskState = strconv.Itoa(h.version)
		h.note("the agent reports on %s", name)
	}
	h.putServer(s)
}

func (h *history) changeService(name string) {
	s := h.services[name]
	if s == nil {
		h.note("%s is created", name)
		h.putService(&v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1, UID: h.uid()}})
		return
	}
	s = s.DeepCopy()
	switch h.IntN(7) {
	case 0:
		h.note("%s is deleted", name)
		delete(h.services, name)
		h.serviceNews = append(h.serviceNews, news{name: name})
		if h.IntN(2) == 0 {
			h.changeService(name) // Made again at once, as another.
		}
		return
	case 1, 2:
		s.Generation++
		s.Spec.MaintenanceWindow = nil
		if h.IntN(2) == 0 {
			announced(s)
			s.Status.Conditions = s.Status.Conditions[:len(s.Status.Conditions)-1]
		}
		h.note("the spec of %s changes", name)
	case 3:
		s.Status = v1alpha1.ComputeServiceStatus{}
		h.note("the status of %s is wiped", name)
	default:
		h.derive(s)
	}
	h.putService(s)
}

// derive gives a ComputeService any status that stands for its spec.
func (h *history) derive(s *v1alpha1.ComputeService) {
	present := service(s.Name, pick(h, propertyStatuses),
		because(pick(h, []v1alpha1.HostStatusReason{v1alpha1.ReasonReporting, v1alpha1.ReasonLeaseExpired})),
		reporting(pick(h, []metav1.ConditionStatus{"True", "False", "Unknown"})))
	if s.Spec.MaintenanceWindow != nil {
		announced(present)
	}
	present.Status.HostStatusTransitionTime = s.Status.HostStatusTransitionTime
	if !hoststatus.SameStatus(s.Status.HostStatus, present.Status.HostStatus) || s.Status.HostStatusTransitionTime == nil {
		present.Status.HostStatusTransitionTime = ptr.To(metav1.NewTime(h.clock.Now()))
	}
	s.Status = present.Status
	s.Status.ObservedGeneration = s.Generation
	h.note("the status of %s is derived: %v", s.Name, ptr.Deref(s.Status.HostStatus, "absent"))
}

func (h *history) uid() types.UID { return types.UID("uid-" + strconv.Itoa(h.version)) }

func (h *history) nextVersion() string {
	h.version++
	return strconv.Itoa(h.version)
}

func (h *history) putServer(s *v1alpha1.Server) {
	s.ResourceVersion = h.nextVersion()
	h.servers[s.Name] = s
	h.serverNews = append(h.serverNews, news{s.Name, s})
}

func (h *history) putService(s *v1alpha1.ComputeService) {
	s.ResourceVersion = h.nextVersion()
	h.services[s.Name] = s
	h.serviceNews = append(h.serviceNews, news{s.Name, s})
}

// deliver lets a watch bring one piece of news.
func (h *history) deliver(pending *[]news, learn func(news)) {
	if len(*pending) > 0 {
		first := (*pending)[0]
		*pending = (*pending)[1:]
		learn(first)
	}
}

// learnOfServer puts news into the cache, and then calls the handlers, as an
// informer does.
func (h *history) learnOfServer(n news) {
	before := h.seenServers[n.name]
	handle, queue := handler.EnqueueRequestForObject{}, historyQueue{h: h}
	after, _ := n.object.(*v1alpha1.Server)
	switch {
	case after == nil && before == nil:
	case after == nil:
		delete(h.seenServers, n.name)
		if anyChange.Delete(event.DeleteEvent{Object: before}) {
			handle.Delete(context.Background(), event.DeleteEvent{Object: before}, queue)
		}
	case before == nil:
		h.seenServers[n.name] = after
		if anyChange.Create(event.CreateEvent{Object: after}) {
			handle.Create(context.Background(), event.CreateEvent{Object: after}, queue)
		}
	default:
		h.seenServers[n.name] = after
		if e := (event.UpdateEvent{ObjectOld: before, ObjectNew: after}); anyChange.Update(e) {
			handle.Update(context.Background(), e, queue)
		}
	}
}

func (h *history) learnOfService(n news) {
	before := h.seenServices[n.name]
	after, _ := n.object.(*v1alpha1.ComputeService)
	queue := historyQueue{h: h}
	switch {
	case after == nil && before == nil:
	case after == nil:
		delete(h.seenServices, n.name)
		h.fanOut.Delete(context.Background(), event.DeleteEvent{Object: before}, queue)
	case before == nil:
		h.seenServices[n.name] = after
		h.fanOut.Create(context.Background(), event.CreateEvent{Object: after}, queue)
	default:
		h.seenServices[n.name] = after
		h.fanOut.Update(context.Background(), event.UpdateEvent{ObjectOld: before, ObjectNew: after}, queue)
	}
}

// relist is what follows a watch that was cut: what happened between two lists is
// seen as one step, and a recreated object looks like one that has changed.
func (h *history) relist() {
	h.note("a watch is cut, and its objects are listed again")
	if h.IntN(2) == 0 {
		h.serverNews = nil
		for _, name := range propertyServers {
			h.learnOfServer(newsOf(name, h.servers))
		}
		return
	}
	h.serviceNews = nil
	for _, name := range propertyHosts[1:] {
		h.learnOfService(newsOf(name, h.services))
	}
}

func newsOf[T client.Object](name string, all map[string]T) news {
	if object, ok := all[name]; ok {
		return news{name, object}
	}
	return news{name: name}
}

// restart is another leader, which has listed both kinds before it begins.
func (h *history) restart() {
	h.note("the manager is started again")
	h.serverNews, h.serviceNews = nil, nil
	h.seenServers, h.seenServices = maps.Clone(h.servers), maps.Clone(h.services)
	h.queue = map[reconcile.Request]bool{}
	for _, name := range propertyServers {
		if s, ok := h.servers[name]; ok {
			handle := handler.EnqueueRequestForObject{}
			handle.Create(context.Background(), event.CreateEvent{Object: s, IsInInitialList: true}, historyQueue{h: h})
		}
	}
	for _, name := range propertyHosts[1:] {
		if s, ok := h.services[name]; ok {
			h.fanOut.Create(context.Background(), event.CreateEvent{Object: s, IsInInitialList: true}, historyQueue{h: h})
		}
	}
}

// reconcileOne takes any request from the queue; failing, its write gets no answer.
func (h *history) reconcileOne(failing bool) {
	waiting := slices.SortedFunc(maps.Keys(h.queue), func(a, b reconcile.Request) int { return strings.Compare(a.Name, b.Name) })
	if len(waiting) == 0 {
		return
	}
	request := pick(h, waiting)
	delete(h.queue, request)
	c := historyClient{h: h, failing: failing}
	h.reconciler.client = c
	result, err := reconcile.AsReconciler[*v1alpha1.Server](c, h.reconciler).Reconcile(context.Background(), request)
	if err != nil || result.RequeueAfter > 0 {
		h.queue[request] = true
	}
}

// settle lets nothing more happen but what has to follow.
func (h *history) settle() {
	h.note("nothing more happens")
	for _, name := range propertyHosts[1:] {
		if s := h.services[name]; s != nil && s.Status.ObservedGeneration != s.Generation {
			s = s.DeepCopy()
			h.derive(s)
			h.putService(s)
		}
	}
	if h.IntN(4) == 0 {
		h.relist()
	}
	const limit = 1000
	for range limit {
		h.deliver(&h.serverNews, h.learnOfServer)
		h.deliver(&h.serviceNews, h.learnOfService)
		h.reconcileOne(false)
		if len(h.serverNews)+len(h.serviceNews)+len(h.queue) == 0 {
			return
		}
	}
	h.complain("there is still something to do after %d steps", limit)
}

func (h *history) check() {
	for name, s := range h.servers {
		want, ok := hoststatus.ForServer(s.Spec.Host, h.services[s.Spec.Host])
		if !ok {
			h.complain("the status of %s does not stand for its spec", s.Spec.Host)
		}
		got := s.Status.HostFields
		if want.HostStatusTransitionTime != nil && got.HostStatusTransitionTime.Before(want.HostStatusTransitionTime) {
			h.complain("%s changed at %v, before its host, which did at %v", name, got.HostStatusTransitionTime, want.HostStatusTransitionTime)
		}
		if (s.Status.HostVersion == "") != (h.services[s.Spec.Host] == nil) {
			h.complain("%s on %q has the host version %q", name, s.Spec.Host, s.Status.HostVersion)
		}
		switch first := got.HostHistory; {
		case len(first) == 0 || len(first) > v1alpha1.MaxHostHistory:
			h.complain("the history of %s has %d entries", name, len(first))
		case !hoststatus.SameStatus(first[0].HostStatus, got.HostStatus) || !first[0].Since.Equal(got.HostStatusTransitionTime):
			h.complain("the history of %s begins with %v since %v", name, ptr.Deref(first[0].HostStatus, "absent"), first[0].Since)
		}
		got.HostHistory = nil
		got.HostStatusTransitionTime, want.HostStatusTransitionTime = nil, nil // Compared when they are written.
		if diff := cmp.Diff(want, got); diff != "" {
			h.complain("%s on %q (-want +got):\n%s", name, s.Spec.Host, diff)
		}
		if s.Status.ObservedGeneration != s.Generation || s.Status.HostStatusTransitionTime == nil {
			h.complain("%s has observed generation %d of %d, and changed at %v", name, s.Status.ObservedGeneration, s.Generation, s.Status.HostStatusTransitionTime)
		}
	}
	before := h.version
	for name := range h.servers {
		h.queue[reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "tenant", Name: name}}] = true
	}
	for range propertyServers {
		h.reconcileOne(false)
	}
	if h.version != before {
		h.complain("what is right is written again")
	}
}

// historyQueue takes requests into the queue.
type historyQueue struct {
	priorityqueue.PriorityQueue[reconcile.Request] // nil: nothing else is expected.
	h                                              *history
}

func (q historyQueue) Add(r reconcile.Request) { q.h.queue[r] = true }

func (q historyQueue) AddWithOpts(_ priorityqueue.AddOpts, requests ...reconcile.Request) {
	for _, r := range requests {
		q.Add(r)
	}
}

// historyClient reads from the caches, and writes to the API server.
type historyClient struct {
	client.Client // nil: nothing else is expected.
	h             *history
	failing       bool
}

func (c historyClient) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch into := into.(type) {
	case *v1alpha1.Server:
		if s, ok := c.h.seenServers[key.Name]; ok {
			s.DeepCopyInto(into)
			return nil
		}
	case *v1alpha1.ComputeService:
		if s, ok := c.h.seenServices[key.Name]; ok {
			s.DeepCopyInto(into)
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

// serversOn does what the index does.
func (h *history) serversOn(host string) (keys []string, err error) {
	for _, name := range propertyServers {
		if s, ok := h.seenServers[name]; ok && s.Spec.Host == host {
			keys = append(keys, client.ObjectKeyFromObject(s).String())
		}
	}
	return keys, nil
}

func (c historyClient) Status() client.SubResourceWriter { return historyWriter{c: c} }

type historyWriter struct {
	client.SubResourceWriter // nil: only Patch is expected.
	c                        historyClient
}

// Patch merges, if the object is still the one that was read, as the API server does.
func (w historyWriter) Patch(_ context.Context, obj client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	h, name := w.c.h, obj.GetName()
	before, ok := h.servers[name]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	data, err := patch.Data(obj)
	if err != nil {
		return err
	}
	var body, whole map[string]any
	if err := errors.Join(json.Unmarshal(data, &body), mergepatch.Recode(before, &whole)); err != nil {
		return err
	}
	version, conditional := body["metadata"].(map[string]any)["resourceVersion"]
	if conditional && version != before.ResourceVersion {
		h.note("a write of %s conflicts", name)
		return apierrors.NewConflict(schema.GroupResource{}, name, errors.New("it has changed"))
	}
	delete(body, "metadata")
	after := &v1alpha1.Server{}
	if err := mergepatch.Recode(mergepatch.Apply(whole, body), after); err != nil {
		return err
	}
	h.note("%s is written: %v", name, ptr.Deref(after.Status.HostStatus, "absent"))
	since, then := after.Status.HostStatusTransitionTime, before.Status.HostStatusTransitionTime
	want := ptr.To(metav1.NewTime(h.clock.Now()))
	var hosts *metav1.Time
	if host := h.seenServices[after.Spec.Host]; host != nil {
		hosts = host.Status.HostStatusTransitionTime
	}
	switch same := hoststatus.SameStatus(before.Status.HostStatus, after.Status.HostStatus); {
	case same && then != nil && (hosts == nil || hosts.Before(then)):
		want = then
	case hosts != nil && (same || before.Status.ObservedGeneration == before.Generation):
		want = hosts
	}
	if !since.Equal(want) {
		h.complain("%s was %s since %v, and is %s since %v", name,
			ptr.Deref(before.Status.HostStatus, "absent"), then, ptr.Deref(after.Status.HostStatus, "absent"), since)
	}
	if then != nil && len(before.Status.HostHistory) > 0 {
		grown := len(after.Status.HostHistory) == 0 || !after.Status.HostHistory[0].Since.Equal(before.Status.HostHistory[0].Since)
		if grown == since.Equal(before.Status.HostHistory[0].Since) {
			h.complain("%s has the history %v after %v, and changed at %v", name, after.Status.HostHistory, before.Status.HostHistory, since)
		}
	}
	if before.Status.State != after.Status.State || before.Status.TaskState != after.Status.TaskState {
		h.complain("what the agent has reported on %s is overwritten", name)
	}
	h.putServer(after)
	if w.c.failing {
		h.note("the answer is lost")
		return errors.New("the answer is lost")
	}
	return nil
}
