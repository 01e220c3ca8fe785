// SPDX-License-Identifier: Apache-2.0

package leadership

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/internal/racedetector"
)

const formerNamespace, ownNamespace = "former", "own"

// leaseStore is an API server for Leases: what is written must have been read, and a
// request may take long, fail, or be carried out although its answer is lost.
type leaseStore struct {
	mu      sync.Mutex
	rand    *rand.Rand
	version int
	leases  map[string]*coordinationv1.Lease
	// written is when each Lease was written last.
	written map[string]time.Time
	trouble bool
}

// storeClient is the connection of one manager. Once it is cut, nothing is answered.
type storeClient struct {
	coordinationclient.LeasesGetter
	store *leaseStore
	cut   chan struct{}
}

func (c *storeClient) Leases(namespace string) coordinationclient.LeaseInterface {
	return &storeLeases{c: c, namespace: namespace}
}

type storeLeases struct {
	coordinationclient.LeaseInterface
	c         *storeClient
	namespace string
}

// below returns a random number below n.
func (s *leaseStore) below(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.IntN(n)
}

// delays are how long a request takes to arrive, and its answer, and whether that is lost.
func (s *leaseStore) delays() (there, back time.Duration, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there, back = time.Duration(s.rand.IntN(20))*time.Millisecond, time.Duration(s.rand.IntN(20))*time.Millisecond
	if !s.trouble {
		return there, back, false
	}
	for _, d := range []*time.Duration{&there, &back} {
		if s.rand.IntN(8) == 0 {
			*d = time.Duration(s.rand.IntN(12_000)) * time.Millisecond
		}
	}
	return there, back, s.rand.IntN(12) == 0
}

func (l *storeLeases) do(ctx context.Context, apply func() (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, RenewDeadline/2)
	defer cancel()
	there, back, lost := l.c.store.delays()
	type answer struct {
		lease *coordinationv1.Lease
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		select {
		case <-time.After(there):
		case <-l.c.cut:
			return
		}
		l.c.store.mu.Lock()
		lease, err := apply()
		l.c.store.mu.Unlock()
		time.Sleep(back)
		if !lost {
			answers <- answer{lease, err}
		}
	}()
	select {
	case a := <-answers:
		return a.lease, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *storeLeases) put(lease *coordinationv1.Lease) *coordinationv1.Lease {
	l.c.store.version++
	lease = lease.DeepCopy()
	lease.ResourceVersion = fmt.Sprint(l.c.store.version)
	l.c.store.leases[l.namespace], l.c.store.written[l.namespace] = lease, time.Now()
	return lease.DeepCopy()
}

func (l *storeLeases) Get(ctx context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	return l.do(ctx, func() (*coordinationv1.Lease, error) {
		if has := l.c.store.leases[l.namespace]; has != nil {
			return has.DeepCopy(), nil
		}
		return nil, apierrors.NewNotFound(coordinationv1.Resource("leases"), name)
	})
}

func (l *storeLeases) Create(ctx context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	lease = lease.DeepCopy()
	return l.do(ctx, func() (*coordinationv1.Lease, error) {
		if l.c.store.leases[l.namespace] != nil {
			return nil, apierrors.NewAlreadyExists(coordinationv1.Resource("leases"), lease.Name)
		}
		return l.put(lease), nil
	})
}

func (l *storeLeases) Update(ctx context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	lease = lease.DeepCopy()
	return l.do(ctx, func() (*coordinationv1.Lease, error) {
		has := l.c.store.leases[l.namespace]
		if has == nil {
			return nil, apierrors.NewNotFound(coordinationv1.Resource("leases"), lease.Name)
		}
		if has.ResourceVersion != lease.ResourceVersion {
			return nil, apierrors.NewConflict(coordinationv1.Resource("leases"), lease.Name, errors.New("has changed"))
		}
		return l.put(lease), nil
	})
}

// electing is a manager, as far as it wants to lead.
type electing struct {
	name   string
	client *storeClient
	leads  func() bool
	is01   bool
	stop   context.CancelFunc
	ended  chan struct{}
}

// lockOf makes the lock of a release.
type lockOf func(leases coordinationclient.LeasesGetter, identity string) resourcelock.Interface

// as01 is what 0.1 has: client-go's lock, on the Lease in the former namespace.
func as01(leases coordinationclient.LeasesGetter, identity string) resourcelock.Interface {
	return &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: formerNamespace, Name: "leader"}, Client: leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}
}

func asNow(namespaces ...string) lockOf {
	return func(leases coordinationclient.LeasesGetter, identity string) resourcelock.Interface {
		return NewLock(leases, "leader", identity, clock.RealClock{}, namespaces...)
	}
}

func elect(t *testing.T, store *leaseStore, name string, lock lockOf) *electing {
	t.Helper()
	client := &storeClient{store: store, cut: make(chan struct{})}
	e := &electing{name: name, client: client, ended: make(chan struct{})}
	candidate := lock(client, name)
	if _, e.is01 = candidate.(*resourcelock.LeaseLock); e.is01 {
		tracker := &tracker01{Interface: candidate}
		candidate, e.leads = tracker, tracker.Leads
	} else {
		tracker := NewTracker(candidate, clock.RealClock{})
		candidate, e.leads = tracker, tracker.Leads
	}
	// client-go's own lock, which 0.1 has, releases what has become another's since its last
	// renewal, if the API server is slow at that moment. Here managers of 0.1 crash instead,
	// also when they give up because they could not renew in time: no other release can help
	// where somebody releases its Lease.
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: candidate, LeaseDuration: LeaseDuration, RenewDeadline: RenewDeadline, RetryPeriod: RetryPeriod, ReleaseOnCancel: !e.is01,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	e.stop = stop
	go func() {
		defer close(e.ended)
		elector.Run(ctx)
	}()
	return e
}

// tracker01 is the Tracker of 0.1, which counts from when a write began.
type tracker01 struct {
	resourcelock.Interface
	mu      sync.Mutex
	renewed time.Time
	holds   bool
}

func (t *tracker01) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return t.note(record, func() error { return t.Interface.Create(ctx, record) })
}

func (t *tracker01) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return t.note(record, func() error { return t.Interface.Update(ctx, record) })
}

func (t *tracker01) note(record resourcelock.LeaderElectionRecord, write func() error) error {
	begun, mine := time.Now(), record.HolderIdentity == t.Identity()
	set := func(holds bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.renewed, t.holds = begun, holds
	}
	if !mine {
		set(false)
	}
	err := write()
	if err == nil && mine {
		set(true)
	}
	return err
}

func (t *tracker01) Leads() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holds && time.Since(t.renewed) < LeaseDuration
}

// crash ends e without releasing the lock. What it has sent may have arrived or not.
func (e *electing) crash() {
	close(e.client.cut)
	e.stop()
}

// world is some managers of some releases.
type world struct {
	t        *testing.T
	store    *leaseStore
	managers []*electing
	begun    int
	history  []string
}

func (w *world) note(format string, args ...any) {
	w.history = append(w.history, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

// leaders returns the managers that believe they lead. Those of 0.1 count as one: two of them
// may do so at once, for a moment, which no other release can help.
func (w *world) leaders() (names []string) {
	seen01 := false
	for _, m := range w.managers {
		if !m.leads() || m.is01 && seen01 {
			continue
		}
		names = append(names, m.name)
		seen01 = seen01 || m.is01
	}
	return names
}

// pass lets time pass, and checks all the time which managers lead.
func (w *world) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if leaders := w.leaders(); len(leaders) > 1 {
			w.t.Fatalf("%s lead at once, after\n%s", strings.Join(leaders, " and "), strings.Join(w.history, "\n"))
		}
		for i := 0; i < len(w.managers); i++ {
			select {
			case <-w.managers[i].ended:
				// A process ends with its elector.
				w.note("%s has ended", w.managers[i].name)
				w.managers = append(w.managers[:i], w.managers[i+1:]...)
			default:
			}
		}
	}
}

func (w *world) start(release string, lock lockOf) {
	w.begun++
	name := fmt.Sprintf("%s-%d", release, w.begun)
	w.note("%s starts", name)
	w.managers = append(w.managers, elect(w.t, w.store, name, lock))
}

// run lets managers of two releases come, go and crash for a while.
func (w *world) run(releases map[string]lockOf, names []string, graceful bool) {
	for range 40 {
		n := w.store.below(10)
		switch {
		case n < 4 && len(w.managers) < 4:
			release := names[w.store.below(len(names))]
			w.start(release, releases[release])
		case n < 6 && len(w.managers) > 0:
			m := w.managers[w.store.below(len(w.managers))]
			if graceful {
				w.note("%s is stopped", m.name)
				m.stop()
			} else {
				w.crash(m)
			}
		case n < 8 && len(w.managers) > 0:
			w.crash(w.managers[w.store.below(len(w.managers))])
		case n == 8:
			w.store.mu.Lock()
			for _, namespace := range []string{formerNamespace, ownNamespace} {
				// Whoever deletes the Lease of a leader makes another one lead beside it. So it is
				// not enough that nobody leads yet: the answer to the last write may be on its way.
				unused := time.Since(w.store.written[namespace]) > LeaseDuration && len(w.leaders()) == 0
				if w.store.leases[namespace] != nil && w.store.rand.IntN(4) == 0 && unused {
					w.note("the Lease in %s is deleted", namespace)
					delete(w.store.leases, namespace)
				}
			}
			w.store.mu.Unlock()
		}
		w.pass(time.Duration(w.store.below(8_000)) * time.Millisecond)
	}
}

func (w *world) crash(m *electing) {
	w.note("%s crashes", m.name)
	m.crash()
	for i := range w.managers {
		if w.managers[i] == m {
			w.managers = append(w.managers[:i], w.managers[i+1:]...)
			return
		}
	}
}

func (w *world) end() {
	for _, m := range w.managers {
		m.stop()
	}
	for _, m := range w.managers {
		<-m.ended
	}
	time.Sleep(time.Minute) // What is still under way arrives.
}

// A release that knows the former Lease alone and one that holds both, as in an upgrade
// from 0.1 and on the way back; and one that holds both and one that knows the new Lease
// alone, as when the former is given up.
func TestNoTwoManagersLeadAtOnceWhileTheLeadersLeaseMoves(t *testing.T) {
	both := asNow(formerNamespace, ownNamespace)
	for name, test := range map[string]struct {
		releases map[string]lockOf
		names    []string
		graceful bool
	}{
		// Managers of 0.1 never release here: see elect.
		"from 0.1 and back":          {map[string]lockOf{"0.1": as01, "both": both}, []string{"0.1", "both"}, false},
		"giving the former up":       {map[string]lockOf{"both": both, "new": asNow(ownNamespace)}, []string{"both", "new"}, true},
		"among those that hold both": {map[string]lockOf{"both": both}, []string{"both"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			seeds := uint64(60)
			if racedetector.On {
				seeds = 5 // Each takes several times as long; the suite runs this without it, too.
			}
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					store := &leaseStore{rand: rand.New(rand.NewPCG(seed, 1)), leases: map[string]*coordinationv1.Lease{}, written: map[string]time.Time{}, trouble: true}
					w := &world{t: t, store: store}
					w.run(test.releases, test.names, test.graceful)
					// Once the trouble is over somebody leads, whatever was left behind.
					store.mu.Lock()
					store.trouble = false
					store.mu.Unlock()
					w.start("both", both)
					w.pass(3 * LeaseDuration)
					if len(w.leaders()) != 1 {
						t.Errorf("seed %d: %q lead, %v after the trouble has ended\n%s", seed, w.leaders(), 3*LeaseDuration, strings.Join(w.history, "\n"))
					}
					w.end()
				})
			}
		})
	}
}
