// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// announced is a host with a window that owners have answered to.
func announced(w v1alpha1.MaintenanceWindow, opensAt *metav1.Time, servers, ready, putOff int32) *v1alpha1.ComputeService {
	s := service("NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, "True")
	s.Spec.MaintenanceWindow = &w
	s.Status.Maintenance = &v1alpha1.MaintenanceStatus{StartTime: w.StartTime, OpensAt: opensAt, Servers: &servers, Ready: &ready, PutOff: &putOff}
	s.Status.Conditions[0].Reason = string(v1alpha1.ReasonReporting)
	return s
}

// serverOn is a server whose host has a window that starts at start.
func serverOn(host, namespace, name string, start *metav1.Time, answer v1alpha1.AnswerState) v1alpha1.Server {
	status := v1alpha1.HostStatusNeedsMaintenance
	s := v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name)}, Spec: v1alpha1.ServerSpec{Host: host}}
	s.Status = v1alpha1.ServerStatus{State: "ACTIVE", PowerState: "RUNNING", HostFields: v1alpha1.HostFields{
		HostStatus: &status, MaintenanceWindow: &v1alpha1.AnnouncedWindow{StartTime: start, Answer: answer},
	}}
	return s
}

func notBefore(namespace, name string, window, at *metav1.Time) ownerv1alpha1.MaintenanceAnswer {
	a := ownerv1alpha1.MaintenanceAnswer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	a.Spec = ownerv1alpha1.MaintenanceAnswerSpec{Answer: ownerv1alpha1.AnswerNotBefore, NotBefore: at, WindowStartTime: window}
	return a
}

// maintained is a host with a window that owners have put off, and one without.
func maintained() *session {
	start := later(2 * time.Hour)
	window := v1alpha1.MaintenanceWindow{
		StartTime: start, LatestStartTime: later(8 * time.Hour), EndTime: later(12 * time.Hour),
		Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot, Reason: ptr.To("new memory"),
	}
	s := newSession(
		called("compute-3", announced(window, later(6*time.Hour), 5, 2, 1)),
		called("compute-4", service("UP", v1alpha1.ReasonReporting, "True")),
	)
	s.servers = []v1alpha1.Server{
		serverOn("compute-3", "team-a", "web-1", start, v1alpha1.AnswerStateReady),
		serverOn("compute-3", "team-a", "web-2", start, v1alpha1.AnswerStateNotBefore),
		serverOn("compute-3", "team-a", "web-10", start, v1alpha1.AnswerStateNone),
		serverOn("compute-3", "team-b", "api-1", start, v1alpha1.AnswerStateReady),
		serverOn("compute-3", "team-b", "api-2", start, v1alpha1.AnswerStateStale),
	}
	s.answers = []ownerv1alpha1.MaintenanceAnswer{notBefore("team-a", "web-2", start, later(6*time.Hour))}
	return s
}

func TestShowCountsAnswersByTenant(t *testing.T) {
	s := maintained()
	s.run(t, "show", "compute-3")
	s.run(t, "show", "compute-3", "-o", "wide")
	s.run(t, "show", "compute-3", "-o", "yaml")
	s.run(t, "list", "-o", "wide")
	s.answers = nil // The right to read them is missing.
	s.run(t, "show", "compute-3")
	s.golden(t)
}

func TestAnAnswerToAnotherWindowIsNotShown(t *testing.T) {
	start, other := later(2*time.Hour), later(3*time.Hour)
	host := announced(v1alpha1.MaintenanceWindow{StartTime: start}, start, 2, 0, 0)
	e := evidence{
		service: host,
		servers: []v1alpha1.Server{
			serverOn("compute-1", "team-a", "a", other, v1alpha1.AnswerStateReady),     // The copy is behind.
			serverOn("compute-1", "team-a", "b", start, v1alpha1.AnswerStateNotBefore), // The answer is newer.
		},
		answers: []ownerv1alpha1.MaintenanceAnswer{notBefore("team-a", "b", other, later(5*time.Hour))},
	}
	if diff := cmp.Diff(&AnswersReport{PutOff: 1, Unknown: 1}, newReport(e, now).Tenants[0].Answers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	host.Spec.MaintenanceWindow = nil
	if got := newReport(e, now).Tenants[0].Answers; got != nil {
		t.Errorf("without a window there are answers: %+v", got)
	}
}

func TestWhyAWindowOpensWhenItDoes(t *testing.T) {
	start := later(2 * time.Hour)
	for name, c := range map[string]struct {
		window         v1alpha1.MaintenanceWindow
		opensAt        *metav1.Time
		ready, putOff  int32
		because, label string
	}{
		"nobody has answered": {v1alpha1.MaintenanceWindow{StartTime: start, LatestStartTime: later(8 * time.Hour)}, start, 0, 0, "as announced", "Opens at"},
		"put off":             {v1alpha1.MaintenanceWindow{StartTime: start, LatestStartTime: later(8 * time.Hour)}, later(6 * time.Hour), 1, 1, "put off by the owner of 1 server, which is possible until 2026-10-01T20:00:00Z", "Opens at"},
		"put off to the end":  {v1alpha1.MaintenanceWindow{StartTime: start, LatestStartTime: later(8 * time.Hour)}, later(8 * time.Hour), 0, 2, "put off by the owners of 2 servers, as far as possible", "Opens at"},
		"in vain":             {v1alpha1.MaintenanceWindow{StartTime: start}, start, 0, 2, "as announced; owners cannot put it off", "Opens at"},
		"some are ready":      {v1alpha1.MaintenanceWindow{StartTime: start, OpenWhenReady: ptr.To(true)}, start, 1, 0, "as announced, or as soon as the owners of all servers are ready (1 of 2)", "Opens at"},
		"all are ready":       {v1alpha1.MaintenanceWindow{StartTime: start, OpenWhenReady: ptr.To(true)}, later(-time.Minute), 2, 0, "the owners of all servers were ready", "Opened at"},
	} {
		t.Run(name, func(t *testing.T) {
			s := announced(c.window, c.opensAt, 2, c.ready, c.putOff)
			r := newReport(evidence{service: s}, now).Window
			if !r.OpensAt.Equal(c.opensAt) || r.OpensBecause != c.because || opens(r) != c.label {
				t.Errorf("%s %s: %q, want %s %s: %q", opens(r), r.OpensAt, r.OpensBecause, c.label, c.opensAt, c.because)
			}
		})
	}
	// Of another window.
	s := announced(v1alpha1.MaintenanceWindow{StartTime: start}, start, 2, 2, 0)
	s.Spec.MaintenanceWindow.StartTime = later(3 * time.Hour)
	if r := newReport(evidence{service: s}, now); r.Window.OpensAt != nil || !strings.Contains(r.Why, "2026-10-01T15:00:00Z") {
		t.Errorf("it opens at %s: %s", r.Window.OpensAt, r.Why)
	}
}
