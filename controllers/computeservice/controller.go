// SPDX-License-Identifier: Apache-2.0

// Package computeservice derives the host status of each ComputeService from its
// spec, the monitor's verdict on its heartbeats and the time of day.
package computeservice

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
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
	// nodeOf may be nil: see OfNodes.
	nodeOf func(*v1alpha1.ComputeService) types.UID
}

// NewReconciler returns a Reconciler.
func NewReconciler(c client.Client, monitor Monitor, clk clock.PassiveClock) *Reconciler {
	return &Reconciler{client: c, monitor: monitor, clock: clk, conflicts: retry.NewLimiter()}
}

// OfNodes makes a host ignore the Leases of any Node but the one that nodeOf returns.
// It is called before SetupWithManager.
func (r *Reconciler) OfNodes(nodeOf func(*v1alpha1.ComputeService) types.UID) *Reconciler {
	r.nodeOf = nodeOf
	return r
}

// SetupWithManager registers the controller. What wakes it:
//   - a ComputeService that changes, because its spec decides, and because a
//     status changed by somebody else has to be put right. The monitor is updated
//     first, in standbys too;
//   - the monitor, when it has a new verdict on one;
//   - a step of the wall clock, for those with a maintenance window.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	return builder.ControllerManagedBy(mgr).
		Named("computeservice").
		WithOptions(options()).
		Watches(&v1alpha1.ComputeService{}, &tracker{monitor: r.monitor, nodeOf: r.nodeOf}).
		WatchesRawSource(source.Func(r.listen)).
		Complete(reconcile.AsReconciler(r.client, r))
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
	after, changed, next := decide(service, verdict, now)
	result := reconcile.Result{}
	if !next.IsZero() {
		result.RequeueAfter = next.Sub(now)
	}
	request := requestFor(service.Name)
	if !changed {
		r.conflicts.Forget(request)
		return result, nil
	}
	err := statuspatch.Patch(ctx, r.client, service, fieldsOf(&before), fieldsOf(&after))
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

// listen lets the monitor wake the controller.
func (r *Reconciler) listen(ctx context.Context, queue requests) error {
	r.monitor.Listen(heartbeat.Listeners{
		Changed:      func(name string) { queue.Add(requestFor(name)) },
		ClockStepped: func() { go r.requeueWindows(ctx, queue) },
	})
	return nil
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
}

func fieldsOf(s *v1alpha1.ComputeServiceStatus) fields {
	return fields{
		Conditions:               s.Conditions,
		HostStatus:               s.HostStatus,
		HostStatusReason:         s.HostStatusReason,
		HostStatusTransitionTime: s.HostStatusTransitionTime,
		LastSeenUpTime:           s.LastSeenUpTime,
		ObservedGeneration:       s.ObservedGeneration,
	}
}
