// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// opensAt is when a window opens as things stand; nil if that is not known.
func opensAt(w *v1alpha1.AnnouncedWindow) *metav1.Time { return cmp.Or(w.OpensAt, w.StartTime) }

// isOpen is true if the host is in maintenance because of its window, or would be if it had
// no more urgent status.
func isOpen(fields *v1alpha1.HostFields, now time.Time) bool {
	w := fields.MaintenanceWindow
	if w == nil {
		return false
	}
	at := opensAt(w)
	return fields.HostStatusReason == v1alpha1.ReasonWindowOpen || at != nil && !now.Before(at.Time)
}

// window describes the window of the host in sentences.
func (s sight) window(now time.Time) string {
	w := s.fields.MaintenanceWindow
	switch {
	case !s.shown():
		return "not shown"
	case w == nil:
		return "none is announced"
	}
	at := opensAt(w)
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case at == nil:
		say("Planned, for a time that is not known yet.")
	case isOpen(&s.fields, now):
		say("Open since %s.", when(at, now))
	default:
		say("Opens %s.", when(at, now))
	}
	if at != nil && w.StartTime != nil && at.Unix() != w.StartTime.Unix() {
		say("It was announced for %s, and the owners' answers moved it.", when(w.StartTime, now))
	}
	switch {
	case at == nil:
	case w.EndTime == nil:
		say("No end is planned.")
	default:
		say("Ends %s.", when(w.EndTime, now))
	}
	switch {
	case at == nil, isOpen(&s.fields, now):
	case w.LatestStartTime == nil:
		say("Owners cannot put it off.")
	default:
		say("Owners can put it off until %s.", when(w.LatestStartTime, now))
	}
	if w.Category != "" {
		say("%s.", category(w.Category))
	}
	if w.Impact != "" {
		say("%s.", impact(w.Impact))
	}
	return strings.Join(out, " ")
}

// category is what is worked on.
func category(c v1alpha1.MaintenanceCategory) string {
	words := map[v1alpha1.MaintenanceCategory]string{
		v1alpha1.CategoryHardware:   "The hardware is worked on",
		v1alpha1.CategorySoftware:   "The software of the host is worked on",
		v1alpha1.CategoryNetwork:    "The network is worked on",
		v1alpha1.CategoryRelocation: "The host is moved, or ends its service",
		v1alpha1.CategoryOther:      "It is work of another kind",
	}
	return cmp.Or(words[c], "Category: "+string(c))
}

// impact is what the maintenance does to the server, at the worst.
func impact(i v1alpha1.MaintenanceImpact) string {
	words := map[v1alpha1.MaintenanceImpact]string{
		v1alpha1.ImpactNone:    "Your server goes on as it is",
		v1alpha1.ImpactPause:   "At the worst, your server stands still for a moment",
		v1alpha1.ImpactMigrate: "At the worst, your server is moved while it runs",
		v1alpha1.ImpactReboot:  "At the worst, your server is shut down and started again",
		v1alpha1.ImpactStop:    "At the worst, your server is off until the end",
	}
	return cmp.Or(words[i], "Impact: "+string(i))
}

// Counts is whether an answer counts.
type Counts string

// The values of Counts.
const (
	CountsYes Counts = "Yes"
	CountsNo  Counts = "No"
	// CountsNotKnown: not yet, or the caller may not see it.
	CountsNotKnown Counts = "NotKnown"
)

// answered describes what was answered, whether it counts, and what to do. target is how a
// command names the server; answer may be nil; failed is why it could not be read.
func (s sight) answered(target string, answer *ownerv1alpha1.MaintenanceAnswer, failed error, now time.Time) (Counts, string) {
	w := s.fields.MaintenanceWindow
	state := v1alpha1.AnswerState("")
	if w != nil {
		state = w.Answer
	}
	said := cmp.Or(map[v1alpha1.AnswerState]string{
		v1alpha1.AnswerStateReady:     "ready",
		v1alpha1.AnswerStateNotBefore: "not before a time that could not be read",
	}[state], "an answer that could not be read")
	if failed == nil && answer != nil {
		said = answerWords(answer, now)
	}
	// What was read is newer than what the manager has counted.
	there := answer != nil || failed != nil && slices.Contains([]v1alpha1.AnswerState{v1alpha1.AnswerStateReady, v1alpha1.AnswerStateNotBefore, v1alpha1.AnswerStateStale}, state)
	switch {
	case failed != nil && !there:
		return CountsNotKnown, "could not be read"
	case !there && w == nil:
		return "", "none"
	case !there && isOpen(&s.fields, now):
		return "", "None, and the window is open: an answer changes nothing any more."
	case !there && w.StartTime == nil:
		return "", "None. You can answer once the time is known."
	case !there && w.LatestStartTime == nil:
		return "", fmt.Sprintf("None, which counts as agreement to %s. 'kubectl servers ready %s' answers.", kubectlplugin.Stamp(w.StartTime.Time), target)
	case !there:
		return "", fmt.Sprintf("None, which counts as agreement to %s. Answer with 'kubectl servers ready %s', or with 'kubectl servers not-before %[2]s TIME'.", kubectlplugin.Stamp(w.StartTime.Time), target)
	case !s.shown():
		return CountsNotKnown, capital(said) + ". Whether it counts is not shown to you."
	case w == nil:
		return CountsNo, capital(said) + ". There is no window now, so it counts for nothing."
	}
	var out []string
	counts := CountsYes
	switch state {
	case v1alpha1.AnswerStateReady:
		out = append(out, capital(said)+". It counts.")
	case v1alpha1.AnswerStateNotBefore:
		out = append(out, capital(said)+". It counts"+limit(w, answer, now)+".")
	case v1alpha1.AnswerStateStale:
		counts = CountsNo
		out = append(out, capital(said)+". It counts for nothing: it is for another window, or for an earlier server of this name.")
		switch {
		case isOpen(&s.fields, now):
		case w.StartTime == nil:
			out = append(out, "Answer again once the time is known.")
		default:
			out = append(out, "Answer again.")
		}
	default:
		counts = CountsNotKnown
		out = append(out, capital(said)+". It is not known yet whether it counts.")
	}
	if isOpen(&s.fields, now) {
		out = append(out, "The window is open, so answers change nothing any more.")
	}
	return counts, strings.Join(out, " ")
}

// limit is how far an answer of not-before goes.
func limit(w *v1alpha1.AnnouncedWindow, answer *ownerv1alpha1.MaintenanceAnswer, now time.Time) string {
	switch {
	case answer == nil || answer.Spec.NotBefore == nil || w.StartTime == nil:
		return ""
	case w.LatestStartTime == nil:
		return ", and changes nothing: owners cannot put this window off"
	case answer.Spec.NotBefore.After(w.LatestStartTime.Time):
		return ", up to " + when(w.LatestStartTime, now)
	default:
		return ""
	}
}

// answerWords are an answer in words.
func answerWords(answer *ownerv1alpha1.MaintenanceAnswer, now time.Time) string {
	what := "ready"
	switch {
	case answer.Spec.Answer == ownerv1alpha1.AnswerNotBefore && answer.Spec.NotBefore != nil:
		what = "not before " + when(answer.Spec.NotBefore, now)
	case answer.Spec.Answer != ownerv1alpha1.AnswerReady:
		what = string(answer.Spec.Answer)
	}
	if answer.Spec.WindowStartTime == nil {
		return what
	}
	return what + " for the window of " + kubectlplugin.Stamp(answer.Spec.WindowStartTime.Time)
}
