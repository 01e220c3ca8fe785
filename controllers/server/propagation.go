// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/internal/telemetry"
)

var propagationBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

var (
	toServer = telemetry.Manager.Histogram(telemetry.Metric{
		Name: "hoststatus_server_propagation_seconds", Replicas: telemetry.LeaderCounts,
		Help: "Time from a change of a host until one Server on it shows it.",
	}, propagationBuckets)
	toAllServers = telemetry.Manager.Histogram(telemetry.Metric{
		Name: "hoststatus_host_propagation_seconds", Replicas: telemetry.LeaderCounts,
		Help: "Time from a change of a host until the last Server on it shows it.",
	}, propagationBuckets)

	propagation = telemetry.Manager.Source()
	waitingDesc = propagation.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_propagation_pending_servers", Replicas: telemetry.LeaderOnly,
		Help: "Servers that do not show the state of their host yet.",
	})
	oldestDesc = propagation.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_propagation_oldest_pending_seconds", Replicas: telemetry.LeaderOnly,
		Help: "Age of the oldest change of a host that a Server on it does not show yet; 0 if there is none.",
	})
)

// tracker measures how changes of hosts reach their Servers. It holds only pending
// changes.
type tracker struct {
	clock clock.PassiveClock
	// elected is closed once this process leads. Before that nothing is written here,
	// and so nothing is pending.
	elected <-chan struct{}

	mu      sync.Mutex
	waiting map[reconcile.Request]change
	hosts   map[string]*hostPropagation
}

// change is the change that a Server waits for: the first if there are several.
type change struct {
	host  string
	since time.Time
}

type hostPropagation struct {
	since   time.Time
	waiting int
}

func newTracker(clk clock.PassiveClock, elected <-chan struct{}) *tracker {
	return &tracker{clock: clk, elected: elected, waiting: map[reconcile.Request]change{}, hosts: map[string]*hostPropagation{}}
}

func (s *tracker) leads() bool {
	select {
	case <-s.elected:
		return true
	default:
		return false
	}
}

// begin records that server has a pending change of host.
func (s *tracker) begin(host string, server reconcile.Request) {
	if !s.leads() {
		return
	}
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	since := now
	if before, ok := s.waiting[server]; ok {
		if before.host == host {
			return
		}
		since = before.since
		s.leave(before, server)
	}
	s.waiting[server] = change{host, since}
	h := s.hosts[host]
	if h == nil {
		h = &hostPropagation{since: since}
		s.hosts[host] = h
	}
	if since.Before(h.since) {
		h.since = since
	}
	h.waiting++
}

// done records that server is up to date, or gone.
func (s *tracker) done(server reconcile.Request) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.waiting[server]
	if !ok {
		return
	}
	toServer.WithLabelValues().Observe(now.Sub(c.since).Seconds())
	if h := s.leave(c, server); h != nil {
		toAllServers.WithLabelValues().Observe(now.Sub(h.since).Seconds())
	}
}

// leave forgets server, and returns its host if no other server of it is pending.
func (s *tracker) leave(c change, server reconcile.Request) *hostPropagation {
	delete(s.waiting, server)
	if len(s.waiting) == 0 {
		s.waiting = map[reconcile.Request]change{} // A map never shrinks.
	}
	h := s.hosts[c.host]
	if h.waiting--; h.waiting > 0 {
		return nil
	}
	delete(s.hosts, c.host)
	return h
}

// measure calls done for each Server that next has dealt with.
func (s *tracker) measure(next reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, server reconcile.Request) (reconcile.Result, error) {
		result, err := next.Reconcile(ctx, server)
		if err == nil && result.IsZero() {
			s.done(server)
		}
		return result, err
	})
}

func (s *tracker) collect(metrics chan<- prometheus.Metric) {
	if !s.leads() {
		return
	}
	now := s.clock.Now()
	s.mu.Lock()
	waiting, oldest := len(s.waiting), time.Duration(0)
	for _, h := range s.hosts {
		oldest = max(oldest, now.Sub(h.since))
	}
	s.mu.Unlock()
	metrics <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(waiting))
	metrics <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, oldest.Seconds())
}
