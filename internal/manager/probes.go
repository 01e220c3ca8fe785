// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
)

// addProbes makes the process ready once its caches are filled, and alive while the
// monitor's loop runs. Liveness does not depend on the API server: a restart would
// not bring it back.
func addProbes(mgr ctrl.Manager, monitor *heartbeat.Monitor) error {
	err := mgr.AddHealthzCheck("heartbeat-loop", func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), livenessTimeout)
		defer cancel()
		return monitor.Alive(ctx)
	})
	if err != nil {
		return fmt.Errorf("adding the liveness probe: %w", err)
	}
	err = mgr.AddReadyzCheck("heartbeats", func(*http.Request) error {
		if !monitor.Synced() {
			return errors.New("the Leases have not been listed yet")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("adding the readiness probe: %w", err)
	}
	err = mgr.AddReadyzCheck("caches", func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		for _, kind := range []client.Object{&v1alpha1.ComputeService{}, &v1alpha1.Server{}} {
			informer, err := mgr.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false))
			if err != nil || !informer.HasSynced() {
				return errors.New("ComputeServices and Servers have not been listed yet")
			}
		}
		return nil // Other kinds need not be there.
	})
	if err != nil {
		return fmt.Errorf("adding the readiness probe: %w", err)
	}
	return nil
}
