// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

const (
	// ConditionReporting shows whether the host renews its Lease in time: True
	// (reason Reporting), False (LeaseExpired, NeverReported) or Unknown
	// (WaitingForHeartbeat, LeaseNotReadable). It is the controllers' memory
	// across restarts: a new leader starts from it.
	ConditionReporting = "Reporting"
	// ConditionWindowOpen shows whether spec.maintenanceWindow is open: True
	// (reason WindowOpen), or False (WindowAnnounced, WindowClosed). It is absent
	// without a window. It remembers that a window has opened, so that a wall
	// clock set back does not close it again.
	ConditionWindowOpen = "WindowOpen"

	// WindowOpenReasonClosed is the reason of ConditionWindowOpen after endTime.
	// The other two are ReasonWindowOpen and ReasonWindowAnnounced.
	WindowOpenReasonClosed = "WindowClosed"
)

// ComputeServiceSpec is what operators and tools set for a host. No flag has a
// default: absent means false, so that a field which nobody set has no owner.
type ComputeServiceSpec struct {
	// disabled takes the host out of service: its host status is MAINTENANCE.
	// Absent means false.
	// +optional
	Disabled *bool `json:"disabled,omitempty"`

	// disabledReason is why the host is disabled, as text for people. It is ignored
	// unless disabled is true, so it need not be cleared with the flag.
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="!self.matches(r'[\\x00-\\x1f\\x7f-\\x9f\\x{61c}\\x{200b}\\x{200e}\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{206f}\\x{feff}\\x{fff9}-\\x{fffb}\\x{fffe}\\x{ffff}\\x{e0000}-\\x{e007f}]')",message="must be one line of text, without control characters, bidirectional marks or other invisible characters; remove them"
	DisabledReason *string `json:"disabledReason,omitempty"`

	// forcedDown asserts that the host is off (fenced, powered down): its host
	// status is DOWN at once, and failing its servers over is safe. Absent means
	// false.
	// +optional
	ForcedDown *bool `json:"forcedDown,omitempty"`

	// forcedDownReason is who or what asserts forcedDown, as text for people. It is
	// ignored unless forcedDown is true. A reason that is too long is cut, and
	// characters that are not allowed are replaced, instead of being refused as in the
	// other reasons: a bad reason must not keep a host that is off UP.
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="!self.matches(r'[\\x00-\\x1f\\x7f-\\x9f\\x{61c}\\x{200b}\\x{200e}\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{206f}\\x{feff}\\x{fff9}-\\x{fffb}\\x{fffe}\\x{ffff}\\x{e0000}-\\x{e007f}]')",message="must be one line of text, without control characters, bidirectional marks or other invisible characters; remove them"
	ForcedDownReason *string `json:"forcedDownReason,omitempty"`

	// leaseRef names the Lease (coordination.k8s.io) that carries the host's
	// heartbeats. Absent means the Lease with the ComputeService's name in the
	// namespace hoststatus-leases. Name kube-node-lease and a node to make the
	// kubelet the reporter; the manager must have that namespace in
	// --lease-namespaces.
	// +optional
	LeaseRef *LeaseReference `json:"leaseRef,omitempty"`

	// leaseDurationSeconds is how long a renewal of the Lease is valid: a host
	// that is silent for longer does not report. Between 3 and 3600 seconds.
	// Absent means the Lease's own spec.leaseDurationSeconds, limited to that
	// range, or else the manager's flag --default-lease-duration (60 s).
	// +optional
	// +kubebuilder:validation:Minimum=3
	// +kubebuilder:validation:Maximum=3600
	LeaseDurationSeconds int32 `json:"leaseDurationSeconds,omitempty"`

	// maintenanceWindow announces maintenance: until it opens the host status is
	// NEEDS_MAINTENANCE, then MAINTENANCE until endTime. It opens at startTime,
	// unless latestStartTime or openWhenReady let the owners of the servers on the
	// host move that. Absent means that no maintenance is planned.
	// +optional
	MaintenanceWindow *MaintenanceWindow `json:"maintenanceWindow,omitempty"`
}

// LeaseReference names a Lease.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.name) || !(self.name in ['hoststatus-canary', 'hoststatus-manager'])",fieldPath=".name",message="hoststatus-canary and hoststatus-manager are the manager's own Leases; name the Lease that the host renews"
type LeaseReference struct {
	// namespace of the Lease. Absent means hoststatus-leases.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="must be the name of a namespace: lower-case letters, digits and '-'"
	Namespace string `json:"namespace,omitempty"`

	// name of the Lease. Absent means the name of the ComputeService.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Lease: lower-case letters, digits, '-' and '.'"
	Name string `json:"name,omitempty"`
}

// MaintenanceCategory is what maintenance is done to. Owners see it, so it is one of a
// few words and not a text, which could name hosts.
//
// +kubebuilder:validation:Enum=Hardware;Software;Network;Relocation;Other
type MaintenanceCategory string

const (
	// CategoryHardware is work on the host itself: a part is replaced or added.
	CategoryHardware MaintenanceCategory = "Hardware"
	// CategorySoftware is an update of what runs on the host: firmware, kernel,
	// hypervisor.
	CategorySoftware MaintenanceCategory = "Software"
	// CategoryNetwork is work on what connects the host.
	CategoryNetwork MaintenanceCategory = "Network"
	// CategoryRelocation is a move of the host, or its end.
	CategoryRelocation MaintenanceCategory = "Relocation"
	// CategoryOther is anything else.
	CategoryOther MaintenanceCategory = "Other"
)

// MaintenanceImpact is what maintenance does to the servers on the host, at the worst.
//
// +kubebuilder:validation:Enum=None;Pause;Migrate;Reboot;Stop
type MaintenanceImpact string

const (
	// ImpactNone means that servers go on as they are.
	ImpactNone MaintenanceImpact = "None"
	// ImpactPause means that servers stand still for a moment, and go on.
	ImpactPause MaintenanceImpact = "Pause"
	// ImpactMigrate means that servers are moved to other hosts while they run.
	ImpactMigrate MaintenanceImpact = "Migrate"
	// ImpactReboot means that servers are shut down and started again.
	ImpactReboot MaintenanceImpact = "Reboot"
	// ImpactStop means that servers are off until the maintenance is over.
	ImpactStop MaintenanceImpact = "Stop"
)

// MaintenanceWindow is a planned time of maintenance.
//
// Every time in these kinds has its own rule. The format date-time accepts values
// that no Go client can decode (a lower-case t or z, anything after a second t), and
// one such object would break every list and watch of its kind. A rule that uses the
// time makes the API server decode it. The years are those that can be written in
// UTC, too.
//
// +kubebuilder:validation:XValidation:rule="!has(self.endTime) || !has(self.startTime) || self.endTime > self.startTime",fieldPath=".endTime",message="must be after startTime; remove it if no end is planned"
// +kubebuilder:validation:XValidation:rule="!has(self.endTime) || has(self.startTime)",fieldPath=".startTime",message="must be given where endTime is; remove endTime if no time is known yet"
// +kubebuilder:validation:XValidation:rule="!has(self.latestStartTime) || has(self.startTime)",fieldPath=".startTime",message="must be given where latestStartTime is; remove latestStartTime if no time is known yet"
// +kubebuilder:validation:XValidation:rule="!has(self.latestStartTime) || !has(self.startTime) || self.latestStartTime >= self.startTime",fieldPath=".latestStartTime",message="must not be before startTime; remove it if owners may not put the opening off"
// +kubebuilder:validation:XValidation:rule="!has(self.latestStartTime) || !has(self.endTime) || self.latestStartTime < self.endTime",fieldPath=".latestStartTime",message="must be before endTime"
// +kubebuilder:validation:MinProperties=1
type MaintenanceWindow struct {
	// startTime is when the host goes into maintenance, unless latestStartTime or
	// openWhenReady let its owners move that. The manager opens the window by its
	// own wall clock. It is also the name by which owners answer to the window, so
	// that another startTime makes earlier answers count for nothing.
	//
	// Absent means that maintenance is planned and its time is not known yet: the
	// host NEEDS_MAINTENANCE until one is given. Such a window never opens, since
	// nobody can have answered to it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// latestStartTime is until when the owners of the servers on the host may put the
	// opening off: the window opens at the latest time that one of them has asked for,
	// and at latestStartTime at the latest. Absent means that it opens at startTime,
	// whatever they answer. Not before startTime, and before endTime.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	LatestStartTime *metav1.Time `json:"latestStartTime,omitempty"`

	// openWhenReady lets the window open before startTime, as soon as the owner of
	// each server on the host has answered Ready. A host without servers waits for
	// startTime. Absent means false.
	// +optional
	OpenWhenReady *bool `json:"openWhenReady,omitempty"`

	// endTime is when the maintenance is over. Absent means that the window
	// stays open until it is removed.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	EndTime *metav1.Time `json:"endTime,omitempty"`

	// category is what the maintenance is done to. It is copied to servers. Absent
	// means that owners are not told.
	// +optional
	Category MaintenanceCategory `json:"category,omitempty"`

	// impact is what the maintenance does to servers, at the worst: nothing (None),
	// they stand still for a moment (Pause), are moved while they run (Migrate), are
	// restarted (Reboot), or are off until the end (Stop). It is copied to servers.
	// Absent means that owners are not told.
	// +optional
	Impact MaintenanceImpact `json:"impact,omitempty"`

	// reason is what the maintenance is for. It is for the platform team and is
	// not copied to servers.
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="!self.matches(r'[\\x00-\\x1f\\x7f-\\x9f\\x{61c}\\x{200b}\\x{200e}\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{206f}\\x{feff}\\x{fff9}-\\x{fffb}\\x{fffe}\\x{ffff}\\x{e0000}-\\x{e007f}]')",message="must be one line of text, without control characters, bidirectional marks or other invisible characters; remove them"
	Reason *string `json:"reason,omitempty"`
}

// ComputeServiceStatus is what the manager derived. Heartbeats are not copied
// here: nothing is written unless something changes.
type ComputeServiceStatus struct {
	// conditions are Reporting (does the host renew its Lease in time) and
	// WindowOpen (is the maintenance window open; absent without one).
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('1970-01-01T00:00:00Z') && c.lastTransitionTime <= timestamp('9999-12-31T23:59:59Z'))",message="lastTransitionTime must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// hostStatus is the summary for the servers on the host, with Nova's values.
	// Absent until it is derived.
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
	// +optional
	HostStatus *HostStatus `json:"hostStatus,omitempty"`

	// hostStatusReason is why.
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
	// +optional
	HostStatusReason HostStatusReason `json:"hostStatusReason,omitempty"`

	// hostStatusTransitionTime is when hostStatus last changed.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	HostStatusTransitionTime *metav1.Time `json:"hostStatusTransitionTime,omitempty"`

	// lastSeenUpTime is when the last renewal of the host's Lease was seen, as
	// of the last change of this status. It does not follow each heartbeat: the
	// Lease has the latest.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	LastSeenUpTime *metav1.Time `json:"lastSeenUpTime,omitempty"`

	// report counts what the agent of the host reports about servers. Absent means that
	// it reports none: there is no agent, it has no driver, or its report is gone.
	// +optional
	Report *ReportCounts `json:"report,omitempty"`

	// maintenance is what follows from the owners' answers to the maintenance window.
	// While the window is open it stays as it was when it opened. Absent without a
	// window, after its end, and until the answers are known.
	// +optional
	Maintenance *MaintenanceStatus `json:"maintenance,omitempty"`

	// observedGeneration is the metadata.generation that this status was derived
	// from.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// MaintenanceStatus is what follows from the owners' answers to a maintenance window.
type MaintenanceStatus struct {
	// startTime is that of the window that this is about. Absent if the window has
	// none.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// opensAt is when the window opens, as things stand, or opened: startTime, or a
	// later time that owners have asked for, up to latestStartTime; with
	// openWhenReady also the earlier time at which all were ready. Absent while the
	// window has no startTime.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	OpensAt *metav1.Time `json:"opensAt,omitempty"`

	// servers is how many servers are on the host.
	// +required
	// +kubebuilder:validation:Minimum=0
	Servers *int32 `json:"servers,omitempty"`

	// ready is for how many of them the answer is Ready.
	// +required
	// +kubebuilder:validation:Minimum=0
	Ready *int32 `json:"ready,omitempty"`

	// putOff is for how many of them the answer is NotBefore. Those of the others are
	// missing, or are answers to another window.
	// +required
	// +kubebuilder:validation:Minimum=0
	PutOff *int32 `json:"putOff,omitempty"`
}

// ReportCounts is what the manager found in the HostReport of a host.
type ReportCounts struct {
	// time is when the report was written of which something was last new here, by the
	// clock of the API server. It does not follow reports that change nothing.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	Time *metav1.Time `json:"time,omitempty"`

	// servers is how many servers the report lists.
	// +required
	// +kubebuilder:validation:Minimum=0
	Servers *int32 `json:"servers,omitempty"`

	// notHere is how many of them name no Server whose spec.host is this host: the
	// Server does not exist, or another host, or none, is written in it.
	// +required
	// +kubebuilder:validation:Minimum=0
	NotHere *int32 `json:"notHere,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=csvc,categories=hoststatus
// +kubebuilder:selectablefield:JSONPath=".status.hostStatus"
// +kubebuilder:printcolumn:name="Disabled",type=boolean,JSONPath=".spec.disabled"
// +kubebuilder:printcolumn:name="Forced Down",type=boolean,JSONPath=".spec.forcedDown"
// +kubebuilder:printcolumn:name="Reporting",type=string,JSONPath=".status.conditions[?(@.type==\"Reporting\")].status"
// +kubebuilder:printcolumn:name="Host Status",type=string,JSONPath=".status.hostStatus"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.hostStatusReason"
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=".status.hostStatusTransitionTime"
// +kubebuilder:validation:XValidation:rule="!(self.metadata.name in ['hoststatus-canary', 'hoststatus-manager'])",message="metadata.name: hoststatus-canary and hoststatus-manager are the names of the manager's own Leases; a ComputeService has the name of its host"

// ComputeService is the compute service on one host; its name is the host's
// name. The host reports by renewing a Lease. From that, and from what operators
// set in spec, the manager derives the host status that its servers show.
type ComputeService struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is what operators and tools set for the host. Absent means: in
	// service, with the default Lease.
	// +optional
	Spec ComputeServiceSpec `json:"spec,omitempty,omitzero"`

	// status is what the manager derived. Only the manager writes it.
	// +optional
	Status ComputeServiceStatus `json:"status,omitempty,omitzero"`
}

// +kubebuilder:object:root=true

// ComputeServiceList is a list of ComputeServices.
type ComputeServiceList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty,omitzero"`
	// items are the ComputeServices.
	// +required
	Items []ComputeService `json:"items"`
}
