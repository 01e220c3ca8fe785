// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// change is what a verb does to a host.
type change struct {
	// question is the verb at the beginning of a question, and done what is said
	// afterwards.
	question, done string
	// apply changes the spec. It leaves alone what is as it should be, and touches
	// no field that the verb is not about.
	apply func(spec *v1alpha1.ComputeServiceSpec, now time.Time) error
	// already says how a host is that needs no change.
	already func(spec *v1alpha1.ComputeServiceSpec) string
	// detail adds to what is said afterwards; it may be nil.
	detail func(spec *v1alpha1.ComputeServiceSpec) string
	// deadly says that the verb asserts that the host is off.
	deadly bool
	// flag is the field whose owner may set it again.
	flag string
}

// plan is what a change means for one host.
type plan struct {
	before, after *v1alpha1.ComputeService
	// needed is false if the host is so already.
	needed bool
	// stillReports says why the host is not off; empty unless the change is deadly.
	stillReports string
	// from and to are the host status now and afterwards, and reason is why.
	from, to string
	reason   v1alpha1.HostStatusReason
	// already says how a host is that needs no change, and detail more of one that does.
	already, detail string
	// warning is what the caller may not expect.
	warning string
}

// newPlan decides what a change means for a host. lease may be nil; manager is asked
// only where the manager's word counts.
func newPlan(c *change, service *v1alpha1.ComputeService, lease *coordinationv1.Lease, manager func() managerSign, now time.Time) (*plan, error) {
	p := &plan{before: service, after: service.DeepCopy()}
	if err := c.apply(&p.after.Spec, now); err != nil {
		return nil, fmt.Errorf("%s: %w", service.Name, err)
	}
	p.warning = c.ownerWarning(p.before, p.after)
	if equality.Semantic.DeepEqual(p.before.Spec, p.after.Spec) {
		p.already = c.already(&service.Spec)
		return p, nil
	}
	p.needed = true
	if c.deadly && !isTrue(p.before.Spec.ForcedDown) {
		p.stillReports = stillReports(service, lease, manager, now)
	}
	p.from, p.to, p.reason = expect(p.before, p.after, now)
	if c.detail != nil {
		p.detail = c.detail(&p.after.Spec)
	}
	return p, nil
}

// outcome says what comes of a change. Without a manager nothing does, for now.
func (p *plan) outcome(manager managerSign) string {
	switch {
	case !p.needed:
		return p.already
	case manager.gone() && p.from == p.to:
		return fmt.Sprintf("%s stays; no manager is at work%s", p.to, p.detail)
	case manager.gone():
		return fmt.Sprintf("%s until a manager is at work, then %s (%s)%s", p.from, p.to, p.reason, p.detail)
	case p.from == p.to:
		return fmt.Sprintf("%s stays (%s)%s", p.to, p.reason, p.detail)
	default:
		return fmt.Sprintf("%s -> %s (%s)%s", p.from, p.to, p.reason, p.detail)
	}
}

// ownerWarning tells of somebody else who applies the flag, and has a say in how long it
// stays: one that is set already stays theirs.
func (c *change) ownerWarning(before, after *v1alpha1.ComputeService) string {
	o := owner(before.ManagedFields, "spec", c.flag)
	if !o.applies || o.name == fieldManager {
		return ""
	}
	set := map[string]func(*v1alpha1.ComputeServiceSpec) *bool{
		"forcedDown": func(s *v1alpha1.ComputeServiceSpec) *bool { return s.ForcedDown },
		"disabled":   func(s *v1alpha1.ComputeServiceSpec) *bool { return s.Disabled },
	}[c.flag]
	switch {
	case set != nil && isTrue(set(&before.Spec)) && isTrue(set(&after.Spec)):
		return fmt.Sprintf("%s: spec.%s is managed by %s, and is removed when %[3]s removes it", before.Name, c.flag, o.name)
	case equality.Semantic.DeepEqual(before.Spec, after.Spec):
		return ""
	default:
		return fmt.Sprintf("%s: spec.%s is managed by %s, which may set it again", before.Name, c.flag, o.name)
	}
}

// stillReports says by what a host shows that it is not off, or "". Either the
// manager or the Lease is enough: the one judges by arrival, the other is newer.
func stillReports(s *v1alpha1.ComputeService, lease *coordinationv1.Lease, manager func() managerSign, now time.Time) string {
	key := s.HeartbeatLease()
	if lease != nil && lease.Spec.RenewTime != nil {
		d, _ := durationOf(s, lease)
		if age := now.Sub(lease.Spec.RenewTime.Time); age.Abs() < d {
			return fmt.Sprintf("Lease %s was renewed %s ago", key, human(age))
		}
	}
	if meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ConditionReporting) {
		if sign := manager(); sign.gone() {
			// It may have died since; nobody has proven that.
			return fmt.Sprintf("it renewed Lease %s when a manager was last at work", key)
		}
		return "the manager sees that it renews Lease " + key.String()
	}
	return ""
}

// expect says what the host status is, and what it will be, by the manager's own table.
func expect(before, after *v1alpha1.ComputeService, now time.Time) (from, to string, reason v1alpha1.HostStatusReason) {
	seen := observation(before)
	if !equality.Semantic.DeepEqual(before.Spec.MaintenanceWindow, after.Spec.MaintenanceWindow) {
		seen.WindowOpened = false
	}
	result := hoststatus.Derive(&after.Spec, seen, now)
	return showStatus(before.Status.HostStatus), showStatus(result.Status), result.Reason
}

// assert sets a flag and its reason.
func assert(flag **bool, reason **string, why string) {
	if !isTrue(*flag) {
		*flag = ptr.To(true)
	}
	if text(*reason) != why {
		*reason = &why
	}
}

// withdraw takes a flag away, so that nobody owns it, and its reason with it. One
// that somebody has set to false is theirs, and is no obstacle.
func withdraw(flag **bool, reason **string) {
	if isTrue(*flag) {
		*flag, *reason = nil, nil
	}
}

// quoted is a reason in brackets, if there is one.
func quoted(reason *string) string {
	if text(reason) == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", *reason)
}

// windowChange is what the flags of window say. A nil field keeps what there is.
type windowChange struct {
	clear      bool
	start, end *moment
	// endless takes the end away.
	endless bool
	// length puts the end that long after the start.
	length time.Duration
	reason *string
	// now is what times from now count from: the same for all hosts.
	now time.Time
}

// apply changes the window of spec. A window that is over is not changed but
// replaced, and a new one starts now unless it says otherwise.
func (w *windowChange) apply(spec *v1alpha1.ComputeServiceSpec, now time.Time) error {
	if w.clear {
		spec.MaintenanceWindow = nil
		return nil
	}
	if w.now.IsZero() {
		w.now = now
	}
	window := spec.MaintenanceWindow.DeepCopy()
	if window == nil || window.EndTime != nil && !now.Before(window.EndTime.Time) {
		window = &v1alpha1.MaintenanceWindow{StartTime: metav1.NewTime(w.now.Truncate(time.Second))}
	}
	if w.start != nil {
		window.StartTime = metav1.NewTime(w.start.time(w.now))
	}
	switch {
	case w.endless:
		window.EndTime = nil
	case w.end != nil:
		window.EndTime = &metav1.Time{Time: w.end.time(w.now)}
	case w.length > 0:
		window.EndTime = &metav1.Time{Time: window.StartTime.Add(w.length)}
	}
	if w.reason != nil {
		window.Reason = w.reason
		if *w.reason == "" {
			window.Reason = nil
		}
	}
	if end := window.EndTime; end != nil {
		if !end.After(window.StartTime.Time) {
			return usageError("the window must end after it starts, and it would start at %s and end at %s; change --start, --end or --for", stamp(window.StartTime.Time), stamp(end.Time))
		}
		if !end.After(now) {
			return usageError("the window must end in the future, and it would end at %s; it is %s now. Change --end or --for, or remove the window with --clear", stamp(end.Time), stamp(now))
		}
	}
	spec.MaintenanceWindow = window
	return nil
}

// already says how a window is that needs no change.
func (w *windowChange) already(spec *v1alpha1.ComputeServiceSpec) string {
	if spec.MaintenanceWindow == nil {
		return "it has no maintenance window"
	}
	return "its window is already " + showWindow(spec.MaintenanceWindow)
}

// detail says how the window is.
func (*windowChange) detail(spec *v1alpha1.ComputeServiceSpec) string {
	if spec.MaintenanceWindow == nil {
		return ""
	}
	detail := ", " + showWindow(spec.MaintenanceWindow)
	if spec.MaintenanceWindow.EndTime == nil {
		detail += " (no end: it stays open until --end or --for sets one, or --clear removes it)"
	}
	return detail
}
