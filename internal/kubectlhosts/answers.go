// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// AnswersReport counts what the owners of servers have answered to a maintenance window.
type AnswersReport struct {
	Ready  int `json:"ready"`
	PutOff int `json:"putOff"`
	// PutOffUntil is the latest time for which one of them asks. It is absent if none does,
	// and if it could not be read.
	PutOffUntil *metav1.Time `json:"putOffUntil,omitempty"`
	None        int          `json:"none"`
	// Stale is how many answers count for nothing: they are to another window, or for an
	// earlier server of the name.
	Stale int `json:"stale"`
	// Unknown is for how many servers that is not known yet.
	Unknown int `json:"unknown,omitempty"`
}

// add counts the answer for a server.
func (a *AnswersReport) add(s *ServerReport) {
	switch s.Answer {
	case v1alpha1.AnswerStateReady:
		a.Ready++
	case v1alpha1.AnswerStateNotBefore:
		a.PutOff++
		if s.NotBefore != nil && (a.PutOffUntil == nil || a.PutOffUntil.Before(s.NotBefore)) {
			a.PutOffUntil = s.NotBefore
		}
	case v1alpha1.AnswerStateNone:
		a.None++
	case v1alpha1.AnswerStateStale:
		a.Stale++
	default:
		a.Unknown++
	}
}

// addAnswers adds to a report what owners have answered, as their servers show it.
func addAnswers(r *Report, e evidence) {
	if r.Window == nil || r.Window.Phase == phaseClosed {
		return
	}
	asked := map[string]*ownerv1alpha1.MaintenanceAnswer{}
	for i := range e.answers {
		asked[e.answers[i].Namespace+"/"+e.answers[i].Name] = &e.answers[i]
	}
	shown := map[string]*v1alpha1.Server{}
	for i := range e.servers {
		shown[e.servers[i].Namespace+"/"+e.servers[i].Name] = &e.servers[i]
	}
	for i := range r.Tenants {
		tenant := &r.Tenants[i]
		tenant.Answers = &AnswersReport{}
		for j := range tenant.Servers {
			s := &tenant.Servers[j]
			key := tenant.Namespace + "/" + s.Name
			server, answer := shown[key], asked[key]
			if w := server.Status.MaintenanceWindow; w != nil && hoststatus.SameSecond(w.StartTime, r.Window.StartTime) {
				s.Answer = w.Answer
			}
			if s.Answer == v1alpha1.AnswerStateNotBefore && hoststatus.StateOf(r.Window.StartTime, server, answer) == v1alpha1.AnswerStateNotBefore {
				s.NotBefore = answer.Spec.NotBefore
			}
			tenant.Answers.add(s)
		}
	}
}

// answersThatPutOff returns the answers of the tenants who have put off the opening of the
// window for one of the servers: the servers show that, but not until when.
func (c *cluster) answersThatPutOff(ctx context.Context, servers []v1alpha1.Server) (answers []ownerv1alpha1.MaintenanceAnswer, err error) {
	listed := map[string]bool{}
	for i := range servers {
		w, namespace := servers[i].Status.MaintenanceWindow, servers[i].Namespace
		if w == nil || w.Answer != v1alpha1.AnswerStateNotBefore || listed[namespace] {
			continue
		}
		listed[namespace] = true
		err := kubectlplugin.EachPage(ctx, c, &ownerv1alpha1.MaintenanceAnswerList{}, func(page *ownerv1alpha1.MaintenanceAnswerList) {
			answers = append(answers, page.Items...)
		}, client.InNamespace(namespace))
		if err != nil {
			return answers, c.explain(err, "list", "maintenanceanswers", namespace)
		}
	}
	return answers, nil
}

// opensBecause explains why a window opens when it does.
func opensBecause(w *v1alpha1.MaintenanceWindow, m *v1alpha1.MaintenanceStatus) string {
	latest := w.LatestStartTime
	switch {
	case m.OpensAt.Before(m.StartTime):
		return "the owners of all servers were ready"
	case m.StartTime.Before(m.OpensAt) && latest != nil && m.OpensAt.Before(latest):
		return fmt.Sprintf("put off by %s, which is possible until %s", owners(m.PutOff), kubectlplugin.Stamp(latest.Time))
	case m.StartTime.Before(m.OpensAt):
		return fmt.Sprintf("put off by %s, as far as possible", owners(m.PutOff))
	case number(m.PutOff) > 0 && latest == nil:
		return "as announced; owners cannot put it off"
	case isTrue(w.OpenWhenReady):
		return fmt.Sprintf("as announced, or as soon as the owners of all servers are ready (%d of %d)", number(m.Ready), number(m.Servers))
	default:
		return "as announced"
	}
}

// owners are those of so many servers.
func owners(servers *int32) string {
	if number(servers) == 1 {
		return "the owner of 1 server"
	}
	return fmt.Sprintf("the owners of %d servers", number(servers))
}

// opens is the label of the time at which a window opens.
func opens(w *WindowReport) string {
	if w.Phase == phaseOpen {
		return "Opened at"
	}
	return "Opens at"
}

// answersTable has a row for each tenant that can answer.
func (p *plugin) answersTable(r *Report) *kubectlplugin.Table {
	t := p.NewTable("TENANT", "READY", "PUT OFF", "UNTIL", "NONE", "STALE")
	t.Indent = "  "
	t.Shorten("TENANT", kubectlplugin.Middle)
	for _, tenant := range r.Tenants {
		a := tenant.Answers
		if a == nil {
			continue
		}
		until := kubectlplugin.None
		if a.PutOffUntil != nil {
			until = kubectlplugin.Stamp(a.PutOffUntil.Time)
		}
		t.Rows = append(t.Rows, []kubectlplugin.Cell{
			kubectlplugin.Plain(tenant.Namespace), kubectlplugin.Plain(strconv.Itoa(a.Ready)), kubectlplugin.Plain(strconv.Itoa(a.PutOff)), kubectlplugin.Plain(until), kubectlplugin.Plain(strconv.Itoa(a.None)), kubectlplugin.Plain(strconv.Itoa(a.Stale)),
		})
	}
	return t
}

// countAnswers sums up what all tenants shown have answered.
func countAnswers(r *Report) string {
	var all AnswersReport
	servers := 0
	for _, tenant := range r.Tenants {
		a := tenant.Answers
		all.Ready, all.PutOff, all.None, all.Stale, all.Unknown = all.Ready+a.Ready, all.PutOff+a.PutOff, all.None+a.None, all.Stale+a.Stale, all.Unknown+a.Unknown
		servers += len(tenant.Servers)
	}
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{all.Ready, "ready"}, {all.PutOff, "put off"}, {all.None, "not answered"}, {all.Stale, "stale"}, {all.Unknown, "not known yet"}} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	return fmt.Sprintf("of %s: %s", kubectlplugin.Counted(servers, "server"), strings.Join(parts, ", "))
}

// showAnswer is the answer for a server.
func showAnswer(s ServerReport) string {
	if s.NotBefore != nil {
		return fmt.Sprintf("%s %s", s.Answer, kubectlplugin.Stamp(s.NotBefore.Time))
	}
	return cmp.Or(string(s.Answer), kubectlplugin.None)
}
