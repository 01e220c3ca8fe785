// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// fieldOwner is the field manager that last set a field.
type fieldOwner struct {
	name string
	// applies is true for server-side apply, with which GitOps tools set a field again
	// and again.
	applies bool
}

// owner returns the field manager that set a field. One that applies it has precedence,
// because it will do so again.
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
