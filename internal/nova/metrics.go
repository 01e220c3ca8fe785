// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"hoststatus.dev/hoststatus/internal/telemetry"
)

// noVersion is the label of answers that no microversion was agreed on for.
const noVersion = "none"

var (
	requests = telemetry.NovaAPI.Counter(telemetry.Metric{
		Name: "hoststatus_nova_requests_total", Replicas: telemetry.EachItsOwn,
		Help: "Requests of clients of the compute API, by what they were for and how they were answered.",
		Labels: []telemetry.Label{
			{Name: "route", Values: "a path such as `servers/detail` or `servers/{id}`; `versions`, `identity`, `image`; `other`: a path that is not served"},
			{Name: "code", Values: "the status of HTTP"},
			{Name: "microversion", Values: "from `2.1` to `2.93`; `none`: the answer names none"},
		},
	})
	refusedConnections = telemetry.NovaAPI.Counter(telemetry.Metric{
		Name: "hoststatus_nova_refused_connections_total", Replicas: telemetry.EachItsOwn,
		Help: "Connections that were closed because there were too many of one address, or of all.",
	})
	cutAnswers = telemetry.NovaAPI.Counter(telemetry.Metric{
		Name: "hoststatus_nova_cut_answers_total", Replicas: telemetry.EachItsOwn,
		Help: "Answers that were cut off, because their clients took longer than 5 s to read them while others waited for their turn.",
	})

	scraped     = telemetry.NovaAPI.Source()
	waitingDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_nova_requests_waiting", Replicas: telemetry.EachItsOwn,
		Help: "Requests that wait for their turn.",
	})
	runningDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_nova_requests_running", Replicas: telemetry.EachItsOwn,
		Help: "Requests that are worked on, until their answer is sent.",
	})
)

// collect sends what is looked up at a scrape.
func (f *face) collect(metrics chan<- prometheus.Metric) {
	usage := f.queue.Usage()
	metrics <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(usage.Waiting))
	metrics <- prometheus.MustNewConstMetric(runningDesc, prometheus.GaugeValue, float64(usage.Seats))
}

// registry has the metrics of this binary and those of its process.
func registry() *prometheus.Registry {
	for _, c := range []*prometheus.CounterVec{refusedConnections, cutAnswers} {
		c.WithLabelValues() // It exists from the start.
	}
	r := prometheus.NewRegistry()
	r.MustRegister(telemetry.NovaAPI.Collectors()...)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
