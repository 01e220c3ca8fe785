// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// managerPatience is how long a stale canary is watched for a renewal. A manager
	// renews its canary every 2 s at the latest.
	managerPatience = 3 * time.Second
	// canaryPoll is the time between reads of a stale canary.
	canaryPoll = 500 * time.Millisecond
	// maxCanaries is in how many lease namespaces a canary is read. A manager has one or
	// two lease namespaces.
	maxCanaries = 8
)

// ManagerState is whether host status is kept up to date.
type ManagerState string

// The states of the managers, all of them together: only the leader renews canaries.
const (
	ManagerAtWork ManagerState = "AtWork"
	// ManagerSilent: one was at work earlier. ManagerAbsent: none ever was.
	ManagerSilent ManagerState = "Silent"
	ManagerAbsent ManagerState = "Absent"
	// ManagerUnknown: no canary could be read.
	ManagerUnknown ManagerState = "Unknown"
)

// managerSign is what follows from the canaries: the Leases that the leading manager
// renews in each lease namespace while it judges heartbeats.
type managerSign struct {
	state ManagerState
	// lastSeen is the last renewal of a canary, by the manager's clock.
	lastSeen time.Time
	// blind are the namespaces in which no canary was renewed lately although a manager
	// is at work, with the last renewal.
	blind map[string]time.Time
}

// gone is true if no manager is at work.
func (m managerSign) gone() bool { return m.state == ManagerSilent || m.state == ManagerAbsent }

// canaryRead is one read of a canary.
type canaryRead struct {
	lease *coordinationv1.Lease // nil if there is none
	err   error
}

// renewed returns when the canary was renewed; the zero time for never.
func (r canaryRead) renewed() time.Time {
	if r.lease == nil || r.lease.Spec.RenewTime == nil {
		return time.Time{}
	}
	return r.lease.Spec.RenewTime.Time
}

// holds is the Lease duration of the canary.
func (r canaryRead) holds() time.Duration {
	if r.lease == nil || r.lease.Spec.LeaseDurationSeconds == nil {
		return 0
	}
	return time.Duration(*r.lease.Spec.LeaseDurationSeconds) * time.Second
}

// fresh is true if the canary was renewed lately. A renewal far in the future does not
// count either: the manager's clock is wrong, or was when it died.
func (r canaryRead) fresh(now time.Time) bool {
	return !r.renewed().IsZero() && now.Sub(r.renewed()).Abs() <= r.holds()
}

// readCanaries reads the canary of each namespace.
func (c *cluster) readCanaries(ctx context.Context, namespaces []string) map[string]canaryRead {
	reads := map[string]canaryRead{}
	for _, namespace := range namespaces {
		lease, err := c.lease(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha1.CanaryLeaseName})
		reads[namespace] = canaryRead{lease, err}
	}
	return reads
}

// canaryNamespaces are those in which hosts report, and the default one.
func canaryNamespaces(services []v1alpha1.ComputeService) []string {
	namespaces := []string{v1alpha1.DefaultLeaseNamespace}
	for i := range services {
		namespace := services[i].HeartbeatLease().Namespace
		if len(namespaces) < maxCanaries && !slices.Contains(namespaces, namespace) {
			namespaces = append(namespaces, namespace)
		}
	}
	return namespaces
}

// lookForManager begins to find out whether a manager is at work, and returns at once. The
// function that it returns waits for the answer.
func (c *cluster) lookForManager(ctx context.Context, services []v1alpha1.ComputeService) func() managerSign {
	namespaces := canaryNamespaces(services)
	found := make(chan managerSign, 1)
	go func() {
		sign := c.findManager(ctx, namespaces)
		if sign.state == ManagerAbsent && len(services) == 0 {
			// Without hosts the lease namespaces are not known.
			sign.state = ManagerUnknown
		}
		found <- sign
	}()
	return sync.OnceValue(func() managerSign { return <-found })
}

// findManager reads the canaries. A stale one is read again for a while: if it is
// renewed, a manager is at work whose clock is wrong.
func (c *cluster) findManager(ctx context.Context, namespaces []string) managerSign {
	first := c.readCanaries(ctx, namespaces)
	now := c.now()
	alive := map[string]bool{}
	var stale []string
	for namespace, read := range first {
		switch {
		case read.fresh(now):
			alive[namespace] = true
		case read.lease != nil:
			stale = append(stale, namespace)
		}
	}
	patience, stop := context.WithTimeout(ctx, c.patience)
	defer stop()
	ticker := time.NewTicker(canaryPoll)
	defer ticker.Stop()
	for len(stale) > 0 {
		select {
		case <-ctx.Done():
			return managerSign{state: ManagerUnknown}
		case <-patience.Done():
			return signOf(first, alive, stale)
		case <-ticker.C:
		}
		for namespace, read := range c.readCanaries(patience, stale) {
			if read.lease != nil && !read.renewed().Equal(first[namespace].renewed()) {
				alive[namespace] = true
				stale = slices.DeleteFunc(stale, func(s string) bool { return s == namespace })
			}
		}
	}
	return signOf(first, alive, nil)
}

// signOf sums up the canaries of some namespaces.
func signOf(reads map[string]canaryRead, alive map[string]bool, stale []string) managerSign {
	sign := managerSign{state: ManagerAbsent, blind: map[string]time.Time{}}
	for namespace, read := range reads {
		if read.err != nil {
			sign.state = ManagerUnknown
		}
		if read.renewed().After(sign.lastSeen) {
			sign.lastSeen = read.renewed()
		}
		if slices.Contains(stale, namespace) {
			sign.blind[namespace] = read.renewed()
		}
	}
	switch {
	case len(alive) > 0:
		sign.state = ManagerAtWork
	case sign.state == ManagerUnknown:
		// One that cannot be read may be the one that is renewed.
	case len(stale) > 0:
		sign.state = ManagerSilent
	}
	return sign
}

// since states since when no manager is at work; "" if that is not known.
func (m managerSign) since(now time.Time) string {
	switch {
	case m.lastSeen.IsZero():
		return ""
	case m.lastSeen.After(now):
		return fmt.Sprintf(" since %s by its own clock, which is ahead of this machine's", kubectlplugin.Stamp(m.lastSeen))
	default:
		return fmt.Sprintf(" since %s (%s ago)", kubectlplugin.Stamp(m.lastSeen), kubectlplugin.Human(now.Sub(m.lastSeen)))
	}
}

// noManager states that no manager is at work.
func (m managerSign) noManager(now time.Time) string {
	if m.state == ManagerAbsent || m.lastSeen.IsZero() {
		return fmt.Sprintf("no hoststatus manager is at work: none has renewed Lease %s/%s", v1alpha1.DefaultLeaseNamespace, v1alpha1.CanaryLeaseName)
	}
	return "no hoststatus manager has been at work" + m.since(now)
}

// warnings state that host status may be out of date.
func (m managerSign) warnings(now time.Time) []string {
	switch m.state {
	case ManagerSilent, ManagerAbsent:
		return []string{m.noManager(now) + ", so what is shown may be out of date; check that a manager runs"}
	}
	if m.state != ManagerAtWork {
		return nil
	}
	var out []string
	for namespace, seen := range m.blind {
		out = append(out, fmt.Sprintf("the manager has not checked the heartbeats in namespace %s%s, so what is shown of the hosts that report there may be out of date",
			namespace, managerSign{lastSeen: seen}.since(now)))
	}
	slices.Sort(out)
	return out
}

// warnOfManager prints these warnings.
func (p *plugin) warnOfManager(sign managerSign, now time.Time) {
	for _, warning := range sign.warnings(now) {
		p.Warn("%s", warning)
	}
}
