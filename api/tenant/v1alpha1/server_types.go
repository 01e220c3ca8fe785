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

	// SubresourceStatus is the subresource whose `get` grants host status (Nova's
	// policy os_compute_api:servers:show:host_status). It can be read too.
	SubresourceStatus = "status"
	// SubresourceUnknownStatus is the virtual subresource whose `get` grants host
	// status only while it is UNKNOWN (Nova's policy
	// os_compute_api:servers:show:host_status:unknown-only). It cannot be read.
	SubresourceUnknownStatus = "unknownstatus"
)

// ServerStatus is what is known of a server. The host fields (hostStatus,
// hostStatusReason, hostStatusTransitionTime, hostReporting, maintenanceWindow) are one
// set: a caller is shown all of them or none.
type ServerStatus struct {
	// state of the server as last reported, for example ACTIVE. It stays as it is
	// when the host fails: hostStatus says how far to trust it.
	// +optional
	State computev1alpha1.ServerState `json:"state,omitempty"`

	// taskState is what is being done with the server, for example powering-off.
	// Absent means nothing.
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

	// hostStatus is the status of the server's host. Absent while it is not
	// derived yet, and for callers to whom it is not granted.
	//
	// UP: the host reports. Nothing to do; do not fail over.
	//
	// DOWN: an operator or a fencing tool asserts that the host is off. It is
	// the only value on which failing over is safe.
	//
	// UNKNOWN: the host does not report. It may be off, or only cut off with the
	// server still running: do not fail over, wait for DOWN.
	//
	// MAINTENANCE: the host is out of service on purpose. The server may run,
	// pause or stop with it; do not fail over.
	//
	// NEEDS_MAINTENANCE: the host reports, and maintenance is announced for it.
	// Prepare, or move away, before maintenanceWindow.startTime; do not fail
	// over.
	//
	// "": the server is on no host, or on none that is known; hostStatusReason
	// tells which.
	// +optional
	HostStatus *computev1alpha1.HostStatus `json:"hostStatus,omitempty"`

	// hostStatusReason is why. Granted with hostStatus.
	//
	// ForcedDown (with DOWN): asserted to be off; fail over, it is safe.
	//
	// Disabled (MAINTENANCE): out of service by hand; wait, or ask the
	// platform's people.
	//
	// WindowOpen (MAINTENANCE): the maintenance window is open; wait for its
	// end.
	//
	// LeaseExpired (UNKNOWN): the host has fallen silent; wait for UP or DOWN,
	// since its servers may still run.
	//
	// NeverReported (UNKNOWN): the host has never reported; the platform's
	// people check its agent and spec.leaseRef of its ComputeService.
	//
	// LeaseNotReadable (UNKNOWN): the manager may not read the host's
	// heartbeats; the platform's people add their namespace to
	// --lease-namespaces.
	//
	// WaitingForHeartbeat (no hostStatus yet): the host is new; wait for its
	// first report.
	//
	// WindowAnnounced (NEEDS_MAINTENANCE): maintenance is announced; prepare for
	// it.
	//
	// Reporting (UP): all is well.
	//
	// NoHost (""): the server is not placed on a host, or shelved; nothing to
	// do.
	//
	// HostNotFound (""): the server's host has no ComputeService; the platform's
	// people make one, or correct spec.host.
	// +optional
	HostStatusReason computev1alpha1.HostStatusReason `json:"hostStatusReason,omitempty"`

	// hostStatusTransitionTime is when this server's hostStatus last changed.
	// Granted with hostStatus.
	// +optional
	HostStatusTransitionTime *metav1.Time `json:"hostStatusTransitionTime,omitempty"`

	// hostReporting says whether the host reports, whatever the summary says: a
	// host that dies in maintenance still reads MAINTENANCE. Granted with hostStatus.
	// +optional
	HostReporting computev1alpha1.HostReporting `json:"hostReporting,omitempty"`

	// maintenanceWindow is the host's window while it is announced or open. Granted
	// with hostStatus.
	// +optional
	MaintenanceWindow *computev1alpha1.AnnouncedWindow `json:"maintenanceWindow,omitempty"`

	// hostID is equal for two servers of one namespace that are on the same host,
	// and tells nothing else. Absent if the server is on no host.
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

	// status is what is known of the server.
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
