// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// fieldOwner is who last set a field.
type fieldOwner struct {
	name string
	// applies says that it does so by server-side apply, as GitOps tools do: again
	// and again.
	applies bool
}

// owner finds out who set a field. One that applies it goes before others, since
// it will do so again.
func owner(managed []metav1.ManagedFieldsEntry, path ...any) (found fieldOwner) {
	field := fieldpath.MakePathOrDie(path...)
	for _, entry := range managed {
		if entry.FieldsV1 == nil {
			continue
		}
		set := &fieldpath.Set{}
		if err := set.FromJSON(entry.FieldsV1.GetRawReader()); err != nil || !set.Has(field) {
			continue
		}
		o := fieldOwner{entry.Manager, entry.Operation == metav1.ManagedFieldsOperationApply}
		if found.name == "" || o.applies {
			found = o
		}
	}
	return found
}
