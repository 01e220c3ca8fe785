// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

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
		"another status has the host's time":                    {since(up, time.Hour), since(down, time.Minute), false, time.Minute},
		"after a move it has the server's":                      {since(up, time.Hour), since(down, time.Minute), true, 0},
		"the same status keeps its time":                        {since(up, time.Hour), since(up, 2*time.Hour), false, time.Hour},
		"after a move, too":                                     {since(up, time.Hour), since(up, 2*time.Hour), true, time.Hour},
		"but not if the host has been something else meanwhile": {since(up, time.Hour), since(up, time.Minute), false, time.Minute},
		"of a host without a time it is now":                    {since(up, time.Hour), since(down), false, 0},
		"a server without a time gets the host's":               {since(up), since(up, time.Minute), false, time.Minute},
		"without any it is now":                                 {since(up), since(up), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := Take(c.have, c.want, c.moved, now)
			want := c.want
			want.HostStatusTransitionTime = ptr.To(metav1.NewTime(now.Add(-c.since)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := Take(got, c.want, false, now.Add(time.Hour)); !SameFields(got, again) && c.want.HostStatusTransitionTime != nil {
				t.Errorf("taken twice it changes (-once +twice):\n%s", cmp.Diff(got, again))
			}
		})
	}
}
