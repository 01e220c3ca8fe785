// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// defaultLeaseDuration is the default of the manager's flag of that name.
	defaultLeaseDuration = time.Minute
	// maxClockSkew is by how much a host's clock may differ, for the manager as well.
	maxClockSkew = 10 * time.Second
)

// Report is everything that show prints about a host. Its JSON is for scripts.
type Report struct {
	Host       string                    `json:"host"`
	HostStatus string                    `json:"hostStatus"`
	Reason     v1alpha1.HostStatusReason `json:"reason,omitempty"`
	Since      *metav1.Time              `json:"since,omitempty"`
	// Why explains the status in a sentence.
	Why string `json:"why"`
	// Reporting is whether the manager sees heartbeats, whatever the status is.
	Reporting      v1alpha1.HostReporting `json:"reporting,omitempty"`
	ReportingSince *metav1.Time           `json:"reportingSince,omitempty"`
	LastSeenUp     *metav1.Time           `json:"lastSeenUp,omitempty"`
	ForcedDown     *Flag                  `json:"forcedDown,omitempty"`
	Disabled       *Flag                  `json:"disabled,omitempty"`
	Lease          LeaseReport            `json:"lease"`
	Window         *WindowReport          `json:"window,omitempty"`
	// Manager is whether the status is kept up to date.
	Manager ManagerReport `json:"manager"`
	// Namespace is the only one whose servers are listed; empty for all.
	Namespace string `json:"namespace,omitempty"`
	// Tenants have the host's servers. It is nil if they cannot be read.
	Tenants []TenantReport `json:"tenants"`
	// Hints name what is inconsistent, and what to do about it.
	Hints []string `json:"hints,omitempty"`
}

// ManagerReport is whether a manager is at work, by its canary in the host's lease
// namespace.
type ManagerReport struct {
	State ManagerState `json:"state"`
	// LastSeen is when one was last at work. It is left out while one is.
	LastSeen *metav1.Time `json:"lastSeen,omitempty"`
}

// Flag is a flag that an operator or a tool has set.
type Flag struct {
	Reason string `json:"reason,omitempty"`
	// SetBy is the field manager.
	SetBy string `json:"setBy,omitempty"`
}

// LeaseReport is about the host's heartbeats, as they are in the Lease now.
type LeaseReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// State is Read, Missing or NotReadable.
	State      LeaseState        `json:"state"`
	Holder     string            `json:"holder,omitempty"`
	RenewTime  *metav1.MicroTime `json:"renewTime,omitempty"`
	AgeSeconds *float64          `json:"ageSeconds,omitempty"`
	// DurationSeconds is after how long a renewal expires, and DurationFrom where that
	// is set.
	DurationSeconds int32        `json:"durationSeconds,omitempty"`
	DurationFrom    DurationFrom `json:"durationFrom"`
}

// LeaseState is whether a Lease could be read.
type LeaseState string

// The states of a Lease.
const (
	LeaseRead        LeaseState = "Read"
	LeaseMissing     LeaseState = "Missing"
	LeaseNotReadable LeaseState = "NotReadable"
)

// DurationFrom is where the Lease duration is set.
type DurationFrom string

// The sources, in the order of precedence.
const (
	DurationFromHost    DurationFrom = "ComputeService"
	DurationFromLease   DurationFrom = "Lease"
	DurationFromManager DurationFrom = "ManagerDefault"
	// DurationUnknown: the Lease may have one, and could not be read.
	DurationUnknown DurationFrom = "Unknown"
)

// The phases of a maintenance window.
const (
	phaseAnnounced = "Announced"
	phaseOpen      = "Open"
	phaseClosed    = "Closed"
)

// WindowReport is a maintenance window.
type WindowReport struct {
	// Phase is Announced, Open or Closed.
	Phase string `json:"phase"`
	// StartTime is absent while it is not known.
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// LatestStartTime is until when owners may put it off.
	LatestStartTime *metav1.Time `json:"latestStartTime,omitempty"`
	EndTime         *metav1.Time `json:"endTime,omitempty"`
	// OpensAt is when it opens or opened, and OpensBecause why then. Both are absent while
	// the manager has not counted the owners' answers.
	OpensAt       *metav1.Time                 `json:"opensAt,omitempty"`
	OpensBecause  string                       `json:"opensBecause,omitempty"`
	OpenWhenReady bool                         `json:"openWhenReady,omitempty"`
	Category      v1alpha1.MaintenanceCategory `json:"category,omitempty"`
	Impact        v1alpha1.MaintenanceImpact   `json:"impact,omitempty"`
	Reason        string                       `json:"reason,omitempty"`
}

// TenantReport is what one tenant has on the host.
type TenantReport struct {
	Namespace string         `json:"namespace"`
	Servers   []ServerReport `json:"servers"`
	// Answers are what it has answered to the host's window. It is nil without one.
	Answers *AnswersReport `json:"answers,omitempty"`
}

// ServerReport is one server.
type ServerReport struct {
	Name       string                    `json:"name"`
	State      v1alpha1.ServerState      `json:"state,omitempty"`
	TaskState  string                    `json:"taskState,omitempty"`
	PowerState v1alpha1.PowerState       `json:"powerState,omitempty"`
	HostStatus string                    `json:"hostStatus"`
	Reason     v1alpha1.HostStatusReason `json:"reason,omitempty"`
	// Answer is what has become of its owner's answer to the host's window, and NotBefore
	// the time for which the owner asks.
	Answer    v1alpha1.AnswerState `json:"answer,omitempty"`
	NotBefore *metav1.Time         `json:"notBefore,omitempty"`
}

// evidence is what was read for a report.
type evidence struct {
	service *v1alpha1.ComputeService
	// lease is nil if there is none, or if it could not be read because of leaseErr.
	lease    *coordinationv1.Lease
	leaseErr error
	// manager is whether the host's status is kept up to date.
	manager    managerSign
	servers    []v1alpha1.Server
	serversErr error
	// answers are those that put the window off; answersErr is why some could not be read.
	answers    []ownerv1alpha1.MaintenanceAnswer
	answersErr error
	// namespace is the only one whose servers were listed; empty for all.
	namespace string
	// ownersView is a warning about the owners' view; mostly empty.
	ownersView string
}

// newReport puts together what is known of a host.
func newReport(e evidence, now time.Time) *Report {
	s := e.service
	r := &Report{
		Host:       s.Name,
		HostStatus: string(value(s.Status.HostStatus)),
		Reason:     s.Status.HostStatusReason,
		Since:      s.Status.HostStatusTransitionTime,
		LastSeenUp: s.Status.LastSeenUpTime,
		Lease:      leaseReport(e, now),
		Window:     windowReport(s, now),
		Manager:    managerReport(e),
		Namespace:  e.namespace,
	}
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReporting); c != nil {
		r.Reporting, r.ReportingSince = v1alpha1.HostReporting(c.Status), &c.LastTransitionTime
	}
	if isTrue(s.Spec.ForcedDown) {
		r.ForcedDown = &Flag{text(s.Spec.ForcedDownReason), owner(s.ManagedFields, "spec", "forcedDown").name}
	}
	if isTrue(s.Spec.Disabled) {
		r.Disabled = &Flag{text(s.Spec.DisabledReason), owner(s.ManagedFields, "spec", "disabled").name}
	}
	if e.serversErr == nil {
		r.Tenants = tenants(e.servers)
		addAnswers(r, e)
	}
	r.Why = why(r, reportingMessage(s), now)
	if r.Manager.LastSeen != nil {
		r.Why = "As of " + kubectlplugin.Stamp(r.Manager.LastSeen.Time) + ": " + r.Why
	}
	r.Hints = hints(r, e)
	return r
}

// managerReport is whether this host's status is kept up to date.
func managerReport(e evidence) ManagerReport {
	r := ManagerReport{State: cmp.Or(e.manager.state, ManagerUnknown)}
	seen := e.manager.lastSeen
	if blind, ok := e.manager.blind[e.service.HeartbeatLease().Namespace]; ok {
		r.State, seen = ManagerSilent, blind
	}
	if r.State == ManagerSilent && !seen.IsZero() {
		r.LastSeen = &metav1.Time{Time: seen}
	}
	return r
}

// durationOf returns after how long a renewal expires, as the manager decides it.
func durationOf(s *v1alpha1.ComputeService, lease *coordinationv1.Lease) (time.Duration, DurationFrom) {
	if d := s.Spec.LeaseDurationSeconds; d > 0 {
		return time.Duration(d) * time.Second, DurationFromHost
	}
	if lease != nil && lease.Spec.LeaseDurationSeconds != nil && *lease.Spec.LeaseDurationSeconds > 0 {
		d := min(max(*lease.Spec.LeaseDurationSeconds, v1alpha1.MinLeaseDurationSeconds), v1alpha1.MaxLeaseDurationSeconds)
		return time.Duration(d) * time.Second, DurationFromLease
	}
	return defaultLeaseDuration, DurationFromManager
}

func leaseReport(e evidence, now time.Time) LeaseReport {
	key := e.service.HeartbeatLease()
	d, from := durationOf(e.service, e.lease)
	if e.leaseErr != nil && from == DurationFromManager {
		d, from = 0, DurationUnknown
	}
	r := LeaseReport{Namespace: key.Namespace, Name: key.Name, State: LeaseRead, DurationSeconds: int32(d / time.Second), DurationFrom: from}
	switch {
	case e.leaseErr != nil:
		r.State = LeaseNotReadable
	case e.lease == nil:
		r.State = LeaseMissing
	default:
		r.Holder = text(e.lease.Spec.HolderIdentity)
		r.RenewTime = e.lease.Spec.RenewTime
		if r.RenewTime != nil {
			seconds := now.Sub(r.RenewTime.Time).Seconds()
			r.AgeSeconds = &seconds
		}
	}
	return r
}

// age returns how long ago the Lease was renewed, by the host's clock.
func (r *LeaseReport) age() (time.Duration, bool) {
	if r.AgeSeconds == nil {
		return 0, false
	}
	return time.Duration(*r.AgeSeconds * float64(time.Second)), true
}

func (r *LeaseReport) duration() time.Duration { return time.Duration(r.DurationSeconds) * time.Second }

// observation is what the manager knew of the host when it wrote the status.
func observation(s *v1alpha1.ComputeService, now time.Time) hoststatus.Observation {
	seen := hoststatus.Observation{Reporting: v1alpha1.HostReportingUnknown, Reason: v1alpha1.ReasonWaitingForHeartbeat}
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReporting); c != nil {
		seen.Reporting, seen.Reason = v1alpha1.HostReporting(c.Status), v1alpha1.HostStatusReason(c.Reason)
	}
	seen.WindowOpened = hoststatus.WindowOpened(s, now)
	if record := hoststatus.RecordOf(s); record != nil {
		seen.Answers = hoststatus.Answers{
			Servers: number(record.Servers), Ready: number(record.Ready), PutOff: number(record.PutOff),
			Latest: ptrTime(record.OpensAt),
		}
	}
	return seen
}

// phaseOf returns the phase of the host's maintenance window.
func phaseOf(s *v1alpha1.ComputeService, now time.Time) hoststatus.WindowPhase {
	return hoststatus.Derive(&s.Spec, observation(s, now), now).Window
}

func windowReport(s *v1alpha1.ComputeService, now time.Time) *WindowReport {
	w := s.Spec.MaintenanceWindow
	if w == nil {
		return nil
	}
	phase := map[hoststatus.WindowPhase]string{
		hoststatus.WindowAnnounced: phaseAnnounced, hoststatus.WindowOpen: phaseOpen, hoststatus.WindowClosed: phaseClosed,
	}[phaseOf(s, now)]
	r := &WindowReport{
		Phase: phase, StartTime: w.StartTime, LatestStartTime: w.LatestStartTime, EndTime: w.EndTime, OpenWhenReady: isTrue(w.OpenWhenReady),
		Category: w.Category, Impact: w.Impact, Reason: text(w.Reason),
	}
	if record := hoststatus.RecordOf(s); record != nil && record.OpensAt != nil {
		r.OpensAt, r.OpensBecause = record.OpensAt, opensBecause(w, record)
	}
	return r
}

// tenants groups servers by their namespaces.
func tenants(servers []v1alpha1.Server) []TenantReport {
	slices.SortFunc(servers, func(a, b v1alpha1.Server) int {
		return cmp.Or(kubectlplugin.CompareNames(a.Namespace, b.Namespace), kubectlplugin.CompareNames(a.Name, b.Name))
	})
	out := []TenantReport{}
	for _, s := range servers {
		if len(out) == 0 || out[len(out)-1].Namespace != s.Namespace {
			out = append(out, TenantReport{Namespace: s.Namespace})
		}
		last := &out[len(out)-1]
		last.Servers = append(last.Servers, ServerReport{
			Name: s.Name, State: s.Status.State, TaskState: s.Status.TaskState, PowerState: s.Status.PowerState,
			HostStatus: string(value(s.Status.HostStatus)), Reason: s.Status.HostStatusReason,
		})
	}
	return out
}

// reportingMessage is the manager's message about the heartbeats.
func reportingMessage(s *v1alpha1.ComputeService) string {
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReporting); c != nil {
		return c.Message
	}
	return ""
}

// why explains in a sentence why the host has its status.
func why(r *Report, message string, now time.Time) string {
	lease := r.Lease.Namespace + "/" + r.Lease.Name
	switch r.Reason {
	case v1alpha1.ReasonForcedDown:
		return "The host was forced down" + because(r.ForcedDown) + ": it counts as off, and its servers may be failed over."
	case v1alpha1.ReasonDisabled:
		return "The host was disabled" + because(r.Disabled) + ", so it is out of service."
	case v1alpha1.ReasonWindowOpen:
		return "Its maintenance window is open" + until(r.Window, now) + "."
	case v1alpha1.ReasonLeaseExpired:
		// The manager's message has the duration by which it judged.
		return cmp.Or(message, fmt.Sprintf("Lease %s was not renewed in time", lease)) +
			". The host may be off, hung or disconnected, and its servers may still run: do not fail them over before the host is fenced."
	case v1alpha1.ReasonNeverReported, v1alpha1.ReasonLeaseNotReadable, v1alpha1.ReasonWaitingForHeartbeat:
		return cmp.Or(message, fmt.Sprintf("No renewal of Lease %s has been seen", lease)) + "."
	case v1alpha1.ReasonWindowAnnounced:
		if r.Window == nil {
			return "The host reports, and a maintenance window was announced for it."
		}
		if r.Window.StartTime == nil {
			return "The host reports, and maintenance is planned for it" + because(&Flag{Reason: r.Window.Reason}) + ", at a time that is not known yet."
		}
		opens := cmp.Or(r.Window.OpensAt, r.Window.StartTime)
		return fmt.Sprintf("The host reports, and its maintenance window opens at %s (in %s).", kubectlplugin.Stamp(opens.Time), kubectlplugin.Human(opens.Sub(now)))
	case v1alpha1.ReasonReporting:
		return "The host renews its Lease in time."
	default:
		return "No manager has set a status yet. 'kubectl hosts check' shows whether one is at work."
	}
}

func because(f *Flag) string {
	if f == nil || f.Reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", f.Reason)
}

func until(w *WindowReport, now time.Time) string {
	switch {
	case w == nil:
		return ""
	case w.EndTime == nil:
		return " until it is removed"
	default:
		return fmt.Sprintf(" until %s (for another %s)", kubectlplugin.Stamp(w.EndTime.Time), kubectlplugin.Human(w.EndTime.Sub(now)))
	}
}

// hints names what is inconsistent.
func hints(r *Report, e evidence) []string {
	var out []string
	hint := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	s := e.service
	age, renewed := r.Lease.age()
	outOfDate := r.Manager.State == ManagerSilent || r.Manager.State == ManagerAbsent
	switch {
	// Without a manager only the Lease is up to date.
	case outOfDate && !renewed:
		hint("No manager checks this host at present, so its status may be out of date.")
	case outOfDate && age.Abs() < r.Lease.duration():
		hint("No manager checks this host at present, so its status may be out of date. The host does report: it renewed its Lease %s ago.", kubectlplugin.Human(age))
	case outOfDate:
		hint("No manager checks this host at present, so its status may be out of date. The host does not report: it renewed its Lease %s ago, and a renewal expires after %s.", kubectlplugin.Human(age), kubectlplugin.Human(r.Lease.duration()))
	case s.Status.HostStatus != nil && s.Status.ObservedGeneration < s.Generation:
		hint("The status is older than the spec: the manager has not processed the last change yet.")
	}
	if outOfDate && s.Status.ObservedGeneration < s.Generation {
		hint("The spec was changed after that, and no status reflects the change yet.")
	}
	switch {
	case !renewed:
	case age < -maxClockSkew:
		hint("renewTime is %s in the future: the clock of the host or of this machine is wrong. The status depends on neither: a renewal counts when it arrives.", kubectlplugin.Human(-age))
	case outOfDate:
	case r.Reporting == v1alpha1.HostReportingTrue && age > r.Lease.duration()+maxClockSkew:
		hint("The manager sees renewals, but renewTime is %s old: the host's clock is slow, this machine's is fast, or the host stopped reporting just now.", kubectlplugin.Human(age))
	case r.Reporting == v1alpha1.HostReportingFalse && age < r.Lease.duration():
		hint("By its renewTime the Lease has not expired, but the manager does not count the host as reporting: the host came back just now, or its clock was fast when it stopped reporting.")
	}
	if every, held := renewalInterval(e), r.Lease.duration(); every > 0 && held < 2*every {
		hint("The Lease expires %s after a renewal, and the host renews it about every %s: one late renewal makes the host UNKNOWN. "+
			"Set spec.leaseDurationSeconds to %d or more, or remove it to use the %s of the Lease.",
			kubectlplugin.Human(held), kubectlplugin.Human(every), int(math.Ceil(3*every.Seconds())), kubectlplugin.Human(time.Duration(*e.lease.Spec.LeaseDurationSeconds)*time.Second))
	}
	if r.Lease.State == LeaseMissing && r.Reporting != v1alpha1.HostReportingUnknown {
		hint("Lease %s/%s does not exist any more; check whether it was deleted.", r.Lease.Namespace, r.Lease.Name)
	}
	if r.Reporting == v1alpha1.HostReportingFalse && (r.Reason == v1alpha1.ReasonDisabled || r.Reason == v1alpha1.ReasonWindowOpen) {
		hint("The host does not report; the status does not show that during MAINTENANCE.")
	}
	if r.Reason == v1alpha1.ReasonForcedDown && renewed && !r.Since.IsZero() && r.Lease.RenewTime.After(r.Since.Time) {
		hint("The host is forced down but still runs: it renewed its Lease %s ago, after it was forced down. Do not fail its servers over. Fence the host, or run 'kubectl hosts up %s'.", kubectlplugin.Human(age), r.Host)
	}
	if behind := outOfStep(r); behind > 0 && !outOfDate {
		hint("The status has not reached %s yet.", kubectlplugin.Counted(behind, "server"))
	}
	if e.leaseErr != nil {
		hint("Its Lease could not be read: %v", e.leaseErr)
	}
	if e.serversErr != nil {
		hint("Its servers could not be read: %v", e.serversErr)
	}
	if e.answersErr != nil {
		hint("Until when owners have put the window off could not be read: %v", e.answersErr)
	}
	if e.ownersView != "" {
		hint("%s", strings.ToUpper(e.ownersView[:1])+e.ownersView[1:])
	}
	return out
}

// renewalInterval estimates how often the host renews its Lease; zero if that is not
// known. An agent renews three times in the duration that its Lease declares, a kubelet
// four times.
func renewalInterval(e evidence) time.Duration {
	if e.lease == nil || e.lease.Spec.LeaseDurationSeconds == nil || *e.lease.Spec.LeaseDurationSeconds <= 0 {
		return 0
	}
	declared := time.Duration(*e.lease.Spec.LeaseDurationSeconds) * time.Second
	if e.service.HeartbeatLease().Namespace == corev1.NamespaceNodeLease {
		return declared / 4
	}
	return declared / 3
}

func outOfStep(r *Report) (n int) {
	for _, tenant := range r.Tenants {
		for _, s := range tenant.Servers {
			if s.HostStatus != r.HostStatus {
				n++
			}
		}
	}
	return n
}

func value(s *v1alpha1.HostStatus) v1alpha1.HostStatus {
	if s == nil {
		return ""
	}
	return *s
}

func text(s *string) string { return ptr.Deref(s, "") }

func isTrue(flag *bool) bool { return ptr.Deref(flag, false) }
