// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestWrongFlagsOfAWindowAskNobody(t *testing.T) {
	for args, want := range map[string]string{
		"":                                "nothing to change; give --start, --latest, --put-off, --end, --for, --open-when-ready, --category, --impact or --reason, or --clear to remove the window",
		"--clear --impact Stop":           "--clear: it removes the window, so it cannot be combined with --impact",
		"--clear --max-unavailable 1":     "--clear: it removes the window, so it cannot be combined with --max-unavailable",
		"--latest soon":                   `--latest: "soon" is not a time`,
		"--latest 1h --put-off 1h":        "--put-off: it cannot be combined with --latest",
		"--put-off 1w":                    `--put-off: "1w" is not a duration`,
		"--put-off -1h":                   "--put-off: -1h0m0s is too short; use at least 1s, or 0 for not at all",
		"--category Software-Update":      `--category: "Software-Update" is not supported; use one of Hardware, Software, Network, Relocation, Other`,
		"--impact Off":                    `--impact: "Off" is not supported; use one of None, Pause, Migrate, Reboot, Stop`,
		"--max-unavailable 0 --start 1h":  "--max-unavailable: 0 is too few; use 1 or more",
		"--max-unavailable one":           `invalid argument "one" for "--max-unavailable"`,
		"--max-unavailable 1":             "--max-unavailable: it needs --start",
		"--max-unavailable 1 --for 1h":    "--max-unavailable: it needs --start",
		"--max-unavailable 1 --start 1h":  "--max-unavailable: it needs --for",
		"--max-unavailable 1 --end 1h":    "--end: with --max-unavailable each window has an end of its own; give the length of each with --for",
		"--max-unavailable 1 --latest 1h": "--latest: with --max-unavailable each window has a start of its own; give --put-off",
		"--max-unavailable 1 --start 1h --for 1h --open-when-ready": "--open-when-ready: it cannot be combined with --max-unavailable, because a window that opens early",
	} {
		a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
		_, complaints, code := a.run(t, 0, append([]string{"window", "compute-1"}, strings.Fields(args)...)...)
		if code != ExitUsage || !strings.Contains(complaints, want) || len(a.asked) > 0 {
			t.Errorf("%s ends with %d after %v: %s, want %q", args, code, a.asked, complaints, want)
		}
	}
}

func TestWhatTheFlagsMakeOfAWindow(t *testing.T) {
	fourToSix := func() *v1alpha1.MaintenanceWindow {
		return &v1alpha1.MaintenanceWindow{
			StartTime: later(4 * time.Hour), LatestStartTime: later(5 * time.Hour), EndTime: later(6 * time.Hour),
			OpenWhenReady: ptr.To(true), Category: v1alpha1.CategoryNetwork, Impact: v1alpha1.ImpactPause,
		}
	}
	for name, c := range map[string]struct {
		before *v1alpha1.MaintenanceWindow
		args   string
		want   *v1alpha1.MaintenanceWindow
		err    string
	}{
		"all at once": {
			nil, "--start +2h --latest +8h --for 90m --open-when-ready --category hardware --impact REBOOT",
			&v1alpha1.MaintenanceWindow{
				StartTime: later(2 * time.Hour), LatestStartTime: later(8 * time.Hour), EndTime: later(570 * time.Minute),
				OpenWhenReady: ptr.To(true), Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot,
			}, "",
		},
		"a start and a latest start alone": {
			nil, "--start +2h --put-off 1d",
			&v1alpha1.MaintenanceWindow{StartTime: later(2 * time.Hour), LatestStartTime: later(26 * time.Hour)}, "",
		},
		"nothing else is touched": {fourToSix(), "--impact Stop", func() *v1alpha1.MaintenanceWindow {
			w := fourToSix()
			w.Impact = v1alpha1.ImpactStop
			return w
		}(), ""},
		"all can be taken back": {
			fourToSix(), "--put-off 0 --open-when-ready=false --category= --impact=",
			&v1alpha1.MaintenanceWindow{StartTime: later(4 * time.Hour), EndTime: later(6 * time.Hour)}, "",
		},
		"the length is from the latest start": {fourToSix(), "--for 2h", func() *v1alpha1.MaintenanceWindow {
			w := fourToSix()
			w.EndTime = later(7 * time.Hour)
			return w
		}(), ""},
		"a latest start before the start":      {fourToSix(), "--latest 3h", fourToSix(), "owners may put the window off until 2026-10-01T15:00:00Z, and it would start at 2026-10-01T16:00:00Z, after that"},
		"a start after the latest start":       {fourToSix(), "--start 330m", fourToSix(), "change --start, --latest or --put-off"},
		"a latest start at the end":            {fourToSix(), "--latest 6h", fourToSix(), "that would be until 2026-10-01T18:00:00Z, and the end at 2026-10-01T18:00:00Z; change --latest, --put-off, --end or --for"},
		"a latest start without a start":       {&v1alpha1.MaintenanceWindow{Reason: ptr.To("disks")}, "--put-off 1h", &v1alpha1.MaintenanceWindow{Reason: ptr.To("disks")}, "the window has no start yet, so owners cannot put it off; add --start"},
		"what owners are told needs no start":  {&v1alpha1.MaintenanceWindow{Reason: ptr.To("disks")}, "--category Hardware", &v1alpha1.MaintenanceWindow{Reason: ptr.To("disks"), Category: v1alpha1.CategoryHardware}, ""},
		"one that is over leaves nothing over": {&v1alpha1.MaintenanceWindow{StartTime: later(-2 * time.Hour), EndTime: later(-time.Hour), Impact: v1alpha1.ImpactStop}, "--start 1h", &v1alpha1.MaintenanceWindow{StartTime: later(time.Hour)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			host := called("compute-1", service("UP", v1alpha1.ReasonReporting, "True"))
			host.Spec.MaintenanceWindow = c.before
			s := newSession(host)
			code := s.run(t, append([]string{"window", "compute-1"}, strings.Fields(c.args)...)...)
			if printed := s.transcript.String(); (code == ExitOK) != (c.err == "") || !strings.Contains(printed, c.err) {
				t.Errorf("it ends with %d: %s", code, printed)
			}
			if diff := cmp.Diff(c.want, s.window("compute-1")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAWindowThatOwnersCanMove(t *testing.T) {
	s := maintained()
	s.run(t, "window", "compute-4", "--start", "2026-10-02T22:00:00Z", "--latest", "2026-10-03T04:00:00Z", "--for", "4h", "--category", "Hardware", "--impact", "Reboot")
	s.run(t, "window", "compute-4", "--open-when-ready", "--dry-run=client")
	s.run(t, "window", "compute-4", "--put-off", "0", "--category", "")
	// Those who have answered have to answer again.
	s.run(t, "window", "compute-3", "--start", "+4h")
	s.golden(t)
}

func TestAWindowThatAllAreReadyForOpensAtOnceIfItMay(t *testing.T) {
	start := later(2 * time.Hour)
	s := newSession(called("compute-1", announced(v1alpha1.MaintenanceWindow{StartTime: start}, start, 2, 2, 0)))
	s.run(t, "window", "compute-1", "--open-when-ready")
	if want := "NEEDS_MAINTENANCE -> MAINTENANCE (WindowOpen)"; !strings.Contains(s.transcript.String(), want) {
		t.Errorf("it does not expect %q: %s", want, s.transcript.String())
	}
}

// rack is hosts of which one has a window, one is disabled, and one does not report.
func rack() *session {
	up := func(name string) *v1alpha1.ComputeService {
		return called(name, service("UP", v1alpha1.ReasonReporting, "True"))
	}
	kept, out, silent := up("compute-2"), up("compute-4"), called("compute-5", service("UNKNOWN", v1alpha1.ReasonLeaseExpired, "False"))
	kept.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: later(11 * time.Hour), EndTime: later(12 * time.Hour)}
	out.Spec.Disabled = ptr.To(true)
	return newSession(up("compute-1"), kept, up("compute-3"), out, silent, up("compute-10"))
}

var planOfRack = []string{"window", "-l", "rack=r12", "--max-unavailable", "2", "--start", "2026-10-01T22:00:00Z", "--put-off", "2h", "--for", "1h", "--category", "Software", "--impact", "Reboot"}

func TestWindowsArePlannedSoThatFewHostsAreInMaintenanceAtOnce(t *testing.T) {
	s := rack()
	s.run(t, append(planOfRack, "--dry-run=client")...)
	s.run(t, planOfRack...)
	s.typed = []string{"n"}
	s.run(t, planOfRack...)
	if s.window("compute-1") != nil {
		t.Error("a plan that was not confirmed is carried out")
	}
	s.typed = nil
	s.run(t, append(planOfRack, "--yes", "-o", "name")...)
	want := &v1alpha1.MaintenanceWindow{
		StartTime: later(12 * time.Hour), LatestStartTime: later(14 * time.Hour), EndTime: later(15 * time.Hour),
		Category: v1alpha1.CategorySoftware, Impact: v1alpha1.ImpactReboot,
	}
	if diff := cmp.Diff(want, s.window("compute-1")); diff != "" {
		t.Errorf("the first window (-want +got):\n%s", diff)
	}
	// It is carried out: what remains is the same.
	s.run(t, planOfRack...)
	s.run(t, append(planOfRack, "--max-unavailable", "1")...)
	s.golden(t)
}

func TestAPlanThatIsCarriedOutInPartIsGoneOnWith(t *testing.T) {
	s := rack()
	s.refuses["compute-3"], s.refuses["compute-10"] = true, true
	s.run(t, append(planOfRack, "--yes")...)
	s.refuses = nil
	s.run(t, append(planOfRack, "--yes")...)
	s.golden(t)
}

func TestAPlanOfNamedHostsIsConfirmedAsWell(t *testing.T) {
	s := rack()
	args := []string{"window", "compute-3", "compute-1", "--max-unavailable", "1", "--start", "1h", "--for", "30m"}
	if code := s.run(t, args...); code != ExitNotConfirmed {
		t.Errorf("it ends with %d", code)
	}
	for _, call := range s.asked {
		if strings.HasPrefix(call, http.MethodPatch) {
			t.Errorf("it asks for %s", call)
		}
	}
	s.typed = []string{"y"}
	if code := s.run(t, args...); code != ExitOK || !s.window("compute-3").StartTime.Equal(later(90*time.Minute)) {
		t.Errorf("it ends with %d, and compute-3 has %v", code, s.window("compute-3"))
	}
}
