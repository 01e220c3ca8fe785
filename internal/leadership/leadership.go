// SPDX-License-Identifier: Apache-2.0

// Package leadership decides whether this process may write, and for how long: the
// Leases by which one manager leads, and a client that writes statuses only while it does.
package leadership

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

const (
	// LeaseDuration is how long the leader's Lease is valid. A standby reads it every 1 to
	// 2.2 RetryPeriods (client-go's jitter). After its leader was killed it takes over
	// within LeaseDuration and two such reads, 9.2 s at most, which leaves time to judge
	// within 10 s.
	LeaseDuration = 7 * time.Second
	// RenewDeadline is how long a leader tries to renew before it gives up, which is before
	// a standby takes over.
	RenewDeadline = 5 * time.Second
	// RetryPeriod is the time between two renewals of the leader.
	RetryPeriod = 500 * time.Millisecond
)

// ErrNotLeading is why a process that led before does not write.
var ErrNotLeading = errors.New("this manager no longer leads")

// Tracker is a lock that knows until when this process leads for certain. A process that was
// paused for longer than its Lease is valid is a former leader that does not know it yet:
// the objects that it reads are fresh, but what it remembers about the hosts is not, so
// the resourceVersion alone would not keep it from contradicting its successor.
//
// It is enough to ask it after reading the object that a write is conditional on: a
// successor that begins later changes the object first, and the write fails.
type Tracker struct {
	resourcelock.Interface
	clock clock.PassiveClock

	mu sync.Mutex
	// renewed is the second in the last record that was written. A successor counts from no
	// earlier moment. It may be that long before the write began: client-go writes a record
	// again after a write of which the answer was lost, and its own lock, which 0.1 has, takes
	// two records for the same if their times are of the same second.
	renewed time.Time
	holds   bool
}

// NewTracker tracks the state of lock.
func NewTracker(lock resourcelock.Interface, clk clock.PassiveClock) *Tracker {
	return &Tracker{Interface: lock, clock: clk}
}

// Create takes the lock for the first time ever.
func (t *Tracker) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return t.note(record, func() error { return t.Interface.Create(ctx, record) })
}

// Update takes, renews or releases the lock.
func (t *Tracker) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return t.note(record, func() error { return t.Interface.Update(ctx, record) })
}

func (t *Tracker) note(record resourcelock.LeaderElectionRecord, write func() error) error {
	begun := t.clock.Now()
	mine := record.HolderIdentity == t.Identity()
	if !mine {
		// Released, whether or not the write arrives.
		t.set(begun, false)
	}
	err := write()
	if err == nil && mine {
		at := record.RenewTime.Time
		t.set(at.Add(-time.Duration(at.Nanosecond())), true)
	}
	return err
}

func (t *Tracker) set(renewed time.Time, holds bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renewed, t.holds = renewed, holds
}

// Leads reports whether no other process can lead yet. The monotonic clock stands
// still while a machine is suspended, so the wall clock counts too: if it was set,
// the next renewal corrects that.
func (t *Tracker) Leads() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	monotonic := t.clock.Since(t.renewed)
	wall := t.clock.Now().Round(0).Sub(t.renewed.Round(0))
	return t.holds && max(monotonic, wall) < LeaseDuration
}

// Client is a client whose status writes need leadership. Without it they get a
// Conflict, since another process may lead by now. What it reads from the cache is no
// older than this process's leadership: until MarkFresh is called, reading waits.
type Client struct {
	client.Client
	leads func() bool
	fresh chan struct{}
}

// NewClient returns a Client that uses c, and writes while leads returns true.
func NewClient(c client.Client, leads func() bool) *Client {
	return &Client{Client: c, leads: leads, fresh: make(chan struct{})}
}

// MarkFresh lets Get read: the cache is as new as this process's leadership. It is
// called once.
func (c *Client) MarkFresh() { close(c.fresh) }

// Get reads one object.
func (c *Client) Get(ctx context.Context, key client.ObjectKey, obj client.Object, options ...client.GetOption) error {
	select {
	case <-c.fresh:
	case <-ctx.Done():
		return fmt.Errorf("waiting for a fresh cache: %w", ctx.Err())
	}
	return c.Client.Get(ctx, key, obj, options...)
}

// Status returns the writer of statuses.
func (c *Client) Status() client.SubResourceWriter {
	return statusWriter{c.Client.Status(), c.leads}
}

type statusWriter struct {
	client.SubResourceWriter
	leads func() bool
}

// Patch is the only way in which the controllers write.
func (w statusWriter) Patch(ctx context.Context, obj client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
	if !w.leads() {
		return apierrors.NewConflict(schema.GroupResource{Group: v1alpha1.SchemeGroupVersion.Group}, obj.GetName(), ErrNotLeading)
	}
	return w.SubResourceWriter.Patch(ctx, obj, patch, options...)
}
