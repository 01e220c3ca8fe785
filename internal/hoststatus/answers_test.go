// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func after(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(now.Add(d))) }

// answerTo is an answer to the window that starts so long after now.
func answerTo(start time.Duration, modifiers ...func(*ownerv1alpha1.MaintenanceAnswerSpec)) *ownerv1alpha1.MaintenanceAnswer {
	a := &ownerv1alpha1.MaintenanceAnswer{}
	a.Spec.WindowStartTime = after(start)
	for _, modify := range modifiers {
		modify(&a.Spec)
	}
	return a
}

func ready(s *ownerv1alpha1.MaintenanceAnswerSpec) { s.Answer = ownerv1alpha1.AnswerReady }

func notBefore(d time.Duration) func(*ownerv1alpha1.MaintenanceAnswerSpec) {
	return func(s *ownerv1alpha1.MaintenanceAnswerSpec) {
		s.Answer, s.NotBefore = ownerv1alpha1.AnswerNotBefore, after(d)
	}
}

func forUID(uid string) func(*ownerv1alpha1.MaintenanceAnswerSpec) {
	return func(s *ownerv1alpha1.MaintenanceAnswerSpec) { s.ServerUID = uid }
}

func serverOf(uid types.UID) *v1alpha1.Server {
	return &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{UID: uid}}
}

func TestStateOf(t *testing.T) {
	for name, c := range map[string]struct {
		start  *metav1.Time
		answer *ownerv1alpha1.MaintenanceAnswer
		want   v1alpha1.AnswerState
	}{
		"no answer":                                 {after(time.Hour), nil, v1alpha1.AnswerStateNone},
		"no answer, and no time":                    {nil, nil, v1alpha1.AnswerStateNone},
		"ready":                                     {after(time.Hour), answerTo(time.Hour, ready), v1alpha1.AnswerStateReady},
		"not before":                                {after(time.Hour), answerTo(time.Hour, notBefore(2*time.Hour)), v1alpha1.AnswerStateNotBefore},
		"ready for a window that has been moved":    {after(2 * time.Hour), answerTo(time.Hour, ready), v1alpha1.AnswerStateStale},
		"ready for a window without a time":         {nil, answerTo(time.Hour, ready), v1alpha1.AnswerStateStale},
		"an answer that names no window":            {after(time.Hour), &ownerv1alpha1.MaintenanceAnswer{Spec: ownerv1alpha1.MaintenanceAnswerSpec{Answer: ownerv1alpha1.AnswerReady}}, v1alpha1.AnswerStateStale},
		"ready for this server":                     {after(time.Hour), answerTo(time.Hour, ready, forUID("uid")), v1alpha1.AnswerStateReady},
		"ready for an earlier server of its name":   {after(time.Hour), answerTo(time.Hour, ready, forUID("earlier")), v1alpha1.AnswerStateStale},
		"an answer that this release does not know": {after(time.Hour), answerTo(time.Hour, func(s *ownerv1alpha1.MaintenanceAnswerSpec) { s.Answer = "Never" }), v1alpha1.AnswerStateStale},
		"a window within the second that is shown":  {ptr.To(metav1.NewTime(now.Add(time.Hour + 700*time.Millisecond))), answerTo(time.Hour, ready), v1alpha1.AnswerStateReady},
		"in another time zone":                      {ptr.To(metav1.NewTime(now.Add(time.Hour).In(time.FixedZone("elsewhere", 3600)))), answerTo(time.Hour, ready), v1alpha1.AnswerStateReady},
	} {
		t.Run(name, func(t *testing.T) {
			if got := StateOf(c.start, serverOf("uid"), c.answer); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestAnswersAreCounted(t *testing.T) {
	w := windowOf(time.Hour, 0)
	var got Answers
	for _, answer := range []*ownerv1alpha1.MaintenanceAnswer{
		nil,
		answerTo(time.Hour, ready),
		answerTo(time.Hour, ready, forUID("earlier")),
		answerTo(time.Hour, notBefore(3*time.Hour)),
		answerTo(time.Hour, notBefore(2*time.Hour)),
		answerTo(2*time.Hour, notBefore(9*time.Hour)),
	} {
		got.Add(w, serverOf("uid"), answer)
	}
	want := Answers{Servers: 6, Ready: 1, PutOff: 2, Latest: now.Add(3 * time.Hour)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func latest(d time.Duration) func(*v1alpha1.MaintenanceWindow) {
	return func(w *v1alpha1.MaintenanceWindow) { w.LatestStartTime = after(d) }
}

func whenReady(w *v1alpha1.MaintenanceWindow) { w.OpenWhenReady = ptr.To(true) }

func TestOpensAt(t *testing.T) {
	const hour = time.Hour
	allReady := Answers{Servers: 2, Ready: 2}
	until := func(d time.Duration) Answers { return Answers{Servers: 2, PutOff: 1, Latest: now.Add(d)} }
	for name, c := range map[string]struct {
		modify  []func(*v1alpha1.MaintenanceWindow)
		answers Answers
		want    time.Duration
	}{
		"silence is startTime":                            {nil, Answers{Servers: 2}, hour},
		"a host without servers":                          {nil, Answers{}, hour},
		"nobody can put off what has no latest time":      {nil, until(2 * hour), hour},
		"an owner puts it off":                            {[]func(*v1alpha1.MaintenanceWindow){latest(3 * hour)}, until(2 * hour), 2 * hour},
		"but not further than the latest time":            {[]func(*v1alpha1.MaintenanceWindow){latest(3 * hour)}, until(4 * hour), 3 * hour},
		"a time before startTime changes nothing":         {[]func(*v1alpha1.MaintenanceWindow){latest(3 * hour)}, until(0), hour},
		"a latest time at startTime leaves nothing":       {[]func(*v1alpha1.MaintenanceWindow){latest(hour)}, until(2 * hour), hour},
		"nor does one before it, which is not accepted":   {[]func(*v1alpha1.MaintenanceWindow){latest(-hour)}, until(2 * hour), hour},
		"all are ready, but it is not to open early":      {nil, allReady, hour},
		"all are ready":                                   {[]func(*v1alpha1.MaintenanceWindow){whenReady}, allReady, 0},
		"one is not":                                      {[]func(*v1alpha1.MaintenanceWindow){whenReady}, Answers{Servers: 2, Ready: 1}, hour},
		"a host without servers does not open early":      {[]func(*v1alpha1.MaintenanceWindow){whenReady}, Answers{}, hour},
		"one is ready and one puts it off":                {[]func(*v1alpha1.MaintenanceWindow){whenReady, latest(3 * hour)}, Answers{Servers: 2, Ready: 1, PutOff: 1, Latest: now.Add(2 * hour)}, 2 * hour},
		"all are ready after startTime, which has passed": {[]func(*v1alpha1.MaintenanceWindow){whenReady, func(w *v1alpha1.MaintenanceWindow) { w.StartTime = after(-hour) }}, allReady, -hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := windowOf(hour, 0)
			for _, modify := range c.modify {
				modify(w)
			}
			if got := OpensAt(w, c.answers, now); !got.Equal(now.Add(c.want)) {
				t.Errorf("opens %s from now, want %s", got.Sub(now), c.want)
			}
		})
	}
	t.Run("without a startTime it opens never", func(t *testing.T) {
		w := &v1alpha1.MaintenanceWindow{OpenWhenReady: ptr.To(true)}
		if got := OpensAt(w, allReady, now); !got.IsZero() {
			t.Errorf("opens at %s", got)
		}
		if got := Derive(&v1alpha1.ComputeServiceSpec{MaintenanceWindow: w}, Observation{Reporting: "True", Reason: "Reporting", Answers: allReady}, now); got.Window != WindowAnnounced {
			t.Errorf("phase %d", got.Window)
		}
	})
}

func TestWindowOpenedIsRememberedByItsGenerationOrItsName(t *testing.T) {
	opened := func(generation int64, at time.Duration) *v1alpha1.ComputeService {
		s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Generation: generation}}
		s.Spec.MaintenanceWindow = windowOf(time.Hour, 0)
		s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionWindowOpen, Status: metav1.ConditionTrue, ObservedGeneration: 1}}
		s.Status.Maintenance = &v1alpha1.MaintenanceStatus{StartTime: after(time.Hour), OpensAt: after(at)}
		return s
	}
	with := func(s *v1alpha1.ComputeService, modify func(*v1alpha1.ComputeService)) *v1alpha1.ComputeService {
		modify(s)
		return s
	}
	for name, c := range map[string]struct {
		service *v1alpha1.ComputeService
		want    bool
	}{
		"the same spec":                          {opened(1, -time.Minute), true},
		"the same spec, and a clock before that": {opened(1, time.Minute), true},
		"another spec with the same window":      {opened(2, -time.Minute), true},
		"another spec, and a clock before that":  {opened(2, time.Minute), false},
		"another window":                         {with(opened(2, -time.Minute), func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.StartTime = after(2 * time.Hour) }), false},
		"another spec, nothing is known of when, and it was to start by now": {with(opened(2, 0), func(s *v1alpha1.ComputeService) {
			s.Spec.MaintenanceWindow.StartTime, s.Status.Maintenance = after(-time.Hour), nil
		}), true},
		"another spec, and nothing is known of when":  {with(opened(2, 0), func(s *v1alpha1.ComputeService) { s.Status.Maintenance = nil }), false},
		"the same spec, and nothing is known of when": {with(opened(1, 0), func(s *v1alpha1.ComputeService) { s.Status.Maintenance = nil }), true},
		"no window any more":                          {with(opened(2, -time.Minute), func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow = nil }), false},
		"one that has not opened":                     {with(opened(1, -time.Minute), func(s *v1alpha1.ComputeService) { s.Status.Conditions[0].Status = metav1.ConditionFalse }), false},
		"one that nobody has looked at":               {with(opened(1, -time.Minute), func(s *v1alpha1.ComputeService) { s.Status.Conditions = nil }), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := WindowOpened(c.service, now); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// answerWorld is a window, the servers on its host and their answers, and what the manager
// remembers.
type answerWorld struct {
	*rapid.T
	window  *v1alpha1.MaintenanceWindow
	servers []*v1alpha1.Server
	answers []*ownerv1alpha1.MaintenanceAnswer
	now     time.Time
	phase   WindowPhase
}

var offsets = rapid.IntRange(-120, 120)

func draw[T any](w *answerWorld, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(w.T, label)
}

func (w *answerWorld) offset(label string) time.Duration {
	return time.Duration(offsets.Draw(w.T, label)) * time.Second
}

func newAnswerWorld(t *rapid.T) *answerWorld {
	w := &answerWorld{T: t, now: now}
	start := w.offset("start")
	w.window = windowOf(start, 0)
	length := time.Duration(rapid.IntRange(0, 120).Draw(t, "length")) * time.Second
	if draw(w, "has latest", true, false) {
		w.window.LatestStartTime = after(start + length)
	}
	if draw(w, "has end", true, false) {
		w.window.EndTime = after(start + length + time.Duration(rapid.IntRange(1, 60).Draw(t, "open for"))*time.Second)
	}
	w.window.OpenWhenReady = draw(w, "when ready", nil, ptr.To(false), ptr.To(true))
	return w
}

func (w *answerWorld) answer() *ownerv1alpha1.MaintenanceAnswer {
	if draw(w, "silent", true, false, false, false) {
		return nil
	}
	a := &ownerv1alpha1.MaintenanceAnswer{}
	a.Spec.WindowStartTime = draw(w, "answers", w.window.StartTime, w.window.StartTime, w.window.StartTime, after(time.Hour))
	a.Spec.ServerUID = draw(w, "for uid", "", "uid", "", "earlier")
	draw(w, "word", ready, ready, notBefore(w.offset("not before")))(&a.Spec)
	return a
}

func (w *answerWorld) counts(i int) bool {
	a := w.answers[i]
	return a != nil && a.Spec.WindowStartTime == w.window.StartTime && a.Spec.ServerUID != "earlier"
}

// look lets the manager look at it, and judges what it decides.
func (w *answerWorld) look() {
	var all, counting Answers
	allReady := len(w.servers) > 0
	for i, server := range w.servers {
		all.Add(w.window, server, w.answers[i])
		if w.counts(i) {
			counting.Add(w.window, server, w.answers[i])
		} else {
			counting.Add(w.window, server, nil)
		}
		allReady = allReady && w.counts(i) && w.answers[i].Spec.Answer == ownerv1alpha1.AnswerReady
	}
	spec := v1alpha1.ComputeServiceSpec{MaintenanceWindow: w.window}
	derive := func(a Answers) Result {
		return Derive(&spec, Observation{Reporting: v1alpha1.HostReportingTrue, Reason: v1alpha1.ReasonReporting, WindowOpened: w.phase == WindowOpen, Answers: a}, w.now)
	}
	got := derive(all)
	describe := fmt.Sprintf("at %s, of %+v, after phase %d", w.now.Sub(now), all, w.phase)
	if diff := cmp.Diff(derive(counting), got); diff != "" {
		w.Errorf("%s: answers that count for nothing count (-without +with):\n%s", describe, diff)
	}
	start := w.window.StartTime.Time
	last := start
	if w.window.LatestStartTime != nil {
		last = w.window.LatestStartTime.Time
	}
	early := allReady && isTrue(w.window.OpenWhenReady)
	ended := w.window.EndTime != nil && !w.now.Before(w.window.EndTime.Time)
	switch {
	case ended:
		if got.Window != WindowClosed {
			w.Errorf("%s: phase %d after the end", describe, got.Window)
		}
	case w.phase == WindowOpen && got.Window != WindowOpen:
		w.Errorf("%s: an open window does not stay open", describe)
	case got.Window == WindowOpen && w.phase != WindowOpen && w.now.Before(start) && !early:
		w.Errorf("%s: opens before startTime", describe)
	case got.Window != WindowOpen && !w.now.Before(last):
		w.Errorf("%s: does not open at the latest time", describe)
	case got.Window != WindowOpen && early:
		w.Errorf("%s: does not open although all are ready", describe)
	}
	if opens := OpensAt(w.window, all, w.now); opens.After(last) || opens.Before(start) && !early {
		w.Errorf("%s: opens at %s, outside of %s to %s", describe, opens.Sub(now), start.Sub(now), last.Sub(now))
	}
	if !got.Next.IsZero() && !got.Next.After(w.now) {
		w.Errorf("%s: is to be looked at again at %s", describe, got.Next.Sub(now))
	}
	want := map[WindowPhase]v1alpha1.HostStatus{WindowAnnounced: v1alpha1.HostStatusNeedsMaintenance, WindowOpen: v1alpha1.HostStatusMaintenance, WindowClosed: v1alpha1.HostStatusUp}[got.Window]
	if *got.Status != want {
		w.Errorf("%s: %s in phase %d", describe, *got.Status, got.Window)
	}
	spec.ForcedDown, spec.Disabled = ptr.To(true), ptr.To(true)
	if down := derive(all); *down.Status != v1alpha1.HostStatusDown {
		w.Errorf("%s: a host that is forced down is %s", describe, *down.Status)
	}
	spec.ForcedDown = nil
	if disabled := derive(all); disabled.Reason != v1alpha1.ReasonDisabled {
		w.Errorf("%s: a host that is disabled is %s", describe, disabled.Reason)
	}
	w.phase = got.Window
}

// Whatever owners answer, and whatever the clock does: a window opens between startTime and
// latestStartTime, or before if all are ready and it may; and once it is open it stays so.
func TestAnswersMoveTheOpeningWithinItsBoundsOnly(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newAnswerWorld(r)
		any := func() int { return rapid.IntRange(0, len(w.servers)-1).Draw(r, "server") }
		r.Repeat(map[string]func(*rapid.T){
			"a server comes": func(*rapid.T) {
				w.servers, w.answers = append(w.servers, serverOf("uid")), append(w.answers, w.answer())
			},
			"a server goes": func(*rapid.T) {
				if len(w.servers) > 0 {
					i := any()
					w.servers, w.answers = slices.Delete(w.servers, i, i+1), slices.Delete(w.answers, i, i+1)
				}
			},
			"an owner answers": func(*rapid.T) {
				if len(w.servers) > 0 {
					w.answers[any()] = w.answer()
				}
			},
			"the clock steps": func(*rapid.T) { w.now = w.now.Add(w.offset("step")) },
			"":                func(*rapid.T) { w.look() },
		})
	})
}
