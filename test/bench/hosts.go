// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// connections is how many connections all hosts share: agents have one each, but
// five thousand TLS connections are not what is measured.
const connections = 4

// hosts renew their Leases, all in this process.
type hosts struct {
	duration, interval time.Duration
	all                []*lightHost
	byName             map[string]*lightHost
	running            sync.WaitGroup
	failures           atomic.Int64
	renewals           atomic.Int64
}

// lightHost is an agent's heartbeat and nothing else.
type lightHost struct {
	name   string
	leases kubernetes.Interface
	alive  atomic.Bool
	mu     sync.Mutex
	lease  *coordinationv1.Lease
}

// startHosts lets hosts renew their Leases until the trial ends, evenly spread over
// the interval. It returns once each has been renewed.
func (w *world) startHosts(ctx context.Context, names []string, duration, interval time.Duration) (*hosts, error) {
	h := &hosts{duration: duration, interval: interval, byName: map[string]*lightHost{}}
	var clients []kubernetes.Interface
	for range connections {
		config, err := w.fleet.Cluster.AdminConfig()
		if err != nil {
			return nil, err
		}
		// A dialer of its own gives a client a connection of its own.
		config.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
		c, err := protobufClient(config)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	for i, name := range names {
		one := &lightHost{name: name, leases: clients[i%len(clients)]}
		one.lease = &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To(name)},
		}
		one.lasts(duration)
		one.alive.Store(true)
		h.all = append(h.all, one)
		h.byName[name] = one
	}
	if err := parallel(ctx, creators, len(h.all), func(ctx context.Context, i int) error { return h.all[i].renew(ctx) }); err != nil {
		return nil, fmt.Errorf("first renewals: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	begin := time.Now()
	for i, one := range h.all {
		phase := interval * time.Duration(i) / time.Duration(len(h.all))
		h.running.Go(func() { h.keep(ctx, one, begin.Add(phase)) })
	}
	w.trial.later(func() {
		stop()
		h.running.Wait()
	})
	return h, nil
}

func (h *hosts) keep(ctx context.Context, one *lightHost, next time.Time) {
	for {
		if sleep(ctx, time.Until(next)) != nil {
			return
		}
		if one.alive.Load() {
			if err := one.renew(ctx); err == nil {
				h.renewals.Add(1)
			} else if ctx.Err() == nil {
				h.failures.Add(1)
			}
		}
		for next = next.Add(h.interval); time.Until(next) < 0; next = next.Add(h.interval) {
			h.failures.Add(1) // Too slow for its own interval.
		}
	}
}

// renew does what an agent does, by create or by update.
func (l *lightHost) renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
	c := l.leases.CoordinationV1().Leases(l.lease.Namespace)
	var after *coordinationv1.Lease
	var err error
	if l.lease.ResourceVersion == "" {
		after, err = c.Create(ctx, l.lease, metav1.CreateOptions{})
	} else {
		after, err = c.Update(ctx, l.lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return err
	}
	l.lease = after
	return nil
}

// lasts sets for how long the lease holds from its next renewal on.
func (l *lightHost) lasts(d time.Duration) {
	l.lease.Spec.LeaseDurationSeconds = ptr.To(int32(d.Seconds()))
}

// stop lets hosts fall silent; a renewal that is under way ends first.
func (h *hosts) stop(names []string) {
	for _, name := range names {
		one := h.byName[name]
		one.alive.Store(false)
		one.mu.Lock()
		one.mu.Unlock() //nolint:staticcheck // it waits for the renewal under way
	}
}

// stopTogether lets hosts fall silent so that the leases of all run out at almost the same
// moment, though renewals take their time: each second a part of the hosts renews for the last
// time, for a second less than the part before.
func (h *hosts) stopTogether(ctx context.Context, names []string) error {
	const parts = 10
	h.stop(names)
	begin := time.Now()
	for part := range parts {
		since := time.Duration(part) * time.Second
		if err := sleep(ctx, time.Until(begin.Add(since))); err != nil {
			return err
		}
		of := names[len(names)*part/parts : len(names)*(part+1)/parts]
		err := parallel(ctx, creators, len(of), func(ctx context.Context, i int) error {
			one := h.byName[of[i]]
			one.lasts(h.duration - since)
			return one.renew(ctx)
		})
		if err != nil {
			return fmt.Errorf("last renewals: %w", err)
		}
	}
	return nil
}

// resume lets hosts report again, at once.
func (h *hosts) resume(ctx context.Context, names []string) error {
	return parallel(ctx, creators, len(names), func(ctx context.Context, i int) error {
		one := h.byName[names[i]]
		one.lasts(h.duration)
		if err := one.renew(ctx); err != nil {
			return fmt.Errorf("renewing %s: %w", one.name, err)
		}
		one.alive.Store(true)
		return nil
	})
}

// check complains of hosts that could not report as they should have.
func (h *hosts) check() error {
	if failed, done := h.failures.Load(), h.renewals.Load(); failed > 0 && failed*100 > done {
		return fmt.Errorf("%d renewals failed or were late for their interval, of %d: the control plane cannot carry these hosts", failed, done)
	}
	return nil
}

// sightings are when something was seen.
type sightings struct {
	mu   sync.Mutex
	at   map[string]time.Time
	wake chan struct{}
}

func newSightings() *sightings {
	return &sightings{at: map[string]time.Time{}, wake: make(chan struct{}, 1)}
}

func (s *sightings) put(name string, at time.Time) {
	s.mu.Lock()
	s.at[name] = at
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// first keeps the earliest sighting.
func (s *sightings) first(name string, at time.Time) {
	s.mu.Lock()
	_, ok := s.at[name]
	s.mu.Unlock()
	if !ok {
		s.put(name, at)
	}
}

func (s *sightings) of(name string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[name]
	return at, ok
}

func (s *sightings) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

func (s *sightings) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.at)
}

// all returns the first and the last of the sightings.
func (s *sightings) span() (first, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.at {
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return first, last
}

// wait returns when n have been seen.
func (s *sightings) wait(ctx context.Context, n int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for s.count() < n {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d were seen within %s: %w", s.count(), n, limit, ctx.Err())
		}
	}
	return nil
}

// followLeases calls see with every change of a host's Lease, as it arrives.
func (w *world) followLeases(ctx context.Context, see func(*coordinationv1.Lease, time.Time)) error {
	leases := w.leases.CoordinationV1().Leases(v1alpha1.DefaultLeaseNamespace)
	list, err := leases.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing Leases: %w", err)
	}
	stream, err := leases.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return fmt.Errorf("watching Leases: %w", err)
	}
	w.trial.later(stream.Stop)
	go func() {
		for e := range stream.ResultChan() {
			if lease, ok := e.Object.(*coordinationv1.Lease); ok {
				see(lease, time.Now())
			}
		}
	}()
	return nil
}

// restClient returns a bare client of the custom resources.
func restClient(config *rest.Config) (*rest.RESTClient, error) {
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &v1alpha1.SchemeGroupVersion
	codecs, err := codecs()
	if err != nil {
		return nil, err
	}
	config.NegotiatedSerializer = codecs.WithoutConversion()
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a bare client: %w", err)
	}
	return c, nil
}

// waitFor returns when name has been seen.
func (s *sightings) waitFor(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if _, ok := s.of(name); ok {
			return nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return fmt.Errorf("%s was not seen: %w", name, ctx.Err())
		}
	}
}
