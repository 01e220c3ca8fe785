// SPDX-License-Identifier: Apache-2.0

// Package statuspatch writes the part of a status that one controller owns.
package statuspatch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// FieldOwner is the field manager under which the controllers write.
	FieldOwner = "hoststatus-manager"
	// ConflictDelay is how long to wait before deciding again after a Conflict, at first:
	// the cache has to catch up with the write that came in between. If its watch brings
	// nothing, that takes longer, and RetryLimiter says how long.
	ConflictDelay = 20 * time.Millisecond
)

// Limiter is what controllers wait between tries.
type Limiter = workqueue.TypedRateLimiter[reconcile.Request]

// RetryLimiter is between tries of a write that failed. By default controller-runtime
// waits for up to 1000 s: after an outage of some minutes, a host would keep a wrong
// status for as long again. A second is enough to spare an API server that refuses,
// whose priority and fairness is the limit for the rest.
func RetryLimiter() Limiter {
	return RetryLimiterUpTo(time.Second)
}

// RetryLimiterUpTo is one whose longest wait is longest, for writes that nobody waits
// for.
func RetryLimiterUpTo(longest time.Duration) Limiter {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](ConflictDelay, longest)
}

// Apply writes fields, a struct whose nil fields marshal to null and so are
// removed, into the status of obj, provided that obj has not changed since it
// was read: otherwise the API server answers Conflict, and the caller decides
// again.
//
// It is a merge patch and not a server-side apply, because a field must also go
// when somebody else has set it, which apply leaves alone.
func Apply(ctx context.Context, c client.Client, obj client.Object, fields any) error {
	patch := struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Status any `json:"status"`
	}{Status: fields}
	patch.Metadata.ResourceVersion = obj.GetResourceVersion()
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", obj.GetName(), err)
	}
	return c.Status().Patch(ctx, obj, client.RawPatch(types.MergePatchType, body), client.FieldOwner(FieldOwner))
}
