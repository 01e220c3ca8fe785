// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// ConditionOwner is the field manager under which nodeconditions writes the maintenance
// conditions of Nodes. The mirror does not read back what it owns.
const ConditionOwner = "hoststatus-node-conditions"

// maintenance are the conditions of Nodes that are read and written here.
var maintenance = []corev1.NodeConditionType{corev1.NodeMaintenancePlanned, corev1.NodeMaintenanceInProgress}

// Condition returns the condition of this type by which an administrator, or a tool,
// declares that a maintenance of a Node is planned or in progress; nil if it does not hold,
// or if it is as ConditionOwner wrote it. Kubernetes names both types from 1.37 on.
func Condition(node *corev1.Node, of corev1.NodeConditionType) *corev1.NodeCondition {
	if c := conditionOf(node, of); c != nil && c.Status == corev1.ConditionTrue && !owns(node, of) {
		return c
	}
	return nil
}

// Foreign reports whether a Node has a condition of this type, whatever its status, that
// somebody else has set or edited.
func Foreign(node *corev1.Node, of corev1.NodeConditionType) bool {
	return conditionOf(node, of) != nil && !owns(node, of)
}

// OwnCondition returns the condition of a Node that ConditionOwner wrote, and nobody else
// has edited; nil if there is none.
func OwnCondition(node *corev1.Node) *corev1.NodeCondition {
	for _, of := range maintenance {
		if c := conditionOf(node, of); c != nil && owns(node, of) {
			return c
		}
	}
	return nil
}

// EditedConditions returns, of the conditions that ConditionOwner wrote and somebody else has
// edited since, the fields that are still ConditionOwner's: if it did not apply them again,
// server-side apply would take them from a condition that is somebody else's now.
func EditedConditions(node *corev1.Node) (edited []*corev1apply.NodeConditionApplyConfiguration) {
	for _, of := range maintenance {
		c := conditionOf(node, of)
		if c == nil {
			continue
		}
		own, others := owners(node, of)
		if !others || len(own) == 0 {
			continue
		}
		keep := corev1apply.NodeCondition().WithType(of)
		if own["status"] {
			keep.WithStatus(c.Status)
		}
		if own["reason"] {
			keep.WithReason(c.Reason)
		}
		if own["message"] {
			keep.WithMessage(c.Message)
		}
		if own["lastTransitionTime"] {
			keep.WithLastTransitionTime(c.LastTransitionTime)
		}
		edited = append(edited, keep)
	}
	return edited
}

func conditionOf(node *corev1.Node, of corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if c := &node.Status.Conditions[i]; c.Type == of {
			return c
		}
	}
	return nil
}

func owns(node *corev1.Node, of corev1.NodeConditionType) bool {
	own, others := owners(node, of)
	return own["status"] && !others
}

// owners returns which fields of a condition are ConditionOwner's, and whether others own
// some.
func owners(node *corev1.Node, of corev1.NodeConditionType) (own map[string]bool, others bool) {
	for _, entry := range node.ManagedFields {
		switch fields := fieldsOf(&entry, of); {
		case len(fields) == 0:
		case entry.Manager == ConditionOwner:
			own = fields
		default:
			others = true
		}
	}
	return own, others
}

// fieldsOf returns which fields of a condition an entry has.
func fieldsOf(entry *metav1.ManagedFieldsEntry, of corev1.NodeConditionType) map[string]bool {
	set := &fieldpath.Set{}
	if entry.FieldsV1 == nil || set.FromJSON(entry.FieldsV1.GetRawReader()) != nil {
		return nil
	}
	fields := map[string]bool{}
	key := value.FieldList{{Name: "type", Value: value.NewValueInterface(string(of))}}
	for _, field := range []string{"status", "reason", "message", "lastTransitionTime"} {
		if set.Has(fieldpath.MakePathOrDie("status", "conditions", &key, field)) {
			fields[field] = true
		}
	}
	return fields
}

// stripConditions returns what is kept of a Node's conditions and of its managedFields: of
// these, mostly nothing.
func stripConditions(node *corev1.Node) (conditions []corev1.NodeCondition, managed []metav1.ManagedFieldsEntry) {
	for _, of := range maintenance {
		if c := conditionOf(node, of); c != nil {
			kept := *c
			kept.LastHeartbeatTime = metav1.Time{}
			conditions = append(conditions, kept)
		}
	}
	if !slices.ContainsFunc(node.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Manager == ConditionOwner }) {
		return conditions, nil
	}
	for _, entry := range node.ManagedFields {
		if slices.ContainsFunc(maintenance, func(of corev1.NodeConditionType) bool { return len(fieldsOf(&entry, of)) > 0 }) {
			managed = append(managed, entry)
		}
	}
	return conditions, managed
}

// WindowFromNode reports whether the window of a ComputeService only repeats what a
// condition of its Node says.
func WindowFromNode(service *v1alpha1.ComputeService) bool {
	w := service.Spec.MaintenanceWindow
	return w != nil && w.StartTime == nil && ownedBy(service.ManagedFields)[windowReason]
}
