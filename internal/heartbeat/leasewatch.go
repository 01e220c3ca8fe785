// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/watch"
)

const (
	// canaryTimeout ends a canary's write that hangs. It is longer than a working API
	// server ever takes, and short enough to retry soon on a fresh connection after
	// one that does not answer.
	canaryTimeout = 10 * time.Second
	// canaryDurationSeconds is what a canary declares: a client that sees none for
	// longer knows that no manager judges. A failover takes 10 s at most.
	canaryDurationSeconds = 15
	// fieldManager owns the canaries.
	fieldManager = "hoststatus-manager"
)

// leaseWatch brings the Leases of one namespace to the monitor, in the order in
// which the API server has them. It keeps no copy of them. A shared informer
// would not do: it hands out a list in no order, so that a canary could overtake
// a renewal from the same list, and prove a host silent that is not.
type leaseWatch struct {
	monitor   *Monitor
	namespace string
	leases    coordinationclient.LeaseInterface
	events    prometheus.Counter
	source    *watch.Source
	// drivers is guarded by the monitor.
	drivers drivers
}

func newLeaseWatch(m *Monitor, namespace string) *leaseWatch {
	w := &leaseWatch{
		monitor:   m,
		namespace: namespace,
		leases:    m.options.Leases.Leases(namespace),
		events:    leaseEvents.WithLabelValues(namespace),
		drivers:   drivers{},
	}
	w.source = watch.New(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return w.leases.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			return w.leases.Watch(ctx, options)
		},
	}).Of("Lease")
	return w
}

// run lists and watches until ctx ends.
func (w *leaseWatch) run(ctx context.Context) {
	cache.NewReflectorWithOptions(w.source.ListWatch(), &coordinationv1.Lease{}, w, cache.ReflectorOptions{
		Name:    "heartbeats in " + w.namespace,
		Backoff: watch.Backoff(),
	}).RunWithContext(ctx)
}

// writeCanary renews the canary. The patch has no precondition, so that one that
// was delayed does not fail the next.
func (w *leaseWatch) writeCanary(ctx context.Context, t token) error {
	ctx, cancel := context.WithTimeout(ctx, canaryTimeout)
	defer cancel()
	spec := coordinationv1.LeaseSpec{
		HolderIdentity:       &w.monitor.options.Identity,
		RenewTime:            &metav1.MicroTime{Time: time.UnixMicro(int64(t))},
		LeaseDurationSeconds: ptr.To[int32](canaryDurationSeconds),
	}
	patch, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return fmt.Errorf("encoding the canary: %w", err)
	}
	_, err = w.leases.Patch(ctx, v1alpha1.CanaryLeaseName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if apierrors.IsNotFound(err) {
		_, err = w.leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.CanaryLeaseName, Namespace: w.namespace},
			Spec:       spec,
		}, metav1.CreateOptions{FieldManager: fieldManager})
	}
	if err != nil && ctx.Err() == nil {
		w.monitor.options.Logger.V(1).Info("Canary was not written", "namespace", w.namespace, "error", err.Error())
	}
	return err
}

// leaseWatch is the store of its reflector: it passes on what comes in.
var _ cache.ReflectorStore = &leaseWatch{}

// Add passes on a Lease that appeared.
func (w *leaseWatch) Add(obj any) error { return w.Update(obj) }

// Update passes on a Lease that changed.
func (w *leaseWatch) Update(obj any) error {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return fmt.Errorf("watching Leases: unexpected %T", obj)
	}
	m := w.monitor
	switch lease.Name {
	case v1alpha1.LeaderLeaseName:
	case v1alpha1.CanaryLeaseName:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.core.echoed(m.now(), w.namespace, tokenOf(lease))
		m.poke()
	default:
		w.events.Inc()
		seen := fromLease(lease)
		m.mu.Lock()
		defer m.mu.Unlock()
		w.drivers.note(lease)
		m.core.observe(m.now(), m.options.Clock.Now(), w.namespace, lease.Name, seen)
	}
	return nil
}

// Delete passes on that a Lease was deleted.
func (w *leaseWatch) Delete(obj any) error {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return fmt.Errorf("watching Leases: unexpected %T", obj)
	}
	w.monitor.mu.Lock()
	defer w.monitor.mu.Unlock()
	delete(w.drivers, lease.Name)
	w.monitor.core.deleted(w.namespace, lease.Name)
	return nil
}

// Replace passes on a whole list, as one.
func (w *leaseWatch) Replace(list []any, _ string) error {
	leases := make(map[string]Lease, len(list))
	var canary token
	failing := drivers{}
	for _, obj := range list {
		lease, ok := obj.(*coordinationv1.Lease)
		if !ok {
			return fmt.Errorf("listing Leases: unexpected %T", obj)
		}
		switch lease.Name {
		case v1alpha1.LeaderLeaseName:
		case v1alpha1.CanaryLeaseName:
			canary = tokenOf(lease)
		default:
			leases[lease.Name] = fromLease(lease)
			failing.note(lease)
		}
	}
	m := w.monitor
	m.mu.Lock()
	defer m.mu.Unlock()
	w.drivers = failing
	m.core.replaced(m.now(), m.options.Clock.Now(), w.namespace, leases, canary)
	m.poke()
	return nil
}

// Resync has nothing to do: nothing is kept.
func (w *leaseWatch) Resync() error { return nil }

func fromLease(lease *coordinationv1.Lease) Lease {
	var out Lease
	if lease.Spec.RenewTime != nil {
		out.RenewTime = lease.Spec.RenewTime.Time
	}
	if lease.Spec.LeaseDurationSeconds != nil {
		out.Duration = time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
	}
	for i := range lease.OwnerReferences {
		if owner := &lease.OwnerReferences[i]; owner.Kind == "Node" && owner.APIVersion == "v1" {
			out.Node = owner.UID
		}
	}
	return out
}

func tokenOf(lease *coordinationv1.Lease) token {
	if lease.Spec.RenewTime == nil {
		return 0
	}
	return token(lease.Spec.RenewTime.UnixMicro())
}
