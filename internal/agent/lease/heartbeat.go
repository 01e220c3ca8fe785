// SPDX-License-Identifier: Apache-2.0

// Package lease renews the Lease of a host: its heartbeat.
package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/apiserver"
)

const (
	// retryPerDuration: a renewal that failed is tried again after a tenth of the
	// lease duration, so that a host which was cut off together with the manager
	// is back before the manager judges it (half a duration).
	retryPerDuration = 10
	// longestRetry is the longest wait before the next try: with a duration of an hour, a
	// host that was not allowed to renew would otherwise stay silent for six minutes
	// after it is allowed again.
	longestRetry = 10 * time.Second
	// timeoutPerDuration ends a renewal that hangs after a quarter of the lease
	// duration, which leaves time for another; but see minTimeout.
	timeoutPerDuration = 4
	// minTimeout is the least time that a slow API server gets.
	minTimeout = time.Second
)

// Heartbeat renews a host's Lease for as long as it runs. It never deletes the
// Lease: an agent that restarts must not look like a host that is gone.
type Heartbeat struct {
	// Leases is the client, for the namespace of the Lease.
	Leases coordinationclient.LeaseInterface
	// Name of the host, and of its Lease.
	Name string
	// Duration is how long one renewal is valid, and Interval the time between two.
	Duration, Interval time.Duration
	// Clock sets the time that is written, by which no host is judged, and the waits.
	Clock clock.Clock
	// Logger takes a line when renewing begins to fail and when it works again.
	Logger logr.Logger
	// OnConnectionFailure, if set, is called after a renewal that got no answer, and
	// after the second refusal in a row, so that the next one can use a fresh connection.
	// While renewals go on to fail, it is called less and less often: see dropsAfter.
	OnConnectionFailure func()

	// DriverError, if set, returns the driver's error, or "". Renewals carry it, so that a
	// host which renews but cannot report on its servers is noticed.
	DriverError func() string

	last     *coordinationv1.Lease
	lastTime time.Time
	// failures is how many renewals have failed since the last one that did not.
	failures int
}

// Run renews until ctx ends.
func (h *Heartbeat) Run(ctx context.Context) {
	for {
		begin := h.Clock.Now()
		err := h.renew(ctx)
		if ctx.Err() != nil {
			return
		}
		h.report(err)
		pause := apiserver.Shorten(h.Interval) - h.Clock.Since(begin)
		if err != nil {
			pause = apiserver.Shorten(h.retryDelay())
		}
		timer := h.Clock.NewTimer(max(pause, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}

// renew writes one renewal. It starts from the Lease that it wrote last, and
// reads only if that is not what the API server has.
func (h *Heartbeat) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(h.Duration/timeoutPerDuration, minTimeout))
	defer cancel()
	if h.last != nil {
		err := h.update(ctx, h.last)
		if err == nil || !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	lease, err := h.Leases.Get(ctx, h.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return h.create(ctx)
	}
	if err != nil {
		return wrap("reading the Lease", err)
	}
	return h.update(ctx, lease)
}

func (h *Heartbeat) create(ctx context.Context) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: h.Name}}
	h.stamp(lease)
	created, err := h.Leases.Create(ctx, lease, metav1.CreateOptions{})
	if err != nil {
		return wrap("creating the Lease", err)
	}
	h.last = created
	return nil
}

func (h *Heartbeat) update(ctx context.Context, lease *coordinationv1.Lease) error {
	lease = lease.DeepCopy()
	h.stamp(lease)
	updated, err := h.Leases.Update(ctx, lease, metav1.UpdateOptions{})
	if err != nil {
		// What the API server has now is unknown.
		h.last = nil
		return wrap("renewing the Lease", err)
	}
	h.last = updated
	return nil
}

// stamp makes lease a renewal. A renewal is a change of renewTime, so it must
// not be the one written before, whatever the clock does.
func (h *Heartbeat) stamp(lease *coordinationv1.Lease) {
	now := h.Clock.Now().Truncate(time.Microsecond)
	if !now.After(h.lastTime) && h.lastTime.Sub(now) < h.Duration {
		now = h.lastTime.Add(time.Microsecond)
	}
	if old := lease.Spec.RenewTime; old != nil && old.Time.Equal(now) {
		now = now.Add(time.Microsecond)
	}
	h.lastTime = now
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != h.Name {
		lease.Spec.HolderIdentity = &h.Name
		lease.Spec.AcquireTime = &metav1.MicroTime{Time: now}
	}
	if h.DriverError != nil {
		annotateDriverError(lease, h.DriverError())
	}
	lease.Spec.RenewTime = &metav1.MicroTime{Time: now}
	lease.Spec.LeaseDurationSeconds = ptr.To(int32(h.Duration / time.Second))
}

// report logs the first failure and the recovery, not each failure.
func (h *Heartbeat) report(err error) {
	if err == nil {
		if h.failures > 0 {
			h.Logger.Info("Heartbeat works again")
		}
		h.failures = 0
		return
	}
	if h.failures++; h.failures == 1 {
		h.Logger.Error(err, "Heartbeat failed; retrying", "every", h.retryDelay().String())
	}
	// A second refusal in a row may come from one API server of several behind a load
	// balancer, to which this connection goes.
	refusedAgain := h.failures > 1 && !apierrors.IsConflict(err)
	if (!apiserver.IsAnswer(err) || refusedAgain) && dropsAfter(h.failures) && h.OnConnectionFailure != nil {
		h.OnConnectionFailure()
	}
}

// dropsAfter reports whether the nth failure in a row is one after which connections are
// dropped: the 1st, 2nd, 4th and 8th, and each 16th. If a fresh connection is no better, it
// is the API server that is slow, and a fleet that greets it anew with every try would keep it
// so: a TLS handshake costs it more than a renewal.
func dropsAfter(n int) bool { return n%16 == 0 || n < 16 && n&(n-1) == 0 }

// retryDelay is the wait between two tries.
func (h *Heartbeat) retryDelay() time.Duration {
	return min(h.Duration/retryPerDuration, longestRetry)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// annotateDriverError puts the driver's error on a Lease, or removes it if err is "".
func annotateDriverError(lease *coordinationv1.Lease, err string) {
	switch {
	case err == "":
		delete(lease.Annotations, v1alpha1.AnnotationDriverError)
	case lease.Annotations == nil:
		lease.Annotations = map[string]string{v1alpha1.AnnotationDriverError: err}
	default:
		lease.Annotations[v1alpha1.AnnotationDriverError] = err
	}
}
