// SPDX-License-Identifier: Apache-2.0

// Package retry is how long controllers wait before they try again.
package retry

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// ConflictDelay is how long to wait before deciding again after a Conflict, at first:
// the cache has to catch up with the write that came in between. If its watch brings
// nothing, that takes longer, and the Limiter sets how long.
const ConflictDelay = 20 * time.Millisecond

// Limiter is what controllers wait between tries.
type Limiter = workqueue.TypedRateLimiter[reconcile.Request]

// NewLimiter is between tries of a write that failed. By default controller-runtime
// waits for up to 1000 s: after an outage of some minutes, a host would keep a wrong
// status for as long again. A second is enough to spare an API server that refuses,
// whose priority and fairness is the limit for the rest.
func NewLimiter() Limiter {
	return NewLimiterUpTo(time.Second)
}

// NewLimiterUpTo is one whose longest wait is longest, for writes that nobody waits for.
func NewLimiterUpTo(longest time.Duration) Limiter {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](ConflictDelay, longest)
}
