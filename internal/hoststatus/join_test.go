// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// since returns host fields of a status that has lasted for so long, or has no time.
func since(status v1alpha1.HostStatus, ago ...time.Duration) v1alpha1.HostFields {
	fields := v1alpha1.HostFields{HostStatus: &status, HostStatusReason: v1alpha1.ReasonReporting, HostReporting: v1alpha1.HostReportingTrue}
	for _, d := range ago {
		fields.HostStatusTransitionTime = ptr.To(metav1.NewTime(now.Add(-d)))
	}
	return fields
}

func TestJoin(t *testing.T) {
	const up, down = v1alpha1.HostStatusUp, v1alpha1.HostStatusDown
	stored := Copy{Version: 10, Current: true, Fields: since(up, time.Hour)}
	with := func(change func(*Copy)) Copy {
		c := stored
		change(&c)
		return c
	}
	newer := &Host{Version: 11, Fields: since(down, time.Minute)}
	for name, c := range map[string]struct {
		stored Copy
		host   *Host
		want   v1alpha1.HostFields
	}{
		"a newer host":                                 {stored, newer, since(down, time.Minute)},
		"an older host":                                {stored, &Host{Version: 9, Fields: newer.Fields}, stored.Fields},
		"the host that was copied":                     {stored, &Host{Version: 10, Fields: newer.Fields}, stored.Fields},
		"10 is newer than 9, as numbers are":           {with(func(c *Copy) { c.Version = 9 }), &Host{Version: 10, Fields: newer.Fields}, newer.Fields},
		"a host that is not known":                     {stored, nil, stored.Fields},
		"a server on no known host":                    {with(func(c *Copy) { c.Version = 0 }), newer, stored.Fields},
		"a server that may have moved":                 {with(func(c *Copy) { c.Current = false }), newer, stored.Fields},
		"a host of whose change nobody knows the time": {stored, &Host{Version: 11, Fields: since(down)}, stored.Fields},
		"a host that is what it was":                   {stored, &Host{Version: 11, Fields: since(up, 2*time.Hour)}, stored.Fields},
		"a host that is what it was again":             {stored, &Host{Version: 11, Fields: since(up, time.Minute)}, since(up, time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			got := Join(c.stored, c.host)
			c.want.HostHistory = got.HostHistory // Of TestTheHistory.
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.host == nil || !c.stored.Current {
				return
			}
			// What the controller writes, and whenever it does, changes nothing.
			if copied := Take(c.stored.Fields, c.host.Fields, false, now); c.host.Version > c.stored.Version && c.stored.Version != 0 && !SameFields(got, stored.Fields) && !SameFields(copied, got) {
				t.Errorf("the copy brings other fields (-joined +copied):\n%s", cmp.Diff(got, copied))
			}
		})
	}
}

func TestTake(t *testing.T) {
	const up, down = v1alpha1.HostStatusUp, v1alpha1.HostStatusDown
	for name, c := range map[string]struct {
		have, want v1alpha1.HostFields
		moved      bool
		since      time.Duration
	}{
		"another status has the host's time":                     {since(up, time.Hour), since(down, time.Minute), false, time.Minute},
		"after a move it has the server's":                       {since(up, time.Hour), since(down, time.Minute), true, 0},
		"the same status keeps its time":                         {since(up, time.Hour), since(up, 2*time.Hour), false, time.Hour},
		"after a move, too":                                      {since(up, time.Hour), since(up, 2*time.Hour), true, time.Hour},
		"but not if the host has been something else meanwhile":  {since(up, time.Hour), since(up, time.Minute), false, time.Minute},
		"of a host without a time it is now":                     {since(up, time.Hour), since(down), false, 0},
		"a server without a time gets the host's":                {since(up), since(up, time.Minute), false, time.Minute},
		"without any it is now":                                  {since(up), since(up), false, 0},
		"after a move by a clock that is behind the host's, too": {since(up, time.Hour), since(down, -time.Minute), true, -time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			got := Take(c.have, c.want, c.moved, now)
			want := c.want
			want.HostStatusTransitionTime = ptr.To(metav1.NewTime(now.Add(-c.since)))
			want.HostHistory = got.HostHistory // Of TestTheHistory.
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := Take(got, c.want, false, now.Add(time.Hour)); !SameFields(got, again) && c.want.HostStatusTransitionTime != nil {
				t.Errorf("taken twice it changes (-once +twice):\n%s", cmp.Diff(got, again))
			}
		})
	}
}

// What a controller writes when a server comes to a host is what the host's next copy leaves
// as it is, whatever the clocks of hosts' judges and of the controller: else an owner reads of a
// change that there was not.
func TestTheNextCopyOfTheSameHostChangesNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		second := func(label string) *metav1.Time {
			return after(time.Duration(rapid.IntRange(-5, 5).Draw(r, label)) * time.Second)
		}
		var have v1alpha1.HostFields
		for range rapid.IntRange(1, 2*v1alpha1.MaxHostHistory).Draw(r, "changes") {
			want := since(rapid.SampledFrom([]v1alpha1.HostStatus{"UP", "DOWN", "UNKNOWN"}).Draw(r, "status"))
			want.HostStatusTransitionTime = second("of the host")
			if rapid.Bool().Draw(r, "has a window") {
				want.MaintenanceWindow = &v1alpha1.AnnouncedWindow{StartTime: second("start"), Answer: rapid.SampledFrom([]v1alpha1.AnswerState{"", "Ready"}).Draw(r, "answer")}
			}
			got := Take(have, want, rapid.Bool().Draw(r, "moved"), second("clock").Time)
			switch {
			case got.HostStatusTransitionTime.Before(want.HostStatusTransitionTime):
				r.Errorf("the time is %s before the host's", want.HostStatusTransitionTime.Sub(got.HostStatusTransitionTime.Time))
			case len(got.HostHistory) > v1alpha1.MaxHostHistory:
				r.Errorf("the history has %d changes", len(got.HostHistory))
			}
			if again := Take(got, want, false, second("later clock").Time); !SameFields(got, again) {
				r.Errorf("taken twice it changes (-once +twice):\n%s", cmp.Diff(got, again))
			}
			have = Remember(got)
		}
	})
}

// changes returns a history, the newest first.
func changes(of ...v1alpha1.HostFields) (history []v1alpha1.HostStatusChange) {
	for _, f := range of {
		history = append(history, v1alpha1.HostStatusChange{HostStatus: f.HostStatus, Reason: f.HostStatusReason, Since: f.HostStatusTransitionTime})
	}
	return history
}

func TestTheHistory(t *testing.T) {
	const up, down, unknown = v1alpha1.HostStatusUp, v1alpha1.HostStatusDown, v1alpha1.HostStatusUnknown
	remembering := func(fields v1alpha1.HostFields, earlier ...v1alpha1.HostFields) v1alpha1.HostFields {
		fields.HostHistory = changes(append([]v1alpha1.HostFields{fields}, earlier...)...)
		return fields
	}
	because := func(fields v1alpha1.HostFields, reason v1alpha1.HostStatusReason) v1alpha1.HostFields {
		fields.HostStatusReason = reason
		return fields
	}
	var long []v1alpha1.HostFields
	for i := range v1alpha1.MaxHostHistory - 1 {
		long = append(long, since([]v1alpha1.HostStatus{down, up}[i%2], time.Duration(i+2)*time.Hour))
	}
	for name, c := range map[string]struct {
		have, want v1alpha1.HostFields
		history    []v1alpha1.HostStatusChange
	}{
		"nothing new changes nothing":                       {remembering(since(up, time.Hour)), since(up, time.Hour), changes(since(up, time.Hour))},
		"a change is the newest":                            {remembering(since(up, time.Hour)), since(down, time.Minute), changes(since(down, time.Minute), since(up, time.Hour))},
		"another reason alone is none":                      {remembering(because(since(unknown, time.Hour), "NeverReported")), because(since(unknown, time.Hour), "LeaseExpired"), changes(because(since(unknown, time.Hour), "NeverReported"))},
		"what was something else meanwhile has begun again": {remembering(since(up, time.Hour)), since(up, time.Minute), changes(since(up, time.Minute), since(up, time.Hour))},
		"the oldest goes":                                   {remembering(since(up, time.Hour), long...), since(down, time.Minute), changes(append([]v1alpha1.HostFields{since(down, time.Minute), since(up, time.Hour)}, long[:len(long)-1]...)...)},
		"one that has none begins with the next change":     {since(up, time.Hour), since(down, time.Minute), changes(since(down, time.Minute))},
		"and not before":                                    {since(up, time.Hour), since(up, time.Hour), nil},
		"what a manager without a history has written is the newest": {func() v1alpha1.HostFields {
			f := since(down, time.Minute)
			f.HostHistory = changes(since(up, time.Hour))
			return f
		}(), since(down, time.Minute), changes(since(down, time.Minute), since(up, time.Hour))},
		"what somebody has written is not in it": {func() v1alpha1.HostFields {
			f := remembering(since(up, time.Hour))
			f.HostStatus = ptr.To(down)
			return f
		}(), since(up, time.Hour), changes(since(up, time.Hour))},
	} {
		t.Run(name, func(t *testing.T) {
			before := c.have.DeepCopy()
			got := Take(c.have, c.want, false, now)
			if diff := cmp.Diff(c.history, got.HostHistory); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, &c.have); diff != "" {
				t.Errorf("what was stored has changed (-before +after):\n%s", diff)
			}
			if joined := Join(Copy{Version: 10, Current: true, Fields: c.have}, &Host{Version: 11, Fields: c.want}); !SameFields(joined, got) {
				t.Errorf("the view shows something else (-view +copy):\n%s", cmp.Diff(joined, got))
			}
		})
	}
}

// What has become of an answer is the server's own: its host does not know it.
func TestAnAnswerStaysWithItsWindow(t *testing.T) {
	const up = v1alpha1.HostStatusUp
	with := func(w *v1alpha1.AnnouncedWindow) v1alpha1.HostFields {
		fields := since(up, time.Hour)
		fields.MaintenanceWindow = w
		return fields
	}
	answered := &v1alpha1.AnnouncedWindow{StartTime: after(time.Hour), OpensAt: after(time.Hour), Answer: v1alpha1.AnswerStateReady}
	for name, c := range map[string]struct {
		have, want *v1alpha1.AnnouncedWindow
		answer     v1alpha1.AnswerState
	}{
		"the window opens at another time":    {answered, &v1alpha1.AnnouncedWindow{StartTime: after(time.Hour), OpensAt: after(2 * time.Hour)}, v1alpha1.AnswerStateReady},
		"the window is another":               {answered, &v1alpha1.AnnouncedWindow{StartTime: after(2 * time.Hour)}, ""},
		"the window has no time any more":     {answered, &v1alpha1.AnnouncedWindow{}, ""},
		"there was no window":                 {nil, &v1alpha1.AnnouncedWindow{StartTime: after(time.Hour)}, ""},
		"there is another answer":             {answered, &v1alpha1.AnnouncedWindow{StartTime: after(time.Hour), Answer: v1alpha1.AnswerStateNone}, v1alpha1.AnswerStateNone},
		"the window still has no time":        {&v1alpha1.AnnouncedWindow{Answer: v1alpha1.AnswerStateNone}, &v1alpha1.AnnouncedWindow{}, v1alpha1.AnswerStateNone},
		"it is written within its own second": {answered, &v1alpha1.AnnouncedWindow{StartTime: after(time.Hour + time.Millisecond)}, v1alpha1.AnswerStateReady},
	} {
		t.Run(name, func(t *testing.T) {
			shared := c.want.DeepCopy()
			got := Take(with(c.have), with(c.want), false, now)
			if got.MaintenanceWindow.Answer != c.answer {
				t.Errorf("the answer is %q, want %q", got.MaintenanceWindow.Answer, c.answer)
			}
			if diff := cmp.Diff(shared, c.want); diff != "" {
				t.Errorf("the window that servers share has changed (-before +after):\n%s", diff)
			}
		})
	}
	if got := Take(with(answered), with(nil), false, now); got.MaintenanceWindow != nil {
		t.Errorf("a window that is gone stays: %+v", got.MaintenanceWindow)
	}
}
