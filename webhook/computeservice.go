// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
)

// computeServiceWarnings warns who writes a ComputeService.
type computeServiceWarnings struct{ Options }

var _ admission.Validator[*v1alpha1.ComputeService] = &computeServiceWarnings{}

// ValidateCreate implements admission.Validator.
func (v *computeServiceWarnings) ValidateCreate(_ context.Context, service *v1alpha1.ComputeService) (admission.Warnings, error) {
	return append(onWrite(nil, service, nil, v.LeaseNamespaces), v.onDuration(nil, service)...), nil
}

// ValidateUpdate implements admission.Validator.
func (v *computeServiceWarnings) ValidateUpdate(_ context.Context, before, after *v1alpha1.ComputeService) (admission.Warnings, error) {
	return append(onWrite(before, after, v.verdict(before), v.LeaseNamespaces), v.onDuration(before, after)...), nil
}

// ValidateDelete implements admission.Validator.
func (v *computeServiceWarnings) ValidateDelete(_ context.Context, service *v1alpha1.ComputeService) (admission.Warnings, error) {
	servers, err := v.ServersOn(service.Name)
	if err != nil {
		return nil, fmt.Errorf("counting the Servers on the host: %w", err)
	}
	return onDelete(service, servers), nil
}

// verdict returns the monitor's word on a host, nil if it has none: it has to know
// the Leases first.
func (v *computeServiceWarnings) verdict(service *v1alpha1.ComputeService) *heartbeat.Verdict {
	if !v.Monitor.Synced() {
		return nil
	}
	verdict, ok := v.Monitor.Verdict(service.Name, service.UID)
	if !ok {
		return nil
	}
	return &verdict
}

// onWrite returns what to say to who makes a ComputeService (before is nil) or
// changes it. Each warning belongs to a change: what stands there already was said
// when it was written.
func onWrite(before, after *v1alpha1.ComputeService, verdict *heartbeat.Verdict, leaseNamespaces []string) (warnings []string) {
	say := func(warning string) {
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	old := before
	if old == nil {
		old = &v1alpha1.ComputeService{}
	}
	wasDown, isDown := ptr.Deref(old.Spec.ForcedDown, false), ptr.Deref(after.Spec.ForcedDown, false)
	switch {
	case isDown && !wasDown:
		say(onForcedDown(verdict))
	case wasDown && !isDown:
		say(onForcedDownCleared(after, verdict))
	}
	if lease := after.HeartbeatLease(); before == nil || lease.Namespace != before.HeartbeatLease().Namespace {
		say(onLeaseNamespace(after, leaseNamespaces))
	}
	if value := after.Annotations[v1alpha1.AnnotationDeletionProtection]; value != old.Annotations[v1alpha1.AnnotationDeletionProtection] {
		say(onProtection(value))
	}
	return warnings
}

// onDuration is about a D that one late renewal outlasts. It looks at what the host
// does, if two of its renewals were seen; else at what its Lease says that one holds,
// of which a renewal comes every third at the latest.
func (v *computeServiceWarnings) onDuration(before, after *v1alpha1.ComputeService) []string {
	d, lease := time.Duration(after.Spec.LeaseDurationSeconds)*time.Second, after.HeartbeatLease()
	if d == 0 || before != nil && before.Spec.LeaseDurationSeconds == after.Spec.LeaseDurationSeconds && before.HeartbeatLease() == lease {
		return nil
	}
	interval, holds := v.Monitor.Renewals(lease)
	return onRenewals(d, interval, holds)
}

// renewalsPerDuration is how many renewals should fall into D. With two, one that is
// late or lost is a verdict; the host is warned of below that.
const (
	renewalsPerDuration    = 3
	minRenewalsPerDuration = 2
)

func onRenewals(d, interval, holds time.Duration) []string {
	every := "the host renews its Lease every"
	if interval == 0 {
		interval = holds / renewalsPerDuration
		every = fmt.Sprintf("its Lease holds for %d s and so is renewed about every", int(holds.Seconds()))
	}
	seconds := math.Round(interval.Seconds())
	if d.Seconds() >= minRenewalsPerDuration*seconds {
		return nil
	}
	return []string{fmt.Sprintf("spec.leaseDurationSeconds: %d is too short, as %s %.0f s; it would go back and forth between UP and UNKNOWN; use %.0f or more, or leave it to the Lease",
		int(d.Seconds()), every, seconds, renewalsPerDuration*seconds)}
}

// onForcedDown is about a host that still reports although it is said to be off.
func onForcedDown(verdict *heartbeat.Verdict) string {
	if verdict == nil || verdict.Reporting != heartbeat.Reports || verdict.SinceRenewal < 0 || verdict.SinceRenewal > verdict.Duration {
		return ""
	}
	return fmt.Sprintf("spec.forcedDown: the host still reports (renewed %s), and DOWN says that it is off and its servers may be failed over; fence it, or set spec.disabled if it only is to be in maintenance",
		ago(verdict.SinceRenewal))
}

// onForcedDownCleared is about a host that does not report although it is not said
// to be off any more.
func onForcedDownCleared(after *v1alpha1.ComputeService, verdict *heartbeat.Verdict) string {
	if verdict == nil || verdict.Reporting != heartbeat.Expired && verdict.Reporting != heartbeat.NeverReported {
		return ""
	}
	last := "never seen to renew its Lease"
	switch {
	case verdict.SinceRenewal >= 0:
		last = "renewed " + ago(verdict.SinceRenewal)
	case verdict.Reporting == heartbeat.Expired && after.Status.LastSeenUpTime != nil:
		last = "last seen up at " + after.Status.LastSeenUpTime.UTC().Format("2006-01-02T15:04:05Z")
	case verdict.Reporting == heartbeat.Expired:
		last = "its Lease has expired"
	}
	return fmt.Sprintf("spec.forcedDown: cleared, but the host is silent (%s), so it does not become UP before it reports; see that it runs, and that its agent renews Lease %s",
		last, after.HeartbeatLease())
}

// onLeaseNamespace is about heartbeats that nobody looks at.
func onLeaseNamespace(after *v1alpha1.ComputeService, leaseNamespaces []string) string {
	namespace := after.HeartbeatLease().Namespace
	if slices.Contains(leaseNamespaces, namespace) {
		return ""
	}
	field := "spec.leaseRef.namespace"
	if ref := after.Spec.LeaseRef; ref == nil || ref.Namespace == "" {
		field += " (absent)"
	}
	return fmt.Sprintf("%s: the manager does not read Leases in namespace %s, so the host will be UNKNOWN; add the namespace to the manager's --lease-namespaces, or use one that is there: %s",
		field, namespace, strings.Join(leaseNamespaces, ", "))
}

// onProtection is about an annotation that looks like protection and is none.
func onProtection(value string) string {
	switch value {
	case "", "true", "false":
		return ""
	default:
		return fmt.Sprintf("metadata.annotations[%s]: %q does not protect from deletion; write \"true\"", v1alpha1.AnnotationDeletionProtection, value)
	}
}

// onDelete returns what to say to who deletes a ComputeService.
func onDelete(service *v1alpha1.ComputeService, servers int) []string {
	if servers == 0 || protected(service) {
		return nil // Or refused, and told why.
	}
	return []string{fmt.Sprintf("%s in spec.host, and will have no host status (HostNotFound) until the ComputeService is there again or they have moved; find them with: %s",
		stillName(servers), find(service.Name))}
}

func stillName(servers int) string {
	if servers == 1 {
		return "1 Server still names this ComputeService"
	}
	return fmt.Sprintf("%d Servers still name this ComputeService", servers)
}

// find is the command that lists the Servers on a host.
func find(host string) string {
	return "kubectl get servers.compute -A --field-selector spec.host=" + host
}
