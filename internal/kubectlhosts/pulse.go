// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// pulseInterval is the time between reads of the canaries during a watch. A manager
	// renews them as often.
	pulseInterval = 2 * time.Second
	// pulseTimeout is how long one read may take before the connection counts as lost.
	pulseTimeout = 5 * time.Second
	// screenInterval is the time between updates of the screen.
	screenInterval = 250 * time.Millisecond
)

// pulse reports during a watch whether a manager is at work. One is as long as its canary
// changes; clocks do not matter.
type pulse struct {
	cluster    *cluster
	namespaces []string
	// hosts is true if the namespaces are those of hosts.
	hosts      bool
	screen     *screen
	connection *kubectlplugin.Connection

	// Only run uses these.
	state   ManagerState
	renewed map[string]time.Time
	// beat is when a canary last changed.
	beat time.Time

	mu         sync.Mutex
	quietSince time.Time
}

func newPulse(c *cluster, namespaces []string, hosts bool, s *screen) *pulse {
	return &pulse{cluster: c, namespaces: namespaces, hosts: hosts, screen: s, renewed: map[string]time.Time{}, quietSince: time.Now()}
}

// changed is called when a host has changed.
func (p *pulse) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quietSince = time.Now()
}

// run reads the canaries until ctx ends. printed gets the result of each write.
func (p *pulse) run(ctx context.Context, printed func(error)) {
	p.begin(ctx)
	ticker := time.NewTicker(screenInterval)
	defer ticker.Stop()
	next := time.Now()
	for {
		if now := time.Now(); !now.Before(next) {
			p.take(ctx)
			next = time.Now().Add(pulseInterval)
		}
		if ctx.Err() == nil {
			printed(p.screen.tick(p.sign(time.Now()), time.Now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// begin finds out whether a manager is at work when the watch begins.
func (p *pulse) begin(ctx context.Context) {
	first := p.cluster.findManager(ctx, p.namespaces)
	if ctx.Err() != nil {
		return
	}
	if first.state == ManagerAbsent && !p.hosts {
		first.state = ManagerUnknown
	}
	p.state, p.beat = first.state, time.Now()
	for _, warning := range first.warnings(p.cluster.now()) {
		p.screen.note("Warning: %s", warning)
	}
}

// take reads the canaries once.
func (p *pulse) take(ctx context.Context) {
	reading, stop := context.WithTimeout(ctx, pulseTimeout)
	reads := p.cluster.readCanaries(reading, p.namespaces)
	stop()
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	var lost error
	holds, answered, beats := time.Duration(0), false, false
	sign := managerSign{state: ManagerSilent}
	for namespace, read := range reads {
		if read.err != nil {
			if !refused(read.err) {
				lost = read.err
			}
			continue
		}
		answered = true
		before, known := p.renewed[namespace]
		p.renewed[namespace] = read.renewed()
		if known && read.lease != nil && !read.renewed().Equal(before) {
			beats = true
		}
		holds = max(holds, read.holds())
		if read.renewed().After(sign.lastSeen) {
			sign.lastSeen = read.renewed()
		}
	}
	p.connection.Read(lost)
	switch {
	case lost != nil, !answered:
		// Not known, so this time does not count as silence.
		p.beat = now
	case beats:
		p.beat = now
		if p.state == ManagerSilent || p.state == ManagerAbsent {
			p.screen.note("A hoststatus manager is at work again.")
		}
		p.state = ManagerAtWork
	case p.state == ManagerAtWork && now.Sub(p.beat) > holds:
		p.state = ManagerSilent
		p.screen.note("Warning: %s, so no host status changes; check that a manager runs", sign.noManager(p.cluster.now()))
	}
}

// refused is true if the API server has answered, with a refusal.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
}

// sign is the last line on a terminal while nothing changes.
func (p *pulse) sign(now time.Time) string {
	p.mu.Lock()
	quiet := now.Sub(p.quietSince)
	p.mu.Unlock()
	at := p.cluster.now().UTC().Format("15:04:05Z")
	switch {
	case p.connection.Lost():
		return at + "  not connected"
	case p.state == ManagerSilent, p.state == ManagerAbsent:
		return at + "  connected, and no manager is at work"
	case quiet < gatherFor:
		return ""
	case p.state == ManagerAtWork:
		return fmt.Sprintf("%s  no change for %s; a manager is at work", at, kubectlplugin.Human(quiet))
	default:
		return fmt.Sprintf("%s  no change for %s; connected", at, kubectlplugin.Human(quiet))
	}
}
