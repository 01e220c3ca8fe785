// SPDX-License-Identifier: Apache-2.0

package server

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/randfill"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// filler fills whatever it is given at random, each optional field in half of the cases,
// with times as they are stored.
func filler(seed int64) *randfill.Filler {
	return randfill.NewWithSeed(seed).NilChance(0.5).NumElements(0, 3).Funcs(
		func(t *metav1.Time, c randfill.Continue) { t.Time = time.Unix(c.Int63n(1<<32), 0) },
		func(s *v1alpha1.HostStatusReason, c randfill.Continue) {
			*s = oneOf(c, "", v1alpha1.ReasonReporting, v1alpha1.ReasonForcedDown)
		},
		func(s *v1alpha1.HostReporting, c randfill.Continue) {
			*s = oneOf(c, "", v1alpha1.HostReportingTrue, v1alpha1.HostReportingFalse)
		},
		func(s *v1alpha1.HostStatus, c randfill.Continue) {
			*s = oneOf(c, v1alpha1.HostStatusNone, v1alpha1.HostStatusUp, v1alpha1.HostStatusDown)
		},
	)
}

func oneOf[T any](c randfill.Continue, values ...T) T { return values[c.Intn(len(values))] }

// Whatever was stored, what is stored afterwards is what was decided, field by field and
// at every depth, and what the agent reports stays.
func TestWhatIsStoredIsWhatWasDecided(t *testing.T) {
	seed := rand.Int64()
	t.Logf("seed %d", seed)
	fill := filler(seed)
	for range 200 {
		server := serverOn("host-a")
		fill.Fill(&server.Status)
		w := newWorld(t, server)
		before := w.read()
		var other v1alpha1.ServerStatus
		fill.Fill(&other)
		decided := storedFields(&other)
		if err := statuspatch.Patch(t.Context(), w.Client, w.read(), storedFields(&before.Status), decided); err != nil {
			t.Fatal(err)
		}
		want := other
		want.State, want.TaskState = before.Status.State, before.Status.TaskState
		want.PowerState, want.Networks = before.Status.PowerState, before.Status.Networks
		if diff := cmp.Diff(want, w.read().Status, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("stored %+v\n(-decided +stored afterwards):\n%s", before.Status, diff)
		}
	}
}

// What an earlier release left behind goes when the manager looks at the Server, which
// it does with each of them when it starts.
func TestAWindowThatHasLostItsEndLosesItOnServersToo(t *testing.T) {
	endless := service("host-a", up, announced)
	endless.Spec.MaintenanceWindow.EndTime = nil
	w := newWorld(t, serverOn("host-a", settled(up), func(s *v1alpha1.Server) {
		s.Status.MaintenanceWindow = &v1alpha1.AnnouncedWindow{StartTime: at(time.Hour), EndTime: at(2 * time.Hour)}
	}), endless)
	for range 2 {
		w.reconcile()
		if diff := cmp.Diff(&v1alpha1.AnnouncedWindow{StartTime: at(time.Hour)}, w.read().Status.MaintenanceWindow); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if w.writes != 1 {
			t.Errorf("%d writes, want 1", w.writes)
		}
	}
}

// Every step from one window to another arrives at the servers.
func TestEveryStepOfAWindowArrives(t *testing.T) {
	end, later := at(2*time.Hour), at(3*time.Hour)
	windows := map[string]*v1alpha1.MaintenanceWindow{
		"none":            nil,
		"endless":         {StartTime: at(time.Hour)},
		"with an end":     {StartTime: at(time.Hour), EndTime: end},
		"a later end":     {StartTime: at(time.Hour), EndTime: later, Reason: ptr.To("more memory")},
		"a later endless": {StartTime: at(90 * time.Minute)},
	}
	for from, before := range windows {
		for to, after := range windows {
			t.Run(from+" to "+to, func(t *testing.T) {
				host := service("host-a", up, announced)
				host.Spec.MaintenanceWindow = before
				w := newWorld(t, serverOn("host-a"), host)
				w.reconcile()
				if err := w.Get(t.Context(), client.ObjectKeyFromObject(host), host); err != nil {
					t.Fatal(err)
				}
				host.Spec.MaintenanceWindow = after
				if err := w.Update(t.Context(), host); err != nil {
					t.Fatal(err)
				}
				w.reconcile()
				var want *v1alpha1.AnnouncedWindow
				if after != nil {
					want = &v1alpha1.AnnouncedWindow{StartTime: after.StartTime, EndTime: after.EndTime}
				}
				if diff := cmp.Diff(want, w.read().Status.MaintenanceWindow); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}
