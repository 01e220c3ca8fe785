// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

func later(d time.Duration) *metav1.Time { return ptr.To(ago(-d)) }

// planned carries a plan out for a host, as newPlan does.
func planned(r *rollout, s *v1alpha1.ComputeService) (*v1alpha1.ComputeService, error) {
	p, err := newPlan(r.changes[s.Name], s, nil, atWork, now)
	if err != nil {
		return nil, err
	}
	return p.after, nil
}

// answerer draws what the owners of a host's servers answer.
func answerer(r *rapid.T) hoststatus.Answers {
	a := hoststatus.Answers{Servers: rapid.IntRange(0, 3).Draw(r, "servers")}
	a.Ready = rapid.IntRange(0, a.Servers).Draw(r, "ready")
	a.PutOff = a.Servers - a.Ready
	if a.PutOff > 0 {
		a.Latest = now.Add(time.Duration(rapid.IntRange(-60, 600).Draw(r, "not before")) * time.Minute)
	}
	return a
}

// Whatever owners answer, and whenever one looks: where planned windows are open, no more
// than the limit of the hosts are in maintenance.
func TestAPlanKeepsItsPromiseWhateverOwnersAnswer(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		flags := &windowChange{
			start:  &kubectlplugin.Moment{From: time.Duration(rapid.IntRange(0, 60).Draw(r, "start")) * time.Minute},
			length: time.Duration(rapid.IntRange(1, 90).Draw(r, "length")) * time.Minute,
		}
		if rapid.Bool().Draw(r, "put off") {
			flags.putOff = ptr.To(time.Duration(rapid.IntRange(0, 90).Draw(r, "by")) * time.Minute)
		}
		limit := rapid.IntRange(1, 3).Draw(r, "limit")
		var services []v1alpha1.ComputeService
		for i := range rapid.IntRange(1, 7).Draw(r, "hosts") {
			s := called(fmt.Sprintf("compute-%d", i+1), service("UP", v1alpha1.ReasonReporting, "True"))
			switch rapid.SampledFrom([]string{"free", "free", "free", "window", "no time", "over", "disabled"}).Draw(r, "host") {
			case "window":
				from := time.Duration(rapid.IntRange(-30, 200).Draw(r, "from")) * time.Minute
				s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: later(from), EndTime: later(from + time.Hour), LatestStartTime: later(from + time.Minute)}
				s.Spec.MaintenanceWindow.OpenWhenReady = rapid.SampledFrom([]*bool{nil, ptr.To(true)}).Draw(r, "when ready")
			case "no time":
				s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{Category: v1alpha1.CategoryHardware, OpenWhenReady: ptr.To(true)}
			case "over":
				s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: later(-2 * time.Hour), EndTime: later(-time.Hour), OpenWhenReady: ptr.To(true)}
			case "disabled":
				s.Spec.Disabled = ptr.To(true)
			}
			services = append(services, *s)
		}
		plan := &windowPlan{limit: limit, flags: flags}
		rollout, err := plan.together(services, now)
		if err != nil {
			if !strings.Contains(err.Error(), "leaves no room") {
				r.Fatal(err)
			}
			return
		}
		shuffled := append([]v1alpha1.ComputeService{}, services...)
		rand.New(rand.NewPCG(1, uint64(len(services)))).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again, err := plan.together(shuffled, now)
		if err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(rollout.rows, again.rows, cmp.AllowUnexported(rolloutRow{})); diff != "" {
			r.Fatalf("the plan depends on the order of the hosts:\n%s", diff)
		}
		var after []*v1alpha1.ComputeService
		for i := range services {
			s, err := planned(rollout, &services[i])
			if err != nil {
				r.Fatal(err)
			}
			after = append(after, s)
		}
		// Those who took a host out of service put it back, at a time that nobody knew.
		enabled := now.Add(time.Duration(rapid.IntRange(0, 300).Draw(r, "enabled after")) * time.Minute)
		// The answers stay, since a window that has opened stays open.
		answers := make([]hoststatus.Answers, len(after))
		for i := range answers {
			answers[i] = answerer(r)
		}
		opened := make([]bool, len(after))
		for at := now; at.Before(now.Add(12 * time.Hour)); at = at.Add(time.Minute) {
			open, mine := 0, false
			for i, s := range after {
				if !at.Before(enabled) {
					s.Spec.Disabled = nil
				}
				result := hoststatus.Derive(&s.Spec, hoststatus.Observation{
					Reporting: v1alpha1.HostReportingTrue, Reason: v1alpha1.ReasonReporting, WindowOpened: opened[i], Answers: answers[i],
				}, at)
				opened[i] = result.Window == hoststatus.WindowOpen
				if *result.Status == v1alpha1.HostStatusMaintenance {
					open++
					mine = mine || opened[i] && rollout.changes[s.Name] != keepsWindow
				}
			}
			if open > limit && mine {
				r.Fatalf("%d are in maintenance at %s", open, at)
			}
		}
	})
}

func TestAPlan(t *testing.T) {
	var services []v1alpha1.ComputeService
	add := func(name string, change func(*v1alpha1.ComputeServiceSpec)) {
		s := called(name, service("UP", v1alpha1.ReasonReporting, "True"))
		if change != nil {
			change(&s.Spec)
		}
		services = append(services, *s)
	}
	add("compute-10", nil)
	add("compute-2", func(s *v1alpha1.ComputeServiceSpec) {
		s.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: later(2 * time.Hour), EndTime: later(3 * time.Hour), OpenWhenReady: ptr.To(true)}
	})
	add("compute-1", func(s *v1alpha1.ComputeServiceSpec) {
		s.MaintenanceWindow = &v1alpha1.MaintenanceWindow{Reason: ptr.To("new disks"), OpenWhenReady: ptr.To(true)}
	})
	plan := &windowPlan{limit: 1, flags: &windowChange{start: &kubectlplugin.Moment{From: time.Hour}, putOff: ptr.To(time.Hour), length: 90 * time.Minute, impact: ptr.To(v1alpha1.ImpactReboot)}}
	r, err := plan.together(services, now)
	if err != nil {
		t.Fatal(err)
	}
	// compute-2 may be open from now on, so nobody can be before its end.
	want := map[string]*v1alpha1.MaintenanceWindow{
		"compute-1":  {StartTime: later(3 * time.Hour), LatestStartTime: later(4 * time.Hour), EndTime: later(330 * time.Minute), Impact: "Reboot", Reason: ptr.To("new disks")},
		"compute-2":  services[1].Spec.MaintenanceWindow,
		"compute-10": {StartTime: later(330 * time.Minute), LatestStartTime: later(390 * time.Minute), EndTime: later(8 * time.Hour), Impact: "Reboot"},
	}
	got := map[string]*v1alpha1.MaintenanceWindow{}
	for i := range services {
		s, err := planned(r, &services[i])
		if err != nil {
			t.Fatal(err)
		}
		got[s.Name] = s.Spec.MaintenanceWindow
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want := "3 hosts: 2 to get a window, 1 with a window already; at most 1 in maintenance at once, until 2026-10-01T20:00:00Z."; r.summary() != want {
		t.Errorf("it sums up %q, want %q", r.summary(), want)
	}
	// Somebody else is quicker.
	services[0].Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: later(time.Hour)}
	if _, err := planned(r, &services[0]); err == nil || !strings.Contains(err.Error(), "compute-10: its window was changed since the plan was made") {
		t.Errorf("a window of somebody else's is overwritten: %v", err)
	}
}

func TestAPlanThatCannotBe(t *testing.T) {
	forever := 100_000 * kubectlplugin.Day
	for name, c := range map[string]struct {
		change func(*v1alpha1.ComputeServiceSpec)
		flags  windowChange
		want   string
	}{
		"a host is disabled": {
			func(s *v1alpha1.ComputeServiceSpec) { s.Disabled = ptr.To(true) }, windowChange{length: time.Hour},
			"--max-unavailable: 1 leaves no room for a window, because compute-1 is disabled; end that",
		},
		"a host is off": {
			func(s *v1alpha1.ComputeServiceSpec) { s.ForcedDown = ptr.To(true) }, windowChange{length: time.Hour},
			"because compute-1 is forced down",
		},
		"a window has no end": {
			func(s *v1alpha1.ComputeServiceSpec) {
				s.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: later(time.Minute)}
			}, windowChange{length: time.Hour},
			"because compute-1 has a window without an end",
		},
		"it is in the past": {nil, windowChange{start: &kubectlplugin.Moment{From: -time.Hour}, length: time.Hour}, "--start: 2026-10-01T11:00:00Z is in the past"},
		"it takes too long": {nil, windowChange{putOff: &forever, length: forever, start: &kubectlplugin.Moment{At: time.Date(9500, 1, 1, 0, 0, 0, 0, time.UTC)}}, "after the year 9999"},
	} {
		t.Run(name, func(t *testing.T) {
			services := []v1alpha1.ComputeService{
				*called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")), *called("compute-2", service("UP", v1alpha1.ReasonReporting, "True")),
			}
			if c.change != nil {
				c.change(&services[0].Spec)
			}
			if c.flags.start == nil {
				c.flags.start = &kubectlplugin.Moment{}
			}
			_, err := (&windowPlan{limit: 1, flags: &c.flags}).together(services, now)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}
