// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ServerHostField is the path by which servers are selected by their host, in
// field selectors and in the manager's index.
const ServerHostField = "spec.host"

// ServerState is the state of a VM, with the values of Nova's server status.
//
// +kubebuilder:validation:Enum=ACTIVE;BUILD;DELETED;ERROR;HARD_REBOOT;MIGRATING;PASSWORD;PAUSED;REBOOT;REBUILD;RESCUE;RESIZE;REVERT_RESIZE;SHELVED;SHELVED_OFFLOADED;SHUTOFF;SOFT_DELETED;SUSPENDED;UNKNOWN;VERIFY_RESIZE
type ServerState string

// PowerState is a VM's state in the hypervisor, with the values of Nova's
// nova.compute.power_state.
//
// +kubebuilder:validation:Enum=NOSTATE;RUNNING;PAUSED;SHUTDOWN;CRASHED;SUSPENDED
type PowerState string

// ServerSpec is where a server runs.
type ServerSpec struct {
	// host is the name of the ComputeService on which the server runs. Empty or
	// absent means none: not placed yet, or shelved. It may change (migration).
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == '' || !format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a ComputeService (lower-case letters, digits, '-' and '.'), or empty"
	Host string `json:"host,omitempty"` //nolint:kubeapilinter // empty and absent mean the same here, so a pointer would add nothing

	// providerID identifies the VM to the system that runs it, for example
	// openstack:///6ba7b810-9dad-11d1-80b4-00c04fd430c8. It is not interpreted.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="!self.matches(r'[\\x00-\\x1f\\x7f-\\x9f\\x{61c}\\x{200b}\\x{200e}\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{206f}\\x{feff}\\x{fff9}-\\x{fffb}\\x{fffe}\\x{ffff}\\x{e0000}-\\x{e007f}]')",message="must be one line of text, without control characters, bidirectional marks or other invisible characters; remove them"
	ProviderID string `json:"providerID,omitempty"`
}

// ServerNetwork is one network of a server.
//
// +k8s:openapi-gen=true
type ServerNetwork struct {
	// name of the network.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.matches(r'[\\x00-\\x1f\\x7f-\\x9f\\x{61c}\\x{200b}\\x{200e}\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{206f}\\x{feff}\\x{fff9}-\\x{fffb}\\x{fffe}\\x{ffff}\\x{e0000}-\\x{e007f}]')",message="must be one line of text, without control characters, bidirectional marks or other invisible characters; remove them"
	Name string `json:"name,omitempty"`

	// addresses of the server in this network: IPv4 or IPv6, without a prefix
	// length.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=2
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:items:XValidation:rule="isIP(self)",message="must be an IPv4 or IPv6 address without a prefix length"
	Addresses []string `json:"addresses,omitempty"`
}

// ServerStatus has two authors. state, taskState, powerState and networks are
// reported by the system that runs the VM, and stay as last reported when the host
// fails. The host fields are the manager's, and show how far to trust the others.
type ServerStatus struct {
	// state of the server as last reported, for example ACTIVE.
	// +optional
	State ServerState `json:"state,omitempty"`

	// taskState is the task in progress on the server, named as in Nova, for
	// example powering-off. Absent means none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9][-_A-Za-z0-9]*$')",message="must be one word of letters, digits, '-' and '_', for example powering-off; leave it out if nothing is being done"
	TaskState string `json:"taskState,omitempty"`

	// powerState of the VM as last reported, for example RUNNING.
	// +optional
	PowerState PowerState `json:"powerState,omitempty"`

	// networks of the server as last reported.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Networks []ServerNetwork `json:"networks,omitempty"`

	// What the host determines.
	HostFields `json:",inline"`

	// observedGeneration is the metadata.generation that the host fields were
	// derived from.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// hostVersion is the metadata.resourceVersion of the ComputeService that the host
	// fields were derived from. The owners' view tells by it whether the
	// ComputeService is newer. Absent if the server is on no known host.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^[1-9][0-9]*$')",message="must be the resourceVersion of a ComputeService, for example 4711"
	HostVersion string `json:"hostVersion,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,categories=hoststatus
// +kubebuilder:selectablefield:JSONPath=".spec.host"
// +kubebuilder:selectablefield:JSONPath=".status.hostStatus"
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=".status.state"
// +kubebuilder:printcolumn:name="Task State",type=string,JSONPath=".status.taskState"
// +kubebuilder:printcolumn:name="Power State",type=string,JSONPath=".status.powerState"
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=".spec.host"
// +kubebuilder:printcolumn:name="Host Status",type=string,JSONPath=".status.hostStatus"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"

// Server is one VM; its namespace is the tenant that owns it.
type Server struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is where the server runs. Absent means on no host.
	// +optional
	Spec ServerSpec `json:"spec,omitempty,omitzero"`

	// status is what was last reported for the VM, and the status of its host.
	// +optional
	Status ServerStatus `json:"status,omitempty,omitzero"`
}

// +kubebuilder:object:root=true

// ServerList is a list of Servers.
type ServerList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty,omitzero"`
	// items are the Servers.
	// +required
	Items []Server `json:"items"`
}
