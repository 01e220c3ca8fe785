// SPDX-License-Identifier: Apache-2.0

// Package retry sets how long controllers wait before they try again.
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

// Limiter sets how long controllers wait between tries.
type Limiter = workqueue.TypedRateLimiter[reconcile.Request]

// NewLimiter returns the Limiter for writes that failed. By default controller-runtime
// waits for up to 1000 s: after an outage of some minutes, a host would keep a wrong
// status for as long again. A second is enough to spare an API server that refuses
// writes; its priority and fairness limits the rest.
func NewLimiter() Limiter {
	return NewLimiterUpTo(time.Second)
}

// NewLimiterUpTo returns one whose longest wait is longest, for less urgent writes.
func NewLimiterUpTo(longest time.Duration) Limiter {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](ConflictDelay, longest)
}
