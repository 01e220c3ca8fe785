// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// windowChange has the values of the flags of window. A nil field changes nothing.
type windowChange struct {
	clear              bool
	start, latest, end *kubectlplugin.Moment
	// putOff puts the latest opening that long after the start; zero removes it.
	putOff *time.Duration
	// endless removes the end.
	endless bool
	// length puts the end that long after the latest opening.
	length        time.Duration
	openWhenReady *bool
	// category, impact and reason are removed by "".
	category *v1alpha1.MaintenanceCategory
	impact   *v1alpha1.MaintenanceImpact
	reason   *string
	// now is what relative times count from: the same for all hosts.
	now time.Time
}

// apply changes the window of spec. A window that is over is replaced, and a new one
// starts now unless --start is given.
func (w *windowChange) apply(spec *v1alpha1.ComputeServiceSpec, now time.Time) error {
	if w.clear {
		spec.MaintenanceWindow = nil
		return nil
	}
	if w.now.IsZero() {
		w.now = now
	}
	window := spec.MaintenanceWindow.DeepCopy()
	if window == nil || isOver(window, now) {
		window = &v1alpha1.MaintenanceWindow{StartTime: &metav1.Time{Time: w.now.Truncate(time.Second)}}
	}
	if err := w.setTimes(window); err != nil {
		return err
	}
	w.setTerms(window)
	if err := fits(window, now); err != nil {
		return err
	}
	spec.MaintenanceWindow = window
	return nil
}

// isOver reports whether a window has closed.
func isOver(w *v1alpha1.MaintenanceWindow, now time.Time) bool {
	return w.EndTime != nil && !now.Before(w.EndTime.Time)
}

func (w *windowChange) setTimes(window *v1alpha1.MaintenanceWindow) error {
	if w.start != nil {
		window.StartTime = &metav1.Time{Time: w.start.Time(w.now)}
	}
	switch {
	case window.StartTime != nil:
	case w.end != nil || w.length > 0:
		return kubectlplugin.UsageError("the window has no start yet, so it can have no end; add --start")
	case w.latest != nil || w.putOff != nil:
		return kubectlplugin.UsageError("the window has no start yet, so owners cannot put it off; add --start")
	}
	switch {
	case w.latest != nil:
		window.LatestStartTime = &metav1.Time{Time: w.latest.Time(w.now)}
	case w.putOff != nil && *w.putOff == 0:
		window.LatestStartTime = nil
	case w.putOff != nil:
		window.LatestStartTime = &metav1.Time{Time: window.StartTime.Add(*w.putOff).Truncate(time.Second)}
	}
	switch {
	case w.endless:
		window.EndTime = nil
	case w.end != nil:
		window.EndTime = &metav1.Time{Time: w.end.Time(w.now)}
	case w.length > 0:
		window.EndTime = &metav1.Time{Time: opensBy(window).Add(w.length)}
	}
	return nil
}

// opensBy is the latest time at which a window with a start can open.
func opensBy(w *v1alpha1.MaintenanceWindow) time.Time {
	if w.LatestStartTime != nil {
		return w.LatestStartTime.Time
	}
	return w.StartTime.Time
}

func (w *windowChange) setTerms(window *v1alpha1.MaintenanceWindow) {
	if w.openWhenReady != nil && *w.openWhenReady != isTrue(window.OpenWhenReady) {
		window.OpenWhenReady = nil
		if *w.openWhenReady {
			window.OpenWhenReady = ptr.To(true)
		}
	}
	if w.category != nil {
		window.Category = *w.category
	}
	if w.impact != nil {
		window.Impact = *w.impact
	}
	if w.reason != nil {
		window.Reason = w.reason
		if *w.reason == "" {
			window.Reason = nil
		}
	}
}

// fits checks what the API server would refuse, and that the window is not over.
func fits(w *v1alpha1.MaintenanceWindow, now time.Time) error {
	latest, end := w.LatestStartTime, w.EndTime
	switch {
	case latest != nil && latest.Before(w.StartTime):
		return kubectlplugin.UsageError("owners may put the window off until %s, and it would start at %s, after that; change --start, --latest or --put-off (0 takes it back)",
			kubectlplugin.Stamp(latest.Time), kubectlplugin.Stamp(w.StartTime.Time))
	case end == nil:
		return nil
	case !end.After(w.StartTime.Time):
		return kubectlplugin.UsageError("the window must end after it starts, and it would start at %s and end at %s; change --start, --end or --for", kubectlplugin.Stamp(w.StartTime.Time), kubectlplugin.Stamp(end.Time))
	case !end.After(opensBy(w)):
		return kubectlplugin.UsageError("the window must end after owners may have put it off, and that would be until %s, and the end at %s; change --latest, --put-off, --end or --for",
			kubectlplugin.Stamp(latest.Time), kubectlplugin.Stamp(end.Time))
	case !end.After(now):
		return kubectlplugin.UsageError("the window must end in the future, and it would end at %s; it is %s now. Change --end or --for, or remove the window with --clear", kubectlplugin.Stamp(end.Time), kubectlplugin.Stamp(now))
	}
	return nil
}

// already describes a window that needs no change.
func (w *windowChange) already(spec *v1alpha1.ComputeServiceSpec) string {
	if spec.MaintenanceWindow == nil {
		return "it has no maintenance window"
	}
	return "its window is already " + showWindow(spec.MaintenanceWindow) + terms(spec.MaintenanceWindow)
}

// detail describes the window after the change.
func (*windowChange) detail(spec *v1alpha1.ComputeServiceSpec) string {
	if spec.MaintenanceWindow == nil {
		return ""
	}
	detail := ", " + showWindow(spec.MaintenanceWindow) + terms(spec.MaintenanceWindow)
	if spec.MaintenanceWindow.EndTime == nil && spec.MaintenanceWindow.StartTime != nil {
		detail += " (no end: it stays open until --end or --for sets one, or --clear removes it)"
	}
	return detail
}

// terms describes what of a window owners are told, beside its times: what it is, and by
// how much they can move it. It begins with a comma, or is empty.
func terms(w *v1alpha1.MaintenanceWindow) string {
	var out []string
	if w.LatestStartTime != nil {
		out = append(out, "can be put off until "+kubectlplugin.Stamp(w.LatestStartTime.Time))
	}
	if isTrue(w.OpenWhenReady) {
		out = append(out, "opens early when all are ready")
	}
	if w.Category != "" {
		out = append(out, string(w.Category))
	}
	if w.Impact != "" {
		out = append(out, "impact "+string(w.Impact))
	}
	if len(out) == 0 {
		return ""
	}
	return ", " + strings.Join(out, ", ")
}
