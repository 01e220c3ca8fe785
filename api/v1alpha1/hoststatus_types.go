// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HostStatus is what is known of a compute host. The values keep the spelling
// of Nova's host_status (API microversion 2.16), because consumers compare them.
// The rank, the colours and the meaning of each value are in one table, in
// internal/hoststatus.
//
// +kubebuilder:validation:Enum="";UP;DOWN;UNKNOWN;MAINTENANCE;NEEDS_MAINTENANCE
type HostStatus string

const (
	// HostStatusNone means that the server is on no host, or on none that is known;
	// hostStatusReason tells which. It differs from an absent value, which means
	// not derived yet.
	HostStatusNone HostStatus = ""
	// HostStatusUp means that the host reports and that nothing is announced for it.
	HostStatusUp HostStatus = "UP"
	// HostStatusDown means that an operator or a fencing tool asserts that the
	// host is off. It is the only value on which failing over is safe.
	HostStatusDown HostStatus = "DOWN"
	// HostStatusUnknown means that the host does not report in time, or never did.
	HostStatusUnknown HostStatus = "UNKNOWN"
	// HostStatusMaintenance means that the host is out of service on purpose: it is
	// disabled by hand, or its maintenance window is open.
	HostStatusMaintenance HostStatus = "MAINTENANCE"
	// HostStatusNeedsMaintenance means that the host reports, and maintenance is
	// announced for it.
	HostStatusNeedsMaintenance HostStatus = "NEEDS_MAINTENANCE"
)

// HostStatusReason is why a host status is what it is; each reason stands for one
// thing to do. A reason never contains a host's name, because servers show it too.
//
// +kubebuilder:validation:Enum=ForcedDown;Disabled;WindowOpen;LeaseExpired;NeverReported;WaitingForHeartbeat;LeaseNotReadable;WindowAnnounced;Reporting;NoHost;HostNotFound
type HostStatusReason string

const (
	// ReasonForcedDown comes with DOWN: spec.forcedDown is true.
	ReasonForcedDown HostStatusReason = "ForcedDown"
	// ReasonDisabled comes with MAINTENANCE: spec.disabled is true.
	ReasonDisabled HostStatusReason = "Disabled"
	// ReasonWindowOpen comes with MAINTENANCE: the maintenance window is open.
	ReasonWindowOpen HostStatusReason = "WindowOpen"
	// ReasonLeaseExpired comes with UNKNOWN: the host reported once, and its
	// Lease was not renewed within its duration.
	ReasonLeaseExpired HostStatusReason = "LeaseExpired"
	// ReasonNeverReported comes with UNKNOWN: no renewal of the host's Lease has
	// been seen since the ComputeService exists. Check leaseRef and the agent.
	ReasonNeverReported HostStatusReason = "NeverReported"
	// ReasonWaitingForHeartbeat comes with an absent host status: the
	// ComputeService is new and its first renewal may still come.
	ReasonWaitingForHeartbeat HostStatusReason = "WaitingForHeartbeat"
	// ReasonLeaseNotReadable comes with UNKNOWN: spec.leaseRef names a namespace
	// that the manager does not read (its flag --lease-namespaces).
	ReasonLeaseNotReadable HostStatusReason = "LeaseNotReadable"
	// ReasonWindowAnnounced comes with NEEDS_MAINTENANCE: a maintenance window
	// is announced and not yet open.
	ReasonWindowAnnounced HostStatusReason = "WindowAnnounced"
	// ReasonReporting comes with UP: the host renews its Lease in time.
	ReasonReporting HostStatusReason = "Reporting"
	// ReasonNoHost comes with "": the server's spec.host is empty.
	ReasonNoHost HostStatusReason = "NoHost"
	// ReasonHostNotFound comes with "": no ComputeService has the name in the
	// server's spec.host.
	ReasonHostNotFound HostStatusReason = "HostNotFound"
)

// HostReporting shows whether the host renews its Lease in time, whatever its host
// status is: a host that dies in maintenance still has MAINTENANCE.
//
// +kubebuilder:validation:Enum=True;False;Unknown
type HostReporting string

const (
	// HostReportingTrue means that the host renews its Lease in time.
	HostReportingTrue HostReporting = "True"
	// HostReportingFalse means that the host's silence is proven.
	HostReportingFalse HostReporting = "False"
	// HostReportingUnknown means that nothing is known yet, or that the Lease
	// cannot be read.
	HostReportingUnknown HostReporting = "Unknown"
)

const (
	// DefaultLeaseNamespace is where a host's Lease is if spec.leaseRef names
	// no namespace.
	DefaultLeaseNamespace = "hoststatus-leases"
	// CanaryLeaseName is the Lease, in each lease namespace, by which the manager
	// proves that its watch delivers. No host may use the name.
	CanaryLeaseName = "hoststatus-canary"
	// LeaderLeaseName is the Lease by which managers elect their leader. No host
	// may use the name.
	LeaderLeaseName = "hoststatus-manager"

	// AnnotationDriverError holds the error of an agent's driver, on the Lease of its host:
	// the host still reports, but the reported states of its servers are out of date.
	AnnotationDriverError = "compute.hoststatus.dev/driver-error"

	// MinLeaseDurationSeconds is the shortest lease duration that is used.
	MinLeaseDurationSeconds = 3
	// MaxLeaseDurationSeconds is the longest lease duration that is used.
	MaxLeaseDurationSeconds = 3600
)

// HostFields are what a Server shows of its host: one set, which the manager
// writes and which the owners' view shows whole or not at all. A field that is added
// here is shown to owners to whom host status is granted.
type HostFields struct {
	// hostStatus is the status of the server's host. Absent until it is derived,
	// and in the owners' view for callers to whom it is not granted.
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
	// Prepare, or move away, before the window's startTime; do not fail over.
	//
	// "": the server is on no host, or on none that is known; hostStatusReason
	// tells which.
	// +optional
	HostStatus *HostStatus `json:"hostStatus,omitempty"`

	// hostStatusReason is why. No reason names a host.
	//
	// ForcedDown (with DOWN): asserted to be off; fail over, it is safe.
	//
	// Disabled (MAINTENANCE): out of service by hand; wait, or ask the
	// platform team.
	//
	// WindowOpen (MAINTENANCE): the maintenance window is open; wait for its
	// end.
	//
	// LeaseExpired (UNKNOWN): the host has fallen silent; wait for UP or DOWN,
	// since its servers may still run.
	//
	// NeverReported (UNKNOWN): the host has never reported; the platform team
	// checks its agent and spec.leaseRef of its ComputeService.
	//
	// LeaseNotReadable (UNKNOWN): the manager may not read the host's
	// heartbeats; the platform team adds their namespace to
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
	// HostNotFound (""): the server's host has no ComputeService; the platform
	// team creates one, or corrects spec.host.
	// +optional
	HostStatusReason HostStatusReason `json:"hostStatusReason,omitempty"`

	// hostStatusTransitionTime is when this server's hostStatus last changed: the
	// host's own time, or that of the server's arrival on it. A move from an UP host
	// to one that has been UP for longer keeps it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	HostStatusTransitionTime *metav1.Time `json:"hostStatusTransitionTime,omitempty"`

	// hostReporting shows whether the host reports, whatever hostStatus is: a host
	// that dies in maintenance still has MAINTENANCE. Absent if the server is on no
	// known host.
	// +optional
	HostReporting HostReporting `json:"hostReporting,omitempty"`

	// maintenanceWindow is the host's window while it is announced or open.
	// +optional
	MaintenanceWindow *AnnouncedWindow `json:"maintenanceWindow,omitempty"`

	// hostHistory has the last changes of this server's hostStatus, the newest first:
	// the record of its host's outages and of their ends. The first entry is the
	// present value. A change that was over before it reached this server is not in it,
	// but the time at which the present value began is right.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	HostHistory []HostStatusChange `json:"hostHistory,omitempty"`
}

// MaxHostHistory is how many changes of a server's host status are kept, by the schema.
const MaxHostHistory = 8

// HostStatusChange is one change of a server's host status.
//
// +k8s:openapi-gen=true
type HostStatusChange struct {
	// hostStatus is what it became. Absent means: not derived yet.
	// +optional
	HostStatus *HostStatus `json:"hostStatus,omitempty"`

	// reason is why, at that time. See hostStatusReason.
	// +optional
	Reason HostStatusReason `json:"reason,omitempty"`

	// since is when it became that.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	Since *metav1.Time `json:"since,omitempty"`
}

// AnswerState is what has become of the answer to a maintenance window, for one server.
//
// +kubebuilder:validation:Enum=Ready;NotBefore;None;Stale
type AnswerState string

const (
	// AnswerStateReady means that the answer Ready counts.
	AnswerStateReady AnswerState = "Ready"
	// AnswerStateNotBefore means that the answer NotBefore counts.
	AnswerStateNotBefore AnswerState = "NotBefore"
	// AnswerStateNone means that there is no answer: the window opens at its startTime
	// as far as this server is concerned.
	AnswerStateNone AnswerState = "None"
	// AnswerStateStale means that there is an answer which counts for nothing: it
	// is to another window, or for an earlier server of this name.
	AnswerStateStale AnswerState = "Stale"
)

// AnnouncedWindow is a maintenance window as the owner of a server sees it. It
// carries no reason: that text is the operator's, and may name hosts.
//
// +k8s:openapi-gen=true
// +kubebuilder:validation:MinProperties=0
type AnnouncedWindow struct {
	// startTime is when the host goes into maintenance, as announced. An answer names
	// the window by it: spec.windowStartTime of a MaintenanceAnswer. Absent means
	// that the time is not known yet.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// opensAt is when the window opens as things stand, or opened: see openWhenReady
	// and latestStartTime. Absent means at startTime.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	OpensAt *metav1.Time `json:"opensAt,omitempty"`

	// latestStartTime is until when owners may put the opening off. Absent means not
	// at all.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	LatestStartTime *metav1.Time `json:"latestStartTime,omitempty"`

	// endTime is when the maintenance is over. Absent means that no end is planned.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	EndTime *metav1.Time `json:"endTime,omitempty"`

	// category is what the maintenance is done to: Hardware, Software, Network,
	// Relocation or Other. Absent means that the platform team does not tell.
	// +optional
	Category MaintenanceCategory `json:"category,omitempty"`

	// impact is what it does to the server, at the worst: nothing (None), it stands
	// still for a moment (Pause), is moved while it runs (Migrate), is restarted
	// (Reboot), or is off until the end (Stop). Absent means that the platform team
	// does not tell.
	// +optional
	Impact MaintenanceImpact `json:"impact,omitempty"`

	// answer is what has become of this server's MaintenanceAnswer.
	//
	// Ready: it counts. The window may open, early too if that is offered.
	//
	// NotBefore: it counts. The window opens no earlier than the time in it, as far as
	// latestStartTime allows.
	//
	// None: there is none. The window opens at startTime as far as this server is
	// concerned.
	//
	// Stale: it counts for nothing, because it is to another window, or its serverUID
	// is another server's. Answer again.
	//
	// An answer changes nothing once the window is open. Absent means that it is not
	// known yet.
	// +optional
	Answer AnswerState `json:"answer,omitempty"`
}
