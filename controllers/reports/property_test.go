// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/reported"
	"hoststatus.dev/hoststatus/test/framework/mergepatch"
)

var (
	historyHosts   = []string{"host-a", "host-b"}
	historyServers = []string{"vm-1", "vm-2", "vm-3"}
)

// history is a small API server, what the controller's caches know of it, each in its own
// time, and the controller's queue.
type history struct {
	*rapid.T
	version    int
	clock      *clocktesting.FakePassiveClock
	reconciler *Reconciler
	handlers   map[string]handler.EventHandler

	// stored is what the API server has, and seen what the caches have of it, by kind and
	// name. pending are the names of what has changed, which the watch of a kind has not
	// brought yet.
	stored, seen map[string]map[string]client.Object
	pending      map[string][]string
	// queue are the hosts to reconcile, and later those after a while.
	queue, later map[string]bool
	// failing writes get no answer. Some are made at a time.
	failing bool
	writing sync.Mutex
}

const (
	kindServer  = "Server"
	kindService = "ComputeService"
	kindReport  = "HostReport"
)

func kindOf(obj client.Object) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", obj), "*v1alpha1.")
}

// Whatever is reported, made, moved, deleted and made again, and in whatever order the
// controller learns of it: in the end each Server that its host reports on has what the host
// reports, each ComputeService has the counts of its host's report, and nothing is written any
// more. No host ever writes a Server that is not on it.
func TestInTheEndServersHaveWhatTheirHostsReportWhateverTheOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{T: t, clock: clocktesting.NewFakePassiveClock(now), stored: map[string]map[string]client.Object{kindServer: {}, kindService: {}, kindReport: {}}}
		h.restart()
		t.Repeat(map[string]func(*rapid.T){
			"server":  func(t *rapid.T) { h.changeServer(rapid.SampledFrom(historyServers).Draw(t, "server")) },
			"service": func(t *rapid.T) { h.changeService(rapid.SampledFrom(historyHosts).Draw(t, "host")) },
			"report":  func(t *rapid.T) { h.changeReport(rapid.SampledFrom(historyHosts).Draw(t, "host")) },
			"watch":   func(*rapid.T) { h.deliver(h.kind()) },
			"relist":  func(*rapid.T) { h.relist(h.kind()) },
			"reconcile": func(t *rapid.T) {
				h.failing = rapid.IntRange(0, 3).Draw(t, "failing") == 0
				h.reconcileOne()
				h.failing = false
			},
			"restart": func(*rapid.T) { h.restart() },
			"pass":    func(*rapid.T) { h.pass() },
		})
		h.settle()
		h.check()
	})
}

func (h *history) kind() string {
	return rapid.SampledFrom([]string{kindServer, kindService, kindReport}).Draw(h.T, "kind")
}

func (h *history) put(obj client.Object) {
	h.version++
	obj.SetResourceVersion(strconv.Itoa(h.version))
	if obj.GetUID() == "" {
		obj.SetUID(types.UID("uid-" + obj.GetResourceVersion()))
	}
	h.stored[kindOf(obj)][obj.GetName()] = obj
	h.pending[kindOf(obj)] = append(h.pending[kindOf(obj)], obj.GetName())
}

func (h *history) remove(kind, name string) {
	delete(h.stored[kind], name)
	h.pending[kind] = append(h.pending[kind], name)
}

func (h *history) changeServer(name string) {
	host := rapid.SampledFrom(append([]string{""}, historyHosts...)).Draw(h.T, "on")
	s, ok := h.stored[kindServer][name].(*v1alpha1.Server)
	if !ok {
		h.put(server("team", name, host))
		return
	}
	s = s.DeepCopy()
	switch rapid.IntRange(0, 4).Draw(h.T, "change") {
	case 0:
		h.remove(kindServer, name)
		return
	case 1:
		s.Status.TaskState = "of-somebody-else"
	case 2: // Something else begins or ceases to report on it.
		s.Spec.ProviderID = strings.Repeat("mirrored", 1-min(len(s.Spec.ProviderID), 1))
	default:
		s.Spec.Host = host
	}
	h.put(s)
}

func (h *history) changeService(name string) {
	s, ok := h.stored[kindService][name].(*v1alpha1.ComputeService)
	if !ok {
		h.put(service(name))
		return
	}
	s = s.DeepCopy()
	switch rapid.IntRange(0, 2).Draw(h.T, "change") {
	case 0:
		h.remove(kindService, name)
		return
	case 1:
		s.Status = v1alpha1.ComputeServiceStatus{}
	default:
		s.Status.ObservedGeneration++
	}
	h.put(s)
}

func (h *history) changeReport(host string) {
	if _, ok := h.stored[kindReport][host]; ok && rapid.IntRange(0, 3).Draw(h.T, "gone") == 0 {
		h.remove(kindReport, host)
		return
	}
	report := reportOf(host)
	if before, ok := h.stored[kindReport][host]; ok {
		report.UID = before.GetUID()
	}
	report.CreationTimestamp.Time = h.clock.Now()
	for _, name := range historyServers {
		if rapid.Bool().Draw(h.T, name) {
			e := entry("team", name, rapid.SampledFrom([]v1alpha1.ServerState{"ACTIVE", "PAUSED"}).Draw(h.T, "state"))
			e.TaskState = host
			report.Spec.Servers = append(report.Spec.Servers, e)
		}
	}
	h.put(report)
}

// restart is another leader, which has listed everything before it begins.
func (h *history) restart() {
	h.reconciler = NewReconciler(historyClient{h: h}, h.clock).LeaveOut(mirrored)
	x := h.reconciler.index
	h.handlers = map[string]handler.EventHandler{
		kindServer: &serverEvents{index: x, concerns: h.reconciler.concerns}, kindService: serviceEvents(x), kindReport: &reportEvents{index: x},
	}
	h.seen = map[string]map[string]client.Object{kindServer: {}, kindService: {}, kindReport: {}}
	h.queue, h.later, h.pending = map[string]bool{}, map[string]bool{}, map[string][]string{}
	for _, kind := range []string{kindServer, kindService, kindReport} {
		h.relist(kind)
	}
}

func mirrored(s *v1alpha1.Server) bool { return s.Spec.ProviderID != "" }

// deliver lets the watch of a kind bring one object, as it is now.
func (h *history) deliver(kind string) {
	if names := h.pending[kind]; len(names) > 0 {
		h.pending[kind] = names[1:]
		h.learn(kind, names[0])
	}
}

// relist is what follows a watch that was cut: an object that was made again looks like one
// that has changed.
func (h *history) relist(kind string) {
	h.pending[kind] = nil
	names := maps.Clone(h.stored[kind])
	maps.Copy(names, h.seen[kind])
	for _, name := range slices.Sorted(maps.Keys(names)) {
		h.learn(kind, name)
	}
}

// learn puts the present state of an object into the cache, and then calls the handlers.
func (h *history) learn(kind, name string) {
	before, after := h.seen[kind][name], h.stored[kind][name]
	if report, ok := after.(*agentv1alpha1.HostReport); ok {
		obj, err := Keep(report)
		if err != nil {
			h.Fatal(err)
		}
		after = obj.(client.Object)
	}
	ctx, queue := context.Background(), historyQueue{h: h}
	switch {
	case after == nil && before == nil:
	case after == nil:
		delete(h.seen[kind], name)
		h.handlers[kind].Delete(ctx, event.DeleteEvent{Object: before}, queue)
	case before == nil:
		h.seen[kind][name] = after
		h.handlers[kind].Create(ctx, event.CreateEvent{Object: after}, queue)
	case before.GetResourceVersion() != after.GetResourceVersion():
		h.seen[kind][name] = after
		h.handlers[kind].Update(ctx, event.UpdateEvent{ObjectOld: before, ObjectNew: after}, queue)
	}
}

// pass lets time pass.
func (h *history) pass() {
	h.clock.SetTime(h.clock.Now().Add(time.Minute))
	maps.Copy(h.queue, h.later)
	clear(h.later)
}

func (h *history) reconcileOne() {
	waiting := slices.Sorted(maps.Keys(h.queue))
	if len(waiting) == 0 {
		return
	}
	host := rapid.SampledFrom(waiting).Draw(h.T, "reconciled")
	delete(h.queue, host)
	result, err := h.reconciler.Reconcile(context.Background(), requestFor(host))
	switch {
	case err != nil:
		h.queue[host] = true
	case result.RequeueAfter > 0:
		h.later[host] = true
	}
}

// settle lets nothing more happen but what has to follow.
func (h *history) settle() {
	for range 1000 {
		for kind := range h.stored {
			h.deliver(kind)
		}
		h.reconcileOne()
		h.pass()
		if len(h.pending[kindServer])+len(h.pending[kindService])+len(h.pending[kindReport])+len(h.queue)+len(h.later) == 0 {
			return
		}
	}
	h.Fatal("there is still something to do")
}

func (h *history) check() {
	for _, host := range historyHosts {
		report, reports := h.stored[kindReport][host].(*agentv1alpha1.HostReport)
		notHere := 0
		if reports {
			for _, e := range report.Spec.Servers {
				s, ok := h.stored[kindServer][e.Name].(*v1alpha1.Server)
				if !ok || s.Spec.Host != host || mirrored(s) {
					notHere++
				} else if diff := cmp.Diff(fieldsOf(e), reported.Of(&s.Status)); diff != "" {
					h.Errorf("%s on %s (-reported +stored):\n%s", e.Name, host, diff)
				}
			}
		}
		service, ok := h.stored[kindService][host].(*v1alpha1.ComputeService)
		if !ok {
			continue
		}
		got, want := "none", "none"
		if c := service.Status.Report; c != nil {
			got = fmt.Sprintf("%d servers, %d not here", *c.Servers, *c.NotHere)
		}
		if reports {
			want = fmt.Sprintf("%d servers, %d not here", len(report.Spec.Servers), notHere)
		}
		if got != want {
			h.Errorf("%s has counts: %s, want %s", host, got, want)
		}
	}
	before := h.version
	for _, host := range historyHosts {
		h.queue[host] = true
	}
	h.settle()
	if h.version != before {
		h.Error("what is right is written again")
	}
}

// historyQueue takes requests into the queue.
type historyQueue struct {
	requests // nil: nothing else is expected.
	h        *history
}

func (q historyQueue) Add(r reconcile.Request)                       { q.h.queue[r.Name] = true }
func (q historyQueue) AddAfter(r reconcile.Request, _ time.Duration) { q.h.later[r.Name] = true }

// historyClient reads from the caches, and writes to the API server.
type historyClient struct {
	client.Client // nil: nothing else is expected.
	h             *history
}

func (c historyClient) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	obj, ok := c.h.seen[kindOf(into)][key.Name]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	return mergepatch.Recode(obj, into)
}

func (c historyClient) Status() client.SubResourceWriter { return historyWriter{h: c.h} }

type historyWriter struct {
	client.SubResourceWriter // nil: only Patch is expected.
	h                        *history
}

// Patch merges, if the object is still the one that was read, as the API server does.
func (w historyWriter) Patch(_ context.Context, obj client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	w.h.writing.Lock()
	defer w.h.writing.Unlock()
	before, ok := w.h.stored[kindOf(obj)][obj.GetName()]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, obj.GetName())
	}
	if obj.GetResourceVersion() != before.GetResourceVersion() {
		return apierrors.NewConflict(schema.GroupResource{}, obj.GetName(), errors.New("it has changed"))
	}
	data, err := patch.Data(obj)
	if err != nil {
		return err
	}
	var body, whole map[string]any
	if err := errors.Join(json.Unmarshal(data, &body), mergepatch.Recode(before, &whole)); err != nil {
		return err
	}
	delete(body, "metadata")
	after := obj.DeepCopyObject().(client.Object)
	if s, ok := after.(*v1alpha1.Server); ok {
		s.Status = v1alpha1.ServerStatus{}
	} else {
		after.(*v1alpha1.ComputeService).Status = v1alpha1.ComputeServiceStatus{}
	}
	if err := mergepatch.Recode(mergepatch.Apply(whole, body), after); err != nil {
		return err
	}
	if s, ok := after.(*v1alpha1.Server); ok && s.Status.TaskState != s.Spec.Host {
		w.h.Errorf("%s, which is on %q, has what %q reports", s.Name, s.Spec.Host, s.Status.TaskState)
	}
	w.h.put(after)
	if w.h.failing {
		return errors.New("the answer is lost")
	}
	return nil
}
