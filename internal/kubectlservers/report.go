// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// Report is everything that show prints about a server. Its JSON is for scripts.
type Report struct {
	Namespace  string                   `json:"namespace"`
	Server     string                   `json:"server"`
	ID         string                   `json:"id,omitempty"`
	State      v1alpha1.ServerState     `json:"state,omitempty"`
	TaskState  string                   `json:"taskState,omitempty"`
	PowerState v1alpha1.PowerState      `json:"powerState,omitempty"`
	Networks   []v1alpha1.ServerNetwork `json:"networks,omitempty"`
	// Grant is how much of host status the caller may see. Without it the fields of the
	// host are left out.
	Grant      Grant                     `json:"grant"`
	HostStatus *v1alpha1.HostStatus      `json:"hostStatus,omitempty"`
	Reason     v1alpha1.HostStatusReason `json:"reason,omitempty"`
	Since      *metav1.Time              `json:"since,omitempty"`
	Reporting  v1alpha1.HostReporting    `json:"reporting,omitempty"`
	// Meaning is what the status means for the owner, and FailOverWhy why the server may or
	// may not be started elsewhere, in sentences.
	Meaning     string   `json:"meaning"`
	FailOver    FailOver `json:"failOver"`
	FailOverWhy string   `json:"failOverWhy"`
	// Window is the maintenance window of the host.
	Window *v1alpha1.AnnouncedWindow `json:"window,omitempty"`
	// Answer is what was answered; it is left out if nothing was, or if it could not be read.
	Answer *AnswerReport `json:"answer,omitempty"`
	// History has the changes of the host status, the newest first.
	History []v1alpha1.HostStatusChange `json:"history,omitempty"`
	// SameHost are the other servers of the namespace on the same host. It is nil if they
	// could not be read.
	SameHost []string `json:"sameHost"`
	// Hints name what could not be read, and which right is missing.
	Hints []string `json:"hints,omitempty"`

	// texts are for people: the status in a word, the window and the answer in sentences.
	texts struct{ status, window, answer string }
	// hostID is empty if the server is on no host.
	hostID string
}

// AnswerReport is an answer to a maintenance window.
type AnswerReport struct {
	Answer          ownerv1alpha1.Answer `json:"answer"`
	NotBefore       *metav1.Time         `json:"notBefore,omitempty"`
	WindowStartTime *metav1.Time         `json:"windowStartTime,omitempty"`
	Counts          Counts               `json:"counts"`
}

// evidence is what was read for a report.
type evidence struct {
	// namespaceFlag is what a command that is suggested needs behind it.
	namespaceFlag string
	server        *tenantv1alpha1.Server
	grant         Grant
	// answer is nil if there is none, or if it could not be read because of answerErr.
	answer    *ownerv1alpha1.MaintenanceAnswer
	answerErr error
	// others are the servers of the namespace.
	others    []tenantv1alpha1.Server
	othersErr error
}

// newReport puts together what is known of a server.
func newReport(e evidence, now time.Time) *Report {
	s := e.server
	seen := sightOf(s, e.grant)
	r := &Report{
		Namespace: s.Namespace, Server: s.Name, ID: string(s.UID),
		State: s.Status.State, TaskState: s.Status.TaskState, PowerState: s.Status.PowerState, Networks: s.Status.Networks,
		Grant: e.grant, HostStatus: s.Status.HostStatus, Reason: s.Status.HostStatusReason, Since: s.Status.HostStatusTransitionTime,
		Reporting: s.Status.HostReporting, Meaning: seen.meaning(), Window: s.Status.MaintenanceWindow, History: s.Status.HostHistory,
		hostID: s.Status.HostID,
	}
	r.FailOver, r.FailOverWhy = seen.failOver()
	r.texts.status, r.texts.window = seen.hostStatus(), seen.window(now)
	var counts Counts
	counts, r.texts.answer = seen.answered(s.Name+e.namespaceFlag, e.answer, e.answerErr, now)
	if a := e.answer; a != nil {
		r.Answer = &AnswerReport{a.Spec.Answer, a.Spec.NotBefore, a.Spec.WindowStartTime, counts}
	}
	if e.othersErr == nil {
		r.SameHost = sameHost(s, e.others)
	}
	if e.answerErr != nil {
		r.Hints = append(r.Hints, fmt.Sprintf("Your answer could not be read: %v", e.answerErr))
	}
	if e.othersErr != nil {
		r.Hints = append(r.Hints, fmt.Sprintf("Your other servers could not be read: %v", e.othersErr))
	}
	return r
}

// sameHost are the names of the other servers on the host of s.
func sameHost(s *tenantv1alpha1.Server, others []tenantv1alpha1.Server) []string {
	names := []string{}
	for i := range others {
		o := &others[i]
		if o.Name != s.Name && o.Namespace == s.Namespace && o.Status.HostID == s.Status.HostID && s.Status.HostID != "" {
			names = append(names, o.Name)
		}
	}
	return names
}

// render writes a report for people, in lines of at most width characters; 0 is any number.
func (r *Report) render(now time.Time, width int, colours bool) string {
	var out strings.Builder
	line := func(label, format string, args ...any) {
		out.WriteString(labelled(label, kubectlplugin.Clean(fmt.Sprintf(format, args...)), width))
	}
	line("Server", "%s/%s", r.Namespace, r.Server)
	line("ID", "%s", cmp.Or(r.ID, kubectlplugin.None))
	line("Status", "%s%s, power state %s, as last reported", cmp.Or(string(r.State), kubectlplugin.None), inBrackets(r.TaskState), cmp.Or(string(r.PowerState), kubectlplugin.None))
	line("Networks", "%s", cmp.Or(networks(r.Networks), kubectlplugin.None))
	status := kubectlplugin.StatusCell(r.HostStatus)
	status.Text = kubectlplugin.Clean(r.texts.status)
	_, _ = fmt.Fprintf(&out, "%-15s%s%s\n", "Host status:", kubectlplugin.Paint(status, colours), kubectlplugin.Clean(inBrackets(string(r.Reason))))
	if !r.Since.IsZero() {
		line("Since", "%s", when(r.Since, now))
	}
	line("Meaning", "%s", r.Meaning)
	line("Fail over?", "%s", r.FailOverWhy)
	line("Maintenance", "%s", r.texts.window)
	line("Your answer", "%s", r.texts.answer)
	line("Same host", "%s", r.neighbours())
	for i := range r.History {
		label := "History"
		if i > 0 {
			label = ""
		}
		line(label, "%s", r.change(i, now))
	}
	for _, hint := range r.Hints {
		line("Hint", "%s", hint)
	}
	return out.String()
}

// change is one change of the host status, and how long it lasted.
func (r *Report) change(i int, now time.Time) string {
	c := &r.History[i]
	text := kubectlplugin.ShowStatus(c.HostStatus) + inBrackets(string(c.Reason))
	if c.Since == nil {
		return text
	}
	if i == 0 || r.History[i-1].Since == nil {
		return text + " since " + when(c.Since, now)
	}
	return fmt.Sprintf("%s from %s, for %s", text, kubectlplugin.Stamp(c.Since.Time), kubectlplugin.Human(r.History[i-1].Since.Sub(c.Since.Time)))
}

func (r *Report) neighbours() string {
	switch {
	case r.hostID == "":
		return "the server is on no host"
	case r.SameHost == nil:
		return "could not be read"
	case len(r.SameHost) == 0:
		return "none of your other servers in this namespace"
	default:
		return strings.Join(r.SameHost, ", ")
	}
}

func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// networks are written as Nova's client does: net=10.0.0.4, 10.0.0.5; other=….
func networks(networks []v1alpha1.ServerNetwork) string {
	parts := make([]string, len(networks))
	for i, n := range networks {
		parts[i] = n.Name + "=" + strings.Join(n.Addresses, ", ")
	}
	return strings.Join(parts, "; ")
}
