// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

func TestAnAnswerIsToTheWindowThatIsShownOrNamed(t *testing.T) {
	ready := wish{answer: ownerv1alpha1.AnswerReady}
	named := func(w wish, d time.Duration) wish {
		w.window = at(d)
		return w
	}
	later := func(d time.Duration) wish {
		return wish{answer: ownerv1alpha1.AnswerNotBefore, notBefore: at(d)}
	}
	shown := target{server: server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced()), grant: GrantAll}
	window := func(change func(*v1alpha1.AnnouncedWindow)) target {
		return target{server: server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced(change)), grant: GrantAll}
	}
	notGranted := target{server: server("web-1", "", "", hidden), grant: GrantNone}
	whileUnknown := target{server: server("web-1", "", "", hidden), grant: GrantWhileUnknown}
	for name, c := range map[string]struct {
		wish   wish
		target target
		// refused is part of the error, and else says what is printed.
		refused, says string
		warning       string
	}{
		"ready":                  {ready, shown, "", "ready for the window of 2026-10-01T14:00:00Z", ""},
		"ready, and named":       {named(ready, 2*time.Hour), shown, "", "ready for the window of 2026-10-01T14:00:00Z", ""},
		"named wrongly":          {named(ready, 3*time.Hour), shown, "--window: 2026-10-01T15:00:00Z is not its maintenance window, which starts at 2026-10-01T14:00:00Z", "", ""},
		"not before":             {later(4 * time.Hour), shown, "", "not before 2026-10-01T16:00:00Z (18:00 CEST, in 4h) for the window of 2026-10-01T14:00:00Z", ""},
		"later than can be":      {later(48 * time.Hour), shown, "", "not before", "this window can be put off until 2026-10-02T14:00:00Z (Fri 2 Oct 16:00 CEST, in 26h) and no longer, so it opens then, before the time that you ask for"},
		"as late as can be":      {later(26 * time.Hour), shown, "", "not before", ""},
		"earlier than announced": {later(time.Hour), shown, "", "not before", "2026-10-01T13:00:00Z is not later than the start of the window, 2026-10-01T14:00:00Z, so it puts nothing off"},
		"cannot be put off": {
			later(4 * time.Hour), window(func(w *v1alpha1.AnnouncedWindow) { w.LatestStartTime = nil }), "", "not before",
			"owners cannot put this window off, so it opens 2026-10-01T14:00:00Z (16:00 CEST, in 120m) all the same",
		},
		"ready for one that cannot be put off": {ready, window(func(w *v1alpha1.AnnouncedWindow) { w.LatestStartTime = nil }), "", "ready", ""},
		"open already": {
			ready, window(func(w *v1alpha1.AnnouncedWindow) { w.StartTime, w.OpensAt = at(-time.Hour), at(-time.Hour) }), "", "ready",
			"its maintenance window is open, so answers change nothing any more",
		},
		"the time is not known":     {ready, window(func(w *v1alpha1.AnnouncedWindow) { *w = v1alpha1.AnnouncedWindow{} }), "web-1: the time of its maintenance window is not known yet; answer once 'kubectl servers show web-1' shows it", "", ""},
		"no window":                 {ready, target{server: server("web-1", "UP", v1alpha1.ReasonReporting), grant: GrantAll}, "web-1: there is no maintenance window to answer to; nothing is announced for its host", "", ""},
		"no window, but named":      {named(ready, 2*time.Hour), target{server: server("web-1", "UP", v1alpha1.ReasonReporting), grant: GrantAll}, "", "ready", "no maintenance window is announced at present"},
		"not granted":               {ready, notGranted, "web-1: its maintenance window is not shown: you lack the right to get servers.tenant.hoststatus.dev/status in namespace team-a; ask for the ClusterRole hoststatus-host-status-viewer. Or give the start of the window, as the platform team has announced it, with --window", "", ""},
		"not granted, but named":    {named(ready, 2*time.Hour), notGranted, "", "ready for the window of 2026-10-01T14:00:00Z", ""},
		"granted while unknown":     {ready, whileUnknown, "you may see host status only while it is UNKNOWN", "", ""},
		"nothing may be read":       {ready, target{}, "web-1: its maintenance window is not known, because you lack the right to get servers.tenant.hoststatus.dev in namespace team-a (ClusterRole hoststatus-server-viewer); give the start of the window", "", ""},
		"nothing read, but named":   {named(ready, 2*time.Hour), target{}, "", "ready", "the server could not be read, so it is not known whether it exists"},
		"named and not later":       {named(later(time.Hour), 2*time.Hour), notGranted, "", "not before", "is not later than the start of the window"},
		"what is shown is granted":  {ready, target{server: shown.server, grant: GrantNotKnown}, "", "ready", ""},
		"a window without a status": {ready, target{server: server("web-1", "", "", hidden), grant: GrantNotKnown}, "no host status is shown; either there is none yet, or you lack", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.target.namespace, c.target.name = "team-a", "web-1"
			p, err := decide(c.wish, c.target, now)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) || kubectlplugin.CodeOf(err) != ExitUsage {
					t.Errorf("it is refused by %v (%d), want %q", err, kubectlplugin.CodeOf(err), c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !p.needed || !strings.HasPrefix(p.says, c.says) {
				t.Errorf("it says %q (needed: %t), want %q", p.says, p.needed, c.says)
			}
			if warnings := strings.Join(p.warnings, "\n"); (warnings == "") != (c.warning == "") || !strings.Contains(warnings, c.warning) {
				t.Errorf("it warns %q, want %q", warnings, c.warning)
			}
			if uid := p.object.Spec.ServerUID; (uid != "") != (c.target.server != nil) {
				t.Errorf("the answer is for the server %q", uid)
			}
		})
	}
}

func TestAnAnswerThatIsThereIsNotWrittenAgain(t *testing.T) {
	s := server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced())
	given := func(change func(*ownerv1alpha1.MaintenanceAnswer)) *ownerv1alpha1.MaintenanceAnswer {
		a := answerOf("web-1", ownerv1alpha1.AnswerNotBefore, at(4*time.Hour))
		a.Spec.ServerUID = string(s.UID)
		change(a)
		return a
	}
	for name, c := range map[string]struct {
		present *ownerv1alpha1.MaintenanceAnswer
		needed  bool
	}{
		"the same": {given(func(*ownerv1alpha1.MaintenanceAnswer) {}), false},
		"with another wall time": {given(func(a *ownerv1alpha1.MaintenanceAnswer) {
			a.Spec.NotBefore = &metav1.Time{Time: now.Add(4 * time.Hour)}
		}), false},
		"none": {nil, true},
		"another answer": {given(func(a *ownerv1alpha1.MaintenanceAnswer) {
			a.Spec.Answer, a.Spec.NotBefore = ownerv1alpha1.AnswerReady, nil
		}), true},
		"another time":      {given(func(a *ownerv1alpha1.MaintenanceAnswer) { a.Spec.NotBefore = at(5 * time.Hour) }), true},
		"to another window": {given(func(a *ownerv1alpha1.MaintenanceAnswer) { a.Spec.WindowStartTime = at(time.Hour) }), true},
		"for any server":    {given(func(a *ownerv1alpha1.MaintenanceAnswer) { a.Spec.ServerUID = "" }), true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := decide(wish{answer: ownerv1alpha1.AnswerNotBefore, notBefore: at(4 * time.Hour)},
				target{namespace: "team-a", name: "web-1", server: s, grant: GrantAll, present: c.present}, now)
			if err != nil {
				t.Fatal(err)
			}
			if p.needed != c.needed {
				t.Errorf("it is written: %t", p.needed)
			}
			if c.present != nil && (p.object.ResourceVersion != c.present.ResourceVersion || p.object == c.present) {
				t.Error("it is not an update of the present one")
			}
		})
	}
}

func TestServersOfTheSameHostAreFoundByItsID(t *testing.T) {
	other := func(name, namespace, host string) tenantv1alpha1.Server {
		s := server(name, "UP", v1alpha1.ReasonReporting)
		s.Namespace, s.Status.HostID = namespace, host
		return *s
	}
	others := []tenantv1alpha1.Server{
		other("web-1", "team-a", "h1"), other("web-2", "team-a", "h1"), other("web-3", "team-a", "h2"), other("web-4", "team-b", "h1"), other("web-5", "team-a", ""),
	}
	for host, want := range map[string]string{"h1": "web-2", "h2": "web-3", "": "", "h3": ""} {
		s := other("web-1", "team-a", host)
		if got := strings.Join(sameHost(&s, others), " "); got != want {
			t.Errorf("on the host %q are %q, want %q", host, got, want)
		}
	}
}
