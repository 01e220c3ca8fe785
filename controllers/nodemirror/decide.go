// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/printable"
)

// action is what the mirror does about one Node.
type action string

const (
	leave       action = "leave"
	create      action = "create"
	applyFields action = "apply"
	remove      action = "delete"
)

// decision is what to do about a Node and the ComputeService of its name.
type decision struct {
	action action
	// fields are created or applied; with remove, only if the deletion is refused.
	fields values
	// message explains to people a decision that may surprise them.
	message string
}

const (
	messageForeign    = "A ComputeService with the Node's name exists that the mirror does not manage, so it is left alone; to hand it over, label it " + LabelManagedBy + "=" + FieldOwner
	messageUnselected = "The Node is no longer selected. It stays mirrored until it is gone; delete its ComputeService if it is not needed"
	messageNeverOurs  = "A ComputeService has the mirror's label, but the mirror has never written it and there is no Node with its name, so it is left alone"
)

// decide compares a Node with the ComputeService of its name; either is nil if it does
// not exist. A field that exists and that the mirror does not own belongs to somebody
// else, and is left as it is, whatever its value.
func decide(node *corev1.Node, selected bool, service *v1alpha1.ComputeService) decision {
	if service == nil {
		if node == nil || !selected {
			return decision{action: leave}
		}
		// Without the flags: they are applied afterwards, since applying can remove only
		// what was applied.
		return decision{action: create, fields: identity(node)}
	}
	if service.DeletionTimestamp != nil {
		return decision{action: leave} // Its end wakes us.
	}
	have, owned := read(service), ownedBy(service.ManagedFields)
	switch kept := have[managedBy] == FieldOwner; {
	case !kept && selected && node != nil:
		return decision{action: leave, message: messageForeign}
	case !kept:
		return decision{action: leave}
	case node == nil && len(owned) == 0:
		return decision{action: leave, message: messageNeverOurs}
	case node == nil:
		return decision{action: remove, message: "The Node is gone"}
	}
	d := decision{action: leave}
	want := identity(node)
	another := owned[nodeUID] && have[nodeUID] != string(node.UID)
	if another {
		want[nodeUID] = have[nodeUID] // So that it will still be removed.
		want[presentNodeUID] = string(node.UID)
	}
	// Whether or not the Node is still selected: a label that follows its health would
	// take DOWN away when it is needed.
	maps.Copy(want, flagsOf(node))
	if !selected {
		d.message = messageUnselected
	}
	if service.Spec.MaintenanceWindow != nil && !owned[windowReason] {
		delete(want, windowReason) // Somebody else has made a window, even if it has no reason.
	}
	want = mine(want, have, owned)
	if differs(want, have, owned) {
		d.action, d.fields = applyFields, want
	}
	if another {
		d.action, d.message = remove, "The Node was replaced by another with the same name"
	}
	return d
}

// identity are the fields of a ComputeService that do not depend on its Node's state.
func identity(node *corev1.Node) values {
	return values{
		managedBy:      FieldOwner,
		nodeUID:        string(node.UID),
		leaseNamespace: corev1.NamespaceNodeLease,
		leaseName:      node.Name,
	}
}

// flagsOf are the fields that show a Node's state. A flag that does not hold is absent,
// not false, so that somebody else may set it. A planned maintenance is a window without a
// time, since the condition has none.
func flagsOf(node *corev1.Node) values {
	v := values{}
	if planned := Condition(node, corev1.NodeMaintenancePlanned); planned != nil {
		v[windowReason] = reasonOf(planned)
	}
	switch inProgress := Condition(node, corev1.NodeMaintenanceInProgress); {
	case inProgress != nil:
		// It says more than that the Node is cordoned, as it mostly is as well.
		v[disabled], v[disabledReason] = "true", reasonOf(inProgress)
	case node.Spec.Unschedulable:
		v[disabled], v[disabledReason] = "true", "the Node is cordoned"
	}
	if taint := outOfService(node); taint != nil {
		v[forcedDown], v[forcedDownReason] = "true", "the Node has the taint "+taint.ToString()
	}
	return v
}

// longestReason is how many characters a reason may have.
const longestReason = 256

// reasonOf returns what a condition states, in a form that the ComputeService may have.
func reasonOf(c *corev1.NodeCondition) string {
	reason := "the Node has the condition " + string(c.Type)
	for _, text := range []string{c.Reason, c.Message} {
		if text != "" {
			reason += ": " + text
		}
	}
	cleaned := []rune(printable.Clean(reason))
	return string(cleaned[:min(len(cleaned), longestReason)])
}

func outOfService(node *corev1.Node) *corev1.Taint {
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].Key == corev1.TaintNodeOutOfService {
			return &node.Spec.Taints[i]
		}
	}
	return nil
}

// mine returns the part of want that the mirror may write. A reason is written only
// beside a flag that the mirror owns.
func mine(want, have values, owned map[string]bool) values {
	out := values{}
	for field, value := range want {
		if _, there := have[field]; !there || owned[field] {
			out[field] = value
		}
	}
	for flag, reason := range map[string]string{disabled: disabledReason, forcedDown: forcedDownReason} {
		if _, ok := out[flag]; !ok {
			delete(out, reason)
		}
	}
	return out
}

// differs reports whether applying want changes anything: a value, or what the mirror
// owns.
func differs(want, have values, owned map[string]bool) bool {
	for field, value := range want {
		if !owned[field] || have[field] != value {
			return true
		}
	}
	for field := range owned {
		if _, ok := want[field]; !ok {
			return true
		}
	}
	return false
}
