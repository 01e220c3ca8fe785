// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/utils/clock"
)

// Options are what a Monitor needs. All fields are required except Stalled and Leads.
type Options struct {
	// Leases is the client for heartbeats and canaries. It should not be limited
	// on this side: a canary that waits here is blind time.
	Leases coordinationclient.LeasesGetter
	// Namespaces are the lease namespaces; each has a watch and a canary.
	Namespaces []string
	// DefaultDuration is D where neither ComputeService nor Lease gives one.
	DefaultDuration time.Duration
	// Identity is what the canaries carry as holderIdentity.
	Identity string
	// Elected is closed when this process becomes the leader.
	Elected <-chan struct{}
	// Leads reports, after that, whether no other process can lead yet; nil means always.
	Leads func() bool
	// Stalled is called when a watch delivers nothing although canaries are written.
	// What has stalled that one may have stalled others.
	Stalled func()
	// Clock gives the time; its Since must be monotonic.
	Clock clock.Clock
	// Logger takes one line per change.
	Logger logr.Logger
}

// stalledLogInterval is the least time between two log lines about a stalled watch, which
// may be reopened each second.
const stalledLogInterval = time.Minute

// Monitor watches the heartbeats and judges which hosts report. It watches in
// every replica, so that a standby is warm; it writes canaries and declares
// silence only where it leads. It is safe for concurrent use.
type Monitor struct {
	options Options
	start   time.Time
	watches map[string]*leaseWatch
	// wake ends the wait of the loop, because its next step has changed.
	wake chan struct{}
	// alive takes a question of Alive, which the loop answers by closing it.
	alive chan chan struct{}
	// started: the loop runs.
	started atomic.Bool

	mu        sync.Mutex
	core      *core
	listeners Listeners
	// refused is why the last canary of each namespace was not written, nil if it was.
	refused map[string]error
}

// Listeners are called on changes, while the monitor is locked: they must return at
// once and not call it.
type Listeners struct {
	// Changed is called with the name of a ComputeService that has a new verdict, or
	// whose new spec has been taken in.
	Changed func(name string)
	// ClockStepped is called when the wall clock has moved against the monotonic
	// clock by more than a second.
	ClockStepped func()
}

// NewMonitor returns a monitor that does nothing until Start.
func NewMonitor(options Options) *Monitor {
	m := &Monitor{
		options: options,
		start:   options.Clock.Now(),
		watches: map[string]*leaseWatch{},
		wake:    make(chan struct{}, 1),
		alive:   make(chan chan struct{}),
		refused: map[string]error{},
	}
	m.core = newCore(options.Namespaces, options.DefaultDuration, hooks{
		changed: func(name string) {
			if m.listeners.Changed != nil {
				m.listeners.Changed(name)
			}
		},
		clockStepped: func(by time.Duration) {
			options.Logger.Info("Wall clock was set; evaluating maintenance windows again", "by", by.String())
			if m.listeners.ClockStepped != nil {
				m.listeners.ClockStepped()
			}
		},
		blind:  m.reportBlindness,
		skewed: m.reportSkew,
		echo: func(namespace string, after time.Duration) {
			canaryEchoes.WithLabelValues(namespace).Observe(after.Seconds())
		},
	})
	for _, namespace := range options.Namespaces {
		m.watches[namespace] = newLeaseWatch(m, namespace)
		seriesOf(namespace)
	}
	return m
}

// Listen sets the listeners. It is called before Start.
func (m *Monitor) Listen(l Listeners) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listeners = l
}

// NeedLeaderElection is false: the monitor runs in standbys too.
func (m *Monitor) NeedLeaderElection() bool { return false }

// Start watches the Leases and keeps the deadlines until ctx ends.
func (m *Monitor) Start(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	defer state.Provide(m.collect)()
	m.started.Store(true)
	for _, w := range m.watches {
		running.Go(func() { w.run(ctx) })
	}

	elected := m.options.Elected
	lastLogged := map[string]time.Duration{} // when a stalled watch was last logged
	timer := m.options.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		m.mu.Lock()
		writes, stalled := m.core.advance(m.now(), m.options.Clock.Now())
		next, ok := m.core.next()
		m.mu.Unlock()

		for _, w := range writes {
			running.Go(func() { m.writeCanary(ctx, w) })
		}
		for _, namespace := range stalled {
			if elected == nil {
				if last, ok := lastLogged[namespace]; !ok || m.now()-last >= stalledLogInterval {
					lastLogged[namespace] = m.now()
					m.options.Logger.Info("The heartbeat watch delivers nothing although canaries are written; reopening it", "namespace", namespace)
				}
			} else {
				m.options.Logger.V(1).Info("No canary from a leader; reopening the watch in case it has stalled", "namespace", namespace)
			}
			m.watches[namespace].source.Reopen()
		}
		if len(stalled) > 0 && m.options.Stalled != nil {
			m.options.Stalled()
		}
		if ok {
			timer.Reset(next - m.now())
		} else {
			timer.Stop()
		}

		select {
		case <-ctx.Done():
			return nil
		case <-elected:
			elected = nil
			m.mu.Lock()
			m.takeOver()
			m.mu.Unlock()
		case answer := <-m.alive:
			close(answer)
		case <-m.wake:
		case <-timer.C():
		}
	}
}

// Alive returns an error if the loop has started and does not answer before ctx ends.
func (m *Monitor) Alive(ctx context.Context) error {
	// It is started only once the caches are filled, which may take as long as the API
	// server is down: a restart would only begin that wait again.
	if !m.started.Load() {
		return nil
	}
	answer := make(chan struct{})
	select {
	case m.alive <- answer:
	case <-ctx.Done():
		return errors.New("the loop that judges heartbeats is stuck")
	}
	<-answer
	return nil
}

// Synced reports whether the Leases of every lease namespace have been listed.
func (m *Monitor) Synced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.core.watches {
		if !w.synced {
			return false
		}
	}
	return true
}

// Track takes the current state of a ComputeService.
func (m *Monitor) Track(s Subject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.core.track(m.now(), s)
	m.poke()
}

// Forget takes the deletion of a ComputeService.
func (m *Monitor) Forget(name string, uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.core.forget(name, uid)
}

// Verdict returns the verdict on a ComputeService; ok is false if it is not tracked.
func (m *Monitor) Verdict(name string, uid types.UID) (v Verdict, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takeOver()
	return m.core.verdict(m.now(), name, uid)
}

// Renewals returns about how often a Lease is renewed, and how long it declares a renewal
// valid; either is 0 if unknown.
func (m *Monitor) Renewals(name types.NamespacedName) (interval, holds time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.core.watches[name.Namespace]; w != nil {
		if l := w.leases[name.Name]; l != nil {
			return l.interval(), l.duration
		}
	}
	return 0, 0
}

// takeOver makes the core lead if this process does. A verdict may be asked for before
// the loop has got to it, and must not be a standby's.
func (m *Monitor) takeOver() {
	select {
	case <-m.options.Elected:
		if !m.core.leader {
			m.core.lead(m.now())
		}
	default:
	}
}

// errNotLeading is why a process that led before does not write.
var errNotLeading = errors.New("this manager no longer leads")

// writeCanary writes one canary and reports the result to the core. A canary shows its
// readers that a manager judges, so one that may not write verdicts writes none.
func (m *Monitor) writeCanary(ctx context.Context, w canaryWrite) {
	err := errNotLeading
	if m.options.Leads == nil || m.options.Leads() {
		err = m.watches[w.namespace].writeCanary(ctx, w.token)
	}
	canaryWrites.WithLabelValues(w.namespace, resultLabel(err)).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused[w.namespace] = err
	m.core.canaryDone(m.now(), w.namespace, w.token, err)
	m.poke()
}

// now is the monotonic time since the monitor was made.
func (m *Monitor) now() time.Duration { return m.options.Clock.Since(m.start) }

func (m *Monitor) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Monitor) reportBlindness(namespace string, blind bool, lasted time.Duration) {
	log := m.options.Logger.WithValues("namespace", namespace)
	if blind {
		if err := m.refused[namespace]; err != nil {
			log = log.WithValues("canary", err.Error())
		}
		log.Info("Blind: canaries do not come back on the heartbeat watch; no host is declared silent until they do")
		return
	}
	log.Info("No longer blind; deadlines were moved by the blind time", "blindFor", lasted.String())
}

func (m *Monitor) reportSkew(lease types.NamespacedName, skew time.Duration, skewed bool) {
	log := m.options.Logger.WithValues("Lease", lease.String(), "skew", skew.String())
	if skewed {
		log.Info("Clock of a host differs from the manager's; its heartbeats are judged by their arrival")
		return
	}
	log.Info("Clock of a host matches the manager's again")
}
