// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// windowPlan plans windows of several hosts, so that no more than limit of them are in
// maintenance at once. Whatever owners answer, such a window is open at no time before its
// startTime, nor after its endTime: it cannot open early, and ends the whole length after the
// latest time at which it can open.
type windowPlan struct {
	limit int
	// flags are the start of the first window, and what all have in common.
	flags *windowChange
}

// rollout is what becomes of several hosts together.
type rollout struct {
	// changes are those of the hosts, by their names.
	changes map[string]*change
	rows    []rolloutRow
	limit   int
	// most is how many hosts can be in maintenance at once, at the worst. It is above limit
	// only because of what the hosts have already.
	most int
}

// rolloutRow is one host of a rollout.
type rolloutRow struct {
	name   string
	window *v1alpha1.MaintenanceWindow
	// keeps is true if it gets no window because it has one.
	keeps bool
	note  string
}

func (p *windowPlan) change() *change {
	return &change{question: "Set the maintenance window of", done: "window set", flag: "maintenanceWindow", together: p.together}
}

// together plans the windows of all hosts. What was read of them is what counts.
func (p *windowPlan) together(services []v1alpha1.ComputeService, now time.Time) (*rollout, error) {
	start := p.flags.start.Time(now)
	if start.Before(now.Truncate(time.Second)) {
		return nil, kubectlplugin.UsageError("--start: %s is in the past; with --max-unavailable the first window cannot open before now", kubectlplugin.Stamp(start))
	}
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b v1alpha1.ComputeService) int { return kubectlplugin.CompareNames(a.Name, b.Name) })
	hosts := make([]candidate, len(services))
	for i := range services {
		hosts[i] = candidateOf(&services[i], now)
	}
	// As long as it can be, in whole seconds.
	length := (p.flags.length + time.Second - 1).Truncate(time.Second)
	putOff := ptr.Deref(p.flags.putOff, 0).Truncate(time.Second)
	if putOff+length < 0 { // It is more than a Duration can be.
		return nil, tooLong(services[0].Name)
	}
	spans, fits := schedule(hosts, start, putOff+length, p.limit)
	if !fits {
		return nil, noRoom(services, hosts, p.limit)
	}
	r := &rollout{changes: map[string]*change{}, limit: p.limit}
	var taken []span
	for i := range services {
		s := &services[i]
		row := rolloutRow{name: s.Name, window: s.Spec.MaintenanceWindow, keeps: hosts[i].keeps, note: planNote(s, hosts[i].keeps)}
		if hosts[i].taken != nil {
			taken = append(taken, *hosts[i].taken)
		}
		if hosts[i].keeps {
			r.changes[s.Name] = keepsWindow
			r.rows = append(r.rows, row)
			continue
		}
		if spans[i].to.After(lastTime) {
			return nil, tooLong(s.Name)
		}
		planned := *p.flags
		planned.now, planned.start, planned.length, planned.putOff, planned.openWhenReady = now, &kubectlplugin.Moment{At: spans[i].from}, length, &putOff, ptr.To(false)
		after := s.Spec.DeepCopy()
		if err := planned.apply(after, now); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		row.window = after.MaintenanceWindow
		r.rows = append(r.rows, row)
		r.changes[s.Name] = planned.asPlanned(s.Spec.MaintenanceWindow)
		if hosts[i].taken == nil || !hosts[i].taken.endless() {
			taken = append(taken, spans[i])
		}
	}
	r.most = most(taken, span{from: now})
	slices.SortStableFunc(r.rows, func(a, b rolloutRow) int { return a.window.StartTime.Compare(b.window.StartTime.Time) })
	return r, nil
}

// lastTime is the latest time that a window may have.
var lastTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func tooLong(host string) error {
	return kubectlplugin.UsageError("--max-unavailable: the window of %s would end after the year %d; choose fewer hosts, a larger --max-unavailable or a shorter --for", host, lastTime.Year())
}

// keepsWindow is the change of a host that has a window.
var keepsWindow = &change{
	apply: func(*v1alpha1.ComputeServiceSpec, time.Time) error { return nil },
	already: func(spec *v1alpha1.ComputeServiceSpec) string {
		return "it keeps its window " + showWindow(spec.MaintenanceWindow) + terms(spec.MaintenanceWindow)
	},
}

// asPlanned makes the change, unless the host has another window by then than the plan was
// made with.
func (w *windowChange) asPlanned(with *v1alpha1.MaintenanceWindow) *change {
	return &change{
		question: "Set the maintenance window of", done: "window set", flag: "maintenanceWindow", already: w.already, detail: w.detail,
		apply: func(spec *v1alpha1.ComputeServiceSpec, now time.Time) error {
			if !equality.Semantic.DeepEqual(spec.MaintenanceWindow, with) {
				return errors.New("its window was changed since the plan was made, and stays; give the command again for another plan")
			}
			return w.apply(spec, now)
		},
	}
}

// candidateOf returns when a host can be in maintenance as it is, and whether it has a window
// that it keeps. A window without a time waits for one.
func candidateOf(s *v1alpha1.ComputeService, now time.Time) candidate {
	c := candidate{name: s.Name}
	w := s.Spec.MaintenanceWindow
	c.keeps = w != nil && w.StartTime != nil && !isOver(w, now)
	switch {
	case isTrue(s.Spec.Disabled), isTrue(s.Spec.ForcedDown):
		c.taken = &span{from: now}
	case c.keeps:
		c.taken = &span{w.StartTime.Time, ptrTime(w.EndTime)}
		if (isTrue(w.OpenWhenReady) || phaseOf(s, now) == hoststatus.WindowOpen) && now.Before(c.taken.from) {
			c.taken.from = now
		}
	}
	return c
}

// planNote describes what of a host matters to the plan.
func planNote(s *v1alpha1.ComputeService, keeps bool) string {
	var notes []string
	if keeps {
		notes = append(notes, "keeps its window")
	}
	switch status := value(s.Status.HostStatus); {
	case isTrue(s.Spec.Disabled):
		notes = append(notes, "is disabled")
	case isTrue(s.Spec.ForcedDown):
		notes = append(notes, "is forced down")
	case status == v1alpha1.HostStatusUnknown:
		notes = append(notes, "does not report")
	}
	return strings.Join(notes, ", ")
}

// noRoom is the error for hosts that leave no room for others.
func noRoom(services []v1alpha1.ComputeService, hosts []candidate, limit int) error {
	var names []string
	for i := range hosts {
		if taken := hosts[i].taken; taken == nil || !taken.endless() {
			continue
		}
		why := "has a window without an end"
		if s := &services[i]; isTrue(s.Spec.Disabled) {
			why = "is disabled"
		} else if isTrue(s.Spec.ForcedDown) {
			why = "is forced down"
		}
		names = append(names, hosts[i].name+" "+why)
	}
	return kubectlplugin.UsageError("--max-unavailable: %d leaves no room for a window, because %s; end that, give a larger number, or leave such hosts out", limit, strings.Join(names, ", "))
}

// summary describes the rollout in a sentence.
func (r *rollout) summary() string {
	planned, kept := 0, 0
	var last time.Time
	for _, row := range r.rows {
		if row.keeps {
			kept++
			continue
		}
		planned++
		if row.window.EndTime.After(last) {
			last = row.window.EndTime.Time
		}
	}
	out := kubectlplugin.Counted(len(r.rows), "host") + fmt.Sprintf(": %d to get a window", planned)
	if kept > 0 {
		out += fmt.Sprintf(", %d with a window already", kept)
	}
	if r.most > r.limit {
		out += fmt.Sprintf("; up to %d are in maintenance at once because of what they have already, and the plan adds none to more than %d", r.most, r.limit)
	} else {
		out += fmt.Sprintf("; at most %d in maintenance at once", r.most)
	}
	if planned > 0 {
		out += ", until " + kubectlplugin.Stamp(last)
	}
	return out + "."
}

// printRollout prints the plan, before anybody is asked. Where standard output is for
// objects, it goes to standard error.
func (w *writer) printRollout(r *rollout) {
	out := w.Out
	if !w.output.IsText() {
		out = w.ErrOut
	}
	latest := slices.ContainsFunc(r.rows, func(row rolloutRow) bool { return row.window.LatestStartTime != nil })
	t := w.NewTable("NAME", "STARTS")
	if latest {
		t.Add("AT THE LATEST")
	}
	t.Add("ENDS", "NOTE")
	t.Shorten("NAME", kubectlplugin.Middle)
	t.Shorten("NOTE", kubectlplugin.End)
	for _, row := range r.rows {
		cells := []kubectlplugin.Cell{kubectlplugin.Plain(row.name), kubectlplugin.Plain(kubectlplugin.Stamp(row.window.StartTime.Time))}
		if latest {
			cells = append(cells, kubectlplugin.Plain(kubectlplugin.Stamp(opensBy(row.window))))
		}
		ends := kubectlplugin.None
		if row.window.EndTime != nil {
			ends = kubectlplugin.Stamp(row.window.EndTime.Time)
		}
		t.Rows = append(t.Rows, append(cells, kubectlplugin.Plain(ends), kubectlplugin.Plain(row.note)))
	}
	t.Write(out, true)
	_, _ = fmt.Fprintln(w.ErrOut, r.summary())
}

// partly describes which hosts were changed, where others were not.
func (w *writer) partly(done, all []*plan) string {
	if w.rollout == nil {
		return "some hosts were changed and others were not"
	}
	var have, lack []string
	for _, p := range all {
		// A plan that was made again is another one.
		carried := slices.ContainsFunc(done, func(d *plan) bool { return d.after.Name == p.after.Name })
		switch {
		case carried && p.needed:
			have = append(have, p.after.Name)
		case !carried:
			lack = append(lack, p.after.Name)
		}
	}
	return fmt.Sprintf("%s %s planned, and %s %s not; give the same command again to plan the rest around them",
		listed(have), plural(have, "has the window that was", "have the windows that were"), listed(lack), plural(lack, "has", "have"))
}

func plural(names []string, one, many string) string {
	if len(names) == 1 {
		return one
	}
	return many
}
