// SPDX-License-Identifier: Apache-2.0

// Package nodeconditions tells users of Kubernetes of the maintenance windows of hosts that
// are Nodes, by the conditions that Kubernetes has for that: MaintenancePlanned while one is
// announced, and MaintenanceInProgress while it is open.
package nodeconditions

import (
	"context"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/nodemirror"
	"hoststatus.dev/hoststatus/internal/logonce"
	"hoststatus.dev/hoststatus/internal/retry"
)

// Its rights are in config/node-conditions, and not generated: only installations that use
// it grant them.

const (
	// workers is how many Nodes are reconciled at once.
	workers = 4
	// longestRetry is the longest wait after a write that failed.
	longestRetry = 5 * time.Second
)

// Reconciler keeps the maintenance conditions of Nodes.
type Reconciler struct {
	client client.Client
	nodes  cache.Cache
	leads  func() bool
	logged logonce.Log[string]
}

// NewReconciler returns a Reconciler. The client reads ComputeServices, and nodes Nodes,
// from caches with the transforms of nodemirror. leads returns whether no other process can
// lead yet.
func NewReconciler(c client.Client, nodes cache.Cache, leads func() bool) *Reconciler {
	return &Reconciler{client: c, nodes: nodes, leads: leads}
}

// SetupWithManager registers the controller. What wakes it:
//   - a Node that appears, or whose maintenance conditions change;
//   - a ComputeService whose window is announced, changed, opened, closed or removed.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	return builder.ControllerManagedBy(mgr).
		Named("nodeconditions").
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter:             retry.NewLimiterUpTo(longestRetry),
			// By default the manager would exit if the Nodes cannot be listed.
			CacheSyncTimeout: math.MaxInt64,
		}).
		WatchesRawSource(source.Kind(r.nodes, &corev1.Node{}, &handler.TypedEnqueueRequestForObject[*corev1.Node]{}, nodeChange)).
		Watches(&v1alpha1.ComputeService{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(windowChange)).
		Complete(retry.UntilStopped(r))
}

// nodeChange leaves out the heartbeats of Nodes.
var nodeChange = predicate.TypedFuncs[*corev1.Node]{UpdateFunc: func(e event.TypedUpdateEvent[*corev1.Node]) bool {
	before, after := e.ObjectOld, e.ObjectNew
	return before.UID != after.UID || !same(nodemirror.OwnCondition(before), nodemirror.OwnCondition(after)) || declared(before) != declared(after)
}}

// windowChange leaves out what changes nothing about a window.
var windowChange = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*v1alpha1.ComputeService)
	after, ok2 := e.ObjectNew.(*v1alpha1.ComputeService)
	if !ok || !ok2 {
		return false
	}
	was, is := nodemirror.NodeOf(before), nodemirror.NodeOf(after)
	return was != is || !same(of(before, was), of(after, is))
}}

// Reconcile brings the conditions of one Node in line with the window of its host.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	node, service := &corev1.Node{}, &v1alpha1.ComputeService{}
	if err := r.nodes.Get(ctx, request.NamespacedName, node); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if err := r.client.Get(ctx, request.NamespacedName, service); apierrors.IsNotFound(err) {
		service = nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading the ComputeService: %w", err)
	}
	if !r.leads() {
		return reconcile.Result{RequeueAfter: retry.ConflictDelay}, nil
	}
	want, has, message := of(service, node.UID), nodemirror.OwnCondition(node), ""
	if want != nil && nodemirror.Foreign(node, want.Type) {
		message = "Somebody else has set the condition " + string(want.Type) + " of the Node, so it is left alone"
		want = nil
	}
	r.logged.Info(ctx, node.Name, message)
	if same(want, has) {
		return reconcile.Result{}, nil
	}
	err := r.apply(ctx, node, want)
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// The cache is behind: the Node was replaced or is gone, or somebody else has just
		// set the condition. Each wakes us.
		return reconcile.Result{}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("writing the conditions of the Node: %w", err)
	case want == nil:
		log.FromContext(ctx).Info("Removed the maintenance condition of a Node")
	default:
		log.FromContext(ctx).Info("Set the maintenance condition of a Node", "condition", want.Type, "message", want.Message)
	}
	return reconcile.Result{}, nil
}

// apply gives the Node this condition, and takes the other away that this manager gave it.
func (r *Reconciler) apply(ctx context.Context, node *corev1.Node, c *corev1.NodeCondition) error {
	status := corev1apply.NodeStatus().WithConditions(nodemirror.EditedConditions(node)...)
	if c != nil {
		status.WithConditions(corev1apply.NodeCondition().WithType(c.Type).WithStatus(c.Status).
			WithReason(c.Reason).WithMessage(c.Message).WithLastTransitionTime(c.LastTransitionTime))
	}
	return r.client.Status().Apply(ctx, corev1apply.Node(node.Name).WithUID(node.UID).WithStatus(status), client.FieldOwner(nodemirror.ConditionOwner))
}

// declared are the maintenance conditions that others have set.
func declared(node *corev1.Node) (types [2]bool) {
	return [2]bool{
		nodemirror.Foreign(node, corev1.NodeMaintenancePlanned),
		nodemirror.Foreign(node, corev1.NodeMaintenanceInProgress),
	}
}
