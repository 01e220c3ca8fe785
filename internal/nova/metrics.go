// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

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
	refusedConnections.WithLabelValues() // It exists from the start.
	r := prometheus.NewRegistry()
	r.MustRegister(telemetry.NovaAPI.Collectors()...)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// metricsHandler serves /metrics to whoever may read it. This server may ask nothing of
// kube-apiserver, so the question is the scraper's own, with its token: may I?
func (f *face) metricsHandler() http.Handler {
	metrics := promhttp.HandlerFor(registry(), promhttp.HandlerOpts{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || !sendable(secret) {
			http.Error(w, "send a bearer token with the right to get /metrics", http.StatusUnauthorized)
			return
		}
		if code := f.mayScrape(r, token{secret}); code != http.StatusOK {
			http.Error(w, http.StatusText(code), code)
			return
		}
		metrics.ServeHTTP(w, r)
	})
	return mux
}

// mayScrape asks whether a token may read the metrics, and returns 200 if so.
func (f *face) mayScrape(r *http.Request, t token) int {
	question, err := json.Marshal(map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"nonResourceAttributes": map[string]string{"path": "/metrics", "verb": "get"}},
	})
	if err != nil {
		return http.StatusInternalServerError
	}
	var review struct {
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	_, err = f.kube.read(r.Context(), t, target{
		method: http.MethodPost, path: []string{"apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"},
		contentType: contentTypeJSON, body: question,
	}, &review)
	switch {
	case refused(err, http.StatusUnauthorized):
		return http.StatusUnauthorized
	case refused(err, http.StatusForbidden), err == nil && !review.Status.Allowed:
		return http.StatusForbidden
	case err != nil:
		f.complaints.report("metrics", err)
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}
