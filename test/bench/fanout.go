// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var fanOut = scenario{
	name: "fanout", title: "A rack of hosts fails at once, and every server on it is written",
	sizes: []int{2000}, sizesAre: "servers, 50 on a host", repeats: 6,
	run: runFanOut,
}

const serversPerHost = 50

func runFanOut(ctx context.Context, t *trial) error {
	for _, n := range t.scenario.sizes {
		err := t.fanOut(ctx, n)
		t.close()
		if err != nil {
			return fmt.Errorf("%d servers: %w", n, err)
		}
	}
	t.result.note("The hosts renew together and then no more, or again. Measured is from the first of their ComputeServices to the last of their servers, as they arrive on a watch; it goes both ways, to UNKNOWN and to UP.")
	t.result.note("The bare loop writes the same statuses of the same objects, first those of the hosts; it has the same user, precondition and watchers. In turn with it, and with the concurrency that was the best for it just before.")
	return nil
}

func (t *trial) fanOut(ctx context.Context, n int) error {
	// Long enough for the hosts to renew while the machine is busy.
	const duration, interval = 8 * time.Second, 2 * time.Second
	w, err := t.newWorld(ctx)
	if err != nil {
		return err
	}
	m, err := w.startManager(ctx)
	if err != nil {
		return err
	}
	rack := names(n/serversPerHost, hostName)
	if err := w.addHosts(ctx, rack); err != nil {
		return err
	}
	if err := w.addServers(ctx, 0, n, rack, true); err != nil {
		return err
	}
	h, err := w.startHosts(ctx, rack, duration, interval)
	if err != nil {
		return err
	}
	if err := w.settled(ctx, rack...); err != nil {
		return err
	}
	services, servers := newSightings(), newSightings()
	var wanted atomic.Pointer[expectation]
	wanted.Store(&expectation{status: v1alpha1.HostStatusUp})
	err = follow(ctx, w, &v1alpha1.ComputeServiceList{}, func(s *v1alpha1.ComputeService, at time.Time) {
		if ptr.Deref(s.Status.HostStatus, "") == wanted.Load().status {
			services.first(s.Name, at)
		}
	})
	if err != nil {
		return err
	}
	err = follow(ctx, w, &v1alpha1.ServerList{}, func(s *v1alpha1.Server, at time.Time) {
		if wanted.Load().met(&s.Status) {
			servers.first(s.Name, at)
		}
	})
	if err != nil {
		return err
	}

	mark := int64(0)
	next := func() int64 { mark++; return mark }
	_, serverTargets, err := w.targets(ctx, rack)
	if err != nil {
		return err
	}
	best, rates, err := w.bestConcurrency(ctx, serverTargets, next)
	if err != nil {
		return err
	}
	t.say("the bare loop is the fastest with %d writes at once: %.0f/s", best, maxOf(rates.Y))

	var ours, bare samples
	for round := range t.scenario.repeats {
		// The bare loop.
		serviceTargets, serverTargets, err := w.targets(ctx, rack)
		if err != nil {
			return err
		}
		servers.clear()
		marked := next()
		wanted.Store(&expectation{mark: marked})
		begin := time.Now()
		if _, err := w.writeAll(ctx, serviceTargets, best, marked); err != nil {
			return err
		}
		if _, err := w.writeAll(ctx, serverTargets, best, marked); err != nil {
			return err
		}
		if err := servers.wait(ctx, n, time.Minute); err != nil {
			return fmt.Errorf("bare loop: %w", err)
		}
		_, last := servers.span()
		bare = append(bare, last.Sub(begin))

		// The manager: to UNKNOWN in one round, to UP in the next.
		status := v1alpha1.HostStatusUp
		if round%2 == 0 {
			status = v1alpha1.HostStatusUnknown
			if err := h.resume(ctx, rack); err != nil {
				return err
			}
		}
		wanted.Store(&expectation{status: status})
		services.clear()
		servers.clear()
		if round == 0 {
			m.profile("unknown", duration+5*time.Second)
		}
		if round%2 == 0 {
			h.stop(rack)
		} else if err := h.resume(ctx, rack); err != nil {
			return err
		}
		if err := servers.wait(ctx, n, time.Minute); err != nil {
			return fmt.Errorf("to %s: %w", status, err)
		}
		first, _ := services.span()
		_, last = servers.span()
		ours = append(ours, last.Sub(first))
		t.say("round %d: %s in %.2f s, bare loop %.2f s", round+1, status, ours[len(ours)-1].Seconds(), bare[len(bare)-1].Seconds())
	}
	size := count(n, "servers")
	rate := func(d time.Duration) float64 { return float64(n+len(rack)) / d.Seconds() }
	name := fmt.Sprintf("bare loop, %d at once", best)
	t.result.addBeside(size, "writes per second, median", rate(ours.median()), "/s", name, rate(bare.median()), ratioAtLeast(0.85))
	t.result.addBeside(size, "wall time, median", ours.median().Seconds(), "s", name, bare.median().Seconds())
	t.result.addBeside(size, "wall time, worst", ours.quantile(1).Seconds(), "s", name, bare.quantile(1).Seconds())
	t.result.picture(picture{
		File: "fanout-concurrency", Title: "A bare loop of status writes", XLabel: "writes at once", YLabel: "writes per second", LogX: true,
		Series: []series{rates},
	})
	if err := w.compareWrites(ctx, rack[:1], next); err != nil {
		return err
	}
	return h.check()
}

// compareWrites writes one status by merge patch, as the controllers do, and by
// server-side apply, in turn.
func (w *world) compareWrites(ctx context.Context, hosts []string, mark func() int64) error {
	_, servers, err := w.targets(ctx, hosts)
	if err != nil {
		return err
	}
	one := servers[0]
	var patched, applied samples
	for round := range 220 {
		begin := time.Now()
		if err := w.write(ctx, one, mark()); err != nil {
			return err
		}
		between := time.Now()
		if err := w.apply(ctx, one, mark()); err != nil {
			return err
		}
		if round >= 20 { // The others warm up.
			patched, applied = append(patched, between.Sub(begin)), append(applied, time.Since(between))
		}
	}
	w.trial.result.addBeside("1 server", "merge patch of a status, median", ms(patched.median()), "ms", "server-side apply", ms(applied.median()))
	return nil
}

// expectation is what a watch waits for in a server: a status that the manager
// writes, or the mark of a bare loop.
type expectation struct {
	status v1alpha1.HostStatus
	mark   int64
}

func (e *expectation) met(s *v1alpha1.ServerStatus) bool {
	if e.mark != 0 {
		return s.HostStatusTransitionTime != nil && s.HostStatusTransitionTime.Equal(ptr.To(markTime(e.mark)))
	}
	return ptr.Deref(s.HostStatus, "") == e.status && e.status != ""
}

func maxOf(v []float64) float64 {
	m := v[0]
	for _, x := range v {
		m = max(m, x)
	}
	return m
}
