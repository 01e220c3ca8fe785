// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"time"

	"k8s.io/utils/clock"
)

// wake lets await return, now or when it is called next.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits until it is woken, or ctx ends, or, if timed is set, for d.
func await(ctx context.Context, c clock.Clock, woken <-chan struct{}, d time.Duration, timed bool) {
	var over <-chan time.Time
	if timed {
		timer := c.NewTimer(d)
		defer timer.Stop()
		over = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-woken:
	case <-over:
	}
}

// pause waits for d, and reports whether ctx is still there.
func pause(ctx context.Context, c clock.Clock, d time.Duration) bool {
	await(ctx, c, nil, d, true)
	return ctx.Err() == nil
}
