// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed" // for the table of host statuses
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// statusesFile is the table of host statuses, from the best to the worst, as hack/gen/statuses
// writes it.
//
//go:embed statuses.json
var statusesFile []byte

// statusColours reads the colours of the host statuses, the same in every panel: all of
// them, and those that a host has in its status.
func statusColours() (all, ofHosts []colour, err error) {
	var statuses []struct {
		Label   string `json:"label"`
		Colour  string `json:"colour"`
		Derived bool   `json:"derived"`
	}
	if err := json.Unmarshal(statusesFile, &statuses); err != nil {
		return nil, nil, fmt.Errorf("reading hack/gen/dashboard/statuses.json, which make generate writes: %w", err)
	}
	for _, s := range statuses {
		all = append(all, colour{s.Label, s.Colour})
		if s.Derived {
			ofHosts = append(ofHosts, colour{s.Label, s.Colour})
		}
	}
	return all, ofHosts, nil
}

func hosts(status string) string { return `max(hoststatus_hosts{host_status="` + status + `"})` }

// quantile asks for a quantile of a histogram; by are labels to keep.
func quantile(q, histogram string, by ...string) string {
	keep := strings.Join(append([]string{"le"}, by...), ", ")
	return "histogram_quantile(" + q + ", sum by (" + keep + ") (rate(" + histogram + "_bucket[$__rate_interval])))"
}

// build makes the dashboard in the classic model, which Grafana's sidecar can provision
// whatever Grafana's version; the library calls it deprecated, for one of newer Grafanas.
func build() (dashboard.Dashboard, error) {
	statuses, ofHosts, err := statusColours()
	if err != nil {
		return dashboard.Dashboard{}, err
	}
	b := dashboard.NewDashboardBuilder("hoststatus").Uid("hoststatus").Tags([]string{"hoststatus", "kubernetes"}).
		Description("Which hosts report, how soon it is noticed when one does not, and how soon its servers show it.").
		Editable().Tooltip(dashboard.DashboardCursorSyncCrosshair).Refresh("30s").Time("now-6h", "now").
		// Empty is what whoever looks has chosen.
		Timezone("").
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Prometheus").Type("prometheus"))
	fleet(b, statuses)
	speed(b)
	sight(b)
	owners(b)
	clients(b)
	notified(b)
	names(b, ofHosts)
	board, err := b.Build()
	if err != nil {
		return board, err
	}
	// Not the library's: Grafana brings an older schema up to date, but may refuse one
	// that is newer than its own, and nothing here needs that.
	board.SchemaVersion = 39
	// Links to a panel name its number.
	for i := range board.Panels {
		id := uint32(i + 1)
		if row := board.Panels[i].RowPanel; row != nil {
			row.Id = id
		} else {
			board.Panels[i].Panel.Id = &id
		}
	}
	return board, nil
}

func fleet(b *dashboard.DashboardBuilder, statuses []colour) {
	b.WithRow(dashboard.NewRowBuilder("The fleet at a glance"))
	b.WithPanel(number("Hosts", "sum(max by (host_status) (hoststatus_hosts))", at("blue")))
	b.WithPanel(number("Up", hosts("UP"), at("green")))
	b.WithPanel(number("Silent", hosts("UNKNOWN"), at("green"), from(1, "orange")).
		Description("Host status UNKNOWN: their heartbeats have stopped, and that is proven."))
	b.WithPanel(number("Down", hosts("DOWN"), at("green"), from(1, "red")).Description("Asserted to be off, by an operator or a fencing tool."))
	b.WithPanel(number("In maintenance", hosts("MAINTENANCE"), at("green"), from(1, "blue")))
	b.WithPanel(number("Servers affected", `sum(max by (host_status) (hoststatus_servers{host_status=~"UNKNOWN|DOWN"}))`, at("green"), from(1, "orange")).
		Description("Servers on hosts that are UNKNOWN or DOWN."))
	b.WithPanel(number("Leaders", "sum(hoststatus_leading)", at("red"), from(1, "green"), from(2, "red")).
		Description("Managers that lead: one, or for some seconds none."))
	b.WithPanel(number("Blind", "max(hoststatus_heartbeat_blind)", at("green"), from(1, "red")).
		Description("1 while heartbeats cannot be seen, so that no host can be declared silent."))
	b.WithPanel(coloured(stacked(graph(12, "Hosts by status", units.NoUnit,
		line("max by (host_status) (hoststatus_hosts)", "{{host_status}}"))), statuses))
	b.WithPanel(coloured(stacked(graph(12, "Servers by the host status that they show", units.NoUnit,
		line("max by (host_status) (hoststatus_servers)", "{{host_status}}"))), statuses))
	b.WithPanel(graph(12, "Changes of host status", units.NoUnit,
		line("sum by (from, to) (increase(hoststatus_host_transitions_total[5m])) > 0", "{{from}} to {{to}}")).
		Description("In the last five minutes."))
	b.WithPanel(graph(12, "Hosts that do not report", units.NoUnit,
		line(`max by (reporting) (hoststatus_hosts_reporting{reporting!="True"})`, "reporting: {{reporting}}")).
		Description("Whatever their host status is: a host that dies in maintenance still has MAINTENANCE."))
	b.WithPanel(graph(12, "Maintenance windows", units.NoUnit,
		line("max by (phase) (hoststatus_maintenance_windows)", "{{phase}}")).
		Description("Those that are not over."))
	b.WithPanel(stacked(graph(12, "Servers whose host is to be maintained, by answer", units.NoUnit,
		line("max by (answer) (hoststatus_maintenance_servers)", "{{answer}}"))).
		Description("What their owners have answered to windows that are announced. Without an answer, a window opens at its start."))
}

func speed(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("How soon it is known"))
	b.WithPanel(graph(8, "Detection lag", units.Seconds,
		line(quantile("0.5", "hoststatus_detection_lag_seconds"), "median"), line(quantile("0.99", "hoststatus_detection_lag_seconds"), "99 %")).
		Description("From the deadline of a silent host until its silence was written."))
	b.WithPanel(graph(8, "Propagation to all servers of a host", units.Seconds,
		line(quantile("0.5", "hoststatus_host_propagation_seconds"), "median"), line(quantile("1", "hoststatus_host_propagation_seconds"), "slowest")).
		Description("From a change of a host until the last server on it shows it."))
	b.WithPanel(graph(8, "Propagation to one server", units.Seconds,
		line(quantile("0.5", "hoststatus_server_propagation_seconds"), "median"), line(quantile("1", "hoststatus_server_propagation_seconds"), "slowest")).
		Description("From a change of a host until a server on it shows it."))
	b.WithPanel(graph(12, "Age of the oldest pending change", units.Seconds, line("max(hoststatus_propagation_oldest_pending_seconds)", "age")))
	b.WithPanel(graph(12, "Servers with a pending change of their host", units.NoUnit, line("max(hoststatus_propagation_pending_servers)", "servers")))
}

func sight(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("How well heartbeats are seen"))
	b.WithPanel(graph(8, "Blind time", units.PercentUnit,
		line("sum by (lease_namespace) (rate(hoststatus_heartbeat_blind_seconds_total[$__rate_interval]))", "{{lease_namespace}}")).
		Description("Share of the time in which heartbeats could not be seen."))
	b.WithPanel(graph(8, "Canary echo, 99 %", units.Seconds,
		line(quantile("0.99", "hoststatus_heartbeat_canary_echo_seconds", "lease_namespace"), "{{lease_namespace}}")).
		Description("From the write of the manager's own heartbeat until it came back."))
	b.WithPanel(graph(8, "Canaries written", units.WritesPerSecond,
		line("sum by (lease_namespace, result) (rate(hoststatus_heartbeat_canary_writes_total[$__rate_interval]))", "{{lease_namespace}}: {{result}}")))
	b.WithPanel(graph(6, "Renewals", units.OpsPerSecond,
		line("max by (lease_namespace) (rate(hoststatus_heartbeat_lease_events_total[$__rate_interval]))", "{{lease_namespace}}")).
		Description("As the busiest replica sees them."))
	b.WithPanel(graph(6, "Overdue and not proven", units.NoUnit,
		line("max by (lease_namespace) (hoststatus_heartbeat_unconfirmed_expiries)", "{{lease_namespace}}")).
		Description("Hosts whose heartbeat is overdue, but not yet proven to be missing."))
	b.WithPanel(graph(6, "Hosts whose clock is off", units.NoUnit,
		line("max by (lease_namespace) (hoststatus_heartbeat_clock_skewed_hosts)", "{{lease_namespace}}")).
		Description("By more than 10 s. Does not change how they are judged."))
	b.WithPanel(graph(6, "Hosts whose driver fails", units.NoUnit,
		line("max by (lease_namespace) (hoststatus_heartbeat_failing_driver_hosts)", "{{lease_namespace}}")).
		Description("They send heartbeats, but do not report on their servers."))
	b.WithPanel(graph(24, "Requests to the webhook that were refused unread", units.RequestsPerSecond,
		line("sum by (reason) (rate(hoststatus_webhook_refused_total[$__rate_interval]))", "{{reason}}")).
		Description("kube-apiserver sends none of these; another client that reaches the port does."))
}

func owners(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("The owners' view"))
	b.WithPanel(stacked(graph(8, "Requests by what is shown of host status", units.RequestsPerSecond,
		line("sum by (outcome) (rate(hoststatus_tenantapi_decisions_total[$__rate_interval]))", "{{outcome}}"))))
	b.WithPanel(graph(8, "Open watches", units.NoUnit, line("sum(hoststatus_tenantapi_watches)", "watches")))
	b.WithPanel(graph(8, "Answers warn of old host status", units.NoUnit, line("max(hoststatus_tenantapi_stale)", "stale")))
	b.WithPanel(graph(12, "Requests refused because their caller asked for too much at once", units.RequestsPerSecond,
		line("sum by (reason) (rate(hoststatus_tenantapi_refusals_total[$__rate_interval]))", "{{reason}}")))
	b.WithPanel(graph(12, "Lists that wait for their turn", units.NoUnit, line("sum(hoststatus_tenantapi_lists_waiting)", "lists")))
}

func clients(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("Clients of the compute API (if nova-api is installed)"))
	b.WithPanel(stacked(graph(8, "Requests by how they are answered", units.RequestsPerSecond,
		line("sum by (code) (rate(hoststatus_nova_requests_total[$__rate_interval]))", "{{code}}"))))
	b.WithPanel(graph(8, "Requests that are worked on, and that wait", units.NoUnit,
		line("sum(hoststatus_nova_requests_running)", "running"), line("sum(hoststatus_nova_requests_waiting)", "waiting")))
	b.WithPanel(graph(8, "Connections that were too many, and answers that were read too slowly", units.OpsPerSecond,
		line("sum(rate(hoststatus_nova_refused_connections_total[$__rate_interval]))", "connections refused"),
		line("sum(rate(hoststatus_nova_cut_answers_total[$__rate_interval]))", "answers cut off")))
}

func notified(b *dashboard.DashboardBuilder) {
	b.WithRow(dashboard.NewRowBuilder("What the notifier tells (if it is installed)"))
	b.WithPanel(stacked(graph(8, "Deliveries by sink and result", units.OpsPerSecond,
		line("sum by (sink, result) (rate(hoststatus_notifier_deliveries_total[$__rate_interval]))", "{{sink}} {{result}}"))))
	b.WithPanel(graph(8, "Time until a sink has it", units.Seconds,
		line(quantile("0.5", "hoststatus_notifier_delivery_seconds", "sink"), "{{sink}} median"), line(quantile("0.99", "hoststatus_notifier_delivery_seconds", "sink"), "{{sink}} p99")))
	b.WithPanel(graph(8, "Sinks that fail", units.NoUnit, line("max by (sink) (hoststatus_notifier_sink_failing)", "{{sink}}")))
	b.WithPanel(graph(6, "Servers and groups that wait for a sink", units.NoUnit, line("sum by (sink) (hoststatus_notifier_queue_length)", "{{sink}}")))
	b.WithPanel(graph(6, "How long the oldest waits", units.Seconds, line("max by (sink) (hoststatus_notifier_queue_oldest_seconds)", "{{sink}}")))
	b.WithPanel(graph(6, "Servers that are seen", units.NoUnit, line("sum by (host_status) (hoststatus_notifier_servers)", "host status {{host_status}}")).
		Description("Nothing is sent about those whose host status is hidden."))
	b.WithPanel(graph(6, "Watches", units.NoUnit, line("sum by (state) (hoststatus_notifier_watches)", "{{state}}")))
}

// resourcePrefix begins the metrics of kube-state-metrics.yaml.
const resourcePrefix = "hoststatus_resource_"

func names(b *dashboard.DashboardBuilder, states []colour) {
	b.WithRow(dashboard.NewRowBuilder("Who was down when (needs kube-state-metrics with config/prometheus/kube-state-metrics.yaml)"))
	parts := make([]string, len(states))
	for i, s := range states {
		parts[i] = "(" + resourcePrefix + `computeservice_host_status{host_status="` + s.name + `"} == 1) * ` + strconv.Itoa(i)
	}
	b.WithPanel(timeline("Hosts", states, line("max by (name) ("+strings.Join(parts, " or ")+")", "{{name}}")).
		Description("Each host and its status over time."))
	b.WithPanel(list("Servers by tenant on hosts that are not UP",
		"count by (namespace, host, host_status) ("+resourcePrefix+`server_info{host!="", host_status!="UP"})`))
	b.WithPanel(list("Hosts that are not UP, and since when",
		"time() - max by (name) ("+resourcePrefix+"computeservice_host_status_transition_time) and on (name) ("+resourcePrefix+`computeservice_host_status{host_status="UP"} == 0)`).
		Description("In seconds."))
}
