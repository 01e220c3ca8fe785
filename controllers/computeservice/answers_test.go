// SPDX-License-Identifier: Apache-2.0

package computeservice

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/answers"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// fakeAnswers are the answers of the owners of the servers on each host.
type fakeAnswers struct {
	unknown   bool
	counts    hoststatus.Answers
	counted   int
	listeners answers.Listeners
}

func (a *fakeAnswers) Listen(l answers.Listeners) { a.listeners = l }
func (a *fakeAnswers) Count(string, *v1alpha1.MaintenanceWindow) (hoststatus.Answers, bool) {
	a.counted++
	if a.unknown {
		return hoststatus.Answers{}, false
	}
	return a.counts, true
}

func (q *fakeQueue) AddAfter(r reconcile.Request, d time.Duration) {
	*q.events = append(*q.events, "wake "+r.Name+" after "+d.String())
}

func allReady(servers int) hoststatus.Answers {
	return hoststatus.Answers{Servers: servers, Ready: servers}
}

// until are the answers of two owners, one of whom asks for a time so long after now.
func until(offset time.Duration) hoststatus.Answers {
	return hoststatus.Answers{Servers: 2, PutOff: 1, Latest: at(offset)}
}

func silent(servers int) hoststatus.Answers { return hoststatus.Answers{Servers: servers} }

// putOffUntil lets owners put the window off until so long after now.
func putOffUntil(offset time.Duration) modifier {
	return func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.LatestStartTime = on(offset) }
}

func whenReady(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.OpenWhenReady = ptr.To(true) }

// asking is a world with one host, whose owners answer.
func asking(t *testing.T, modifiers ...modifier) (*world, *fakeAnswers) {
	t.Helper()
	w, a := newWorld(t, serviceWith(modifiers...)), &fakeAnswers{}
	w.reconciler.WithAnswers(a)
	return w, a
}

// edit changes the spec as an operator does.
func (w *world) edit(change modifier) {
	w.Helper()
	s := w.read("host-a")
	change(s)
	s.Generation++
	if err := w.Update(w.Context(), s); err != nil {
		w.Fatal(err)
	}
}

// passes lets time pass.
func (w *world) passes(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }

func maintenance(start, opens *time.Duration, counts hoststatus.Answers) *v1alpha1.MaintenanceStatus {
	m := &v1alpha1.MaintenanceStatus{Servers: count(counts.Servers), Ready: count(counts.Ready), PutOff: count(counts.PutOff)}
	if start != nil {
		m.StartTime, m.OpensAt = on(*start), on(*opens)
	}
	return m
}

func (w *world) wantMaintenance(want *v1alpha1.MaintenanceStatus) {
	w.Helper()
	if diff := cmp.Diff(want, w.read("host-a").Status.Maintenance); diff != "" {
		w.Errorf("status.maintenance (-want +got):\n%s", diff)
	}
}

const hour = time.Hour

var (
	announcedStatus = ptr.To(v1alpha1.HostStatusNeedsMaintenance)
	openStatus      = ptr.To(v1alpha1.HostStatusMaintenance)
)

func TestTheStatusHasWhatFollowsFromTheAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		service []modifier
		answers hoststatus.Answers
		want    *v1alpha1.MaintenanceStatus
		status  *v1alpha1.HostStatus
		again   time.Duration
	}{
		"silence":                          {[]modifier{window(hour, 0)}, silent(3), maintenance(ptr.To(hour), ptr.To(hour), silent(3)), announcedStatus, hour},
		"an owner puts it off":             {[]modifier{window(hour, 0), putOffUntil(3 * hour)}, until(2 * hour), maintenance(ptr.To(hour), ptr.To(2*hour), until(0)), announcedStatus, 2 * hour},
		"an owner asks where nobody may":   {[]modifier{window(hour, 0)}, until(2 * hour), maintenance(ptr.To(hour), ptr.To(hour), until(0)), announcedStatus, hour},
		"an owner has put it off":          {[]modifier{window(-hour, 0), putOffUntil(3 * hour)}, until(2 * hour), maintenance(ptr.To(-hour), ptr.To(2*hour), until(0)), announcedStatus, 2 * hour},
		"the latest time has come":         {[]modifier{window(-hour, 0), putOffUntil(0)}, until(2 * hour), maintenance(ptr.To(-hour), ptr.To(time.Duration(0)), until(0)), openStatus, 0},
		"all are ready":                    {[]modifier{window(hour, 0), whenReady}, allReady(2), maintenance(ptr.To(hour), ptr.To(time.Duration(0)), allReady(2)), openStatus, 0},
		"a host without servers is not":    {[]modifier{window(hour, 0), whenReady}, silent(0), maintenance(ptr.To(hour), ptr.To(hour), silent(0)), announcedStatus, hour},
		"a window without a time":          {[]modifier{window(hour, 0), whenReady, func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.StartTime = nil }}, silent(2), maintenance(nil, nil, silent(2)), announcedStatus, 0},
		"a window that is over":            {[]modifier{window(-2*hour, -hour)}, until(2 * hour), nil, ptr.To(v1alpha1.HostStatusUp), 0},
		"no window":                        {nil, allReady(2), nil, ptr.To(v1alpha1.HostStatusUp), 0},
		"a host that is forced down":       {[]modifier{window(hour, 0), whenReady, forcedDown(ptr.To(true))}, allReady(1), maintenance(ptr.To(hour), ptr.To(time.Duration(0)), allReady(1)), ptr.To(v1alpha1.HostStatusDown), 0},
		"a host that is disabled, put off": {[]modifier{window(hour, 0), putOffUntil(3 * hour), disabled(ptr.To(true))}, until(2 * hour), maintenance(ptr.To(hour), ptr.To(2*hour), until(0)), openStatus, 2 * hour},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := asking(t, c.service...)
			a.counts = c.answers
			for range 2 { // The second time there is nothing to do.
				if result := w.reconcile("host-a"); result.RequeueAfter != c.again {
					t.Errorf("comes again after %s, want %s", result.RequeueAfter, c.again)
				}
				w.want(c.status, 1)
				w.wantMaintenance(c.want)
				w.passes(answersDelay)
				c.again = max(c.again-answersDelay, 0)
			}
		})
	}
}

func TestAnAnswerThatChangesNothingIsNoReasonToWrite(t *testing.T) {
	w, a := asking(t, window(hour, 0), putOffUntil(4*hour))
	a.counts = until(2 * hour)
	w.reconcile("host-a")
	w.want(announcedStatus, 1)
	w.reconcile("host-a")
	w.want(announcedStatus, 1)
	a.counts = until(3 * hour)
	w.passes(answersDelay)
	w.reconcile("host-a")
	w.want(announcedStatus, 2)
	if got := meta.FindStatusCondition(w.read("host-a").Status.Conditions, v1alpha1.ConditionWindowOpen).Message; got != "Opens at 2026-03-01T15:00:00Z" {
		t.Errorf("message %q", got)
	}
}

// The queue merges the wake-up by an answer with one that comes before it, such as by the
// controller's own write.
func TestAnAnswerThatComesAfterACountIsCountedWhateverElseWakesTheController(t *testing.T) {
	w, a := asking(t, window(hour, 0), whenReady)
	queue := priorityqueue.New[reconcile.Request]("answers")
	defer queue.ShutDown()
	a.counts = silent(2)
	w.reconcile("host-a")
	w.want(announcedStatus, 1)
	w.passes(answersDelay / 5)
	a.counts = allReady(2)
	addLater(queue, requestFor("host-a"))
	w.passes(answersDelay / 5)
	queue.Add(requestFor("host-a"))
	if request, _ := queue.Get(); request != requestFor("host-a") || queue.Len() > 0 {
		t.Fatalf("got %s, and %d more wait", request, queue.Len())
	}
	result := w.reconcile("host-a")
	if want := answersDelay * 3 / 5; result.RequeueAfter != want {
		t.Errorf("comes again after %s, want %s", result.RequeueAfter, want)
	}
	w.passes(answersDelay * 3 / 5)
	w.reconcile("host-a")
	w.want(openStatus, 2)
}

// A window that is open stays open: the answer that comes in the same second comes too
// late, whichever is looked at first.
func TestAnOpenWindowStaysOpenWhateverHappensAfterwards(t *testing.T) {
	later := map[string]func(*world, *fakeAnswers){
		"another answer":         func(_ *world, a *fakeAnswers) { a.counts = until(3 * hour) },
		"a server that comes":    func(_ *world, a *fakeAnswers) { a.counts.Servers++ },
		"a server that goes":     func(_ *world, a *fakeAnswers) { a.counts = silent(0) },
		"a restart":              func(_ *world, a *fakeAnswers) { a.unknown = true },
		"a clock that goes back": func(w *world, a *fakeAnswers) { w.clock.SetTime(at(-2 * hour)); a.counts = until(3 * hour) },
		"an edit, and another answer": func(w *world, a *fakeAnswers) {
			w.edit(func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.Reason = ptr.To("new disks") })
			a.counts = until(3 * hour)
		},
		"an edit, and a server that comes": func(w *world, a *fakeAnswers) {
			w.edit(forcedDown(ptr.To(false)))
			a.counts.Servers++
		},
		"a wiped record, and another answer": func(w *world, a *fakeAnswers) {
			s := w.read("host-a")
			s.Status.Maintenance = nil
			if err := w.Status().Update(w.Context(), s); err != nil {
				w.Fatal(err)
			}
			a.counts = until(3 * hour)
		},
	}
	for how, c := range map[string]struct {
		service []modifier
		counts  hoststatus.Answers
		opened  time.Duration
	}{
		"early":            {[]modifier{window(hour, 0), putOffUntil(4 * hour), whenReady}, allReady(2), 0},
		"after all":        {[]modifier{window(-2*hour, 0), putOffUntil(4 * hour), whenReady}, until(0), 0},
		"at its startTime": {[]modifier{window(0, 0), putOffUntil(4 * hour)}, silent(2), 0},
	} {
		for what, happens := range later {
			t.Run("it opened "+how+"; then "+what, func(t *testing.T) {
				w, a := asking(t, c.service...)
				a.counts = c.counts
				w.reconcile("host-a")
				w.want(openStatus, 1)
				record := w.read("host-a").Status.Maintenance
				if !record.OpensAt.Equal(on(c.opened)) {
					t.Errorf("opened at %s", record.OpensAt)
				}
				happens(w, a)
				w.reconcile("host-a")
				w.reconcile("host-a")
				if got := w.read("host-a").Status; *got.HostStatus != *openStatus {
					t.Errorf("it is %s again: %+v", *got.HostStatus, got.Maintenance)
				} else if got.Maintenance != nil {
					w.wantMaintenance(record)
				}
			})
		}
	}
}

func TestAnAnswerInTheSecondOfTheOpeningCounts(t *testing.T) {
	w, a := asking(t, window(hour, 0), putOffUntil(4*hour))
	a.counts = silent(2)
	w.reconcile("host-a")
	w.want(announcedStatus, 1)
	w.clock.SetTime(at(hour)) // The timer, before anybody has told of the answer.
	a.counts = until(2 * hour)
	w.reconcile("host-a")
	w.want(announcedStatus, 2)
	w.wantMaintenance(maintenance(ptr.To(hour), ptr.To(2*hour), until(0)))
}

// A manager that has just begun does not know the answers yet. What the one before it knew
// of them holds.
func TestWhileTheAnswersAreNotKnownWhatWasKnownHolds(t *testing.T) {
	w, a := asking(t, window(hour, 0), putOffUntil(4*hour), whenReady)
	a.counts = until(2 * hour)
	w.reconcile("host-a")
	a.unknown = true
	w.clock.SetTime(at(hour))
	if result := w.reconcile("host-a"); result.RequeueAfter != hour {
		t.Errorf("comes again after %s", result.RequeueAfter)
	}
	w.want(announcedStatus, 1)
	t.Run("within the bounds of today", func(*testing.T) {
		w.edit(putOffUntil(90 * time.Minute))
		w.reconcile("host-a")
		w.want(announcedStatus, 2)
		w.wantMaintenance(maintenance(ptr.To(hour), ptr.To(90*time.Minute), until(0)))
	})
	t.Run("and not for another window", func(*testing.T) {
		w.edit(func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.StartTime = on(80 * time.Minute) })
		w.reconcile("host-a")
		w.want(announcedStatus, 3)
		w.wantMaintenance(nil)
		w.clock.SetTime(at(80 * time.Minute))
		w.reconcile("host-a")
		w.want(openStatus, 4)
	})
}

func TestARestartDoesNotForgetThatAWindowIsOpen(t *testing.T) {
	w, a := asking(t, window(hour, 2*hour), whenReady)
	a.counts = allReady(1)
	w.reconcile("host-a")
	w.want(openStatus, 1)
	restarted := NewReconciler(w.Client, w.monitor, w.clock).WithAnswers(&fakeAnswers{counts: silent(1)})
	w.reconciler = restarted
	w.clock.SetTime(at(time.Minute))
	if result := w.reconcile("host-a"); result.RequeueAfter != 2*hour-time.Minute {
		t.Errorf("comes again after %s", result.RequeueAfter)
	}
	w.want(openStatus, 1)
	w.clock.SetTime(at(2 * hour))
	w.reconcile("host-a")
	w.want(ptr.To(v1alpha1.HostStatusUp), 2)
	w.wantMaintenance(nil)
}

func TestServersThatComeAndGoAreCounted(t *testing.T) {
	w, a := asking(t, window(hour, 0), whenReady)
	a.counts = hoststatus.Answers{Servers: 2, Ready: 1}
	w.reconcile("host-a")
	w.want(announcedStatus, 1)
	a.counts = hoststatus.Answers{Servers: 3, Ready: 2} // One arrives, and another is ready.
	w.passes(answersDelay)
	w.reconcile("host-a")
	w.want(announcedStatus, 2)
	a.counts = allReady(2) // The one that is not has left.
	w.passes(answersDelay)
	w.reconcile("host-a")
	w.want(openStatus, 3)
}

func TestAWindowThatIsMovedWhileItIsOpenIsAnnouncedAgain(t *testing.T) {
	w, a := asking(t, window(hour, 0), whenReady)
	a.counts = allReady(2)
	w.reconcile("host-a")
	w.want(openStatus, 1)
	a.counts = silent(2) // They have answered to another window.
	w.edit(func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.StartTime = on(2 * hour) })
	w.reconcile("host-a")
	w.want(announcedStatus, 2)
	w.wantMaintenance(maintenance(ptr.To(2*hour), ptr.To(2*hour), silent(2)))
}

func TestAnswersAreCountedOnlyWhereTheyMatter(t *testing.T) {
	for name, c := range map[string]struct {
		service []modifier
		want    int
	}{
		"without a window": {nil, 0},
		"before it opens":  {[]modifier{window(hour, 0)}, 2}, // The second time is later.
		"once it is open":  {[]modifier{window(-hour, 0)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := asking(t, c.service...)
			w.reconcile("host-a")
			w.passes(answersDelay)
			w.reconcile("host-a")
			if a.counted != c.want {
				t.Errorf("counted %d times, want %d", a.counted, c.want)
			}
		})
	}
}

func TestOwnersWakeTheControllerAfterAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, serviceWith(named("plain")), serviceWith(named("announced"), window(hour, 0)))
		a := &fakeAnswers{}
		if err := w.reconciler.WithAnswers(a).listen(t.Context(), w.queue); err != nil {
			t.Fatal(err)
		}
		a.listeners.Host("plain")
		a.listeners.Known()
		synctest.Wait()
		slices.Sort(w.events)
		if diff := cmp.Diff([]string{"wake announced", "wake plain after 500ms"}, w.events); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Each write of a host wakes the controller at once. Whoever changes his answer as fast as
// that must not cause as many writes.
func TestAnOwnerWhoChangesHisAnswerAllTheTimeCausesTwoWritesASecond(t *testing.T) {
	w, a := asking(t, window(hour, 0), putOffUntil(4*hour))
	const tick = 10 * time.Millisecond
	for i := range int(3 * time.Second / tick) {
		a.counts = until(2*hour + time.Duration(i)*time.Second)
		w.reconcile("host-a")
		w.passes(tick)
	}
	w.want(announcedStatus, 6)
}

func TestAnAnswerJustBeforeTheOpeningIsNotMissed(t *testing.T) {
	w, a := asking(t, window(hour, 0), putOffUntil(4*hour))
	w.clock.SetTime(at(hour - answersDelay/2))
	a.counts = silent(2)
	w.reconcile("host-a")
	w.want(announcedStatus, 1)
	a.counts = until(2 * hour)
	w.clock.SetTime(at(hour))
	w.reconcile("host-a")
	w.want(announcedStatus, 2)
	w.wantMaintenance(maintenance(ptr.To(hour), ptr.To(2*hour), until(0)))
}

func TestWhatWasCountedIsForgottenWithItsHost(t *testing.T) {
	w, _ := asking(t, window(hour, 0))
	w.reconcile("host-a")
	if len(w.reconciler.counts) != 1 {
		t.Fatalf("counts of %d hosts", len(w.reconciler.counts))
	}
	gone := &tracker{monitor: w.monitor, forget: w.reconciler.forgetCount}
	gone.Delete(t.Context(), event.DeleteEvent{Object: w.read("host-a")}, w.queue)
	if len(w.reconciler.counts) != 0 {
		t.Errorf("counts of %d hosts", len(w.reconciler.counts))
	}
}
