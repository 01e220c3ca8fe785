// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

const (
	metricsNamespace = "hoststatus"
	metricsSubsystem = "heartbeat"
	labelNamespace   = "lease_namespace"
	labelResult      = "result"
)

var (
	leaseEvents = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "lease_events_total",
		Help: "Events of hosts' Leases that the watch has brought, almost all of them renewals.",
	}, []string{labelNamespace})
	canaryWrites = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "canary_writes_total",
		Help: "Writes of the canary Lease, by result: ok or error.",
	}, []string{labelNamespace, labelResult})
	blindGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "blind",
		Help: "1 while no canary comes back on the watch of the heartbeats, so that no host can be declared silent.",
	}, []string{labelNamespace})
	blindSeconds = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "blind_seconds_total",
		Help: "Blind time, counted when it ends.",
	}, []string{labelNamespace})
	skewedHosts = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "clock_skewed_hosts",
		Help: "Hosts whose clock differs from the manager's by more than 10 s. It does not change how they are judged.",
	}, []string{labelNamespace})
)

func init() {
	metrics.Registry.MustRegister(leaseEvents, canaryWrites, blindGauge, blindSeconds, skewedHosts)
}

func resultLabel(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}
