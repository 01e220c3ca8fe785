// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// when writes a time as answers take it, and beside it as a person reads it: by the clock on
// the wall, which is that of now, and from now on.
func when(t *metav1.Time, now time.Time) string {
	const clock, dated = "15:04 MST", "Mon 2 Jan 15:04 MST"
	away := "now"
	switch d := t.Sub(now).Round(time.Second); {
	case d > 0:
		away = "in " + kubectlplugin.Human(d)
	case d < 0:
		away = kubectlplugin.Human(-d) + " ago"
	}
	local := t.In(now.Location())
	switch _, offset := local.Zone(); {
	case offset == 0:
		return kubectlplugin.Stamp(t.Time) + " (" + away + ")"
	case local.YearDay() == now.YearDay() && local.Year() == now.Year():
		return kubectlplugin.Stamp(t.Time) + " (" + local.Format(clock) + ", " + away + ")"
	default:
		return kubectlplugin.Stamp(t.Time) + " (" + local.Format(dated) + ", " + away + ")"
	}
}

// parseTime reads the time of not-before: as kubectl-hosts does, or a time of today or
// tomorrow by the clock on the wall, which is that of now.
func parseTime(words []string, now time.Time) (time.Time, error) {
	text := strings.TrimSpace(strings.Join(words, " "))
	day, clock, two := strings.Cut(text, " ")
	if !two {
		day, clock = "today", text
	}
	at, err := time.ParseInLocation("15:04", strings.TrimSpace(clock), now.Location())
	switch {
	case err == nil && day == "today":
		return onDay(0, at, text, now)
	case err == nil && day == "tomorrow":
		return onDay(1, at, text, now)
	}
	moment, err := kubectlplugin.ParseMoment("TIME", text)
	if err != nil {
		return time.Time{}, kubectlplugin.UsageError("TIME: %q is not a time; use RFC 3339 with a zone, such as 2027-01-10T22:00:00Z, a time from now, such as +2h or 1d, or a time of the day, such as 18:00 or tomorrow 06:00", text)
	}
	t := moment.Time(now)
	if !t.After(now) {
		return time.Time{}, kubectlplugin.UsageError("TIME: %s is not in the future (it is %s now); give a later time, or use 'kubectl servers ready' if maintenance may begin at any time", kubectlplugin.Stamp(t), kubectlplugin.Stamp(now))
	}
	return t, nil
}

// onDay is the time of day at, so many days after today.
func onDay(days int, at time.Time, text string, now time.Time) (time.Time, error) {
	t := time.Date(now.Year(), now.Month(), now.Day()+days, at.Hour(), at.Minute(), 0, 0, now.Location())
	if !t.After(now) {
		return time.Time{}, kubectlplugin.UsageError("TIME: %s has passed today; write tomorrow %s, or a later time", text, at.Format("15:04"))
	}
	return t, nil
}
