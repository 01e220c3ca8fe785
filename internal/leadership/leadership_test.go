// SPDX-License-Identifier: Apache-2.0

package leadership

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// fakeLock is a lock whose writes take time and may fail.
type fakeLock struct {
	resourcelock.Interface
	clock *clocktesting.FakeClock
	takes time.Duration
	err   error
}

func (l *fakeLock) Identity() string { return "me" }
func (l *fakeLock) Create(context.Context, resourcelock.LeaderElectionRecord) error {
	l.clock.Step(l.takes)
	return l.err
}
func (l *fakeLock) Update(context.Context, resourcelock.LeaderElectionRecord) error {
	l.clock.Step(l.takes)
	return l.err
}

func TestAProcessLeadsFromItsFirstRenewalUntilAnotherCanLead(t *testing.T) {
	released := resourcelock.LeaderElectionRecord{}
	clk := clocktesting.NewFakeClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	lock := &fakeLock{clock: clk}
	f := NewTracker(lock, clk)
	step := func(what string, do func() error, want bool) {
		t.Helper()
		if do != nil {
			_ = do()
		}
		if got := f.Leads(); got != want {
			t.Fatalf("%s: leads is %v, want %v", what, got, want)
		}
	}
	ctx := t.Context()
	held := func() resourcelock.LeaderElectionRecord {
		return resourcelock.LeaderElectionRecord{HolderIdentity: "me", RenewTime: metav1.NewTime(clk.Now())}
	}
	pass := func(d time.Duration) func() error { return func() error { clk.Step(d); return nil } }

	step("at first", nil, false)
	lock.err = errors.New("taken")
	step("a lock that somebody else has", func() error { return f.Create(ctx, held()) }, false)
	lock.err = nil
	step("a lock that was taken", func() error { return f.Create(ctx, held()) }, true)
	step("almost the whole lease later", pass(LeaseDuration-1), true)
	step("the whole lease later", pass(1), false)
	step("a renewal", func() error { return f.Update(ctx, held()) }, true)
	lock.takes = LeaseDuration - time.Second
	step("a renewal that took long counts from when it began", func() error { return f.Update(ctx, held()) }, true)
	step("a second later", pass(time.Second), false)
	lock.takes = 0
	step("a renewal", func() error { return f.Update(ctx, held()) }, true)
	lock.err = errors.New("the API server is down")
	step("a renewal that fails leaves what is left of the lease", func() error { return f.Update(ctx, held()) }, true)
	step("a release, even if it fails", func() error { return f.Update(ctx, released) }, false)

	lock.err = nil
	record := held()
	clk.Step(3 * time.Second)
	step("a record that is written again counts from when it was made", func() error { return f.Update(ctx, record) }, true)
	step("until the lease is over that it gave", pass(LeaseDuration-3*time.Second), false)
	clk.Step(900 * time.Millisecond)
	step("others see whole seconds", func() error { return f.Update(ctx, held()) }, true)
	step("and count from there", pass(LeaseDuration-900*time.Millisecond), false)
}

// statuses is a client that only writes statuses.
type statuses struct {
	client.Client
	writes *writes
}

func (s statuses) Status() client.SubResourceWriter { return s.writes }

type writes struct {
	client.SubResourceWriter
	n int
}

func (w *writes) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	w.n++
	return nil
}

func TestOnlyALeaderWritesStatuses(t *testing.T) {
	leads := false
	inner := &writes{}
	c := NewClient(statuses{writes: inner}, func() bool { return leads })
	server := &v1alpha1.Server{}
	if err := c.Status().Patch(t.Context(), server, client.RawPatch("", nil)); !apierrors.IsConflict(err) || inner.n != 0 {
		t.Errorf("without leadership: %v, %d writes", err, inner.n)
	}
	leads = true
	if err := c.Status().Patch(t.Context(), server, client.RawPatch("", nil)); err != nil || inner.n != 1 {
		t.Errorf("with leadership: %v, %d writes", err, inner.n)
	}
}

// objects is a client that has everything.
type objects struct{ client.Client }

func (objects) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return nil
}

func TestALeaderReadsOnlyWhatIsAsNewAsItsLeadership(t *testing.T) {
	c := NewClient(objects{}, nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Get(ended, client.ObjectKey{}, &v1alpha1.Server{}); !errors.Is(err, context.Canceled) {
		t.Errorf("before: %v", err)
	}
	c.MarkFresh()
	if err := c.Get(t.Context(), client.ObjectKey{}, &v1alpha1.Server{}); err != nil {
		t.Errorf("after: %v", err)
	}
}
