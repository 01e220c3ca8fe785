// SPDX-License-Identifier: Apache-2.0

// Package statuspatch writes the part of a status that one controller owns.
package statuspatch

import (
	"bytes"
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

// Apply makes the fields of a status that a controller owns, which are those of T, what
// was decided, provided that obj has not changed since stored was read from it: otherwise
// the API server answers Conflict, and the caller decides again.
//
// It is a merge patch and not a server-side apply, because a field must also go
// when somebody else has set it, which apply leaves alone. In a merge patch what is not
// mentioned stays, at every depth, so that whatever is not decided is written as null: the
// fields of T, which marshal to null when they are absent, and all that is in stored
// within them.
func Apply[T any](ctx context.Context, c client.Client, obj client.Object, stored, decided T) error {
	status, err := merge(stored, decided)
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", obj.GetName(), err)
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": obj.GetResourceVersion()},
		"status":   status,
	})
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", obj.GetName(), err)
	}
	return c.Status().Patch(ctx, obj, client.RawPatch(types.MergePatchType, body), client.FieldOwner(FieldOwner))
}

// merge returns the merge patch that makes decided of stored.
func merge(stored, decided any) (map[string]any, error) {
	from, err := tree(stored)
	if err != nil {
		return nil, err
	}
	to, err := tree(decided)
	if err != nil {
		return nil, err
	}
	removeAbsent(from, to)
	return to, nil
}

// removeAbsent adds a null to patch for everything of stored that it does not mention.
// A list is replaced as a whole.
func removeAbsent(stored, patch map[string]any) {
	for name, before := range stored {
		after, mentioned := patch[name]
		if !mentioned {
			patch[name] = nil
			continue
		}
		inBefore, ok := before.(map[string]any)
		inAfter, ok2 := after.(map[string]any)
		if ok && ok2 {
			removeAbsent(inBefore, inAfter)
		}
	}
}

// tree returns v as the JSON object that it marshals to. Numbers keep all their digits.
func tree(v any) (map[string]any, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	object := map[string]any{}
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	return object, nil
}
