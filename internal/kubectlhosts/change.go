// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// change is what a verb does to a host.
type change struct {
	// question is the verb as a question begins with it, and done is printed after a write.
	question, done string
	// apply changes the spec. It changes only fields of the verb, and only where the value
	// differs.
	apply func(spec *v1alpha1.ComputeServiceSpec, now time.Time) error
	// already describes a host that needs no change.
	already func(spec *v1alpha1.ComputeServiceSpec) string
	// detail is printed after done; it may be nil.
	detail func(spec *v1alpha1.ComputeServiceSpec) string
	// deadly is true if the verb declares that the host is off.
	deadly bool
	// flag is the field that the verb sets; another owner of it may set it again.
	flag string
	// together decides about all hosts before one is changed; nil if each is changed by
	// itself.
	together func(services []v1alpha1.ComputeService, now time.Time) (*rollout, error)
}

// plan is what a change means for one host.
type plan struct {
	before, after *v1alpha1.ComputeService
	// needed is false if the spec has the value already.
	needed bool
	// stillReports is the evidence that the host is not off; empty unless the change is deadly.
	stillReports string
	// from and to are the host status now and afterwards, and reason is why.
	from, to string
	reason   v1alpha1.HostStatusReason
	// already describes a host that needs no change, and detail one that was changed.
	already, detail string
	// warnings name what the change does not achieve, or destroys.
	warnings []string
}

// newPlan decides what a change means for a host. lease may be nil; manager is called only
// if the decision depends on it, because it may wait.
func newPlan(c *change, service *v1alpha1.ComputeService, lease *coordinationv1.Lease, manager func() managerSign, now time.Time) (*plan, error) {
	p := &plan{before: service, after: service.DeepCopy()}
	if err := c.apply(&p.after.Spec, now); err != nil {
		return nil, fmt.Errorf("%s: %w", service.Name, err)
	}
	for _, warning := range []string{c.ownerWarning(p.before, p.after), answersWarning(p.before, p.after)} {
		if warning != "" {
			p.warnings = append(p.warnings, warning)
		}
	}
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

// outcome is the host status that follows from a change. Without a manager it stays.
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

// ownerWarning warns of another field manager that applies the flag. It decides how long
// the flag stays: one that it has set remains its own.
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

// answersWarning warns that owners have answered to a window which becomes another one.
func answersWarning(before, after *v1alpha1.ComputeService) string {
	record, w := hoststatus.RecordOf(before), after.Spec.MaintenanceWindow
	if record == nil || w == nil || hoststatus.RecordOf(after) != nil {
		return ""
	}
	if answered := number(record.Ready) + number(record.PutOff); answered > 0 {
		return fmt.Sprintf("%s: the owners of %s have answered to the window of %s; to the new one they have to answer again",
			before.Name, kubectlplugin.Counted(answered, "server"), kubectlplugin.Stamp(record.StartTime.Time))
	}
	return ""
}

// stillReports returns the evidence that a host is not off, or "". Either the manager
// or the Lease is enough: the manager judges by arrival, the Lease is newer.
func stillReports(s *v1alpha1.ComputeService, lease *coordinationv1.Lease, manager func() managerSign, now time.Time) string {
	key := s.HeartbeatLease()
	if lease != nil && lease.Spec.RenewTime != nil {
		d, _ := durationOf(s, lease)
		if age := now.Sub(lease.Spec.RenewTime.Time); age.Abs() < d {
			return fmt.Sprintf("Lease %s was renewed %s ago", key, kubectlplugin.Human(age))
		}
	}
	if meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ConditionReporting) {
		if sign := manager(); sign.gone() {
			// It may have died since, but there is no evidence of that.
			return fmt.Sprintf("it renewed Lease %s when a manager was last at work", key)
		}
		return "the manager sees that it renews Lease " + key.String()
	}
	return ""
}

// expect returns the host status before a change and after it, by the manager's own rules.
func expect(before, after *v1alpha1.ComputeService, now time.Time) (from, to string, reason v1alpha1.HostStatusReason) {
	seen := observation(before, now)
	if !equality.Semantic.DeepEqual(before.Spec.MaintenanceWindow, after.Spec.MaintenanceWindow) {
		next := after.DeepCopy()
		next.Generation++
		seen.WindowOpened = hoststatus.WindowOpened(next, now)
		if hoststatus.RecordOf(next) == nil {
			seen.Answers = hoststatus.Answers{Servers: seen.Answers.Servers} // They are to another window.
		}
	}
	result := hoststatus.Derive(&after.Spec, seen, now)
	return kubectlplugin.ShowStatus(before.Status.HostStatus), kubectlplugin.ShowStatus(result.Status), result.Reason
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

// withdraw removes a flag and its reason, so that no field manager owns them. A flag that
// is false belongs to the manager that set it, and stays.
func withdraw(flag **bool, reason **string) {
	if isTrue(*flag) {
		*flag, *reason = nil, nil
	}
}

// quoted is a reason in parentheses, or "".
func quoted(reason *string) string {
	if text(reason) == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", *reason)
}
