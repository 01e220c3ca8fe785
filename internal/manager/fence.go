// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
)

// fence knows until when this process leads for certain. A process that was
// paused for longer than its lease lasts is a former leader which does not know it
// yet: the objects that it reads are fresh, but what it remembers of the hosts is
// not, so the resourceVersion alone would not keep it from contradicting its
// successor.
//
// It is enough to ask it once the object that a write is conditional on has been
// read: a successor that begins later changes the object first, and the write
// fails.
type fence struct {
	resourcelock.Interface
	clock clock.PassiveClock

	mu sync.Mutex
	// renewed is when the last renewal of the leader's Lease that succeeded was
	// begun. A successor counts from no earlier moment.
	renewed time.Time
	holds   bool
}

// Create takes the lock for the first time ever.
func (f *fence) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return f.note(record, func() error { return f.Interface.Create(ctx, record) })
}

// Update takes, renews or releases the lock.
func (f *fence) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return f.note(record, func() error { return f.Interface.Update(ctx, record) })
}

func (f *fence) note(record resourcelock.LeaderElectionRecord, write func() error) error {
	begun := f.clock.Now()
	mine := record.HolderIdentity == f.Identity()
	if !mine {
		// Released, whether or not that arrives.
		f.set(begun, false)
	}
	err := write()
	if err == nil && mine {
		f.set(begun, true)
	}
	return err
}

func (f *fence) set(renewed time.Time, holds bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewed, f.holds = renewed, holds
}

// leads says whether no other process can lead yet. The monotonic clock stands
// still while a machine is suspended, so the wall clock is asked too: if it was
// set, the next renewal puts that right.
func (f *fence) leads() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	monotonic := f.clock.Since(f.renewed)
	wall := f.clock.Now().Round(0).Sub(f.renewed.Round(0))
	return f.holds && max(monotonic, wall) < leaseDuration
}

// fencedClient is a client whose status writes need leadership. Others get a
// Conflict, since somebody else may decide by now. What it reads from the cache is no
// older than this process's leadership: until that is so, reading waits.
type fencedClient struct {
	client.Client
	leads func() bool
	// fresh is closed once the cache is.
	fresh chan struct{}
}

// Get reads one object.
func (c fencedClient) Get(ctx context.Context, key client.ObjectKey, obj client.Object, options ...client.GetOption) error {
	select {
	case <-c.fresh:
	case <-ctx.Done():
		return fmt.Errorf("waiting for what there is now: %w", ctx.Err())
	}
	return c.Client.Get(ctx, key, obj, options...)
}

// Status returns the writer of statuses.
func (c fencedClient) Status() client.SubResourceWriter {
	return fencedWriter{c.Client.Status(), c.leads}
}

type fencedWriter struct {
	client.SubResourceWriter
	leads func() bool
}

// Patch is the only way in which the controllers write.
func (w fencedWriter) Patch(ctx context.Context, obj client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
	if !w.leads() {
		return apierrors.NewConflict(schema.GroupResource{Group: v1alpha1.SchemeGroupVersion.Group}, obj.GetName(), heartbeat.ErrNotLeading)
	}
	return w.SubResourceWriter.Patch(ctx, obj, patch, options...)
}
