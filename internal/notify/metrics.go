// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"hoststatus.dev/hoststatus/internal/telemetry"
)

// The values of the label result.
const (
	resultDelivered = "delivered"
	resultFailed    = "failed"
	resultRefused   = "refused"
)

var sinkLabel = telemetry.Label{Name: "sink", Values: "the name of a sink in the configuration, at most 16"}

var (
	deliveries = telemetry.Notifier.Counter(telemetry.Metric{
		Name: "hoststatus_notifier_deliveries_total", Replicas: telemetry.EachItsOwn,
		Help: "Messages to a sink, each about one server or group, by result.",
		Labels: []telemetry.Label{
			sinkLabel,
			{Name: "result", Values: "`delivered`; `failed`: no answer, or an error that may pass; `refused`: an answer that rejects the message itself (400, 413, 415 or 422)"},
		},
	})
	deliverySeconds = telemetry.Notifier.Histogram(telemetry.Metric{
		Name: "hoststatus_notifier_delivery_seconds", Replicas: telemetry.EachItsOwn,
		Help:   "Time from when a message is due, after its minimum duration, until the sink has it.",
		Labels: []telemetry.Label{sinkLabel},
	}, []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800})

	scraped     = telemetry.Notifier.Source()
	waitingDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_notifier_queue_length", Replicas: telemetry.EachItsOwn,
		Help: "Servers and groups whose newest state a sink does not have yet.", Labels: []telemetry.Label{sinkLabel},
	})
	oldestDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_notifier_queue_oldest_seconds", Replicas: telemetry.EachItsOwn,
		Help: "How long the oldest of the waiting servers and groups has waited.", Labels: []telemetry.Label{sinkLabel},
	})
	failingDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_notifier_sink_failing", Replicas: telemetry.EachItsOwn,
		Help: "1 while a sink fails, 0 while it works.", Labels: []telemetry.Label{sinkLabel},
	})
	serversDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_notifier_servers", Replicas: telemetry.EachItsOwn,
		Help:   "Servers that are seen. Nothing is sent about those whose host status is hidden.",
		Labels: []telemetry.Label{{Name: "host_status", Values: "`shown`; `hidden`: the right to see it is missing, or it is not derived yet"}},
	})
	namespacesDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_notifier_watches", Replicas: telemetry.EachItsOwn,
		Help:   "Watches of servers, one for each namespace of the configuration or one for all.",
		Labels: []telemetry.Label{{Name: "state", Values: "`running`; `refused`: the right to watch is missing; `starting`"}},
	})
)

// collect sends what is looked up at a scrape.
func (n *notifier) collect(metrics chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, label string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, label)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range n.boxes {
		u := b.usage()
		gauge(waitingDesc, float64(u.waiting), u.name)
		gauge(oldestDesc, u.oldest.Seconds(), u.name)
		failing := 0.
		if u.failing {
			failing = 1
		}
		gauge(failingDesc, failing, u.name)
	}
	shown, hidden := n.shown()
	gauge(serversDesc, float64(shown), "shown")
	gauge(serversDesc, float64(hidden), "hidden")
	states := map[string]int{}
	for _, s := range n.scopes {
		switch {
		case s.refused:
			states["refused"]++
		case s.synced:
			states["running"]++
		default:
			states["starting"]++
		}
	}
	for _, state := range []string{"running", "refused", "starting"} {
		gauge(namespacesDesc, float64(states[state]), state)
	}
}

// registry has the metrics of this binary and those of its process. Counters exist from the
// start.
func registry(config *Config) *prometheus.Registry {
	for i := range config.Sinks {
		name := config.Sinks[i].Name
		for _, result := range []string{resultDelivered, resultFailed, resultRefused} {
			deliveries.WithLabelValues(name, result)
		}
		deliverySeconds.WithLabelValues(name)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(telemetry.Notifier.Collectors()...)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
