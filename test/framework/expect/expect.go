// SPDX-License-Identifier: Apache-2.0

// Package expect has what tests expect of the world: that something succeeds, now or
// within a limit.
package expect

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// pause is the least between two checks of Poll.
const pause = 10 * time.Millisecond

// NoError ends the test if err is not nil.
func NoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually ends the test if check does not succeed within limit.
func Eventually(t testing.TB, limit time.Duration, check func() error) {
	t.Helper()
	if err := Poll(context.WithoutCancel(t.Context()), limit, check); err != nil {
		t.Fatal(err)
	}
}

// Poll repeats check until it succeeds, or until limit has passed or ctx ends. It then
// returns the last error of check.
func Poll(ctx context.Context, limit time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		begin := time.Now()
		err := check()
		if err == nil {
			return nil
		}
		// An expensive check must not take up the machine.
		timer := time.NewTimer(max(pause, 3*time.Since(begin)))
		select {
		case <-ctx.Done():
			timer.Stop()
			// It may have become true during the last pause.
			if err := check(); err != nil {
				return fmt.Errorf("not within %s: %w", limit, err)
			}
			return nil
		case <-timer.C:
		}
	}
}
