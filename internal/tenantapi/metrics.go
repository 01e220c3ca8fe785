// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics/legacyregistry"

	"hoststatus.dev/hoststatus/internal/telemetry"
)

// The outcomes of a decision on host status.
const (
	outcomeGranted     = "granted"
	outcomeUnknownOnly = "unknown_only"
	outcomePartly      = "partly"
	outcomeHidden      = "hidden"
	outcomeError       = "error"
)

var (
	decisions = telemetry.TenantAPI.Counter(telemetry.Metric{
		Name: "hoststatus_tenantapi_decisions_total", Replicas: telemetry.EachItsOwn,
		Help: "Requests by what their caller may see of host status.",
		Labels: []telemetry.Label{
			{Name: "verb", Values: "`get`, `list`, `watch`"},
			{Name: "outcome", Values: "`granted`; `unknown_only`: while it is UNKNOWN; `partly`: in some of the namespaces asked for; `hidden`; `error`: hidden where the API server did not say"},
		},
	})
	watches = telemetry.TenantAPI.Gauge(telemetry.Metric{
		Name: "hoststatus_tenantapi_watches", Replicas: telemetry.EachItsOwn,
		Help: "Watches that are open.",
	})
	refusals = telemetry.TenantAPI.Counter(telemetry.Metric{
		Name: "hoststatus_tenantapi_refusals_total", Replicas: telemetry.EachItsOwn,
		Help: "Requests refused because their caller asked for too much at once.",
		Labels: []telemetry.Label{
			{Name: "reason", Values: "`waiting`: too many lists of the caller wait for their turn; `patience`: a list waited too long; `requests`: too many requests of the caller at once; `watches`: too many watches of the caller; `selector`: a selector of too many terms"},
		},
	})

	scraped   = telemetry.TenantAPI.Source()
	staleDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_tenantapi_stale", Replicas: telemetry.EachAlike,
		Help: "1 while answers carry a warning that they may be out of date, because a canary of the manager is overdue or the watch of servers brings nothing.",
	})
	listsWaitingDesc = scraped.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_tenantapi_lists_waiting", Replicas: telemetry.EachItsOwn,
		Help: "Lists that wait for their turn.",
	})
)

func init() {
	for _, verb := range []string{"get", "list", "watch"} {
		for _, outcome := range []string{outcomeGranted, outcomeUnknownOnly, outcomePartly, outcomeHidden, outcomeError} {
			decisions.WithLabelValues(verb, outcome)
		}
	}
	watches.WithLabelValues()
	for _, reason := range []string{refusedWaiting, refusedPatience, refusedRequests, refusedWatches, refusedSelector} {
		refusals.WithLabelValues(reason)
	}
	legacyregistry.Registerer().MustRegister(telemetry.TenantAPI.Collectors()...)
}

// decided counts a decision on one server.
func decided(verb string, g grant, err error) {
	outcome := outcomeHidden
	switch {
	case err != nil:
		outcome = outcomeError
	case g == grantFull:
		outcome = outcomeGranted
	case g == grantUnknown:
		outcome = outcomeUnknownOnly
	}
	decisions.WithLabelValues(verb, outcome).Inc()
}

// decidedSet counts a decision on all that a request is for.
func decidedSet(verb string, granted grantSet, err error) {
	if wide := granted.wide(); err != nil || wide == grantFull || !granted.more(wide) {
		decided(verb, wide, err)
		return
	}
	decisions.WithLabelValues(verb, outcomePartly).Inc()
}

// more reports whether s grants more than wide in one of its namespaces.
func (s grantSet) more(wide grant) bool {
	for _, g := range s.byNamespace {
		if g > wide {
			return true
		}
	}
	return false
}

func (s *storage) collect(metrics chan<- prometheus.Metric) {
	stale := 0.0
	if s.canaries.stale() != "" || s.feed.stale() != "" {
		stale = 1
	}
	metrics <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, stale)
	metrics <- prometheus.MustNewConstMetric(listsWaitingDesc, prometheus.GaugeValue, float64(s.limits.lists.Usage().Waiting))
}
