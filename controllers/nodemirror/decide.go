// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// action is what the mirror does about one Node.
type action string

const (
	leave       action = "leave"
	create      action = "create"
	applyFields action = "apply"
	remove      action = "delete"
)

// decision is what is to be done about a Node and the ComputeService of its name.
type decision struct {
	action action
	// fields are what is created or applied; also where what is to be deleted is kept.
	fields values
	// say is for people: why it is so, where that may surprise them.
	say string
}

const (
	sayForeign    = "A ComputeService of the Node's name is there which the mirror does not keep, so it is left alone; to hand it over, label it " + LabelManagedBy + "=" + FieldOwner
	sayUnselected = "The Node is not selected any more. It stays mirrored until it is gone; delete its ComputeService if it is not needed"
	sayNeverOurs  = "A ComputeService has the mirror's label, but the mirror has never written it and there is no Node of its name, so it is left alone"
)

// decide compares a Node with the ComputeService of its name; either is nil if it is
// not there. A field that is there and that the mirror does not own belongs to
// somebody else, and is left as it is, whatever it says.
func decide(node *corev1.Node, selected bool, service *v1alpha1.ComputeService) decision {
	if service == nil {
		if node == nil || !selected {
			return decision{action: leave}
		}
		// Without the flags: they are applied afterwards, since only what was applied
		// can be taken back by applying.
		return decision{action: create, fields: identity(node)}
	}
	if service.DeletionTimestamp != nil {
		return decision{action: leave} // Its end wakes us.
	}
	have, owned := read(service), ownedBy(FieldOwner, service.ManagedFields)
	switch kept := have[managedBy] == FieldOwner; {
	case !kept && selected && node != nil:
		return decision{action: leave, say: sayForeign}
	case !kept:
		return decision{action: leave}
	case node == nil && len(owned) == 0:
		return decision{action: leave, say: sayNeverOurs}
	case node == nil:
		return decision{action: remove, say: "The Node is gone"}
	}
	d := decision{action: leave}
	want := identity(node)
	another := owned[nodeUID] && have[nodeUID] != string(node.UID)
	if another {
		want[nodeUID] = have[nodeUID] // So that it is still to be removed.
		want[presentNodeUID] = string(node.UID)
	}
	// Whether or not the Node is selected still: a label that follows its health would
	// take DOWN away when it is needed.
	maps.Copy(want, flagsOf(node))
	if !selected {
		d.say = sayUnselected
	}
	want = mine(want, have, owned)
	if differs(want, have, owned) {
		d.action, d.fields = applyFields, want
	}
	if another {
		d.action, d.say = remove, "The Node is another one of the same name"
	}
	return d
}

// identity are the fields of a ComputeService that do not depend on how its Node is.
func identity(node *corev1.Node) values {
	return values{
		managedBy:      FieldOwner,
		nodeUID:        string(node.UID),
		leaseNamespace: corev1.NamespaceNodeLease,
		leaseName:      node.Name,
	}
}

// flagsOf are the fields that say how a Node is. A flag that does not hold is absent,
// not false: somebody else may set it then.
func flagsOf(node *corev1.Node) values {
	v := values{}
	if node.Spec.Unschedulable {
		v[disabled], v[disabledReason] = "true", "the Node is cordoned"
	}
	if taint := outOfService(node); taint != nil {
		v[forcedDown], v[forcedDownReason] = "true", "the Node has the taint "+taint.ToString()
	}
	return v
}

func outOfService(node *corev1.Node) *corev1.Taint {
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].Key == corev1.TaintNodeOutOfService {
			return &node.Spec.Taints[i]
		}
	}
	return nil
}

// mine returns what of want the mirror may write. A reason is written only beside a
// flag of the mirror's own.
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

// differs says whether applying want changes anything: a value, or what the mirror
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
