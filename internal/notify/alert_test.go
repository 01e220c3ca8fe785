// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestAnAlertSaysWhatAnOnCallEngineerNeeds(t *testing.T) {
	l := newAlertLedger("https://console.example.com/{namespace}/servers/{server}", 4*time.Minute)
	s := said(plainRoute, "web-1", "7", v1alpha1.HostStatusDown, "")
	s.host.HostStatusReason, s.host.HostReporting = v1alpha1.ReasonForcedDown, v1alpha1.HostReportingFalse
	s.host.HostStatusTransitionTime = ptr.To(metav1.NewTime(start.Add(-time.Minute)))
	got := l.compose(keyed("web-1"), s, start)
	want := []Alert{{
		Labels: map[string]string{
			"alertname": "ServerHostStatus", "namespace": "team-a", "server": "web-1", "host_status": "DOWN", "severity": "critical", "route": "r",
		},
		Annotations: map[string]string{
			"summary":     "The host of server web-1 in namespace team-a is DOWN",
			"description": "DOWN: an operator or a fencing tool asserts that the host is off. It is the only value on which failing over is safe.",
			"reason":      "ForcedDown", "host_reporting": "False",
		},
		StartsAt: start.Add(-time.Minute), EndsAt: start.Add(4 * time.Minute),
		GeneratorURL: "https://console.example.com/team-a/servers/web-1",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	group := said(plainRoute, "", "7", v1alpha1.HostStatusMaintenance, "")
	group.hostID, group.servers, group.count = "abc", []string{"web-1", "web-2"}, 7
	group.host.MaintenanceWindow = &v1alpha1.AnnouncedWindow{StartTime: ptr.To(metav1.NewTime(start)), EndTime: ptr.To(metav1.NewTime(start.Add(time.Hour)))}
	a := l.compose(slotKey{"r", "team-a#abc"}, group, start)[0]
	if diff := cmp.Diff(map[string]string{
		"alertname": "ServerHostStatus", "namespace": "team-a", "host_id": "abc", "host_status": "MAINTENANCE", "severity": "info", "route": "r",
	}, a.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if a.Annotations["summary"] != "The host of 7 servers in namespace team-a is MAINTENANCE" || a.Annotations["servers"] != "web-1, web-2 and 5 more" ||
		a.Annotations["window_opens_at"] != "2026-05-04T03:00:00Z" || a.Annotations["window_ends_at"] != "2026-05-04T04:00:00Z" {
		t.Errorf("annotations: %v", a.Annotations)
	}
}

func TestTheSeverityOfAnAlertFollowsTheHostStatusUnlessTheRouteSaysOtherwise(t *testing.T) {
	for status, want := range map[v1alpha1.HostStatus]string{"DOWN": "critical", "UNKNOWN": "warning", "MAINTENANCE": "info", "NEEDS_MAINTENANCE": "info"} {
		if got := labelsOf(said(plainRoute, "a", "1", status, ""))[labelSeverity]; got != want {
			t.Errorf("%s: %s", status, got)
		}
	}
	if got := labelsOf(said(&route{name: "r", severity: "page"}, "a", "1", "UNKNOWN", ""))[labelSeverity]; got != "page" {
		t.Errorf("the route's: %s", got)
	}
}

// alertNames shows alerts, as "a DOWN" or "a DOWN resolved".
func alertNames(now time.Time, items []item[[]Alert]) (out []string) {
	for _, i := range items {
		for _, a := range i.payload {
			line := a.Labels[labelServer] + " " + a.Labels[labelHostStatus]
			if !a.EndsAt.After(now) {
				line += " resolved"
			}
			if !a.StartsAt.Before(a.EndsAt) {
				line += fmt.Sprintf(" from %v to %v", a.StartsAt, a.EndsAt)
			}
			out = append(out, line)
		}
	}
	return out
}

func TestWhatAnAlertmanagerIsTold(t *testing.T) {
	type act struct {
		to      v1alpha1.HostStatus
		end     end
		hide    bool
		repeat  bool
		adopt   v1alpha1.HostStatus
		outcome outcome
		want    []string
	}
	const up, down, unknown = v1alpha1.HostStatusUp, v1alpha1.HostStatusDown, v1alpha1.HostStatusUnknown
	for name, acts := range map[string][]act{
		"an alert, a repetition and its end": {
			{to: up}, {to: down, want: []string{"a DOWN"}}, {repeat: true, want: []string{"a DOWN"}}, {to: up, want: []string{"a DOWN resolved"}}, {repeat: true},
		},
		"another host status is another alert": {
			{to: unknown, want: []string{"a UNKNOWN"}}, {to: down, want: []string{"a DOWN", "a UNKNOWN resolved"}}, {to: up, want: []string{"a DOWN resolved"}},
		},
		"what may have arrived is resolved": {
			{to: unknown, outcome: failed, want: []string{"a UNKNOWN"}}, {to: down, outcome: failed, want: []string{"a DOWN", "a UNKNOWN resolved"}},
			{to: up, want: []string{"a DOWN resolved", "a UNKNOWN resolved"}},
		},
		"a resolution that may not have arrived is repeated": {
			{to: down, want: []string{"a DOWN"}}, {to: up, outcome: failed, want: []string{"a DOWN resolved"}}, {repeat: true, want: []string{"a DOWN resolved"}},
		},
		"a deleted server":               {{to: down, want: []string{"a DOWN"}}, {end: endDeleted, want: []string{"a DOWN resolved"}}},
		"a server that leaves the route": {{to: down, want: []string{"a DOWN"}}, {end: endLeft, want: []string{"a DOWN resolved"}}},
		"a server that has left UNKNOWN": {{to: unknown, want: []string{"a UNKNOWN"}}, {hide: true}, {end: endNoLongerUnknown, want: []string{"a UNKNOWN resolved"}}},
		"a right that goes resolves nothing, and repeats nothing": {
			{to: down, want: []string{"a DOWN"}}, {hide: true}, {repeat: true}, {to: up, want: []string{"a DOWN resolved"}},
		},
		"a right that comes back":                  {{to: down, want: []string{"a DOWN"}}, {hide: true}, {to: down}, {repeat: true, want: []string{"a DOWN"}}},
		"what it has at the start and still holds": {{adopt: down}, {to: down, want: []string{"a DOWN"}}, {repeat: true, want: []string{"a DOWN"}}},
		"what it has at the start and does not hold": {
			{to: up}, {adopt: down, want: []string{"a DOWN resolved"}}, {adopt: unknown, want: []string{"a UNKNOWN resolved"}},
		},
		"what it has at the start of a server that may not be seen": {{adopt: down}, {hide: true}, {repeat: true}},
	} {
		t.Run(name, func(t *testing.T) {
			c := testingclock.NewFakeClock(start)
			l := newAlertLedger("", 24*time.Hour)
			q := newQueue(ledger[[]Alert](l), c)
			for i, a := range acts {
				c.Step(time.Hour)
				switch {
				case a.hide:
					q.hide(keyed("a"))
				case a.repeat:
					q.repeat(func(_ slotKey, s *state) bool { return isAlert(s) })
				case a.adopt != "":
					if _, ok := l.adopt(labelsOf(said(plainRoute, "a", "1", a.adopt, "")), start, c.Now()); !ok {
						t.Fatal("it is not adopted")
					}
					q.review()
				default:
					q.want(keyed("a"), said(plainRoute, "a", fmt.Sprint(i), a.to, a.end))
				}
				items := q.take(9, func() {})
				if diff := cmp.Diff(a.want, alertNames(c.Now(), items)); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i+1, diff)
				}
				q.done(items, a.outcome, 0)
			}
		})
	}
}

func TestOnlyAlertsOfOursAreAdopted(t *testing.T) {
	ours := labelsOf(said(plainRoute, "a", "1", v1alpha1.HostStatusDown, ""))
	for name, change := range map[string]func(map[string]string){
		"another alert":           func(l map[string]string) { l[labelAlertName] = "Watchdog" },
		"no namespace":            func(l map[string]string) { delete(l, labelNamespace) },
		"neither server nor host": func(l map[string]string) { delete(l, labelServer) },
		"both":                    func(l map[string]string) { l[labelHostID] = "h" },
	} {
		labels := map[string]string{}
		for k, v := range ours {
			labels[k] = v
		}
		change(labels)
		if key, ok := subjectOf(labels); ok {
			t.Errorf("%s: %v", name, key)
		}
	}
	if key, ok := subjectOf(ours); !ok || key != keyed("a") {
		t.Errorf("ours: %v %v", key, ok)
	}
	if !strings.HasPrefix(fingerprint(ours), `"alertname"="ServerHostStatus",`) {
		t.Error(fingerprint(ours))
	}
}
