// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// durations counts which values of D are in use, to know the shortest: there
// are few different ones, however many hosts there are.
type durations map[time.Duration]int

func (d durations) add(v time.Duration) { d[v]++ }

func (d durations) remove(v time.Duration) {
	if d[v]--; d[v] == 0 {
		delete(d, v)
	}
}

func (d durations) shortest(fallback time.Duration) time.Duration {
	shortest := time.Duration(0)
	for v := range d {
		if shortest == 0 || v < shortest {
			shortest = v
		}
	}
	if shortest == 0 {
		return fallback
	}
	return shortest
}

// clampDuration brings a Lease's own duration into the range that heartbeats
// are judged by; zero or less means that the Lease gives none.
func clampDuration(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return min(max(d, v1alpha1.MinLeaseDurationSeconds*time.Second), v1alpha1.MaxLeaseDurationSeconds*time.Second)
}
