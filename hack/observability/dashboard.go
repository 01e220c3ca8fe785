// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// The colours of the host statuses, the same in every panel.
var statusColours = []colour{
	{"UP", "green"}, {"NEEDS_MAINTENANCE", "yellow"}, {"MAINTENANCE", "blue"}, {"UNKNOWN", "orange"}, {"DOWN", "red"},
	{"NOT_DERIVED", "gray"}, {"NO_HOST", "light-blue"},
}

// steps colours a number: green, and from each limit on another colour.
func steps(first string, more ...threshold) []threshold {
	return append([]threshold{{Color: first}}, more...)
}

func from(limit float64, colour string) threshold { return threshold{Color: colour, Value: &limit} }

func hosts(status string) string { return `max(hoststatus_hosts{host_status="` + status + `"})` }

// quantile asks for a quantile of a histogram; by are labels to keep.
func quantile(q, histogram string, by ...string) string {
	keep := strings.Join(append([]string{"le"}, by...), ", ")
	return "histogram_quantile(" + q + ", sum by (" + keep + ") (rate(" + histogram + "_bucket[$__rate_interval])))"
}

func dashboard() *layout {
	l := &layout{board: &board{
		UID: "hoststatus", Title: "hoststatus", Tags: []string{"hoststatus", "kubernetes"},
		Description:   "Which hosts report, how soon it is noticed when one does not, and how soon its servers say so.",
		SchemaVersion: 39, Editable: true, GraphTooltip: 1, Refresh: "30s",
		Time:       timeRange{From: "now-6h", To: "now"},
		Templating: templating{List: []variable{{Name: "datasource", Label: "Prometheus", Type: "datasource", Query: "prometheus"}}},
	}}
	l.fleet()
	l.speed()
	l.sight()
	l.owners()
	l.names()
	return l
}

func (l *layout) fleet() {
	l.row("The fleet at a glance")
	l.stat("Hosts", "", steps("blue"), query{"sum(max by (host_status) (hoststatus_hosts))", ""})
	l.stat("Up", "", steps("green"), query{hosts("UP"), ""})
	l.stat("Silent", "Host status UNKNOWN: their heartbeats have stopped, and that is proven.", steps("green", from(1, "orange")), query{hosts("UNKNOWN"), ""})
	l.stat("Down", "Somebody asserts that they are off.", steps("green", from(1, "red")), query{hosts("DOWN"), ""})
	l.stat("In maintenance", "", steps("green", from(1, "blue")), query{hosts("MAINTENANCE"), ""})
	l.stat("Servers affected", "Servers on hosts that are UNKNOWN or DOWN.", steps("green", from(1, "orange")),
		query{`sum(max by (host_status) (hoststatus_servers{host_status=~"UNKNOWN|DOWN"}))`, ""})
	l.stat("Leaders", "Managers that lead: one, or for some seconds none.", steps("red", from(1, "green"), from(2, "red")), query{"sum(hoststatus_leading)", ""})
	l.stat("Blind", "1 while heartbeats cannot be seen, so that no host can be declared silent.", steps("green", from(1, "red")), query{"max(hoststatus_heartbeat_blind)", ""})
	l.graph(12, "Hosts by status", "", "none", query{"max by (host_status) (hoststatus_hosts)", "{{host_status}}"}).stacked().coloured(statusColours)
	l.graph(12, "Servers by the host status that they say", "", "none", query{"max by (host_status) (hoststatus_servers)", "{{host_status}}"}).stacked().coloured(statusColours)
	l.graph(12, "Changes of host status", "In the last five minutes.", "none",
		query{"sum by (from, to) (increase(hoststatus_host_transitions_total[5m])) > 0", "{{from}} to {{to}}"})
	l.graph(12, "Hosts that do not report", "Whatever their host status is: a host that dies in maintenance still reads MAINTENANCE.", "none",
		query{`max by (reporting) (hoststatus_hosts_reporting{reporting!="True"})`, "reporting: {{reporting}}"})
}

func (l *layout) speed() {
	l.row("How soon it is known")
	l.graph(8, "Detection lag", "From the deadline of a silent host until its silence was written.", "s",
		query{quantile("0.5", "hoststatus_detection_lag_seconds"), "median"}, query{quantile("0.99", "hoststatus_detection_lag_seconds"), "99 %"})
	l.graph(8, "Propagation to all servers of a host", "From a change of a host until the last server on it said so.", "s",
		query{quantile("0.5", "hoststatus_host_propagation_seconds"), "median"}, query{quantile("1", "hoststatus_host_propagation_seconds"), "slowest"})
	l.graph(8, "Propagation to one server", "From a change of a host until a server on it said so.", "s",
		query{quantile("0.5", "hoststatus_server_propagation_seconds"), "median"}, query{quantile("1", "hoststatus_server_propagation_seconds"), "slowest"})
	l.graph(12, "Oldest change that is on its way", "", "s", query{"max(hoststatus_propagation_oldest_pending_seconds)", "age"})
	l.graph(12, "Servers that do not say yet what their host says", "", "none", query{"max(hoststatus_propagation_pending_servers)", "servers"})
}

func (l *layout) sight() {
	l.row("How well heartbeats are seen")
	l.graph(8, "Blind time", "Which part of the time nothing was to be seen.", "percentunit",
		query{"sum by (lease_namespace) (rate(hoststatus_heartbeat_blind_seconds_total[$__rate_interval]))", "{{lease_namespace}}"})
	l.graph(8, "Canary echo, 99 %", "From the write of the manager's own heartbeat until it came back.", "s",
		query{quantile("0.99", "hoststatus_heartbeat_canary_echo_seconds", "lease_namespace"), "{{lease_namespace}}"})
	l.graph(8, "Canaries written", "", "wps",
		query{"sum by (lease_namespace, result) (rate(hoststatus_heartbeat_canary_writes_total[$__rate_interval]))", "{{lease_namespace}}: {{result}}"})
	l.graph(8, "Renewals", "As the busiest replica sees them.", "ops",
		query{"max by (lease_namespace) (rate(hoststatus_heartbeat_lease_events_total[$__rate_interval]))", "{{lease_namespace}}"})
	l.graph(8, "Overdue and not proven", "Hosts that would be silent if it could be seen.", "none",
		query{"max by (lease_namespace) (hoststatus_heartbeat_unconfirmed_expiries)", "{{lease_namespace}}"})
	l.graph(8, "Hosts whose clock is off", "By more than 10 s. They are judged all the same.", "none",
		query{"max by (lease_namespace) (hoststatus_heartbeat_clock_skewed_hosts)", "{{lease_namespace}}"})
}

func (l *layout) owners() {
	l.row("The owners' view")
	l.graph(8, "Requests by what is shown of host status", "", "reqps",
		query{"sum by (outcome) (rate(hoststatus_tenantapi_decisions_total[$__rate_interval]))", "{{outcome}}"}).stacked()
	l.graph(8, "Open watches", "", "none", query{"sum(hoststatus_tenantapi_watches)", "watches"})
	l.graph(8, "Answers warn of old host status", "", "none", query{"max(hoststatus_tenantapi_stale)", "stale"})
}

// resourcePrefix begins the metrics of kube-state-metrics.yaml.
const resourcePrefix = "hoststatus_resource_"

func (l *layout) names() {
	l.row("Who was down when (needs kube-state-metrics with config/prometheus/kube-state-metrics.yaml)")
	states := statusColours[:5]
	parts := make([]string, len(states))
	for i, s := range states {
		parts[i] = "(" + resourcePrefix + `computeservice_host_status{host_status="` + s.name + `"} == 1) * ` + string(rune('0'+i))
	}
	l.timeline("Hosts", "Each host and its status over time.", states,
		query{"max by (name) (" + strings.Join(parts, " or ") + ")", "{{name}}"})
	l.table("Servers by tenant on hosts that are not UP", "", query{
		"count by (namespace, host, host_status) (" + resourcePrefix + `server_info{host!="", host_status!="UP"})`, ""})
	l.table("Hosts that are not UP, and since when", "In seconds.", query{
		"time() - max by (name) (" + resourcePrefix + "computeservice_host_status_transition_time) and on (name) (" + resourcePrefix + `computeservice_host_status{host_status="UP"} == 0)`, ""})
}
