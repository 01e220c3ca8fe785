// SPDX-License-Identifier: Apache-2.0

// Package computeservice derives the host status of each ComputeService from its
// spec, the monitor's verdict on its heartbeats and the time of day.
package computeservice

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/answers"
	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/hostsfirst"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/retry"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// +kubebuilder:rbac:groups=compute.hoststatus.dev,resources=computeservices,verbs=get;list;watch
// +kubebuilder:rbac:groups=compute.hoststatus.dev,resources=computeservices/status,verbs=patch

// workers is how many ComputeServices are written at once. When a whole rack falls
// silent, a slow API server should delay its verdicts by its latency once, not once
// for each host.
const workers = 64

// answersDelay is how long an answer, or a server that comes or goes, waits for others to
// be counted with it, and how long a count is used. So an owner who changes his answer all the
// time causes no more than two writes a second, and as many of each server on the host.
const answersDelay = 500 * time.Millisecond

// Monitor is the part of heartbeat.Monitor that the controller uses.
type Monitor interface {
	Listen(heartbeat.Listeners)
	Track(heartbeat.Subject)
	Forget(name string, uid types.UID)
	Verdict(name string, uid types.UID) (heartbeat.Verdict, bool)
}

// Reconciler keeps the status of ComputeServices.
type Reconciler struct {
	client    client.Client
	monitor   Monitor
	clock     clock.PassiveClock
	conflicts retry.Limiter
	gate      *hostsfirst.Gate
	// nodeOf may be nil: see OfNodes.
	nodeOf func(*v1alpha1.ComputeService) types.UID
	// answers may be nil: see WithAnswers.
	answers Answers

	mu sync.Mutex
	// counts has what was counted last for each host with a window that is not open.
	counts map[string]lastCount
}

// lastCount is what the owners of the servers on a host had answered at a time.
type lastCount struct {
	uid        types.UID
	generation int64
	at         time.Time
	hoststatus.Answers
}

// Answers is the part of answers.Answers that the controller uses.
type Answers interface {
	Listen(answers.Listeners)
	// Count returns what the owners of the servers on a host have answered to a window; ok
	// is false while that is not known.
	Count(host string, window *v1alpha1.MaintenanceWindow) (counts hoststatus.Answers, ok bool)
}

// NewReconciler returns a Reconciler.
func NewReconciler(c client.Client, monitor Monitor, clk clock.PassiveClock) *Reconciler {
	return &Reconciler{client: c, monitor: monitor, clock: clk, conflicts: retry.NewLimiter(), gate: hostsfirst.New(), counts: map[string]lastCount{}}
}

// Before makes Servers, which pass gate, too, wait while many hosts are written. It is called
// before SetupWithManager.
func (r *Reconciler) Before(gate *hostsfirst.Gate) *Reconciler {
	r.gate = gate
	return r
}

// OfNodes makes a host ignore the Leases of any Node but the one that nodeOf returns.
// It is called before SetupWithManager.
func (r *Reconciler) OfNodes(nodeOf func(*v1alpha1.ComputeService) types.UID) *Reconciler {
	r.nodeOf = nodeOf
	return r
}

// WithAnswers makes the controller count what owners answer to maintenance windows. Without
// it, answers are not known. It is called before SetupWithManager.
func (r *Reconciler) WithAnswers(a Answers) *Reconciler {
	r.answers = a
	return r
}

// SetupWithManager registers the controller. What wakes it:
//   - a ComputeService that changes, because its spec decides, and because a
//     status changed by somebody else has to be put right. The monitor is updated
//     first, in standbys too;
//   - the monitor, when it has a new verdict on one;
//   - a step of the wall clock, for those with a maintenance window;
//   - an answer of an owner whose server is on one, and a server that comes or goes: after
//     a moment, so that many of them cost one write, and behind everything else.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	return builder.ControllerManagedBy(mgr).
		Named("computeservice").
		WithOptions(options()).
		Watches(&v1alpha1.ComputeService{}, &tracker{monitor: r.monitor, nodeOf: r.nodeOf, forget: r.forgetCount}).
		WatchesRawSource(source.Func(r.listen)).
		Complete(retry.UntilStopped(reconcile.AsReconciler(r.client, r)))
}

func options() controller.Options {
	return controller.Options{MaxConcurrentReconciles: workers, EnableWarmup: ptr.To(true), RateLimiter: retry.NewLimiter()}
}

// Reconcile writes the status of one ComputeService, if it is not right.
func (r *Reconciler) Reconcile(ctx context.Context, service *v1alpha1.ComputeService) (reconcile.Result, error) {
	verdict, ok := r.monitor.Verdict(service.Name, service.UID)
	if !ok || verdict.Version != service.ResourceVersion {
		// The monitor has not seen yet what the cache has: a new spec, or what another
		// leader has written. Its verdict would be older than the object, and the object's
		// version no guard. We are woken when it has.
		return reconcile.Result{}, nil
	}
	now := r.clock.Now()
	before := service.Status
	answered, again := r.answered(service, now)
	after, changed, next := decide(service, verdict, answered, now)
	if again > 0 && opens(&before, &after) {
		answered, again = r.count(service, now), 0 // What comes until now is not too late.
		after, changed, next = decide(service, verdict, answered, now)
	}
	result := reconcile.Result{RequeueAfter: again}
	if !next.IsZero() && (again == 0 || next.Sub(now) < again) {
		result.RequeueAfter = next.Sub(now)
	}
	request := requestFor(service.Name)
	if !changed {
		r.conflicts.Forget(request)
		return result, nil
	}
	err := r.patch(ctx, service, &before, &after)
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: r.conflicts.When(request)}, nil
	}
	r.conflicts.Forget(request)
	if err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("writing host status: %w", err))
	}
	r.measure(&before, &after, verdict, now)
	if hoststatus.SameStatus(before.HostStatus, after.HostStatus) && before.HostStatusReason == after.HostStatusReason {
		return result, nil
	}
	log.FromContext(ctx).Info("Host status changed",
		"old", ptr.Deref(before.HostStatus, ""), "new", ptr.Deref(after.HostStatus, ""),
		"reason", after.HostStatusReason, "reporting", verdict.Reporting == heartbeat.Reports)
	return result, nil
}

func (r *Reconciler) patch(ctx context.Context, service *v1alpha1.ComputeService, before, after *v1alpha1.ComputeServiceStatus) error {
	defer r.gate.Host()()
	return statuspatch.Patch(ctx, r.client, service, fieldsOf(before), fieldsOf(after))
}

// answered returns what owners have answered to the window of a host. If that was counted a
// moment ago, again is how long until it has to be counted again: an answer that has come
// since wakes the controller, but the queue merges that with whatever wakes it before. It
// does not count them where they change nothing any more.
func (r *Reconciler) answered(service *v1alpha1.ComputeService, now time.Time) (answered owners, again time.Duration) {
	if service.Spec.MaintenanceWindow == nil || r.answers == nil || hoststatus.WindowOpened(service, now) {
		r.forgetCount(service.Name)
		return owners{}, 0
	}
	r.mu.Lock()
	last, ok := r.counts[service.Name]
	r.mu.Unlock()
	age := now.Sub(last.at)
	if ok && last.uid == service.UID && last.generation == service.Generation && age >= 0 && age < answersDelay {
		return owners{last.Answers, true}, answersDelay - age
	}
	return r.count(service, now), 0
}

// count counts what owners have answered.
func (r *Reconciler) count(service *v1alpha1.ComputeService, now time.Time) owners {
	counts, known := r.answers.Count(service.Name, service.Spec.MaintenanceWindow)
	if known {
		r.mu.Lock()
		r.counts[service.Name] = lastCount{service.UID, service.Generation, now, counts}
		r.mu.Unlock()
	}
	return owners{counts, known}
}

func (r *Reconciler) forgetCount(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.counts, host)
}

// opens reports whether a window opens by a change of status.
func opens(before, after *v1alpha1.ComputeServiceStatus) bool {
	return !meta.IsStatusConditionTrue(before.Conditions, v1alpha1.ConditionWindowOpen) &&
		meta.IsStatusConditionTrue(after.Conditions, v1alpha1.ConditionWindowOpen)
}

// listen lets the monitor, and the owners, wake the controller.
func (r *Reconciler) listen(ctx context.Context, queue requests) error {
	if r.answers != nil {
		r.answers.Listen(answers.Listeners{
			Host:  func(host string) { addLater(queue, requestFor(host)) },
			Known: func() { go r.requeueWindows(ctx, queue) },
		})
	}
	r.monitor.Listen(heartbeat.Listeners{
		Changed:      func(name string) { queue.Add(requestFor(name)) },
		ClockStepped: func() { go r.requeueWindows(ctx, queue) },
	})
	return nil
}

// addLater adds what owners cause: however often they do that, it is answersDelay later,
// and once.
func addLater(queue requests, request reconcile.Request) {
	if pq, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		pq.AddWithOpts(priorityqueue.AddOpts{After: answersDelay, Priority: ptr.To(handler.LowPriority)}, request)
	} else {
		queue.AddAfter(request, answersDelay)
	}
}

// requeueWindows wakes every ComputeService whose status depends on the wall clock.
func (r *Reconciler) requeueWindows(ctx context.Context, queue requests) {
	var services v1alpha1.ComputeServiceList
	if err := r.client.List(ctx, &services, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing ComputeServices after the wall clock was set failed")
		return
	}
	for i := range services.Items {
		if services.Items[i].Spec.MaintenanceWindow != nil {
			queue.Add(requestFor(services.Items[i].Name))
		}
	}
}

func requestFor(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// tracker updates the monitor with each ComputeService before it wakes the controller.
type tracker struct {
	handler.EnqueueRequestForObject
	monitor Monitor
	nodeOf  func(*v1alpha1.ComputeService) types.UID
	// forget may be nil. It is called with the name of what is gone.
	forget func(name string)
}

func (t *tracker) track(service *v1alpha1.ComputeService) {
	subject := subjectOf(service)
	if t.nodeOf != nil {
		subject.Node = t.nodeOf(service)
	}
	t.monitor.Track(subject)
}

type requests = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Create tracks a ComputeService that is new, or new to this process.
func (t *tracker) Create(ctx context.Context, e event.CreateEvent, queue requests) {
	if service, ok := e.Object.(*v1alpha1.ComputeService); ok {
		t.track(service)
	}
	t.EnqueueRequestForObject.Create(ctx, e, queue)
}

// Update tracks what has changed.
func (t *tracker) Update(ctx context.Context, e event.UpdateEvent, queue requests) {
	if service, ok := e.ObjectNew.(*v1alpha1.ComputeService); ok {
		t.track(service)
	}
	t.EnqueueRequestForObject.Update(ctx, e, queue)
}

// Delete forgets a ComputeService.
func (t *tracker) Delete(ctx context.Context, e event.DeleteEvent, queue requests) {
	t.monitor.Forget(e.Object.GetName(), e.Object.GetUID())
	if t.forget != nil {
		t.forget(e.Object.GetName())
	}
	t.EnqueueRequestForObject.Delete(ctx, e, queue)
}

// fields are the fields that this controller owns: the whole status but for the counts of
// the host's report. An absent one is written as null, so that it is removed.
type fields struct {
	Conditions               []metav1.Condition        `json:"conditions"`
	HostStatus               *v1alpha1.HostStatus      `json:"hostStatus"`
	HostStatusReason         v1alpha1.HostStatusReason `json:"hostStatusReason"`
	HostStatusTransitionTime *metav1.Time              `json:"hostStatusTransitionTime"`
	LastSeenUpTime           *metav1.Time              `json:"lastSeenUpTime"`
	ObservedGeneration       int64                     `json:"observedGeneration"`

	Maintenance *v1alpha1.MaintenanceStatus `json:"maintenance"`
}

func fieldsOf(s *v1alpha1.ComputeServiceStatus) fields {
	return fields{
		Conditions:               s.Conditions,
		HostStatus:               s.HostStatus,
		HostStatusReason:         s.HostStatusReason,
		HostStatusTransitionTime: s.HostStatusTransitionTime,
		LastSeenUpTime:           s.LastSeenUpTime,
		ObservedGeneration:       s.ObservedGeneration,
		Maintenance:              s.Maintenance,
	}
}
