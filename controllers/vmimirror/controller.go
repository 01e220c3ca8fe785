// SPDX-License-Identifier: Apache-2.0

// Package vmimirror keeps one Server for each VirtualMachineInstance of KubeVirt, so that
// a cluster with KubeVirt needs neither an agent nor Servers made by hand.
package vmimirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
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
	"hoststatus.dev/hoststatus/internal/reported"
	"hoststatus.dev/hoststatus/internal/retry"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// Its rights are in config/vmi-mirror, and not generated: only installations that use
// the mirror grant them.

// FieldOwner is the field manager under which the mirror writes spec and labels.
const FieldOwner = "hoststatus-vmi-mirror"

const (
	// workers is how many VirtualMachineInstances are reconciled at once. The fan-out of
	// hosts has twice as many: a dead host must not wait behind machines that start.
	workers = 8
	// refusedRetry is how long to wait before a write that was refused is tried again: a
	// quota, a right or a policy of the cluster wakes nobody when it changes.
	refusedRetry = 30 * time.Second
	// longestRetry is the longest wait after a write that failed. By default it would be
	// a quarter of an hour, in which a machine that has moved shows its old host.
	longestRetry = 5 * time.Second
)

// Reconciler keeps the Servers of VirtualMachineInstances.
//
// Each write is conditional on the Server that it was decided from. That does not cover
// the VirtualMachineInstance, which comes from another cache: a former leader that was
// paused may have a current Server and an outdated VirtualMachineInstance. So each
// decision also requires that this process still leads after both have been read.
type Reconciler struct {
	client   client.Client
	live     client.Reader
	vmis     cache.Cache
	selector labels.Selector
	leads    func() bool
	logged   logonce.Log[types.NamespacedName]
}

// NewReconciler returns a Reconciler for the VirtualMachineInstances that selector
// matches. The client must read Servers from a cache with the transform KeepMirrored;
// live reads from the API server. VirtualMachineInstances have a separate cache, with the
// transform StripVMI: where KubeVirt or the right to list them is missing, only the mirror
// should wait. leads returns whether no other process can lead yet.
func NewReconciler(c client.Client, live client.Reader, vmis cache.Cache, selector labels.Selector, leads func() bool) *Reconciler {
	return &Reconciler{client: c, live: live, vmis: vmis, selector: selector, leads: leads}
}

// SetupWithManager registers the controller. What wakes it:
//   - a VirtualMachineInstance that appears, begins to end, or changes what its Server
//     shows; not what KubeVirt writes otherwise;
//   - a Server that appears, disappears, or of which somebody changes what the mirror has
//     written; not its host fields, which change for whole hosts at a time.
//
// A standby holds no VirtualMachineInstances before it leads.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	vmis := source.Kind(r.vmis, &VirtualMachineInstance{}, &handler.TypedEnqueueRequestForObject[*VirtualMachineInstance]{}, r.vmiChange())
	return builder.ControllerManagedBy(mgr).
		Named("vmimirror").
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter:             retry.NewLimiterUpTo(longestRetry),
			// By default the manager would exit if there is no KubeVirt.
			CacheSyncTimeout: math.MaxInt64,
		}).
		WatchesRawSource(&whenInstalled{TypedSyncingSource: vmis, reader: r.live, pause: installedRetry}).
		Watches(&v1alpha1.Server{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(serverChange)).
		Complete(retry.UntilStopped(r))
}

// vmiChange passes only changes of what the mirror uses.
func (r *Reconciler) vmiChange() predicate.TypedPredicate[*VirtualMachineInstance] {
	return predicate.TypedFuncs[*VirtualMachineInstance]{UpdateFunc: func(e event.TypedUpdateEvent[*VirtualMachineInstance]) bool {
		before, after := e.ObjectOld, e.ObjectNew
		return before.UID != after.UID || before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
			r.selects(before) != r.selects(after) || !equality.Semantic.DeepEqual(shown(before), shown(after))
	}}
}

// shown is what a Server shows of v, in a form that can be compared as a whole.
func shown(v *VirtualMachineInstance) []any {
	view := viewOf(v)
	return []any{view.host, view.labels, view.reported}
}

// serverChange leaves out the Servers that exist at the start, for which their
// VirtualMachineInstances come, and changes that are no concern of the mirror.
var serverChange = predicate.Funcs{
	CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.Server)
		after, ok2 := e.ObjectNew.(*v1alpha1.Server)
		return ok && ok2 && (ownerOf(before) != ownerOf(after) || ownerOf(after) != "" &&
			(before.Spec != after.Spec || !reported.Equal(reported.Of(&before.Status), reported.Of(&after.Status))))
	},
}

func (r *Reconciler) selects(vmi *VirtualMachineInstance) bool {
	return r.selector.Matches(labels.Set(vmi.Labels))
}

// again is the result where the cache is behind, or where this process may have a
// successor.
var again = reconcile.Result{RequeueAfter: retry.ConflictDelay}

// Reconcile brings the Server of one name in line with the VirtualMachineInstance of that
// name.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	vmi, err := found(ctx, r.vmis, request.NamespacedName, &VirtualMachineInstance{})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading the VirtualMachineInstance: %w", err)
	}
	server, err := found(ctx, r.client, request.NamespacedName, &v1alpha1.Server{})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading the Server: %w", err)
	}
	if !r.leads() {
		return again, nil
	}
	d := decide(vmi, vmi != nil && r.selects(vmi), server)
	switch d.action {
	case create:
		err = r.create(ctx, vmi)
	case update:
		err = r.update(ctx, vmi, server)
	case remove:
		err = r.remove(ctx, server, d.message)
	}
	if err == nil && d.action != remove {
		r.logged.Info(ctx, request.NamespacedName, d.message)
	}
	return r.outcome(ctx, request.NamespacedName, err)
}

// outcome returns what follows from the result of a write.
func (r *Reconciler) outcome(ctx context.Context, name types.NamespacedName, err error) (reconcile.Result, error) {
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return again, nil
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		// The Server, or the namespace with everything in it, is going: its end wakes us.
		return reconcile.Result{}, nil
	case apierrors.IsForbidden(err):
		r.logged.Info(ctx, name, "The Server of a VirtualMachineInstance may not be written; retrying every "+refusedRetry.String()+". Unless it is a quota, apply config/vmi-mirror: "+err.Error())
		return reconcile.Result{RequeueAfter: refusedRetry}, nil
	case apierrors.IsInvalid(err):
		// That is also what an admission policy answers.
		r.logged.Info(ctx, name, "The VirtualMachineInstance cannot have a Server; retrying every "+refusedRetry.String()+": "+err.Error())
		return reconcile.Result{RequeueAfter: refusedRetry}, nil
	default:
		return reconcile.Result{}, err
	}
}

// found reads the object of that name; nil if it is not there.
func found[T client.Object](ctx context.Context, reader client.Reader, name types.NamespacedName, obj T) (T, error) {
	err := reader.Get(ctx, name, obj)
	if apierrors.IsNotFound(err) {
		var none T
		return none, nil
	}
	return obj, err
}

// create makes the Server, provided that there is none: applying would take over one
// that a person makes at the same moment. The status takes a write of its own.
func (r *Reconciler) create(ctx context.Context, vmi *VirtualMachineInstance) error {
	view := viewOf(vmi)
	server := &v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: vmi.Namespace, Name: vmi.Name, Labels: view.labels,
			// Without blockOwnerDeletion: nobody has to wait for the Server.
			OwnerReferences: []metav1.OwnerReference{{APIVersion: apiVersion, Kind: Kind, Name: vmi.Name, UID: vmi.UID, Controller: isTrue}},
		},
		Spec: v1alpha1.ServerSpec{Host: view.host, ProviderID: view.providerID},
	}
	if len(view.labels) > 0 {
		server.Annotations = map[string]string{AnnotationLabels: keys(view.labels)}
	}
	if err := r.client.Create(ctx, server, client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("creating the Server: %w", err)
	}
	log.FromContext(ctx).Info("Created the Server of a VirtualMachineInstance", "host", view.host)
	return r.report(ctx, view, server)
}

// update writes what differs: first where the machine is, then how it is, so that a
// machine that has moved is not shown as doing well on the host that it has left.
func (r *Reconciler) update(ctx context.Context, vmi *VirtualMachineInstance, server *v1alpha1.Server) error {
	view := viewOf(vmi)
	if view.differsInSpec(server) {
		// The cache has a fingerprint in place of what is to be compared.
		whole := &v1alpha1.Server{}
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(server), whole); err != nil {
			return fmt.Errorf("reading the Server: %w", err)
		}
		if ownerOf(whole) != vmi.UID || whole.DeletionTimestamp != nil {
			return nil // The cache is behind, and what it does not know yet wakes us.
		}
		if !r.leads() {
			return apierrors.NewConflict(v1alpha1.SchemeGroupVersion.WithResource("servers").GroupResource(), server.Name, errNotLeading)
		}
		body, err := view.patch(whole)
		if err != nil {
			return err
		}
		if body != nil {
			before := whole.Spec.Host
			if err := r.client.Patch(ctx, whole, client.RawPatch(types.MergePatchType, body), client.FieldOwner(FieldOwner)); err != nil {
				return fmt.Errorf("writing the Server: %w", err)
			}
			if before != whole.Spec.Host {
				log.FromContext(ctx).Info("A VirtualMachineInstance is on another host", "old", before, "new", whole.Spec.Host)
			}
		}
		server = whole
	}
	return r.report(ctx, view, server)
}

var errNotLeading = errors.New("this manager does not lead")

// report writes the states and networks, if they differ.
func (r *Reconciler) report(ctx context.Context, view view, server *v1alpha1.Server) error {
	if !view.differsInStatus(server) {
		return nil
	}
	if err := statuspatch.Patch(ctx, r.client, server, reported.Of(&server.Status), *view.reported); err != nil {
		return fmt.Errorf("writing the status of the Server: %w", err)
	}
	return nil
}

// patch returns the merge patch that gives a Server, as the API server has it, the spec
// and the labels of v; nil if it has them.
func (v *view) patch(server *v1alpha1.Server) ([]byte, error) {
	spec, changed, annotations := map[string]any{}, map[string]any{}, map[string]any{}
	if server.Spec.Host != v.host {
		spec["host"] = v.host
	}
	if server.Spec.ProviderID != v.providerID {
		spec["providerID"] = v.providerID
	}
	for key, value := range v.labels {
		if has, ok := server.Labels[key]; !ok || has != value {
			changed[key] = value
		}
	}
	mirrored, wanted := server.Annotations[AnnotationLabels], keys(v.labels)
	for key := range strings.SplitSeq(mirrored, ",") {
		_, wanted := v.labels[key]
		if _, there := server.Labels[key]; there && !wanted {
			changed[key] = nil
		}
	}
	switch {
	case mirrored == wanted:
	case wanted == "":
		annotations[AnnotationLabels] = nil
	default:
		annotations[AnnotationLabels] = wanted
	}
	if len(spec)+len(changed)+len(annotations) == 0 {
		return nil, nil
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": server.UID, "resourceVersion": server.ResourceVersion, "labels": changed, "annotations": annotations},
		"spec":     spec,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the Server: %w", err)
	}
	return body, nil
}

// remove deletes the Server of a VirtualMachineInstance that was replaced, as the garbage
// collector would a little later.
func (r *Reconciler) remove(ctx context.Context, server *v1alpha1.Server, because string) error {
	// The cache has no UID of Servers. A version belongs to one object only.
	if err := r.client.Delete(ctx, server, client.Preconditions{ResourceVersion: &server.ResourceVersion}); err != nil {
		return fmt.Errorf("deleting the Server: %w", err)
	}
	log.FromContext(ctx).Info("Deleted the Server of a VirtualMachineInstance", "because", because)
	return nil
}
