// SPDX-License-Identifier: Apache-2.0

// Package statuspatch writes the part of a status that one controller owns.
package statuspatch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// FieldOwner is the field manager under which the controllers write.
	FieldOwner = "hoststatus-manager"
	// ConflictDelay is how long to wait before deciding again after a Conflict:
	// the cache has to catch up with the write that came in between.
	ConflictDelay = 20 * time.Millisecond
)

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
