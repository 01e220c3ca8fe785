// SPDX-License-Identifier: Apache-2.0

// Package telemetry defines which metrics each binary has. What is exported, the
// reference page, and what alerts and dashboards may query all come from here.
//
// No label holds the name of a host, a server or a tenant: a large fleet has as many
// series as a small one, and metrics do not reveal whose host is down.
package telemetry

import (
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"hoststatus.dev/hoststatus/internal/version"
)

// Kind is the type of a metric.
type Kind string

// The kinds of metrics.
const (
	KindCounter   Kind = "counter"
	KindGauge     Kind = "gauge"
	KindHistogram Kind = "histogram"
)

// Replicas is which replicas of a binary export a metric, and so how to aggregate it.
type Replicas string

// The ways in which replicas export a metric.
const (
	// EachAlike: every replica sees the same, so max by (…) is the fleet's value.
	EachAlike Replicas = "each replica the same: `max`"
	// EachItsOwn: every replica counts what it did itself, so sum is the total.
	EachItsOwn Replicas = "each replica its own: `sum`"
	// LeaderOnly: the series are absent from standbys, which do not know.
	LeaderOnly Replicas = "the leader alone"
	// LeaderCounts: standbys have the series too, but nothing to count.
	LeaderCounts Replicas = "counted by the leader: `sum`"
)

// Label is a label of a metric, and what its values are.
type Label struct{ Name, Values string }

// Metric describes a metric.
type Metric struct {
	Name     string
	Help     string
	Kind     Kind
	Labels   []Label
	Replicas Replicas
}

// Set is the metrics of one binary.
type Set struct {
	// Binary is its name.
	Binary     string
	metrics    []Metric
	collectors []prometheus.Collector
}

// The binaries that have metrics.
var (
	Manager   = newSet("manager")
	TenantAPI = newSet("tenant-apiserver")
	NovaAPI   = newSet("nova-api")
	Notifier  = newSet("notifier")
)

func newSet(binary string) *Set {
	s := &Set{Binary: binary}
	info := s.Gauge(Metric{
		Name: "hoststatus_build_info", Replicas: EachItsOwn,
		Help: "1, with the version of hoststatus and of the Go that built it.",
		Labels: []Label{
			{"version", "the release"},
			{"go_version", "for example go1.26.0"},
		},
	})
	info.WithLabelValues(version.Version, runtime.Version()).Set(1)
	return s
}

// Metrics returns the metrics of the binary, by name.
func (s *Set) Metrics() []Metric {
	sorted := slices.Clone(s.metrics)
	slices.SortFunc(sorted, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return sorted
}

// Collectors are what the binary registers.
func (s *Set) Collectors() []prometheus.Collector { return s.collectors }

// Counter adds a counter.
func (s *Set) Counter(m Metric) *prometheus.CounterVec {
	m.Kind = KindCounter
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.labelNames())
	s.add(m, vec)
	return vec
}

// Gauge adds a gauge whose value cannot be looked up at a scrape.
func (s *Set) Gauge(m Metric) *prometheus.GaugeVec {
	m.Kind = KindGauge
	vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, m.labelNames())
	s.add(m, vec)
	return vec
}

// Histogram adds a histogram.
func (s *Set) Histogram(m Metric, buckets []float64) *prometheus.HistogramVec {
	m.Kind = KindHistogram
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: buckets}, m.labelNames())
	if len(m.Labels) == 0 {
		vec.WithLabelValues() // It exists from the start.
	}
	s.add(m, vec)
	return vec
}

func (s *Set) add(m Metric, collector prometheus.Collector) {
	s.metrics = append(s.metrics, m)
	s.collectors = append(s.collectors, collector)
}

func (m *Metric) labelNames() []string {
	names := make([]string, len(m.Labels))
	for i, label := range m.Labels {
		names[i] = label.Name
	}
	return names
}

// Source are metrics of state that is looked up at each scrape, so that no missed event
// can leave them wrong. While nothing provides them, there are none.
type Source struct {
	set     *Set
	descs   []*prometheus.Desc
	provide atomic.Pointer[func(chan<- prometheus.Metric)]
}

// Source adds a Source, without metrics yet.
func (s *Set) Source() *Source {
	source := &Source{set: s}
	s.collectors = append(s.collectors, source)
	return source
}

// Metric adds a metric of the given kind, which the provider sends.
func (s *Source) Metric(kind Kind, m Metric) *prometheus.Desc {
	m.Kind = kind
	desc := prometheus.NewDesc(m.Name, m.Help, m.labelNames(), nil)
	s.descs = append(s.descs, desc)
	s.set.metrics = append(s.set.metrics, m)
	return desc
}

// Provide lets collect send the metrics until stop is called. In a process with several
// providers, as in tests, the last one is used.
func (s *Source) Provide(collect func(chan<- prometheus.Metric)) (stop func()) {
	provider := &collect
	s.provide.Store(provider)
	return func() { s.provide.CompareAndSwap(provider, nil) }
}

// Describe implements prometheus.Collector.
func (s *Source) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range s.descs {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (s *Source) Collect(metrics chan<- prometheus.Metric) {
	if provider := s.provide.Load(); provider != nil {
		(*provider)(metrics)
	}
}
