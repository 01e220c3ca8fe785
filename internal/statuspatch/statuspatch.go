// SPDX-License-Identifier: Apache-2.0

// Package statuspatch writes the part of a status that one controller owns.
package statuspatch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// FieldOwner is the field manager under which the controllers write.
const FieldOwner = "hoststatus-manager"

// Patch sets the fields of a status that a controller owns, which are those of T, to
// decided, provided that obj has not changed since stored was read from it: otherwise
// the API server answers Conflict, and the caller decides again.
//
// It is a merge patch and not a server-side apply, because a field must also be removed
// when somebody else has set it, which apply would leave alone. A merge patch leaves what
// it does not mention, at every depth, so whatever is in stored and not in decided is
// written as null.
func Patch[T any](ctx context.Context, c client.Client, obj client.Object, stored, decided T) error {
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

// merge returns the merge patch that turns stored into decided.
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
