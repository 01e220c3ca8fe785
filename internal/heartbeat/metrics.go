// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hoststatus.dev/hoststatus/internal/telemetry"
)

var labelNamespace = telemetry.Label{Name: "lease_namespace", Values: "each of `--lease-namespaces`"}

var (
	leaseEvents = telemetry.Manager.Counter(telemetry.Metric{
		Name: "hoststatus_heartbeat_lease_events_total", Replicas: telemetry.EachAlike,
		Help:   "Events of hosts' Leases that the watch has delivered, almost all of them renewals.",
		Labels: []telemetry.Label{labelNamespace},
	})
	canaryWrites = telemetry.Manager.Counter(telemetry.Metric{
		Name: "hoststatus_heartbeat_canary_writes_total", Replicas: telemetry.LeaderCounts,
		Help:   "Writes of the canary Lease, by result.",
		Labels: []telemetry.Label{labelNamespace, {Name: "result", Values: "`" + resultOK + "`, `" + resultError + "`"}},
	})
	canaryEchoes = telemetry.Manager.Histogram(telemetry.Metric{
		Name: "hoststatus_heartbeat_canary_echo_seconds", Replicas: telemetry.LeaderCounts,
		Help:   "Time from the beginning of a canary's write until it came back on the watch of the heartbeats.",
		Labels: []telemetry.Label{labelNamespace},
	}, []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10})

	state     = telemetry.Manager.Source()
	blindDesc = state.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_heartbeat_blind", Replicas: telemetry.LeaderOnly,
		Help:   "1 while no canary comes back on the watch of the heartbeats, so that no host can be declared silent.",
		Labels: []telemetry.Label{labelNamespace},
	})
	blindSecondsDesc = state.Metric(telemetry.KindCounter, telemetry.Metric{
		Name: "hoststatus_heartbeat_blind_seconds_total", Replicas: telemetry.LeaderOnly,
		Help:   "Blind time, including a blind spell that has not ended.",
		Labels: []telemetry.Label{labelNamespace},
	})
	unconfirmedDesc = state.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_heartbeat_unconfirmed_expiries", Replicas: telemetry.LeaderOnly,
		Help:   "Hosts whose heartbeat is overdue, but not yet proven to be missing. Above 0 for long only while the manager is blind.",
		Labels: []telemetry.Label{labelNamespace},
	})
	skewedDesc = state.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_heartbeat_clock_skewed_hosts", Replicas: telemetry.EachAlike,
		Help:   "Hosts whose clock differs from the manager's by more than 10 s. It does not change how they are judged.",
		Labels: []telemetry.Label{labelNamespace},
	})
	driversDesc = state.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_heartbeat_failing_driver_hosts", Replicas: telemetry.EachAlike,
		Help:   "Hosts that report, and whose agent states on the Lease that its driver fails, so that the states of their servers are old.",
		Labels: []telemetry.Label{labelNamespace},
	})
)

const (
	resultOK    = "ok"
	resultError = "error"
)

func resultLabel(err error) string {
	if err != nil {
		return resultError
	}
	return resultOK
}

// seriesOf makes the series of a lease namespace exist from the start.
func seriesOf(namespace string) {
	leaseEvents.WithLabelValues(namespace)
	canaryWrites.WithLabelValues(namespace, resultOK)
	canaryWrites.WithLabelValues(namespace, resultError)
	canaryEchoes.WithLabelValues(namespace)
}

// collect sends what the monitor knows now.
func (m *Monitor) collect(metrics chan<- prometheus.Metric) {
	for _, s := range m.sights() {
		send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64) {
			metrics <- prometheus.MustNewConstMetric(desc, kind, value, s.namespace)
		}
		send(skewedDesc, prometheus.GaugeValue, float64(s.skewed))
		send(driversDesc, prometheus.GaugeValue, float64(s.drivers))
		if !s.judged {
			continue
		}
		blind := 0.0
		if s.blind {
			blind = 1
		}
		send(blindDesc, prometheus.GaugeValue, blind)
		send(blindSecondsDesc, prometheus.CounterValue, s.blindTime.Seconds())
		send(unconfirmedDesc, prometheus.GaugeValue, float64(s.unconfirmed))
	}
}

func (m *Monitor) sights() []sight {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.core.sights(m.now())
	for i := range all {
		for name := range m.watches[all[i].namespace].drivers {
			if m.core.reports(all[i].namespace, name) {
				all[i].drivers++
			}
		}
	}
	return all
}

// sight is how well one lease namespace is seen.
type sight struct {
	namespace string
	skewed    int
	drivers   int
	// judged: this process leads; without that, the rest is unknown.
	judged      bool
	blind       bool
	blindTime   time.Duration
	unconfirmed int
}

func (c *core) sights(now time.Duration) []sight {
	all := make([]sight, 0, len(c.watches))
	for _, w := range c.watches {
		s := sight{namespace: w.name, skewed: w.skewed, judged: c.leader, blind: w.blind, blindTime: w.blindTime}
		if w.blind {
			s.blindTime += now - w.lastEcho
		}
		if c.leader {
			s.unconfirmed = w.deadlines.passed(now)
		}
		all = append(all, s)
	}
	return all
}

// reports returns whether a Lease is the heartbeat of a host that reports.
func (c *core) reports(namespace, name string) bool {
	l := c.watches[namespace].leases[name]
	return l != nil && slices.ContainsFunc(l.subjects, func(s *subject) bool { return s.reporting == Reports })
}
