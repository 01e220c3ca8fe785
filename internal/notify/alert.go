// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// AlertName is the label alertname of every alert.
const AlertName = "ServerHostStatus"

// The labels of alerts.
const (
	labelAlertName  = "alertname"
	labelNamespace  = "namespace"
	labelServer     = "server"
	labelHostID     = "host_id"
	labelHostStatus = "host_status"
	labelSeverity   = "severity"
	labelRoute      = "route"
)

// severities are the default labels severity.
var severities = map[v1alpha1.HostStatus]string{
	v1alpha1.HostStatusDown:             "critical",
	v1alpha1.HostStatusUnknown:          "warning",
	v1alpha1.HostStatusMaintenance:      "info",
	v1alpha1.HostStatusNeedsMaintenance: "info",
}

// Alert is an alert as Alertmanager's API has it. EndsAt in the past resolves it.
type Alert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// posted is an alert that Alertmanager has, or may have.
type posted struct {
	labels map[string]string
	starts time.Time
	// facts are those of the state that it told; "" if they are not known.
	facts string
	// certain is set once Alertmanager has answered that it has it.
	certain bool
}

// alertLedger is what an Alertmanager was told.
type alertLedger struct {
	generator string
	// lasting is after how long Alertmanager gives an alert up.
	lasting time.Duration
	alerts  map[slotKey]*alerts
	// sent is when a subject was composed last.
	sent time.Time
}

// alerts are those of one subject, by their labels: more than one while it is not certain
// that those of a former host status have been resolved.
type alerts struct {
	last   *state // nil if they were found at the start
	posted map[string]*posted
	// until is when Alertmanager gives them up.
	until time.Time
	// forgotten is set if nobody is to be told of their end.
	forgotten bool
}

func newAlertLedger(generator string, lasting time.Duration) *alertLedger {
	return &alertLedger{generator: generator, lasting: lasting, alerts: map[slotKey]*alerts{}}
}

// isAlert reports whether a state is one that people are alerted of.
func isAlert(s *state) bool {
	status := s.status()
	return status != nil && slices.Contains(alerting, *status) && s.route.matters(status)
}

// labelsOf are the labels of the alert of a state, which isAlert.
func labelsOf(s *state) map[string]string {
	status := ptr.Deref(s.status(), "")
	severity := s.route.severity
	if severity == "" {
		severity = severities[status]
	}
	out := map[string]string{
		labelAlertName: AlertName, labelNamespace: s.namespace, labelHostStatus: string(status), labelSeverity: severity, labelRoute: s.route.name,
	}
	if s.server != "" {
		out[labelServer] = s.server
	} else {
		out[labelHostID] = s.hostID
	}
	return out
}

// fingerprint is a text that is equal for equal labels.
func fingerprint(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(strconv.Quote(name) + "=" + strconv.Quote(labels[name]) + ",")
	}
	return b.String()
}

// subjectOf is the subject of labels that labelsOf has made.
func subjectOf(labels map[string]string) (key slotKey, ok bool) {
	namespace, server, hostID := labels[labelNamespace], labels[labelServer], labels[labelHostID]
	key = slotKey{labels[labelRoute], serverSubject(namespace, server)}
	if server == "" {
		key.subject = groupSubject(namespace, hostID)
	}
	return key, labels[labelAlertName] == AlertName && namespace != "" && (server == "") != (hostID == "")
}

// annotationsOf are what people read.
func annotationsOf(s *state) map[string]string {
	row, _ := hoststatus.RowOf(s.status())
	status := hoststatus.Label(s.status())
	out := map[string]string{
		"reason":      string(s.host.HostStatusReason),
		"description": strings.TrimSpace(fmt.Sprintf("%s: %s. %s", status, row.Meaning, row.Advice)),
	}
	if s.host.HostReporting != "" {
		out["host_reporting"] = string(s.host.HostReporting)
	}
	if w := s.host.MaintenanceWindow; w != nil {
		opens := w.OpensAt
		if opens == nil {
			opens = w.StartTime
		}
		if opens != nil {
			out["window_opens_at"] = opens.UTC().Format(time.RFC3339)
		}
		if w.EndTime != nil {
			out["window_ends_at"] = w.EndTime.UTC().Format(time.RFC3339)
		}
	}
	if s.server != "" {
		out["summary"] = fmt.Sprintf("The host of server %s in namespace %s is %s", s.server, s.namespace, status)
		return out
	}
	out["summary"] = fmt.Sprintf("The host of %d servers in namespace %s is %s", s.count, s.namespace, status)
	if s.count == 1 {
		out["summary"] = fmt.Sprintf("The host of one server in namespace %s is %s", s.namespace, status)
	}
	out["servers"] = strings.Join(s.servers, ", ")
	if more := s.count - len(s.servers); more > 0 {
		out["servers"] += fmt.Sprintf(" and %d more", more)
	}
	return out
}

// startOf is since when a state holds, never after now: the clocks of hosts, managers and this
// machine differ.
func startOf(s *state, now time.Time) time.Time {
	if t := s.host.HostStatusTransitionTime; t != nil && t.Time.Before(now) {
		return t.UTC()
	}
	return now.UTC()
}

// news implements ledger.
func (l *alertLedger) news(key slotKey, want *state) bool {
	have := l.alerts[key]
	if !isAlert(want) {
		return have != nil
	}
	if have == nil || len(have.posted) != 1 {
		return true
	}
	p := have.posted[fingerprint(labelsOf(want))]
	return p == nil || !p.certain || p.facts != want.facts
}

// compose implements ledger: the alert that holds, and those that do not any more.
func (l *alertLedger) compose(key slotKey, want *state, now time.Time) (out []Alert) {
	now = now.UTC()
	l.sent = now
	holds := ""
	if isAlert(want) {
		labels := labelsOf(want)
		holds = fingerprint(labels)
		out = append(out, Alert{
			Labels: labels, Annotations: annotationsOf(want), StartsAt: startOf(want, now), EndsAt: now.Add(l.lasting), GeneratorURL: l.link(want),
		})
	}
	if have := l.alerts[key]; have != nil {
		for _, mark := range slices.Sorted(maps.Keys(have.posted)) {
			if p := have.posted[mark]; mark != holds {
				starts := p.starts
				if !starts.Before(now) {
					starts = now.Add(-time.Millisecond) // It cannot begin at its end.
				}
				out = append(out, Alert{Labels: p.labels, StartsAt: starts, EndsAt: now})
			}
		}
	}
	return out
}

// link is the generator URL.
func (l *alertLedger) link(s *state) string {
	return strings.NewReplacer("{namespace}", url.PathEscape(s.namespace), "{server}", url.PathEscape(s.server)).Replace(l.generator)
}

// told implements ledger.
func (l *alertLedger) told(key slotKey, want *state) {
	if !isAlert(want) {
		delete(l.alerts, key)
		return
	}
	labels := labelsOf(want)
	l.alerts[key] = &alerts{last: want, until: l.sent.Add(l.lasting), posted: map[string]*posted{
		fingerprint(labels): {labels: labels, starts: startOf(want, want.at), facts: want.facts, certain: true},
	}}
}

// maybeTold implements ledger: an alert that may be there has to be resolved later.
func (l *alertLedger) maybeTold(key slotKey, want *state) {
	if have := l.alerts[key]; have != nil {
		for _, p := range have.posted {
			p.certain = false
		}
	}
	if isAlert(want) {
		labels := labelsOf(want)
		l.add(key, &posted{labels: labels, starts: startOf(want, want.at)}, l.sent.Add(l.lasting))
		l.alerts[key].last = want
	}
}

// add notes that Alertmanager has an alert, or may have it.
func (l *alertLedger) add(key slotKey, p *posted, until time.Time) {
	if l.alerts[key] == nil {
		l.alerts[key] = &alerts{posted: map[string]*posted{}}
	}
	l.alerts[key].posted[fingerprint(p.labels)] = p
	l.alerts[key].until, l.alerts[key].forgotten = until, false
}

// forget implements ledger. The alerts are still there, and are resolved if the same subject
// comes back before they expire.
func (l *alertLedger) forget(key slotKey) {
	if have := l.alerts[key]; have != nil {
		have.forgotten = true
	}
}

// expire implements ledger.
func (l *alertLedger) expire(now time.Time) {
	maps.DeleteFunc(l.alerts, func(_ slotKey, have *alerts) bool { return have.until.Before(now) })
}

// known implements ledger.
func (l *alertLedger) known(each func(slotKey, *state)) {
	for key, have := range l.alerts {
		if !have.forgotten {
			each(key, have.last)
		}
	}
}

// adopt takes in an alert that Alertmanager has at the start. ok is false if it is none of
// those that routes make.
func (l *alertLedger) adopt(labels map[string]string, starts, now time.Time) (key slotKey, ok bool) {
	if key, ok = subjectOf(labels); ok {
		l.add(key, &posted{labels: labels, starts: starts}, now.Add(l.lasting))
	}
	return key, ok
}

// wasUnknown implements ledger.
func (l *alertLedger) wasUnknown(key slotKey) bool {
	if have := l.alerts[key]; have != nil {
		for _, p := range have.posted {
			if p.labels[labelHostStatus] == string(v1alpha1.HostStatusUnknown) {
				return true
			}
		}
	}
	return false
}
