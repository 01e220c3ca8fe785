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

// The pause between two checks of Poll is a part of what it has waited already: what has to
// come at once is seen at once, and what takes its time costs few requests.
const (
	leastPause = 10 * time.Millisecond
	mostPause  = 100 * time.Millisecond
	pausePart  = 20
)

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
	started := time.Now()
	for {
		begin := time.Now()
		err := check()
		if err == nil {
			return nil
		}
		// An expensive check must not take up the machine.
		pause := min(max(leastPause, time.Since(started)/pausePart), mostPause)
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
