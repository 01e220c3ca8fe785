// SPDX-License-Identifier: Apache-2.0

package expect

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatTakesLongIsAskedForSeldomAndWhatComesSoonIsSeenAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		after, late time.Duration
		checks      int
	}{
		"soon":  {after: 15 * time.Millisecond, late: leastPause, checks: 4},
		"later": {after: time.Second, late: time.Second / pausePart, checks: 60},
		"long":  {after: 10 * time.Second, late: mostPause, checks: 160},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, checks := time.Now(), 0
				NoError(t, Poll(t.Context(), time.Minute, func() error {
					checks++
					if time.Since(begin) < c.after {
						return errors.New("not yet")
					}
					return nil
				}))
				if late := time.Since(begin) - c.after; late > c.late || checks > c.checks {
					t.Errorf("seen %v late after %d checks, want %v and %d at most", late, checks, c.late, c.checks)
				}
			})
		})
	}
}
