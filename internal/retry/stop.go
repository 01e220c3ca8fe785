// SPDX-License-Identifier: Apache-2.0

package retry

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// UntilStopped returns next without the errors of what the stopping manager cuts off.
// Nothing is retried then: whoever leads next does it, and nobody need read of it in the log.
func UntilStopped(next reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
		result, err := next.Reconcile(ctx, request)
		if err != nil && ctx.Err() != nil {
			return reconcile.Result{}, nil
		}
		return result, err
	})
}
