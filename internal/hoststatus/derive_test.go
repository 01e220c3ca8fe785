// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// host is a ComputeService as Derive sees it.
type host struct {
	spec v1alpha1.ComputeServiceSpec
	seen Observation
}

// hostWith returns a host that reports, with nothing else set.
func hostWith(modifiers ...func(*host)) host {
	h := host{seen: heartbeats[0].seen}
	for _, modify := range modifiers {
		modify(&h)
	}
	return h
}

func (h host) derive(at time.Time) Result { return Derive(&h.spec, h.seen, at) }

func forcedDown(flag *bool) func(*host) { return func(h *host) { h.spec.ForcedDown = flag } }
func disabled(flag *bool) func(*host)   { return func(h *host) { h.spec.Disabled = flag } }
func sees(o Observation) func(*host) {
	return func(h *host) { h.seen.Reporting, h.seen.Reason = o.Reporting, o.Reason }
}

// announced gives a host a window from and until so long after now; an until of
// zero is no end.
func announced(from, until time.Duration) func(*host) {
	return func(h *host) { h.spec.MaintenanceWindow = windowOf(from, until) }
}

func openedBefore(h *host) { h.seen.WindowOpened = true }

func windowOf(from, until time.Duration) *v1alpha1.MaintenanceWindow {
	w := &v1alpha1.MaintenanceWindow{StartTime: ptr.To(metav1.NewTime(now.Add(from)))}
	if until != 0 {
		w.EndTime = ptr.To(metav1.NewTime(now.Add(until)))
	}
	return w
}

// The dimensions of the table, each with all the values it can take.
var (
	flags = []struct {
		name string
		flag *bool
		set  bool
	}{
		{"absent", nil, false}, {"false", ptr.To(false), false}, {"true", ptr.To(true), true},
	}
	heartbeats = []struct {
		name string
		seen Observation
	}{
		{"reporting", Observation{Reporting: v1alpha1.HostReportingTrue, Reason: v1alpha1.ReasonReporting}},
		{"expired", Observation{Reporting: v1alpha1.HostReportingFalse, Reason: v1alpha1.ReasonLeaseExpired}},
		{"never reported", Observation{Reporting: v1alpha1.HostReportingFalse, Reason: v1alpha1.ReasonNeverReported}},
		{"waiting", Observation{Reporting: v1alpha1.HostReportingUnknown, Reason: v1alpha1.ReasonWaitingForHeartbeat}},
		{"not readable", Observation{Reporting: v1alpha1.HostReportingUnknown, Reason: v1alpha1.ReasonLeaseNotReadable}},
	}
	windows = []struct {
		name   string
		window *v1alpha1.MaintenanceWindow
		opened bool
		phase  WindowPhase
		next   time.Time
	}{
		{name: "none", phase: WindowNone},
		{name: "removed after it opened", opened: true, phase: WindowNone},
		{name: "announced", window: windowOf(time.Hour, 2*time.Hour), phase: WindowAnnounced, next: now.Add(time.Hour)},
		{name: "announced without end", window: windowOf(time.Hour, 0), phase: WindowAnnounced, next: now.Add(time.Hour)},
		{name: "announced without a time", window: &v1alpha1.MaintenanceWindow{}, phase: WindowAnnounced},
		{name: "announced without a time, and opened before", window: &v1alpha1.MaintenanceWindow{}, opened: true, phase: WindowAnnounced},
		{name: "open with end", window: windowOf(-time.Hour, time.Hour), phase: WindowOpen, next: now.Add(time.Hour)},
		{name: "open without end", window: windowOf(-time.Hour, 0), phase: WindowOpen},
		{name: "opened before but clock set back", window: windowOf(time.Hour, 2*time.Hour), opened: true, phase: WindowOpen, next: now.Add(2 * time.Hour)},
		{name: "opened before but clock set back, without end", window: windowOf(time.Hour, 0), opened: true, phase: WindowOpen},
		{name: "closed", window: windowOf(-2*time.Hour, -time.Hour), opened: true, phase: WindowClosed},
		{name: "closed without having been seen open", window: windowOf(-2*time.Hour, -time.Hour), phase: WindowClosed},
	}
)

// table is the table of Derive once more, as predicates: the first row that matches
// decides. Row 1 is about servers, see TestForServer.
var table = []struct {
	row     string
	matches func(forcedDown, disabled bool, window, heartbeat string) bool
	status  *v1alpha1.HostStatus
	reason  v1alpha1.HostStatusReason
}{
	{"2 forced down", func(down, _ bool, _, _ string) bool { return down }, ptr.To(v1alpha1.HostStatusDown), "ForcedDown"},
	{"3 disabled by hand", func(_, off bool, _, _ string) bool { return off }, ptr.To(v1alpha1.HostStatusMaintenance), "Disabled"},
	{"3 window open", func(_, _ bool, w, _ string) bool { return strings.HasPrefix(w, "open") }, ptr.To(v1alpha1.HostStatusMaintenance), "WindowOpen"},
	{"4 not known yet", func(_, _ bool, _, h string) bool { return h == "waiting" }, nil, "WaitingForHeartbeat"},
	{"4 silent", func(_, _ bool, _, h string) bool { return h == "expired" }, ptr.To(v1alpha1.HostStatusUnknown), "LeaseExpired"},
	{"4 never seen", func(_, _ bool, _, h string) bool { return h == "never reported" }, ptr.To(v1alpha1.HostStatusUnknown), "NeverReported"},
	{"4 cannot be seen", func(_, _ bool, _, h string) bool { return h == "not readable" }, ptr.To(v1alpha1.HostStatusUnknown), "LeaseNotReadable"},
	{"5 window announced", func(_, _ bool, w, _ string) bool { return strings.HasPrefix(w, "announced") }, ptr.To(v1alpha1.HostStatusNeedsMaintenance), "WindowAnnounced"},
	{"6 otherwise", func(bool, bool, string, string) bool { return true }, ptr.To(v1alpha1.HostStatusUp), "Reporting"},
}

// everyHost calls visit with each combination of the dimensions, and with its
// result by the table.
func everyHost(visit func(name string, h host, row string, want Result)) {
	for _, down := range flags {
		for _, off := range flags {
			for _, w := range windows {
				for _, beat := range heartbeats {
					h := hostWith(forcedDown(down.flag), disabled(off.flag), sees(beat.seen))
					h.spec.MaintenanceWindow, h.seen.WindowOpened = w.window, w.opened
					for _, r := range table {
						if r.matches(down.set, off.set, w.name, beat.name) {
							name := fmt.Sprintf("forcedDown %s, disabled %s, window %s, heartbeat %s", down.name, off.name, w.name, beat.name)
							visit(name, h, r.row, Result{Status: r.status, Reason: r.reason, Window: w.phase, Next: w.next})
							break
						}
					}
				}
			}
		}
	}
}

func TestDeriveGivesWhatTheTableSaysOfEveryCombination(t *testing.T) {
	decided := map[string]int{}
	everyHost(func(name string, h host, row string, want Result) {
		decided[row]++
		if diff := cmp.Diff(want, h.derive(now)); diff != "" {
			t.Errorf("%s: row %s (-want +got):\n%s", name, row, diff)
		}
	})
	for _, r := range table {
		if decided[r.row] == 0 {
			t.Errorf("no combination is decided by row %s", r.row)
		}
	}
}

func TestNextIsWhenThePassingOfTimeAloneChangesTheResult(t *testing.T) {
	const never = 100 * 365 * 24 * time.Hour
	everyHost(func(name string, h host, _ string, _ Result) {
		before := h.derive(now)
		if before.Next.IsZero() {
			if diff := cmp.Diff(before, h.derive(now.Add(never))); diff != "" {
				t.Errorf("%s: Next is zero, but the result changes in time:\n%s", name, diff)
			}
			return
		}
		if diff := cmp.Diff(before, h.derive(before.Next.Add(-1))); diff != "" {
			t.Errorf("%s: changes before Next:\n%s", name, diff)
		}
		if after := h.derive(before.Next); after.Window == before.Window {
			t.Errorf("%s: still in phase %d at Next", name, after.Window)
		}
	})
}

func TestDerive(t *testing.T) {
	expired, waiting := heartbeats[1].seen, heartbeats[3].seen
	yes := ptr.To(true)
	for name, c := range map[string]struct {
		host   host
		status *v1alpha1.HostStatus
		reason v1alpha1.HostStatusReason
	}{
		"a host that reports is UP":                                        {hostWith(), ptr.To(v1alpha1.HostStatusUp), v1alpha1.ReasonReporting},
		"a host that is silent is UNKNOWN, not DOWN":                       {hostWith(sees(expired)), ptr.To(v1alpha1.HostStatusUnknown), v1alpha1.ReasonLeaseExpired},
		"a host that is forced down is DOWN although it reports":           {hostWith(forcedDown(yes)), ptr.To(v1alpha1.HostStatusDown), v1alpha1.ReasonForcedDown},
		"forced down goes before disabled":                                 {hostWith(forcedDown(yes), disabled(yes)), ptr.To(v1alpha1.HostStatusDown), v1alpha1.ReasonForcedDown},
		"a flag that is false has no effect":                               {hostWith(forcedDown(ptr.To(false)), disabled(ptr.To(false))), ptr.To(v1alpha1.HostStatusUp), v1alpha1.ReasonReporting},
		"a host that dies while disabled still reads MAINTENANCE":          {hostWith(disabled(yes), sees(expired)), ptr.To(v1alpha1.HostStatusMaintenance), v1alpha1.ReasonDisabled},
		"a host that dies in its window still reads MAINTENANCE":           {hostWith(announced(-time.Hour, time.Hour), sees(expired)), ptr.To(v1alpha1.HostStatusMaintenance), v1alpha1.ReasonWindowOpen},
		"an announced window makes an UP host NEEDS_MAINTENANCE":           {hostWith(announced(time.Hour, 0)), ptr.To(v1alpha1.HostStatusNeedsMaintenance), v1alpha1.ReasonWindowAnnounced},
		"an announced window does not hide silence":                        {hostWith(announced(time.Hour, 0), sees(expired)), ptr.To(v1alpha1.HostStatusUnknown), v1alpha1.ReasonLeaseExpired},
		"a new host has no status until its first heartbeat":               {hostWith(sees(waiting)), nil, v1alpha1.ReasonWaitingForHeartbeat},
		"a new host with an announced window has none either":              {hostWith(sees(waiting), announced(time.Hour, 0)), nil, v1alpha1.ReasonWaitingForHeartbeat},
		"a new host can be forced down before its first heartbeat":         {hostWith(sees(waiting), forcedDown(yes)), ptr.To(v1alpha1.HostStatusDown), v1alpha1.ReasonForcedDown},
		"a window that is over leaves no trace":                            {hostWith(announced(-2*time.Hour, -time.Hour), openedBefore), ptr.To(v1alpha1.HostStatusUp), v1alpha1.ReasonReporting},
		"a window that has opened does not close when the clock goes back": {hostWith(announced(time.Hour, 2*time.Hour), openedBefore), ptr.To(v1alpha1.HostStatusMaintenance), v1alpha1.ReasonWindowOpen},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.host.derive(now)
			if diff := cmp.Diff(c.status, got.Status); diff != "" || got.Reason != c.reason {
				t.Errorf("reason %s, want %s; status (-want +got):\n%s", got.Reason, c.reason, diff)
			}
		})
	}
}

func TestAWindowOpensAtStartTimeAndClosesAtEndTimeToTheNanosecond(t *testing.T) {
	start, end := now, now.Add(time.Hour)
	for _, c := range []struct {
		name  string
		at    time.Time
		phase WindowPhase
		next  time.Time
	}{
		{"just before startTime", start.Add(-1), WindowAnnounced, start},
		{"at startTime", start, WindowOpen, end},
		{"just before endTime", end.Add(-1), WindowOpen, end},
		{"at endTime", end, WindowClosed, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := hostWith(announced(0, time.Hour)).derive(c.at)
			if got.Window != c.phase || !got.Next.Equal(c.next) {
				t.Errorf("phase %d, next %s; want %d, %s", got.Window, got.Next, c.phase, c.next)
			}
		})
	}
	t.Run("one without end is open for ever from startTime on", func(t *testing.T) {
		got := hostWith(announced(0, 0)).derive(start)
		if got.Window != WindowOpen || !got.Next.IsZero() {
			t.Errorf("phase %d, next %s", got.Window, got.Next)
		}
	})
}
