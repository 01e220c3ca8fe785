// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

const (
	// HostStatusField is the path by which servers are selected by their host
	// status. It is refused to callers who may not see the field.
	HostStatusField = "status.hostStatus"
	// UIDField is the path by which a server is selected by its unique id.
	UIDField = "metadata.uid"

	// SubresourceStatus is the subresource whose `get` grants host status (Nova's
	// policy os_compute_api:servers:show:host_status). It can be read too.
	SubresourceStatus = "status"
	// SubresourceUnknownStatus is the virtual subresource whose `get` grants host
	// status only while it is UNKNOWN (Nova's policy
	// os_compute_api:servers:show:host_status:unknown-only). It cannot be read.
	SubresourceUnknownStatus = "unknownstatus"
)

// ServerStatus is what is known about a server. The host fields (hostStatus,
// hostStatusReason, hostStatusTransitionTime, hostReporting, maintenanceWindow,
// hostHistory) are one set: a caller is shown all of them or none. Of hostHistory, a caller
// who may see host status only while it is UNKNOWN is shown the first entry.
type ServerStatus struct {
	// state of the server as last reported, for example ACTIVE. It stays as it is
	// when the host fails: hostStatus shows how far to trust it.
	// +optional
	State computev1alpha1.ServerState `json:"state,omitempty"`

	// taskState is the task in progress on the server, for example powering-off.
	// Absent means none.
	// +optional
	TaskState string `json:"taskState,omitempty"`

	// powerState of the VM as last reported, for example RUNNING.
	// +optional
	PowerState computev1alpha1.PowerState `json:"powerState,omitempty"`

	// networks of the server as last reported.
	// +optional
	// +listType=map
	// +listMapKey=name
	Networks []computev1alpha1.ServerNetwork `json:"networks,omitempty"`

	// What the host determines, for callers to whom it is granted.
	computev1alpha1.HostFields `json:",inline"`

	// hostID is equal for two servers of one namespace that are on the same host,
	// and reveals nothing else. Absent if the server is on no host.
	// +optional
	HostID string `json:"hostID,omitempty"`
}

// +kubebuilder:object:root=true

// Server is one VM as its owner sees it; its namespace is the tenant that owns it.
type Server struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata: name, namespace, uid, creationTimestamp,
	// the labels that owners may see, whether the server is being deleted, and as
	// resourceVersion that of the last change that the caller could see.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// status is what is known about the server.
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
