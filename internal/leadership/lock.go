// SPDX-License-Identifier: Apache-2.0

package leadership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"
)

// Lock is held by the manager that holds all of its Leases. With two of them the
// leader's Lease can move from one namespace to another: a manager of a release that
// knows only the first, or only the second, never leads beside one that holds both.
//
// client-go's MultiLock is unsafe for this: it takes its second lock even if that has
// changed since it was read, believes to hold both once it has created the second,
// however long ago it wrote the first, and uses the duration of the first alone.
//
// Like every lock it serves one elector, which makes one call at a time.
type Lock struct {
	identity string
	clock    clock.PassiveClock
	// parts are the Leases. The first is taken first, by all, so that no two managers
	// hold one each.
	parts []*leasePart
}

// leasePart is one Lease, as this process knows it.
type leasePart struct {
	client          coordinationclient.LeaseInterface
	namespace, name string
	// known is what was last read or written; nil is none.
	known *coordinationv1.Lease
	// changed is when its current state was first seen. Its holder's time counts from
	// then.
	changed time.Time
}

// NewLock makes a lock on the Leases called name in namespaces, the first of which is taken
// first; identity distinguishes this process from others.
func NewLock(leases coordinationclient.LeasesGetter, name, identity string, clk clock.PassiveClock, namespaces ...string) *Lock {
	l := &Lock{identity: identity, clock: clk}
	for _, namespace := range namespaces {
		l.parts = append(l.parts, &leasePart{client: leases.Leases(namespace), namespace: namespace, name: name})
	}
	return l
}

// errHeld is why a lock is not taken.
var errHeld = errors.New("another manager holds it")

// Get reads the Leases. It returns the record of one that somebody else holds, or a
// record without a holder if all that are not ours can be taken.
func (l *Lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	if err := l.each(func(p *leasePart) error { return p.read(ctx, l.clock) }); err != nil {
		return nil, nil, err
	}
	record := &resourcelock.LeaderElectionRecord{HolderIdentity: l.identity}
	var absent int
	var raw []json.RawMessage
	for _, p := range l.parts {
		if p.known == nil {
			absent++
			record.HolderIdentity = ""
			continue
		}
		has := p.record()
		encoded, err := json.Marshal(has)
		if err != nil {
			return nil, nil, fmt.Errorf("encoding the Lease %s: %w", p, err)
		}
		if p.heldByOther(l.identity, l.clock) {
			return has, encoded, nil
		}
		raw = append(raw, encoded)
		transitions := max(record.LeaderTransitions, has.LeaderTransitions)
		if has.HolderIdentity == l.identity {
			record.AcquireTime, record.RenewTime, record.LeaseDurationSeconds = has.AcquireTime, has.RenewTime, has.LeaseDurationSeconds
		} else {
			record.HolderIdentity = ""
		}
		record.LeaderTransitions = transitions
	}
	if absent == len(l.parts) {
		return nil, nil, apierrors.NewNotFound(coordinationv1.Resource("leases"), l.parts[0].name)
	}
	encoded, err := json.Marshal(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the Leases: %w", err)
	}
	return record, encoded, nil
}

// Create takes the lock where no Lease exists.
func (l *Lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record)
}

// Update takes, renews or releases the lock. It writes no Lease that somebody else
// holds, and none that has changed since it was read, so that it neither takes nor
// releases a Lease that somebody else has taken meanwhile.
func (l *Lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record)
}

func (l *Lock) write(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	write := func(p *leasePart) error { return p.write(ctx, l.clock, record) }
	mine := func(p *leasePart) bool { return p.known != nil && p.record().HolderIdentity == l.identity }
	if record.HolderIdentity != l.identity {
		return l.each(func(p *leasePart) error {
			if !mine(p) {
				return nil
			}
			return write(p)
		})
	}
	renews := true
	for _, p := range l.parts {
		if p.known != nil && p.heldByOther(l.identity, l.clock) {
			return fmt.Errorf("taking the Lease %s: %w", p, errHeld)
		}
		renews = renews && mine(p)
	}
	if renews {
		// In parallel, so that each has all the time that a renewal may take.
		return l.each(write)
	}
	for _, p := range l.parts {
		if err := write(p); err != nil {
			return err
		}
	}
	return nil
}

// each does something with all parts at the same time.
func (l *Lock) each(do func(*leasePart) error) error {
	errs := make([]error, len(l.parts))
	var running sync.WaitGroup
	for i, p := range l.parts {
		running.Go(func() { errs[i] = do(p) })
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			// A single one, so that client-go recognises its kind.
			return err
		}
	}
	return nil
}

// RecordEvent does nothing: Events would need an additional right.
func (l *Lock) RecordEvent(string) {}

// Identity returns what distinguishes this manager from others.
func (l *Lock) Identity() string { return l.identity }

// Describe names the Leases, for the log.
func (l *Lock) Describe() string {
	names := make([]string, 0, len(l.parts))
	for _, p := range l.parts {
		names = append(names, p.String())
	}
	return strings.Join(names, " and ")
}

func (p *leasePart) String() string { return p.namespace + "/" + p.name }

func (p *leasePart) record() *resourcelock.LeaderElectionRecord {
	return resourcelock.LeaseSpecToLeaderElectionRecord(&p.known.Spec)
}

// heldByOther reports whether somebody else may still lead by this Lease.
func (p *leasePart) heldByOther(identity string, clk clock.PassiveClock) bool {
	has := p.record()
	return has.HolderIdentity != "" && has.HolderIdentity != identity &&
		clk.Since(p.changed) < time.Duration(has.LeaseDurationSeconds)*time.Second
}

func (p *leasePart) read(ctx context.Context, clk clock.PassiveClock) error {
	lease, err := p.client.Get(ctx, p.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		p.known = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the Lease %s: %w", p, err)
	}
	if p.known == nil || p.known.UID != lease.UID || p.known.ResourceVersion != lease.ResourceVersion {
		p.changed = clk.Now()
	}
	p.known = lease
	return nil
}

func (p *leasePart) write(ctx context.Context, clk clock.PassiveClock, record resourcelock.LeaderElectionRecord) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name}}
	if p.known != nil {
		lease = p.known.DeepCopy()
	}
	lease.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&record)
	var written *coordinationv1.Lease
	var err error
	if p.known == nil {
		written, err = p.client.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		written, err = p.client.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing the Lease %s: %w", p, err)
	}
	p.known, p.changed = written, clk.Now()
	return nil
}
