// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var large = scenario{
	name: "large", title: "A large fleet: a restart, and a third of the hosts failing at once",
	sizes: []int{1000}, sizesAre: "hosts, 50 servers on each", repeats: 3,
	run: runLarge,
}

const (
	// stormPercent of the hosts fail at once.
	stormPercent = 30
	// furtherHosts fail one after the other, furtherInterval apart, while the servers
	// of those are written.
	furtherHosts    = 10
	furtherInterval = time.Second
)

func runLarge(ctx context.Context, t *trial) error {
	for _, n := range t.scenario.sizes {
		err := t.largeFleet(ctx, n)
		t.close()
		if err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
	}
	t.result.note("Restart: from the start of the process until every host and server has been looked at and nothing waits, with the leader's Lease free.")
	t.result.note("Storm: %d %% of the hosts renew together and then no more; %d further hosts follow, %s apart, so that their deadlines pass while the servers of the first are written. Beside it the same hosts failing with nothing else going on, measured before.", stormPercent, furtherHosts, furtherInterval)
	return nil
}

func (t *trial) largeFleet(ctx context.Context, n int) error {
	w, err := t.newWorld(ctx)
	if err != nil {
		return err
	}
	m, err := w.startManager(ctx)
	if err != nil {
		return err
	}
	all, servers := names(n, hostName), n*serversPerHost
	if err := w.addHosts(ctx, all); err != nil {
		return err
	}
	h, err := w.startHosts(ctx, all, leaseDuration, renewInterval)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := w.addServers(ctx, 0, servers, all, false); err != nil {
		return err
	}
	if err := w.settled(ctx, all...); err != nil {
		return err
	}
	t.say("%d servers were created and judged in %.0f s", servers, time.Since(begin).Seconds())
	size := fmt.Sprintf("%s, %s", count(n, "hosts"), count(servers, "servers"))

	var starts samples
	var writes, peak float64
	for range t.scenario.repeats {
		m.Stop()
		begin := time.Now()
		if m, err = w.startManager(ctx); err != nil {
			return err
		}
		if err := m.judged(ctx, n+servers); err != nil {
			return err
		}
		starts = append(starts, time.Since(begin))
		patches, err := requests(m.metrics, "PATCH")
		if err != nil {
			return err
		}
		canaries, err := metric(m.metrics, "hoststatus_heartbeat_canary_writes_total{")
		if err != nil {
			return err
		}
		writes += patches - canaries
		resident, err := peakOf(m.Pid())
		if err != nil {
			return err
		}
		peak = max(peak, resident)
		t.say("restart in %.1f s, %.0f writes, %.0f MiB", starts[len(starts)-1].Seconds(), patches-canaries, resident/(1<<20))
	}
	heap, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}
	t.result.add(size, "restart until all is judged, median", starts.median().Seconds(), "s")
	t.result.add(size, "writes of the restarts", writes, "", atMost(0))
	t.result.add(size, "peak of the resident memory at the restart", peak/(1<<20), "MiB")
	t.result.add(size, "live heap", heap/(1<<20), "MiB")

	// The storm.
	renewed, unknown, written := newSightings(), newSightings(), newSightings()
	err = w.followLeases(ctx, func(l *coordinationv1.Lease, at time.Time) { renewed.put(l.Name, at) })
	if err != nil {
		return err
	}
	err = follow(ctx, w, &v1alpha1.ComputeServiceList{}, func(s *v1alpha1.ComputeService, at time.Time) {
		if ptr.Deref(s.Status.HostStatus, "") == v1alpha1.HostStatusUnknown {
			unknown.first(s.Name, at)
		}
	})
	if err != nil {
		return err
	}
	err = follow(ctx, w, &v1alpha1.ServerList{}, func(s *v1alpha1.Server, at time.Time) {
		if ptr.Deref(s.Status.HostStatus, "") == v1alpha1.HostStatusUnknown {
			written.put(s.Name, at)
		}
	})
	if err != nil {
		return err
	}
	storm, further := all[:n*stormPercent/100], all[n-furtherHosts:]
	lag := func() (out samples) {
		for _, name := range further {
			last, _ := renewed.of(name)
			at, _ := unknown.of(name)
			out = append(out, at.Sub(last.Add(leaseDuration)))
		}
		return out
	}

	failOneByOne := func() error {
		for _, name := range further {
			if err := h.resume(ctx, []string{name}); err != nil {
				return err
			}
			h.stop([]string{name})
			if err := sleep(ctx, furtherInterval); err != nil {
				return err
			}
		}
		return nil
	}
	if err := failOneByOne(); err != nil {
		return err
	}
	if err := unknown.wait(ctx, len(further), 2*leaseDuration); err != nil {
		return err
	}
	calm := lag()
	if err := written.wait(ctx, len(further)*serversPerHost, time.Minute); err != nil {
		return err
	}
	t.say("single failures: p50 %.0f ms, worst %.0f ms", ms(calm.median()), ms(calm.quantile(1)))
	if err := h.resume(ctx, further); err != nil {
		return err
	}
	if err := w.settled(ctx, further...); err != nil {
		return err
	}
	unknown.clear()
	written.clear()
	if err := h.resume(ctx, storm); err != nil {
		return err
	}
	h.stop(storm)
	if err := sleep(ctx, furtherInterval); err != nil {
		return err
	}
	if err := failOneByOne(); err != nil {
		return err
	}
	m.profile("storm", time.Minute)
	if err := unknown.wait(ctx, len(storm)+len(further), 2*leaseDuration); err != nil {
		return err
	}
	stormy := lag()
	if err := written.wait(ctx, (len(storm)+len(further))*serversPerHost, settleTimeout); err != nil {
		return err
	}
	first, last := written.span()
	var during int
	for _, name := range further {
		if at, _ := unknown.of(name); at.After(first) && at.Before(last) {
			during++
		}
	}
	t.say("in the storm: p50 %.0f ms, worst %.0f ms, %d of %d while servers were written, for %.0f s",
		ms(stormy.median()), ms(stormy.quantile(1)), during, len(further), last.Sub(first).Seconds())
	t.result.addBeside(size, "lag of a further failure in the storm, median", ms(stormy.median()), "ms", "without a storm", ms(calm.median()))
	worst := ms(stormy.quantile(1))
	t.result.addBeside(size, "lag of a further failure in the storm, worst", worst, "ms", "without a storm", ms(calm.quantile(1)), atMost(1000+ms(calm.quantile(1))))
	t.result.add(size, "further failures while servers were written", float64(during), fmt.Sprintf("of %d", len(further)))
	t.result.add(size, "servers written in the storm", float64(written.count())/last.Sub(first).Seconds(), "/s")
	t.result.add(size, "the storm's servers, first to last", last.Sub(first).Seconds(), "s")
	return h.check()
}
