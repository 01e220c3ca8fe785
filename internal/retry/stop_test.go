// SPDX-License-Identifier: Apache-2.0

package retry

import (
	"context"
	"errors"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestWhatTheStopOfTheManagerCutsOffIsNoError(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx       context.Context
		fails     error
		wantAfter time.Duration
		want      error
	}{
		"cut off":              {ctx: ended, fails: context.Canceled},
		"cut off, other error": {ctx: ended, fails: errors.ErrUnsupported},
		"done as it stops":     {ctx: ended, wantAfter: time.Second},
		"an error while it runs": {
			ctx: t.Context(), fails: context.Canceled, want: context.Canceled, wantAfter: time.Second,
		},
	} {
		r := UntilStopped(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
			return reconcile.Result{RequeueAfter: time.Second}, c.fails
		}))
		result, err := r.Reconcile(c.ctx, reconcile.Request{})
		if !errors.Is(err, c.want) || result.RequeueAfter != c.wantAfter {
			t.Errorf("%s: %v, %v; want %v, %v", name, result, err, c.wantAfter, c.want)
		}
	}
}
