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

// Options are what a Monitor needs. All fields are required but Stalled.
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
	// Leads says, after that, whether no other process can lead yet; nil is always.
	Leads func() bool
	// Stalled is called when a watch delivers nothing although canaries are written.
	// What has stalled that one may have stalled others.
	Stalled func()
	// Clock gives the time; its Since must be monotonic.
	Clock clock.Clock
	// Logger takes one line per edge.
	Logger logr.Logger
}

// stalledLogInterval is how often at most it is logged that a watch has stalled, which
// may be tried again each second.
const stalledLogInterval = time.Minute

// Monitor watches the heartbeats and says which hosts report. It watches in
// every replica, so that a standby is warm; it writes canaries and declares
// silence only where it leads. It is safe for concurrent use.
type Monitor struct {
	options Options
	start   time.Time
	watches map[string]*leaseWatch
	// wake ends the wait of the loop, because what comes next has changed.
	wake chan struct{}
	// alive takes a question of Alive, which the loop answers by closing it.
	alive chan chan struct{}
	// started says that there is a loop.
	started atomic.Bool

	mu        sync.Mutex
	core      *core
	listeners Listeners
	// refused is why the last canary of each namespace was not written, nil if it was.
	refused map[string]error
}

// Listeners are told of changes. They are called while the monitor is locked:
// they must return at once and not call it.
type Listeners struct {
	// Changed is called with the name of a ComputeService on which there is a
	// new word, or whose new spec has been taken in.
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

// Listen sets who is told of changes. It is called before Start.
func (m *Monitor) Listen(l Listeners) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listeners = l
}

// NeedLeaderElection says that the monitor runs in standbys too.
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
	told := map[string]time.Duration{} // when a stalled watch was last logged
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
				if last, ok := told[namespace]; !ok || m.now()-last >= stalledLogInterval {
					told[namespace] = m.now()
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

// Alive returns an error if there is a loop, and it does not come round before ctx ends.
func (m *Monitor) Alive(ctx context.Context) error {
	// It is started only once the caches are filled, which may take as long as the API
	// server is away: a restart would begin to wait anew.
	if !m.started.Load() {
		return nil
	}
	answer := make(chan struct{})
	select {
	case m.alive <- answer:
	case <-ctx.Done():
		return errors.New("the loop that judges heartbeats does not turn")
	}
	<-answer
	return nil
}

// Synced says whether the Leases of every lease namespace have been listed.
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

// Track takes a ComputeService as it is now.
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

// Verdict returns the word on a ComputeService; ok is false if it is not tracked.
func (m *Monitor) Verdict(name string, uid types.UID) (v Verdict, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takeOver()
	return m.core.verdict(m.now(), name, uid)
}

// Renewals returns about how often a Lease is renewed, and for how long it says that a
// renewal holds; either is 0 if that is not known.
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
// the loop has come round to it, and must not be a standby's.
func (m *Monitor) takeOver() {
	select {
	case <-m.options.Elected:
		if !m.core.leader {
			m.core.lead(m.now())
		}
	default:
	}
}

// errNotLeading is why something is not written by a process that led.
var errNotLeading = errors.New("this manager does not lead any more")

// writeCanary writes one canary and tells the core how that ended. A canary tells all
// who look that somebody judges, so one who may not write verdicts writes none.
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
