// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Answers are what the owners of the servers on a host have answered to its maintenance
// window. The zero value is a host without servers.
type Answers struct {
	// Servers is how many servers are on the host. Ready and PutOff are how many of their
	// owners have answered Ready and NotBefore, in answers that count.
	Servers, Ready, PutOff int
	// Latest is the latest time before which one of them asks not to begin; zero if none
	// does.
	Latest time.Time
}

// Add counts the answer for one more server on the host; answer may be nil.
func (a *Answers) Add(w *v1alpha1.MaintenanceWindow, server *v1alpha1.Server, answer *ownerv1alpha1.MaintenanceAnswer) {
	a.Servers++
	switch StateOf(w.StartTime, server, answer) {
	case v1alpha1.AnswerStateReady:
		a.Ready++
	case v1alpha1.AnswerStateNotBefore:
		a.PutOff++
		if t := answer.Spec.NotBefore; t != nil && t.After(a.Latest) {
			a.Latest = t.Time
		}
	default: // It counts for nothing.
	}
}

// allReady reports whether the owner of each server is ready. Those of none are not.
func (a *Answers) allReady() bool { return a.Servers > 0 && a.Ready == a.Servers }

// StateOf returns what has become of the answer for a server to the window that starts at
// startTime, nil if that is not known yet: then no answer can be to it. answer is nil if
// there is none.
//
// Times are compared in whole seconds, since owners are shown no more of the window's.
func StateOf(startTime *metav1.Time, server *v1alpha1.Server, answer *ownerv1alpha1.MaintenanceAnswer) v1alpha1.AnswerState {
	switch {
	case answer == nil:
		return v1alpha1.AnswerStateNone
	case startTime == nil || !SameSecond(startTime, answer.Spec.WindowStartTime),
		answer.Spec.ServerUID != "" && answer.Spec.ServerUID != string(server.UID):
		return v1alpha1.AnswerStateStale
	case answer.Spec.Answer == ownerv1alpha1.AnswerReady:
		return v1alpha1.AnswerStateReady
	case answer.Spec.Answer == ownerv1alpha1.AnswerNotBefore:
		return v1alpha1.AnswerStateNotBefore
	default:
		return v1alpha1.AnswerStateStale // Of a release that knows more answers.
	}
}

// OpensAt returns when window w opens, given the answers to it; zero if it has no
// startTime, since then it opens never.
//
// With openWhenReady, and once the owner of each server is ready, that is now. Else it is
// startTime, or the latest time that an owner asks for where that is later, but not later
// than latestStartTime: without that, answers put nothing off. The owner of a server who
// has not answered agrees to startTime.
func OpensAt(w *v1alpha1.MaintenanceWindow, a Answers, now time.Time) time.Time {
	if w.StartTime == nil {
		return time.Time{}
	}
	start := w.StartTime.Time
	switch {
	case isTrue(w.OpenWhenReady) && a.allReady() && now.Before(start):
		return now
	case w.LatestStartTime == nil || !a.Latest.After(start) || !w.LatestStartTime.After(start):
		return start
	case a.Latest.After(w.LatestStartTime.Time):
		return w.LatestStartTime.Time
	default:
		return a.Latest
	}
}

// RecordOf returns status.maintenance of a ComputeService if it is about the present
// window, else nil.
func RecordOf(service *v1alpha1.ComputeService) *v1alpha1.MaintenanceStatus {
	w, record := service.Spec.MaintenanceWindow, service.Status.Maintenance
	if w == nil || record == nil || !SameSecond(w.StartTime, record.StartTime) {
		return nil
	}
	return record
}

// WindowOpened reports whether the window of the current spec has been open. That is
// remembered for the generation of the spec, so that a wall clock that is set back does not
// close it; and over a change of the spec for the window of the same startTime, unless the
// clock is before the time at which it opened: so that no answer closes it that has come
// meanwhile. One without a record, as release 0.1 left it, opened at its startTime.
func WindowOpened(service *v1alpha1.ComputeService, now time.Time) bool {
	c := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionWindowOpen)
	if c == nil || c.Status != metav1.ConditionTrue {
		return false
	}
	if c.ObservedGeneration == service.Generation {
		return true
	}
	var since *metav1.Time
	if w := service.Spec.MaintenanceWindow; w != nil && service.Status.Maintenance == nil {
		since = w.StartTime
	} else if record := RecordOf(service); record != nil {
		since = record.OpensAt
	}
	return since != nil && !now.Before(since.Time)
}

// SameSecond compares times as they are stored, in whole seconds; nil is one of them.
func SameSecond(a, b *metav1.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Unix() == b.Unix()
}
