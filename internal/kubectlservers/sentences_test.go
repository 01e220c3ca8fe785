// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"strings"
	"testing"
	"time"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

func TestEachStatusMeansSomethingToItsOwner(t *testing.T) {
	for name, c := range map[string]struct {
		server   *tenantv1alpha1.Server
		grant    Grant
		status   string
		meaning  string
		failOver FailOver
	}{
		"up":                  {server("web-1", "UP", v1alpha1.ReasonReporting), GrantAll, "UP", "The host reports", FailOverNotNeeded},
		"down":                {server("web-1", "DOWN", v1alpha1.ReasonForcedDown, silent), GrantAll, "DOWN", "The host is off: a person or a fencing tool asserts it.", FailOverYes},
		"silent":              {server("web-1", "UNKNOWN", v1alpha1.ReasonLeaseExpired, silent), GrantAll, "UNKNOWN", "only cut off with your server still running", FailOverNo},
		"never seen":          {server("web-1", "UNKNOWN", v1alpha1.ReasonNeverReported, silent), GrantAll, "UNKNOWN", "has never reported", FailOverNo},
		"not readable":        {server("web-1", "UNKNOWN", v1alpha1.ReasonLeaseNotReadable), GrantAll, "UNKNOWN", "does not read what the host reports", FailOverNo},
		"disabled":            {server("web-1", "MAINTENANCE", v1alpha1.ReasonDisabled), GrantAll, "MAINTENANCE", "out of service on purpose. Your server may run", FailOverNotNeeded},
		"disabled and silent": {server("web-1", "MAINTENANCE", v1alpha1.ReasonDisabled, silent), GrantAll, "MAINTENANCE", "does not report either", FailOverNo},
		"open window":         {server("web-1", "MAINTENANCE", v1alpha1.ReasonWindowOpen, announced()), GrantAll, "MAINTENANCE", "its window is open", FailOverNotNeeded},
		"announced":           {server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced()), GrantAll, "NEEDS_MAINTENANCE", "maintenance is announced for it", FailOverNotNeeded},
		"on no host":          {server("web-1", "", v1alpha1.ReasonNoHost), GrantAll, "no host", "not placed yet, or shelved", FailOverNo},
		"on an unknown host":  {server("web-1", "", v1alpha1.ReasonHostNotFound), GrantAll, "no host", "that hoststatus does not know", FailOverNo},
		"a new host": {server("web-1", "", "", func(s *tenantv1alpha1.Server) {
			hidden(s)
			s.Status.HostStatusReason = v1alpha1.ReasonWaitingForHeartbeat
		}), GrantAll, "not known yet", "its first report may still come", FailOverNo},
		"nobody has looked":       {server("web-1", "", "", hidden), GrantAll, "not known yet", "There is no host status yet", FailOverNo},
		"of a later release":      {server("web-1", "PAUSED", "Paused"), GrantAll, "PAUSED", "does not know the value", FailOverNo},
		"not granted":             {server("web-1", "", "", hidden), GrantNone, "not shown", "You lack the right to get servers.tenant.hoststatus.dev/status in namespace team-a; ask for the ClusterRole hoststatus-host-status-viewer.", FailOverCannotTell},
		"granted while unknown":   {server("web-1", "", "", hidden), GrantWhileUnknown, "not shown", "You may see host status only while it is UNKNOWN, which it is not; to see more, ask for the ClusterRole hoststatus-host-status-viewer in namespace team-a.", FailOverCannotTell},
		"unknown, and granted so": {server("web-1", "UNKNOWN", v1alpha1.ReasonLeaseExpired, silent), GrantWhileUnknown, "UNKNOWN", "The host does not report.", FailOverNo},
		"rights not known":        {server("web-1", "", "", hidden), GrantNotKnown, "not shown", "either there is none yet, or you lack the right", FailOverCannotTell},
		"shown, rights not known": {server("web-1", "DOWN", v1alpha1.ReasonForcedDown), GrantNotKnown, "DOWN", "The host is off", FailOverYes},
	} {
		t.Run(name, func(t *testing.T) {
			s := sightOf(c.server, c.grant)
			if got := s.hostStatus(); got != c.status {
				t.Errorf("the status is %q, want %q", got, c.status)
			}
			if got := s.meaning(); !strings.Contains(got, c.meaning) || !strings.HasSuffix(got, ".") {
				t.Errorf("it means %q, want %q", got, c.meaning)
			}
			failOver, why := s.failOver()
			if failOver != c.failOver {
				t.Errorf("failing over: %s (%s), want %s", failOver, why, c.failOver)
			}
			if (failOver == FailOverYes) != strings.HasPrefix(why, "Yes:") || !strings.HasSuffix(why, ".") {
				t.Errorf("%s is explained by %q", failOver, why)
			}
		})
	}
}

// Whatever is added to the table of host statuses, the plugin agrees with it.
func TestFailingOverIsSafeWhereTheTableHasIt(t *testing.T) {
	for row := range hoststatus.Rows() {
		for _, grant := range []Grant{GrantAll, GrantWhileUnknown, GrantNone, GrantNotKnown} {
			s := server("web-1", "", "", hidden)
			s.Status.HostStatus = row.Status
			failOver, why := sightOf(s, grant).failOver()
			if (failOver == FailOverYes) != row.FailOver {
				t.Errorf("%s, granted %s: %s, %s", row.Label(), grant, failOver, why)
			}
			if meaning := sightOf(s, grant).meaning(); meaning == "" {
				t.Errorf("%s, granted %s, means nothing", row.Label(), grant)
			}
		}
	}
}

func TestWindowsAndAnswersInSentences(t *testing.T) {
	const notBefore = 4 * time.Hour
	put := func(change func(*v1alpha1.AnnouncedWindow)) *tenantv1alpha1.Server {
		return server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced(change))
	}
	none := func(*v1alpha1.AnnouncedWindow) {}
	opens := "Opens 2026-10-01T14:00:00Z (16:00 CEST, in 120m)."
	for name, c := range map[string]struct {
		server   *tenantv1alpha1.Server
		grant    Grant
		ready    bool
		later    time.Duration
		window   string
		answered string
		counts   Counts
	}{
		"announced": {
			put(none), GrantAll, false, 0,
			opens + " Ends 2026-10-02T18:00:00Z (Fri 2 Oct 20:00 CEST, in 30h). Owners can put it off until 2026-10-02T14:00:00Z (Fri 2 Oct 16:00 CEST, in 26h). The hardware is worked on. At the worst, your server is shut down and started again.",
			"None, which counts as agreement to 2026-10-01T14:00:00Z. Answer with 'kubectl servers ready web-1', or with 'kubectl servers not-before web-1 TIME'.", "",
		},
		"nothing more is known": {
			put(func(w *v1alpha1.AnnouncedWindow) { *w = v1alpha1.AnnouncedWindow{} }), GrantAll, false, 0,
			"Planned, for a time that is not known yet.", "None. You can answer once the time is known.", "",
		},
		"without an end, and not to be put off": {
			put(func(w *v1alpha1.AnnouncedWindow) { *w = v1alpha1.AnnouncedWindow{StartTime: w.StartTime} }), GrantAll, false, 0,
			opens + " No end is planned. Owners cannot put it off.", "None, which counts as agreement to 2026-10-01T14:00:00Z. 'kubectl servers ready web-1' answers.", "",
		},
		"put off by answers": {
			put(func(w *v1alpha1.AnnouncedWindow) { w.OpensAt = at(3 * time.Hour) }), GrantAll, false, 0,
			"Opens 2026-10-01T15:00:00Z (17:00 CEST, in 3h). It was announced for 2026-10-01T14:00:00Z (16:00 CEST, in 120m), and the owners' answers moved it.", "None", "",
		},
		"open": {
			server("web-1", "MAINTENANCE", v1alpha1.ReasonWindowOpen, announced(func(w *v1alpha1.AnnouncedWindow) { w.OpensAt, w.StartTime = at(-time.Hour), at(-time.Hour) })), GrantAll, false, 0,
			"Open since 2026-10-01T11:00:00Z (13:00 CEST, 60m ago).", "None, and the window is open: an answer changes nothing any more.", "",
		},
		"ready":      {put(state(v1alpha1.AnswerStateReady)), GrantAll, true, 0, opens, "Ready for the window of 2026-10-01T14:00:00Z. It counts.", CountsYes},
		"not before": {put(state(v1alpha1.AnswerStateNotBefore)), GrantAll, false, notBefore, opens, "Not before 2026-10-01T16:00:00Z (18:00 CEST, in 4h) for the window of 2026-10-01T14:00:00Z. It counts.", CountsYes},
		"later than can be": {
			put(state(v1alpha1.AnswerStateNotBefore)), GrantAll, false, 48 * time.Hour, opens, "It counts, up to 2026-10-02T14:00:00Z (Fri 2 Oct 16:00 CEST, in 26h).", CountsYes,
		},
		"cannot be put off": {
			put(func(w *v1alpha1.AnnouncedWindow) {
				w.LatestStartTime, w.Answer = nil, v1alpha1.AnswerStateNotBefore
			}), GrantAll, false, notBefore, opens, "It counts, and changes nothing: owners cannot put this window off.", CountsYes,
		},
		"to another window": {put(state(v1alpha1.AnswerStateStale)), GrantAll, true, 0, opens, "It counts for nothing: it is for another window, or for an earlier server of this name. Answer again.", CountsNo},
		"to an earlier window, and the time is not known": {
			put(func(w *v1alpha1.AnnouncedWindow) { *w = v1alpha1.AnnouncedWindow{Answer: v1alpha1.AnswerStateStale} }), GrantAll, true, 0, "Planned, for a time that is not known yet.",
			"It counts for nothing: it is for another window, or for an earlier server of this name. Answer again once the time is known.", CountsNo,
		},
		"to another window, and this one is open": {
			server("web-1", "MAINTENANCE", v1alpha1.ReasonWindowOpen, announced(state(v1alpha1.AnswerStateStale))), GrantAll, true, 0, "Open since",
			"It counts for nothing: it is for another window, or for an earlier server of this name. The window is open, so answers change nothing any more.", CountsNo,
		},
		"withdrawn a moment ago":    {put(state(v1alpha1.AnswerStateReady)), GrantAll, false, 0, opens, "None, which counts as agreement to 2026-10-01T14:00:00Z.", ""},
		"not looked at yet":         {put(state(v1alpha1.AnswerStateNone)), GrantAll, true, 0, opens, "It is not known yet whether it counts.", CountsNotKnown},
		"no window":                 {server("web-1", "UP", v1alpha1.ReasonReporting), GrantAll, true, 0, "none is announced", "There is no window now, so it counts for nothing.", CountsNo},
		"no window and no answer":   {server("web-1", "UP", v1alpha1.ReasonReporting), GrantAll, false, 0, "none is announced", "none", ""},
		"not granted":               {server("web-1", "", "", hidden), GrantNone, true, 0, "not shown", "Whether it counts is not shown to you.", CountsNotKnown},
		"not granted and no answer": {server("web-1", "", "", hidden), GrantNone, false, 0, "not shown", "none", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := sightOf(c.server, c.grant)
			if got := s.window(now); !strings.HasPrefix(got, c.window) {
				t.Errorf("the window is %q, want %q", got, c.window)
			}
			given := answerOf("web-1", "Ready", nil)
			switch {
			case c.later > 0:
				given = answerOf("web-1", "NotBefore", at(c.later))
			case !c.ready:
				given = nil
			}
			counts, got := s.answered("web-1", given, nil, now)
			if !strings.Contains(got, c.answered) || counts != c.counts {
				t.Errorf("the answer is %q (%s), want %q (%s)", got, counts, c.answered, c.counts)
			}
		})
	}
}
