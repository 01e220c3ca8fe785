// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestEachChangeIsOneLine(t *testing.T) {
	up := server("web-1", "UP", v1alpha1.ReasonReporting)
	for name, c := range map[string]struct {
		before, after *tenantv1alpha1.Server
		want          []string
	}{
		"nothing": {up, server("web-1", "UP", v1alpha1.ReasonReporting), nil},
		"silent": {up, server("web-1", "UNKNOWN", v1alpha1.ReasonLeaseExpired, silent), []string{
			"2026-10-01T11:55:00Z  web-1  host status UP -> UNKNOWN (LeaseExpired)",
			"2026-10-01T12:00:00Z  web-1  host reports True -> False",
		}},
		"down": {up, server("web-1", "DOWN", v1alpha1.ReasonForcedDown), []string{
			"2026-10-01T11:55:00Z  web-1  host status UP -> DOWN (ForcedDown), failing over is safe",
		}},
		"another reason": {server("web-1", "UNKNOWN", v1alpha1.ReasonLeaseExpired), server("web-1", "UNKNOWN", v1alpha1.ReasonLeaseNotReadable), []string{
			"2026-10-01T12:00:00Z  web-1  host status UNKNOWN (LeaseNotReadable)",
		}},
		"a window is announced": {up, server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced()), []string{
			"2026-10-01T11:55:00Z  web-1  host status UP -> NEEDS_MAINTENANCE (WindowAnnounced)",
			"2026-10-01T12:00:00Z  web-1  maintenance <none> -> opens 2026-10-01T14:00:00Z, ends 2026-10-02T18:00:00Z",
			"2026-10-01T12:00:00Z  web-1  answer <none> -> None",
		}},
		"an answer counts, and moves it": {
			server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced()),
			server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced(func(w *v1alpha1.AnnouncedWindow) {
				w.Answer, w.OpensAt = v1alpha1.AnswerStateNotBefore, at(4*time.Hour)
			})),
			[]string{
				"2026-10-01T12:00:00Z  web-1  maintenance opens 2026-10-01T14:00:00Z, ends 2026-10-02T18:00:00Z -> opens 2026-10-01T16:00:00Z, ends 2026-10-02T18:00:00Z",
				"2026-10-01T12:00:00Z  web-1  answer None -> NotBefore",
			},
		},
		"the server itself": {up, server("web-1", "UP", v1alpha1.ReasonReporting, func(s *tenantv1alpha1.Server) {
			s.Status.State, s.Status.TaskState, s.Status.PowerState, s.Status.HostID = "SHUTOFF", "powering-on", "SHUTDOWN", "other"
		}), []string{
			"2026-10-01T12:00:00Z  web-1  is on another host",
			"2026-10-01T12:00:00Z  web-1  status ACTIVE -> SHUTOFF",
			"2026-10-01T12:00:00Z  web-1  task state <none> -> powering-on",
			"2026-10-01T12:00:00Z  web-1  power state RUNNING -> SHUTDOWN",
		}},
		"placed": {server("web-1", "UP", v1alpha1.ReasonReporting, func(s *tenantv1alpha1.Server) { s.Status.HostID = "" }), up, []string{
			"2026-10-01T12:00:00Z  web-1  is on a host",
		}},
		"shelved": {up, server("web-1", "UP", v1alpha1.ReasonReporting, func(s *tenantv1alpha1.Server) { s.Status.HostID = "" }), []string{
			"2026-10-01T12:00:00Z  web-1  is on no host any more",
		}},
		"no longer granted": {up, server("web-1", "UP", v1alpha1.ReasonReporting, hidden), []string{
			"2026-10-01T12:00:00Z  web-1  host status UP -> <none>",
			"2026-10-01T12:00:00Z  web-1  host reports True -> <none>",
		}},
		"in strange letters": {up, server("web-1", "UP", v1alpha1.ReasonReporting, func(s *tenantv1alpha1.Server) { s.Status.TaskState = hostile }), []string{
			"2026-10-01T12:00:00Z  web-1  task state <none> -> a�[2J�a��31m�b�c",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, change := range changesBetween(c.before, c.after, now) {
				got = append(got, change.line(false, false, false))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatChangedWithoutAConnectionIsPrintedOnce(t *testing.T) {
	up, down := server("web-1", "UP", v1alpha1.ReasonReporting), server("web-1", "DOWN", v1alpha1.ReasonForcedDown)
	second := server("web-2", "UP", v1alpha1.ReasonReporting)
	other := server("api-1", "UP", v1alpha1.ReasonReporting)
	madeAgain := server("web-1", "UP", v1alpha1.ReasonReporting, func(s *tenantv1alpha1.Server) { s.UID = "another" })
	var printed []string
	c := newChanges([]tenantv1alpha1.Server{*up, *other}, []string{"web-1", "web-2"}, false, func() time.Time { return now }, func(change Change) {
		printed = append(printed, change.line(true, false, false))
	})
	for _, step := range []func() error{
		func() error { return c.Replace([]any{up, other}, "1") },
		func() error { return c.Replace([]any{second, down, other}, "2") },
		func() error { return c.Update(down) },
		func() error { return c.Add(second) },
		func() error { return c.Delete(other) },
		func() error { return c.Delete(second) },
		func() error { return c.Replace([]any{madeAgain}, "3") },
		func() error { return c.Replace(nil, "4") },
		c.Resync,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"2026-10-01T11:55:00Z  team-a/web-1  host status UP -> DOWN (ForcedDown), failing over is safe",
		"2026-09-29T12:00:00Z  team-a/web-2  added, host status UP",
		"2026-10-01T12:00:00Z  team-a/web-2  deleted, host status was UP",
		"2026-10-01T12:00:00Z  team-a/web-1  deleted, host status was DOWN",
		"2026-09-29T12:00:00Z  team-a/web-1  added, host status UP",
		"2026-10-01T12:00:00Z  team-a/web-1  deleted, host status was UP",
	}
	if diff := cmp.Diff(want, printed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := c.Update("a server"); err == nil {
		t.Error("anything is taken for a server")
	}
}

// A server that does not match a selector any more is not deleted: its host may be well again.
// One that matches now may be old.
func TestAServerThatDoesNotMatchAnyMoreIsNotCalledDeleted(t *testing.T) {
	down := server("web-1", "DOWN", v1alpha1.ReasonForcedDown) // made two days ago
	var printed []string
	c := newChanges(nil, nil, true, func() time.Time { return now }, func(change Change) {
		printed = append(printed, change.line(false, true, false))
	})
	for _, step := range []func(any) error{c.Add, c.Delete} {
		if err := step(down); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"2026-10-01T12:00:00Z  web-1  added, or matches now, host status DOWN",
		"2026-10-01T12:00:00Z  web-1  deleted, or does not match any more, host status was DOWN",
	}
	if diff := cmp.Diff(want, printed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
