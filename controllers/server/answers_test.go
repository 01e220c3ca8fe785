// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/answers"
)

// fakeAnswers has the answer for the one server there is.
type fakeAnswers struct {
	unknown   bool
	answer    *ownerv1alpha1.MaintenanceAnswer
	listeners answers.Listeners
}

func (a *fakeAnswers) Listen(l answers.Listeners) { a.listeners = l }
func (a *fakeAnswers) Get(types.NamespacedName) (*ownerv1alpha1.MaintenanceAnswer, bool) {
	return a.answer, !a.unknown
}

func answerTo(start *metav1.Time, uid string) *ownerv1alpha1.MaintenanceAnswer {
	return &ownerv1alpha1.MaintenanceAnswer{Spec: ownerv1alpha1.MaintenanceAnswerSpec{Answer: ownerv1alpha1.AnswerReady, WindowStartTime: start, ServerUID: uid}}
}

func TestAServerShowsWhatHasBecomeOfItsAnswer(t *testing.T) {
	w, a := newWorld(t, serverOn("host-a"), service("host-a", up, announced)), &fakeAnswers{unknown: true}
	w.reconciler.WithAnswers(a)
	for _, step := range []struct {
		name   string
		change func()
		want   v1alpha1.AnswerState
		writes int
	}{
		{"while answers are not known, none is shown", func() {}, "", 1},
		{"there is none", func() { a.unknown = false }, v1alpha1.AnswerStateNone, 2},
		{"it counts", func() { a.answer = answerTo(at(time.Hour), "") }, v1alpha1.AnswerStateReady, 3},
		{"a restart does not forget it", func() { a.unknown = true }, v1alpha1.AnswerStateReady, 3},
		{"it is for another server", func() { a.unknown, a.answer = false, answerTo(at(time.Hour), "another") }, v1alpha1.AnswerStateStale, 4},
		{"it is to another window", func() { a.answer = answerTo(at(2*time.Hour), "") }, v1alpha1.AnswerStateStale, 4},
		{"it has gone", func() { a.answer = nil }, v1alpha1.AnswerStateNone, 5},
	} {
		step.change()
		for range 2 { // The second time there is nothing to do.
			w.reconcile()
			if got := w.read().Status.MaintenanceWindow.Answer; got != step.want {
				t.Errorf("%s: answer %q, want %q", step.name, got, step.want)
			}
			if w.writes != step.writes {
				t.Errorf("%s: %d writes, want %d", step.name, w.writes, step.writes)
			}
		}
	}
	if n := len(w.read().Status.HostHistory); n != 1 {
		t.Errorf("answers make a history of %d", n)
	}
}

func TestWithoutAWindowAnAnswerIsNothing(t *testing.T) {
	w := newWorld(t, serverOn("host-a"), service("host-a", up))
	w.reconciler.WithAnswers(&fakeAnswers{answer: answerTo(at(time.Hour), "")})
	w.reconcile()
	if got := w.read().Status.MaintenanceWindow; got != nil {
		t.Errorf("window %+v", got)
	}
}

func TestAServerShowsWhatItsOwnerMayKnowOfTheWindow(t *testing.T) {
	host := service("host-a", up, announced, func(s *v1alpha1.ComputeService) {
		w := s.Spec.MaintenanceWindow
		w.LatestStartTime, w.OpenWhenReady, w.Category, w.Impact = at(90*time.Minute), ptr.To(true), v1alpha1.CategoryNetwork, v1alpha1.ImpactPause
		s.Status.Maintenance = &v1alpha1.MaintenanceStatus{StartTime: w.StartTime, OpensAt: at(80 * time.Minute), Servers: ptr.To[int32](1)}
	})
	w := newWorld(t, serverOn("host-a"), host)
	w.reconcile()
	want := &v1alpha1.AnnouncedWindow{
		StartTime: at(time.Hour), OpensAt: at(80 * time.Minute), LatestStartTime: at(90 * time.Minute), EndTime: at(2 * time.Hour),
		Category: v1alpha1.CategoryNetwork, Impact: v1alpha1.ImpactPause,
	}
	if diff := cmp.Diff(want, w.read().Status.MaintenanceWindow); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A server that was written before there was a history gets one with its next write, not
// by itself.
func TestAHistoryBeginsWithTheNextWrite(t *testing.T) {
	w := newWorld(t, serverOn("host-a", settled(up)), service("host-a", up))
	w.reconcile()
	if got := w.read().Status.HostHistory; got != nil || w.writes != 0 {
		t.Errorf("history %+v after %d writes", got, w.writes)
	}
	move := w.read()
	move.Generation++
	if err := w.Update(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	want := []v1alpha1.HostStatusChange{{HostStatus: up, Reason: v1alpha1.ReasonReporting, Since: at(-time.Hour)}}
	if diff := cmp.Diff(want, w.read().Status.HostHistory); diff != "" || w.writes != 1 {
		t.Errorf("after %d writes (-want +got):\n%s", w.writes, diff)
	}
}

type laterQueue struct {
	requests // nil: only AddAfter is expected.
	events   []string
}

func (q *laterQueue) AddAfter(r reconcile.Request, d time.Duration) {
	q.events = append(q.events, r.String()+" after "+d.String())
}

func TestAnswersWakeTheirServersAfterAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, serverOn("host-a"), service("host-a", up, announced), service("host-b", up))
		a, queue := &fakeAnswers{}, &laterQueue{}
		keys := func(host string) ([]string, error) { return []string{"tenant/on-" + host}, nil }
		w.reconciler.WithAnswers(a).listen(context.Background(), keys, queue)
		a.listeners.Server(types.NamespacedName{Namespace: "tenant", Name: "vm"})
		a.listeners.Known()
		synctest.Wait()
		slices.Sort(queue.events)
		want := []string{"tenant/on-host-a after 250ms", "tenant/vm after 250ms"}
		if diff := cmp.Diff(want, queue.events); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
