// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	apply "hoststatus.dev/hoststatus/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

const (
	// FieldOwner is the field manager under which the mirror writes.
	FieldOwner = "hoststatus-node-mirror"
	// LabelManagedBy has the value FieldOwner on ComputeServices that the mirror keeps.
	// Removing or changing the label takes the object from the mirror; adding it hands
	// the object over.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// AnnotationNodeUID is the Node that a ComputeService was made for: a machine that
	// was reinstalled under an old name is another host.
	AnnotationNodeUID = "compute.hoststatus.dev/node-uid"
	// AnnotationPresentNodeUID is the Node that has the name now, while a ComputeService
	// that was made for another one cannot be deleted.
	AnnotationPresentNodeUID = "compute.hoststatus.dev/present-node-uid"
)

// The fields that the mirror writes, by their paths.
const (
	managedBy        = ".metadata.labels." + LabelManagedBy
	nodeUID          = ".metadata.annotations." + AnnotationNodeUID
	presentNodeUID   = ".metadata.annotations." + AnnotationPresentNodeUID
	leaseNamespace   = ".spec.leaseRef.namespace"
	leaseName        = ".spec.leaseRef.name"
	disabled         = ".spec.disabled"
	disabledReason   = ".spec.disabledReason"
	forcedDown       = ".spec.forcedDown"
	forcedDownReason = ".spec.forcedDownReason"
	windowReason     = ".spec.maintenanceWindow.reason"
)

// values are fields of a ComputeService with their values; absent fields are missing.
// A flag is "true" or "false".
type values map[string]string

// paths are the fields as managedFields has them.
var paths = map[string]fieldpath.Path{
	managedBy:        fieldpath.MakePathOrDie("metadata", "labels", LabelManagedBy),
	nodeUID:          fieldpath.MakePathOrDie("metadata", "annotations", AnnotationNodeUID),
	presentNodeUID:   fieldpath.MakePathOrDie("metadata", "annotations", AnnotationPresentNodeUID),
	leaseNamespace:   fieldpath.MakePathOrDie("spec", "leaseRef", "namespace"),
	leaseName:        fieldpath.MakePathOrDie("spec", "leaseRef", "name"),
	disabled:         fieldpath.MakePathOrDie("spec", "disabled"),
	disabledReason:   fieldpath.MakePathOrDie("spec", "disabledReason"),
	forcedDown:       fieldpath.MakePathOrDie("spec", "forcedDown"),
	forcedDownReason: fieldpath.MakePathOrDie("spec", "forcedDownReason"),
	windowReason:     fieldpath.MakePathOrDie("spec", "maintenanceWindow", "reason"),
}

// read returns the values of the fields of service.
func read(service *v1alpha1.ComputeService) values {
	v := values{}
	for name, entry := range map[string]struct {
		from map[string]string
		key  string
	}{managedBy: {service.Labels, LabelManagedBy}, nodeUID: {service.Annotations, AnnotationNodeUID}, presentNodeUID: {service.Annotations, AnnotationPresentNodeUID}} {
		if value, ok := entry.from[entry.key]; ok {
			v[name] = value
		}
	}
	spec := &service.Spec
	if ref := spec.LeaseRef; ref != nil {
		if ref.Namespace != "" {
			v[leaseNamespace] = ref.Namespace
		}
		if ref.Name != "" {
			v[leaseName] = ref.Name
		}
	}
	for name, flag := range map[string]*bool{disabled: spec.Disabled, forcedDown: spec.ForcedDown} {
		if flag != nil {
			v[name] = strconv.FormatBool(*flag)
		}
	}
	for name, text := range map[string]*string{disabledReason: spec.DisabledReason, forcedDownReason: spec.ForcedDownReason} {
		if text != nil {
			v[name] = *text
		}
	}
	if w := spec.MaintenanceWindow; w != nil && w.Reason != nil {
		v[windowReason] = *w.Reason
	}
	return v
}

// configuration returns v as what is applied to the ComputeService of that name.
func (v values) configuration(name string) *apply.ComputeServiceApplyConfiguration {
	c := apply.ComputeService(name).WithSpec(apply.ComputeServiceSpec())
	if value, ok := v[managedBy]; ok {
		c.WithLabels(map[string]string{LabelManagedBy: value})
	}
	for field, annotation := range map[string]string{nodeUID: AnnotationNodeUID, presentNodeUID: AnnotationPresentNodeUID} {
		if value, ok := v[field]; ok {
			c.WithAnnotations(map[string]string{annotation: value})
		}
	}
	ref := apply.LeaseReference()
	ref.Namespace, ref.Name = v.text(leaseNamespace), v.text(leaseName)
	if ref.Namespace != nil || ref.Name != nil {
		c.Spec.WithLeaseRef(ref)
	}
	c.Spec.Disabled, c.Spec.DisabledReason = v.flag(disabled), v.text(disabledReason)
	c.Spec.ForcedDown, c.Spec.ForcedDownReason = v.flag(forcedDown), v.text(forcedDownReason)
	if reason := v.text(windowReason); reason != nil {
		c.Spec.WithMaintenanceWindow(apply.MaintenanceWindow().WithReason(*reason))
	}
	return c
}

// NodeOf returns the UID of the Node whose kubelet alone reports for a ComputeService
// that the mirror keeps; empty where somebody has set another reporter.
func NodeOf(service *v1alpha1.ComputeService) types.UID {
	kubelets := types.NamespacedName{Namespace: corev1.NamespaceNodeLease, Name: service.Name}
	if service.Labels[LabelManagedBy] != FieldOwner || service.HeartbeatLease() != kubelets {
		return ""
	}
	if present := service.Annotations[AnnotationPresentNodeUID]; present != "" {
		return types.UID(present)
	}
	return types.UID(service.Annotations[AnnotationNodeUID])
}

func (v values) text(field string) *string {
	if value, ok := v[field]; ok {
		return &value
	}
	return nil
}

func (v values) flag(field string) *bool {
	if value, ok := v[field]; ok {
		return ptr.To(value == "true")
	}
	return nil
}

// ownedBy returns which of the fields the mirror owns.
func ownedBy(managed []metav1.ManagedFieldsEntry) map[string]bool {
	owned := map[string]bool{}
	for _, entry := range managed {
		if entry.Manager != FieldOwner || entry.Subresource != "" || entry.FieldsV1 == nil {
			continue
		}
		set := &fieldpath.Set{}
		if err := set.FromJSON(entry.FieldsV1.GetRawReader()); err != nil {
			continue
		}
		for field, path := range paths {
			if set.Has(path) {
				owned[field] = true
			}
		}
	}
	return owned
}

// KeepOwnEntries is the transform of the cache of ComputeServices: of their
// managedFields it keeps the entries of the mirror.
func KeepOwnEntries(obj any) (any, error) {
	service, ok := obj.(*v1alpha1.ComputeService)
	if !ok {
		return obj, nil
	}
	var kept []metav1.ManagedFieldsEntry
	for _, entry := range service.ManagedFields {
		if entry.Manager == FieldOwner && entry.Subresource == "" {
			kept = append(kept, entry)
		}
	}
	service.ManagedFields = kept
	return service, nil
}
