// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strings"

	"hoststatus.dev/hoststatus/internal/telemetry"
)

const intro = `<!-- Made from the code by make generate. -->
# Metrics

The manager, the tenant API server, nova-api and the notifier serve ` + "`/metrics`" + ` over TLS (nova-api not if ` + "`--plain-http`" + ` is set) to callers that have the right to get that URL: bind the ClusterRole
` + "`hoststatus-metrics-reader`" + ` of [config/prometheus](../../config/prometheus), which also has a service account for it, ServiceMonitors, the
alerts and a dashboard. [install.md](install.md#metrics-alerts-and-the-dashboard) shows how to install the same with the chart.

No label holds the name of a host, a server or a tenant. So the number of series does not grow with the fleet, and a reader of the metrics
does not learn whose host is down. For names there is [a configuration for kube-state-metrics](../../config/prometheus/kube-state-metrics.yaml).

Hosts and servers are counted in the caches at each scrape, so no event can be missed. Replicas do not contradict each
other: the column *replicas* shows which replicas export a metric, and how to combine the values of several.
`

// reference is the page that describes every metric.
func reference(groups *alertGroups) []byte {
	var out bytes.Buffer
	out.WriteString(intro)
	for _, set := range []*telemetry.Set{telemetry.Manager, telemetry.TenantAPI, telemetry.NovaAPI, telemetry.Notifier} {
		_, _ = fmt.Fprintf(&out, "\n## %s\n\n| metric | type | replicas | meaning |\n|---|---|---|---|\n", set.Binary)
		for _, m := range set.Metrics() {
			_, _ = fmt.Fprintf(&out, "| `%s` | %s | %s | %s%s |\n", m.Name, m.Kind, m.Replicas, m.Help, labels(m.Labels))
		}
	}
	out.WriteString("\n" + others + "\n## Alerts\n\n| alert | severity | for | summary |\n|---|---|---|---|\n")
	for _, group := range groups.Groups {
		for _, a := range group.Rules {
			_, anchor, _ := strings.Cut(a.Annotations["runbook_url"], "#")
			_, _ = fmt.Fprintf(&out, "| [%s](troubleshooting.md#%s) | %s | %s | %s |\n", a.Alert, anchor, a.Labels["severity"], a.For, plain(a.Annotations["summary"]))
		}
	}
	return out.Bytes()
}

const others = `The manager and the tenant API server also have the metrics of what they are built with: the manager those of controller-runtime
(` + "`controller_runtime_reconcile_errors_total`, `workqueue_depth`, `rest_client_requests_total`" + ` …), the tenant API server those of every
Kubernetes API server (` + "`apiserver_request_duration_seconds`, `apiserver_longrunning_requests`" + ` …). nova-api and the notifier have those of their processes (` + "`go_…`, `process_…`" + `). They
may not ask the API server about the rights of others, so they check with the reader's own token whether it may get ` + "`/metrics`" + `.
`

func labels(all []telemetry.Label) string {
	var out strings.Builder
	for _, label := range all {
		_, _ = fmt.Fprintf(&out, "<br>`%s`: %s", label.Name, label.Values)
	}
	return out.String()
}

// plain replaces what a template fills in.
func plain(template string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{{")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString("…")
		_, template, _ = strings.Cut(rest, "}}")
	}
}
