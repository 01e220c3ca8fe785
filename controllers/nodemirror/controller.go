// SPDX-License-Identifier: Apache-2.0

// Package nodemirror keeps one ComputeService for each Node, so that hosts which are
// nodes need neither an agent nor ComputeServices made by hand.
package nodemirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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
	"hoststatus.dev/hoststatus/internal/logonce"
	"hoststatus.dev/hoststatus/internal/retry"
)

// Its rights are in config/node-mirror, and not generated: only installations that use
// the mirror grant them.

const (
	// workers is how many Nodes are reconciled at once. Nothing waits for the mirror as
	// it does for a verdict; only one or two Nodes are urgent at a time.
	workers = 8
	// refusedRetry is how long to wait before a write that was refused is tried again:
	// nothing here is woken when Servers move away, or a policy of the cluster changes.
	refusedRetry = 30 * time.Second
	// longestRetry is the longest wait after a write that failed. By default it would be
	// a quarter of an hour, in which a Node that is out of service is not DOWN.
	longestRetry = 5 * time.Second
)

// Reconciler keeps the ComputeServices of Nodes.
//
// It remembers nothing that decides: what it does follows from a Node and a
// ComputeService, and each write is conditional on the ComputeService that it was
// decided from. That does not cover the Node, which comes from another cache: a former
// leader that was paused may have a current ComputeService and an outdated Node, and
// would take a live host for one that is out of service, or gone. So each decision
// also requires that this process still leads after both have been read. What remains
// is a pause between that check and the write.
type Reconciler struct {
	client    client.Client
	nodes     cache.Cache
	selector  labels.Selector
	serversOn func(host string) (int, error)
	leads     func() bool
	logged    logonce.Log[string]
}

// NewReconciler returns a Reconciler for the Nodes that selector matches. The client
// must read from a cache with the transform KeepOwnEntries. Nodes have a separate cache,
// with the transform StripNode: every controller waits for the whole cache that it
// reads, and where the right to list Nodes is missing, only the mirror should wait.
// serversOn returns how many Servers name a host, and leads whether no other process
// can lead yet.
func NewReconciler(c client.Client, nodes cache.Cache, selector labels.Selector, serversOn func(host string) (int, error), leads func() bool) *Reconciler {
	return &Reconciler{client: c, nodes: nodes, selector: selector, serversOn: serversOn, leads: leads}
}

// SetupWithManager registers the controller. What wakes it:
//   - a Node that appears, disappears, or changes whether it is selected, cordoned, in
//     maintenance or out of service; not its heartbeats and the rest of its status;
//   - a ComputeService whose spec or metadata changes, since somebody may have taken a
//     field, or given it back.
//
// A standby is not warm: it holds no Nodes before it leads.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	return builder.ControllerManagedBy(mgr).
		Named("nodemirror").
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter:             retry.NewLimiterUpTo(longestRetry),
			// By default the manager would exit if the Nodes cannot be listed.
			CacheSyncTimeout: math.MaxInt64,
		}).
		WatchesRawSource(source.Kind(r.nodes, &corev1.Node{}, &handler.TypedEnqueueRequestForObject[*corev1.Node]{}, r.nodeChange())).
		Watches(&v1alpha1.ComputeService{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(specOrMetadata)).
		Complete(retry.UntilStopped(r))
}

// nodeChange passes only changes of what the mirror uses.
func (r *Reconciler) nodeChange() predicate.TypedPredicate[*corev1.Node] {
	return predicate.TypedFuncs[*corev1.Node]{UpdateFunc: func(e event.TypedUpdateEvent[*corev1.Node]) bool {
		before, after := e.ObjectOld, e.ObjectNew
		return before.UID != after.UID || r.selects(before) != r.selects(after) || !maps.Equal(flagsOf(before), flagsOf(after))
	}}
}

// specOrMetadata leaves out changes of status.
var specOrMetadata = predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{})

// StripNode is the transform of the cache of Nodes: it keeps what the mirror uses. A
// Node has kilobytes of status.
func StripNode(obj any) (any, error) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	stripped := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: node.Labels},
		Spec:       corev1.NodeSpec{Unschedulable: node.Spec.Unschedulable},
	}
	if taint := outOfService(node); taint != nil {
		stripped.Spec.Taints = []corev1.Taint{{Key: taint.Key, Value: taint.Value, Effect: taint.Effect}}
	}
	stripped.Status.Conditions, stripped.ManagedFields = stripConditions(node)
	return stripped, nil
}

func (r *Reconciler) selects(node *corev1.Node) bool {
	return r.selector.Matches(labels.Set(node.Labels))
}

// notLeading is the result where this process may have a successor, or is about to
// renew its Lease.
var notLeading = reconcile.Result{RequeueAfter: retry.ConflictDelay}

// Reconcile brings the ComputeService of one name in line with the Node of that name.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	node, err := found(ctx, r.nodes, request, &corev1.Node{})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading the Node: %w", err)
	}
	service, err := found(ctx, r.client, request, &v1alpha1.ComputeService{})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading the ComputeService: %w", err)
	}
	if !r.leads() {
		return notLeading, nil
	}
	selected := node != nil && r.selects(node)
	d := decide(node, selected, service)
	if d.action == create {
		if service, err = r.create(ctx, request.Name, d.fields); err != nil {
			return r.outcome(ctx, request.Name, err)
		}
		if !r.leads() {
			return notLeading, nil
		}
		d = decide(node, selected, service)
	}
	switch d.action {
	case applyFields:
		err = r.apply(ctx, service, d.fields)
	case remove:
		return r.remove(ctx, service, d)
	}
	if err == nil {
		r.logged.Info(ctx, request.Name, d.message)
	}
	return r.outcome(ctx, request.Name, err)
}

// outcome returns what follows from the result of a write.
func (r *Reconciler) outcome(ctx context.Context, name string, err error) (reconcile.Result, error) {
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return reconcile.Result{RequeueAfter: retry.ConflictDelay}, nil
	case apierrors.IsInvalid(err):
		// That is also what an admission policy answers.
		r.logged.Info(ctx, name, "The Node cannot have a ComputeService; retrying every "+refusedRetry.String()+": "+err.Error())
		return reconcile.Result{RequeueAfter: refusedRetry}, nil
	default:
		return reconcile.Result{}, err
	}
}

// found reads the object that request names; nil if it is not there.
func found[T client.Object](ctx context.Context, reader client.Reader, request reconcile.Request, obj T) (T, error) {
	err := reader.Get(ctx, request.NamespacedName, obj)
	if apierrors.IsNotFound(err) {
		var none T
		return none, nil
	}
	return obj, err
}

// create makes the ComputeService, provided that there is none: applying would take
// over one that a person makes at the same moment.
func (r *Reconciler) create(ctx context.Context, name string, fields values) (*v1alpha1.ComputeService, error) {
	service := &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{LabelManagedBy: fields[managedBy]},
			Annotations: map[string]string{AnnotationNodeUID: fields[nodeUID]},
		},
		Spec: v1alpha1.ComputeServiceSpec{LeaseRef: &v1alpha1.LeaseReference{Namespace: fields[leaseNamespace], Name: fields[leaseName]}},
	}
	if err := r.client.Create(ctx, service, client.FieldOwner(FieldOwner)); err != nil {
		return nil, fmt.Errorf("creating the ComputeService: %w", err)
	}
	log.FromContext(ctx).Info("Created the ComputeService of a Node")
	return service, nil
}

// apply writes fields, and gives up those that the mirror has owned and are not among
// them. A field that somebody else owns stays theirs.
func (r *Reconciler) apply(ctx context.Context, service *v1alpha1.ComputeService, fields values) error {
	err := r.applyOnce(ctx, service, fields)
	if theirs := inDispute(err); len(theirs) > 0 {
		fields = maps.Clone(fields)
		for _, field := range theirs {
			delete(fields, field)
		}
		err = r.applyOnce(ctx, service, fields)
	}
	if err != nil {
		return fmt.Errorf("applying the ComputeService: %w", err)
	}
	log.FromContext(ctx).Info("Applied the state of a Node", "disabled", fields[disabled] == "true", "forcedDown", fields[forcedDown] == "true", "maintenancePlanned", fields[windowReason] != "")
	return nil
}

func (r *Reconciler) applyOnce(ctx context.Context, service *v1alpha1.ComputeService, fields values) error {
	// The UID, since applying a deleted object would create it again.
	on := fields.configuration(service.Name).WithUID(service.UID).WithResourceVersion(service.ResourceVersion)
	return r.client.Apply(ctx, on, client.FieldOwner(FieldOwner))
}

// inDispute returns the fields that another manager applies with other values.
func inDispute(err error) (fields []string) {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	for _, cause := range status.Status().Details.Causes {
		if cause.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		for field, path := range paths {
			if path.String() == cause.Field {
				fields = append(fields, field)
			}
		}
	}
	return fields
}

// remove deletes the ComputeService of a Node that is gone, and logs how many Servers
// lose their host status by that. A protected one stays, and gets the fields of d.
func (r *Reconciler) remove(ctx context.Context, service *v1alpha1.ComputeService, d decision) (reconcile.Result, error) {
	servers, err := r.serversOn(service.Name)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("counting the Servers on the host: %w", err)
	}
	err = r.client.Delete(ctx, service, client.Preconditions{UID: &service.UID, ResourceVersion: &service.ResourceVersion})
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		return r.outcome(ctx, service.Name, err)
	case (apierrors.IsForbidden(err) || apierrors.IsInternalError(err)) && service.Annotations[v1alpha1.AnnotationDeletionProtection] == "true":
		r.logged.Info(ctx, service.Name, d.message+", but its ComputeService is protected; retrying until the protection is lifted: "+err.Error())
		if d.fields != nil {
			// Meanwhile the old machine's state must not apply to the new one.
			if err := r.apply(ctx, service, d.fields); err != nil {
				return r.outcome(ctx, service.Name, err)
			}
		}
		return reconcile.Result{RequeueAfter: refusedRetry}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("deleting the ComputeService: %w", err)
	}
	log.FromContext(ctx).Info("Deleted the ComputeService of a Node", "because", d.message, "serversThatNameIt", servers)
	r.logged.Info(ctx, service.Name, "")
	return reconcile.Result{}, nil
}
