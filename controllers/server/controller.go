// SPDX-License-Identifier: Apache-2.0

// Package server brings the status of a host to the Servers on it.
package server

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/answers"
	"hoststatus.dev/hoststatus/internal/hostsfirst"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/retry"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// +kubebuilder:rbac:groups=compute.hoststatus.dev,resources=servers,verbs=get;list;watch
// +kubebuilder:rbac:groups=compute.hoststatus.dev,resources=servers/status,verbs=patch

// Reconciler keeps the host fields of Servers.
type Reconciler struct {
	client    client.Client
	clock     clock.PassiveClock
	conflicts retry.Limiter
	gate      *hostsfirst.Gate
	// answers may be nil: see WithAnswers.
	answers Answers
}

// Answers is the part of answers.Answers that the controller uses.
type Answers interface {
	Listen(answers.Listeners)
	// Get returns the answer for a server, nil if there is none; known is false while that
	// is not known.
	Get(server types.NamespacedName) (answer *ownerv1alpha1.MaintenanceAnswer, known bool)
}

// NewReconciler returns a Reconciler. The client should read from a cache.
func NewReconciler(c client.Client, clk clock.PassiveClock) *Reconciler {
	return &Reconciler{client: c, clock: clk, conflicts: retry.NewLimiter(), gate: hostsfirst.New()}
}

// Behind makes Servers wait while many hosts are written, which pass gate, too. It is called
// before SetupWithManager.
func (r *Reconciler) Behind(gate *hostsfirst.Gate) *Reconciler {
	r.gate = gate
	return r
}

// WithAnswers makes Servers show what has become of their owners' answers to maintenance
// windows. It is called before SetupWithManager.
func (r *Reconciler) WithAnswers(a Answers) *Reconciler {
	r.answers = a
	return r
}

// SetupWithManager registers the controller. What wakes it:
//   - a Server that changes, because it may have moved, or somebody else may have
//     written its host fields;
//   - a ComputeService whose status would give its Servers other fields, for
//     each Server on it;
//   - the answer of its owner to a maintenance window, after a moment and behind
//     everything else.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr manager.Manager, byHost *ByHost) error {
	tracker := newTracker(r.clock, mgr.Elected())
	context.AfterFunc(ctx, propagation.Provide(tracker.collect))
	return builder.ControllerManagedBy(mgr).
		Named("server").
		WithOptions(options()).
		Watches(&v1alpha1.Server{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(anyChange)).
		Watches(&v1alpha1.ComputeService{}, &fanOut{serversOn: byHost.Keys, tracker: tracker}).
		WatchesRawSource(source.Func(func(ctx context.Context, queue requests) error {
			r.listen(ctx, byHost.Keys, queue)
			return nil
		})).
		Complete(retry.UntilStopped(tracker.measure(r.inTurn(reconcile.AsReconciler(r.client, r)))))
}

func options() controller.Options {
	// The API server, not the manager, is the limit of a fan-out; this many requests keep it busy.
	return controller.Options{MaxConcurrentReconciles: hostsfirst.Servers, EnableWarmup: ptr.To(true), RateLimiter: retry.NewLimiter()}
}

// inTurn calls next for each Server once it may be written. It waits before next reads the
// Server, which may change meanwhile.
func (r *Reconciler) inTurn(next reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, server reconcile.Request) (reconcile.Result, error) {
		defer r.gate.Server(ctx)()
		return next.Reconcile(ctx, server)
	})
}

// Reconcile writes the host fields of one Server, if they are not right.
func (r *Reconciler) Reconcile(ctx context.Context, server *v1alpha1.Server) (reconcile.Result, error) {
	service, err := r.serviceOf(ctx, server)
	if err != nil {
		return reconcile.Result{}, err
	}
	want, ok := hoststatus.ForServer(server.Spec.Host, service)
	if !ok {
		// The ComputeService's own status comes first; its change wakes us.
		return reconcile.Result{}, nil
	}
	if r.answers != nil && want.MaintenanceWindow != nil {
		if answer, known := r.answers.Get(client.ObjectKeyFromObject(server)); known {
			want.MaintenanceWindow.Answer = hoststatus.StateOf(want.MaintenanceWindow.StartTime, server, answer)
		}
	}
	before := server.Status
	fields, changed := decide(server, want, versionOf(service), r.clock.Now())
	request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(server)}
	if !changed {
		r.conflicts.Forget(request)
		return reconcile.Result{}, nil
	}
	err = statuspatch.Patch(ctx, r.client, server, storedFields(&before), fields)
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: r.conflicts.When(request)}, nil
	}
	r.conflicts.Forget(request)
	if err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("writing host status: %w", err))
	}
	if hoststatus.SameStatus(before.HostStatus, want.HostStatus) && before.HostStatusReason == want.HostStatusReason {
		return reconcile.Result{}, nil
	}
	log.FromContext(ctx).Info("Host status of server changed",
		"old", ptr.Deref(before.HostStatus, ""), "new", ptr.Deref(want.HostStatus, ""), "reason", want.HostStatusReason)
	return reconcile.Result{}, nil
}

// serviceOf returns the ComputeService that the server names, nil if there is none.
func (r *Reconciler) serviceOf(ctx context.Context, server *v1alpha1.Server) (*v1alpha1.ComputeService, error) {
	if server.Spec.Host == "" {
		return nil, nil
	}
	service := &v1alpha1.ComputeService{}
	err := r.client.Get(ctx, client.ObjectKey{Name: server.Spec.Host}, service)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the ComputeService of spec.host: %w", err)
	}
	return service, nil
}

// owned are the fields of a Server's status that this controller owns.
type owned struct {
	v1alpha1.HostFields `json:",inline"`
	ObservedGeneration  int64  `json:"observedGeneration"`
	HostVersion         string `json:"hostVersion,omitempty"`
}

// storedFields returns the current values of the fields that this controller owns.
func storedFields(s *v1alpha1.ServerStatus) owned {
	return owned{s.HostFields, s.ObservedGeneration, s.HostVersion}
}

// versionOf returns the resourceVersion of service, "" if there is none.
func versionOf(service *v1alpha1.ComputeService) string {
	if service == nil {
		return ""
	}
	return service.ResourceVersion
}

// decide returns the fields that server should have, given what ForServer made of version
// of its host's ComputeService, and whether they differ from those it has. A new version
// that brings nothing else is no reason to write, and neither is a history that has yet to
// begin.
func decide(server *v1alpha1.Server, want v1alpha1.HostFields, version string, now time.Time) (fields owned, changed bool) {
	have := storedFields(&server.Status)
	moved := have.ObservedGeneration != server.Generation
	fields = owned{hoststatus.Take(have.HostFields, want, moved, now), server.Generation, version}
	changed = moved || !hoststatus.SameFields(have.HostFields, fields.HostFields) || (have.HostVersion == "") != (version == "")
	if changed && len(fields.HostHistory) == 0 {
		fields.HostFields = hoststatus.Remember(fields.HostFields)
	}
	return fields, changed
}
