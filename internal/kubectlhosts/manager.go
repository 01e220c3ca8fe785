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
)

const (
	// managerPatience is how long a manager that looks silent may take for a sign of
	// life. It renews its canary every 2 s at the latest.
	managerPatience = 3 * time.Second
	// canaryPoll is between reads of a canary that may be renewed any moment.
	canaryPoll = 500 * time.Millisecond
	// maxCanaries is how many lease namespaces are asked for a sign of life. A manager
	// reads one or two.
	maxCanaries = 8
)

// ManagerState says whether host status is kept up to date.
type ManagerState string

// The states of the managers, all of them together: one leads, and the others are
// silent anyway.
const (
	ManagerAtWork ManagerState = "AtWork"
	// ManagerSilent says that one has been at work, and ManagerAbsent that none has.
	ManagerSilent ManagerState = "Silent"
	ManagerAbsent ManagerState = "Absent"
	// ManagerUnknown says that no canary could be read.
	ManagerUnknown ManagerState = "Unknown"
)

// managerSign is what the canaries say: the Leases that the manager that leads renews
// in each lease namespace while it judges heartbeats.
type managerSign struct {
	state ManagerState
	// lastSeen is the last renewal of a canary, by the manager's clock.
	lastSeen time.Time
	// blind are the namespaces in which the manager that is at work has left no sign
	// of late, and when it has left the last.
	blind map[string]time.Time
}

// gone says that what is shown is of the past.
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

// holds is for how long the canary says that a renewal counts.
func (r canaryRead) holds() time.Duration {
	if r.lease == nil || r.lease.Spec.LeaseDurationSeconds == nil {
		return 0
	}
	return time.Duration(*r.lease.Spec.LeaseDurationSeconds) * time.Second
}

// fresh says that the canary was renewed lately. One of the future is as far off as
// one of the past: its manager's clock is wrong, or was when it died.
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

// canaryNamespaces are those in which hosts report, and the one in which a manager
// leaves its sign by default.
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

// lookForManager begins to find out whether a manager is at work, while the caller
// does something else, and returns a function that waits for the answer.
func (c *cluster) lookForManager(ctx context.Context, services []v1alpha1.ComputeService) func() managerSign {
	namespaces := canaryNamespaces(services)
	found := make(chan managerSign, 1)
	go func() {
		sign := c.findManager(ctx, namespaces)
		if sign.state == ManagerAbsent && len(services) == 0 {
			// No host says where a manager would leave its sign.
			sign.state = ManagerUnknown
		}
		found <- sign
	}()
	return sync.OnceValue(func() managerSign { return <-found })
}

// findManager reads the canaries. One that looks stale is read again for a while: a
// manager whose clock is wrong renews it all the same, and then nothing else counts.
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

// signOf sums up what the canaries of some namespaces say.
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

// since says since when no manager is at work; "" where nobody knows.
func (m managerSign) since(now time.Time) string {
	switch {
	case m.lastSeen.IsZero():
		return ""
	case m.lastSeen.After(now):
		return fmt.Sprintf(" since %s by its own clock, which is ahead of this machine's", stamp(m.lastSeen))
	default:
		return fmt.Sprintf(" since %s (%s ago)", stamp(m.lastSeen), human(now.Sub(m.lastSeen)))
	}
}

// noManager says that no manager is at work.
func (m managerSign) noManager(now time.Time) string {
	if m.state == ManagerAbsent || m.lastSeen.IsZero() {
		return fmt.Sprintf("no hoststatus manager is at work: none has renewed Lease %s/%s", v1alpha1.DefaultLeaseNamespace, v1alpha1.CanaryLeaseName)
	}
	return "no hoststatus manager has been at work" + m.since(now)
}

// warnings are what the reader of any host status has to know.
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

// warnOfManager tells a person, once, that nobody keeps host status up to date.
func (p *plugin) warnOfManager(sign managerSign, now time.Time) {
	for _, warning := range sign.warnings(now) {
		p.warn("%s", warning)
	}
}
