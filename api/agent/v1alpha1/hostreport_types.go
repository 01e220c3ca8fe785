// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MaxServers is how many servers a report may list, by its schema.
const MaxServers = 1024

// HostReportSpec is what a host knows about its servers.
type HostReportSpec struct {
	// servers on the host. A server that is not listed keeps what was last reported
	// of it. Entries that name no Server whose spec.host is this host have no effect;
	// the manager counts them in status.report.notHere of the ComputeService.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=0
	// +kubebuilder:validation:MaxItems=1024
	Servers []ReportedServer `json:"servers,omitempty"`
}

// ReportedServer is what a host knows about one server. The values are text of limited
// length, and no more is checked: one odd address must not refuse the states of all
// servers of a host. The manager copies to the Server what the Server's own schema
// accepts, and leaves out the rest.
type ReportedServer struct {
	// namespace of the Server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name of the Server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// state, for example ACTIVE: see status.state of Servers. Absent means not known.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`

	// taskState, for example powering-off: see status.taskState of Servers. Absent
	// means none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	TaskState string `json:"taskState,omitempty"`

	// powerState, for example RUNNING: see status.powerState of Servers. Absent means
	// not known.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	PowerState string `json:"powerState,omitempty"`

	// networks of the server. Several entries with the same name are one network.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Networks []ReportedNetwork `json:"networks,omitempty"`
}

// ReportedNetwork is one network of a server.
type ReportedNetwork struct {
	// name of the network. Absent means that it has none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// addresses of the server in this network.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	Addresses []string `json:"addresses,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=hoststatus
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"

// HostReport is what a host reports about the servers on it; its name is the host's
// name. The agent on the host writes it, and reads nothing. The manager copies it to the
// status of the Servers whose spec.host is this host.
type HostReport struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is what the host knows about its servers. Absent means nothing.
	// +optional
	Spec HostReportSpec `json:"spec,omitempty,omitzero"`
}

// +kubebuilder:object:root=true

// HostReportList is a list of HostReports.
type HostReportList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty,omitzero"`
	// items are the HostReports.
	// +required
	Items []HostReport `json:"items"`
}
