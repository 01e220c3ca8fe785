// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// GroupVersion is the version of KubeVirt's API that the mirror reads. It has been the
// stored one since KubeVirt 0.36.
var GroupVersion = schema.GroupVersion{Group: "kubevirt.io", Version: "v1"}

// Kind is the kind of which the mirror follows the objects.
const Kind = "VirtualMachineInstance"

// VirtualMachineInstance is what the mirror reads of KubeVirt's kind. The module with
// all of it would bring a dozen others for these few fields; what is not named here is
// skipped when an object is decoded.
type VirtualMachineInstance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Status may lag behind: KubeVirt writes it.
	Status VirtualMachineInstanceStatus `json:"status,omitempty"`
}

// VirtualMachineInstanceStatus is where and how a virtual machine runs.
type VirtualMachineInstanceStatus struct {
	NodeName           string          `json:"nodeName,omitempty"`
	Phase              Phase           `json:"phase,omitempty"`
	EvacuationNodeName string          `json:"evacuationNodeName,omitempty"`
	Conditions         []Condition     `json:"conditions,omitempty"`
	Interfaces         []Interface     `json:"interfaces,omitempty"`
	MigrationState     *MigrationState `json:"migrationState,omitempty"`
}

// Phase is how far KubeVirt is with a virtual machine.
type Phase string

// The phases of KubeVirt 1.8. Unset means that KubeVirt has not looked at the object yet.
const (
	PhaseUnset          Phase = ""
	PhasePending        Phase = "Pending"
	PhaseScheduling     Phase = "Scheduling"
	PhaseScheduled      Phase = "Scheduled"
	PhaseRunning        Phase = "Running"
	PhaseSucceeded      Phase = "Succeeded"
	PhaseFailed         Phase = "Failed"
	PhaseWaitingForSync Phase = "WaitingForSync"
	PhaseUnknown        Phase = "Unknown"
)

// Condition is one condition of a virtual machine.
type Condition struct {
	Type   string                 `json:"type"`
	Status corev1.ConditionStatus `json:"status"`
}

// The conditions that the mirror reads.
const (
	conditionPaused            = "Paused"
	conditionEvictionRequested = "EvictionRequested"
)

// Interface is a network interface. One that only the guest knows has no Name.
type Interface struct {
	Name string   `json:"name,omitempty"`
	IP   string   `json:"ipAddress,omitempty"`
	IPs  []string `json:"ipAddresses,omitempty"`
}

// MigrationState is the last live migration, which may have ended.
type MigrationState struct {
	StartTimestamp *metav1.Time `json:"startTimestamp,omitempty"`
	EndTimestamp   *metav1.Time `json:"endTimestamp,omitempty"`
	Completed      bool         `json:"completed,omitempty"`
}

// VirtualMachineInstanceList is a list of them.
type VirtualMachineInstanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualMachineInstance `json:"items"`
}

// AddToScheme registers the kinds of KubeVirt that the mirror reads.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypeWithName(GroupVersion.WithKind(Kind), &VirtualMachineInstance{})
	scheme.AddKnownTypeWithName(GroupVersion.WithKind(Kind+"List"), &VirtualMachineInstanceList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// DeepCopy returns a copy that shares nothing with v.
func (v *VirtualMachineInstance) DeepCopy() *VirtualMachineInstance {
	out := &VirtualMachineInstance{TypeMeta: v.TypeMeta, Status: v.Status}
	v.DeepCopyInto(&out.ObjectMeta)
	out.Status.Conditions = slices.Clone(v.Status.Conditions)
	out.Status.Interfaces = slices.Clone(v.Status.Interfaces)
	for i := range out.Status.Interfaces {
		out.Status.Interfaces[i].IPs = slices.Clone(out.Status.Interfaces[i].IPs)
	}
	if m := v.Status.MigrationState; m != nil {
		out.Status.MigrationState = &MigrationState{m.StartTimestamp.DeepCopy(), m.EndTimestamp.DeepCopy(), m.Completed}
	}
	return out
}

// DeepCopyObject implements runtime.Object.
func (v *VirtualMachineInstance) DeepCopyObject() runtime.Object { return v.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *VirtualMachineInstanceList) DeepCopyObject() runtime.Object {
	out := &VirtualMachineInstanceList{TypeMeta: l.TypeMeta}
	l.DeepCopyInto(&out.ListMeta)
	if l.Items != nil {
		out.Items = make([]VirtualMachineInstance, len(l.Items))
		for i := range l.Items {
			out.Items[i] = *l.Items[i].DeepCopy()
		}
	}
	return out
}

// StripVMI returns the transform of the cache of VirtualMachineInstances: it keeps what the
// mirror uses, and of the labels also what selector looks at. What tenants and guests can write
// without a bound, it keeps as the Server shows it: the memory is everybody's.
func StripVMI(selector labels.Selector) cache.TransformFunc {
	requirements, _ := selector.Requirements() // One that selects nothing looks at nothing.
	return func(obj any) (any, error) {
		v, ok := obj.(*VirtualMachineInstance)
		if !ok {
			return obj, nil
		}
		kept := shownLabels(v.Labels)
		for i := range requirements {
			key := requirements[i].Key()
			if value, there := v.Labels[key]; there {
				kept[key] = value
			}
		}
		v.TypeMeta = metav1.TypeMeta{}
		v.ObjectMeta = metav1.ObjectMeta{
			Name: v.Name, Namespace: v.Namespace, UID: v.UID, ResourceVersion: v.ResourceVersion,
			Labels: kept, DeletionTimestamp: v.DeletionTimestamp,
		}
		v.Status.Conditions = slices.Clip(slices.DeleteFunc(v.Status.Conditions, func(c Condition) bool {
			return c.Type != conditionPaused && c.Type != conditionEvictionRequested
		}))
		var interfaces []Interface
		for _, n := range networks(v.Status.Interfaces) {
			interfaces = append(interfaces, Interface{Name: n.Name, IPs: n.Addresses})
		}
		v.Status.Interfaces = interfaces
		return v, nil
	}
}
