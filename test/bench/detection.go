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

var detection = scenario{
	name: "detection", title: "From the end of a silent host's lease to UNKNOWN",
	sizes: []int{100, 1000, 5000}, sizesAre: "hosts", repeats: 3,
	run: runDetection,
}

const (
	renewInterval = 10 * time.Second
	leaseDuration = 30 * time.Second
	// failing is the share of hosts that fall silent at once, at most maxFailing.
	failingPerHost = 10
	maxFailing     = 100
)

func runDetection(ctx context.Context, t *trial) error {
	shares := picture{File: "detection", Title: "Hosts found silent, by time past the deadline", XLabel: "ms past the deadline", YLabel: "% of the hosts"}
	for _, n := range t.scenario.sizes {
		lags, bare, err := t.detect(ctx, n)
		t.close() // The next size has a control plane of its own.
		if err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
		size := count(n, "hosts")
		var bounds []*bound
		if n == 1000 {
			bounds = []*bound{atMost(250)}
		}
		t.result.addBeside(size, "lag, median", ms(lags.median()), "ms", "bare chain", ms(bare.median()))
		t.result.addBeside(size, "lag, p99", ms(lags.quantile(0.99)), "ms", "bare chain", ms(bare.quantile(0.99)), bounds...)
		t.result.add(size, "earliest verdict after the deadline", ms(lags.quantile(0)), "ms")
		shares.Series = append(shares.Series, lags.distribution(size), bare.distribution("bare chain beside "+size))
	}
	t.result.note("The lag is from the arrival of the last renewal on a watch, plus D (%s), to the arrival of UNKNOWN on a watch. A tenth of the hosts, %d at most, stop at the same moment, so that their deadlines are spread over the %s between renewals.", leaseDuration, maxFailing, renewInterval)
	t.result.note("The bare chain is what no verdict can do without: a Lease is written, and when it has come back on a watch, a status is written, which comes back on a watch. It goes on, ten times a second, while the deadlines pass.")
	t.result.picture(shares)
	return nil
}

// detect measures with n hosts, in turn with the bare chain.
func (t *trial) detect(ctx context.Context, n int) (lags, bare samples, err error) {
	w, err := t.newWorld(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := w.startManager(ctx); err != nil {
		return nil, nil, err
	}
	all := names(n, hostName)
	t.say("%d hosts", n)
	if err := w.addHosts(ctx, append([]string{"probe"}, all...)); err != nil {
		return nil, nil, err
	}
	h, err := w.startHosts(ctx, append([]string{"probe"}, all...), leaseDuration, renewInterval)
	if err != nil {
		return nil, nil, err
	}
	if err := w.settled(ctx, all...); err != nil {
		return nil, nil, err
	}
	renewed, unknown := newSightings(), newSightings()
	chain := &bareChain{world: w, host: h.byName["probe"], echo: newSightings(), written: newSightings()}
	if err := w.followLeases(ctx, func(l *coordinationv1.Lease, at time.Time) {
		renewed.put(l.Name, at)
		chain.echo.put(l.Name+l.ResourceVersion, at)
	}); err != nil {
		return nil, nil, err
	}
	err = follow(ctx, w, &v1alpha1.ComputeServiceList{}, func(s *v1alpha1.ComputeService, at time.Time) {
		if ptr.Deref(s.Status.HostStatus, "") == v1alpha1.HostStatusUnknown {
			unknown.first(s.Name, at)
		}
		if s.Name == "probe" && s.Status.LastSeenUpTime != nil {
			chain.written.put(s.Status.LastSeenUpTime.UTC().String(), at)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	if err := sleep(ctx, renewInterval); err != nil { // Each has renewed once in its turn.
		return nil, nil, err
	}
	failing := min(max(n/failingPerHost, 1), maxFailing)
	for round := range t.scenario.repeats {
		var silent []string
		for i := range failing {
			silent = append(silent, all[(i*n/failing+round)%n])
		}
		unknown.clear()
		h.stop(silent)
		// The bare chain goes on while the deadlines pass.
		if err := sleep(ctx, leaseDuration-renewInterval); err != nil {
			return nil, nil, err
		}
		if bare, err = chain.measure(ctx, bare, renewInterval+time.Second); err != nil {
			return nil, nil, err
		}
		if err := unknown.wait(ctx, failing, time.Minute); err != nil {
			return nil, nil, err
		}
		for _, name := range silent {
			last, ok := renewed.of(name)
			at, _ := unknown.of(name)
			if !ok {
				return nil, nil, fmt.Errorf("no renewal of %s was seen", name)
			}
			lags = append(lags, at.Sub(last.Add(leaseDuration)))
		}
		if len(unknown.at) != failing {
			return nil, nil, fmt.Errorf("%d hosts became UNKNOWN, %d had stopped", len(unknown.at), failing)
		}
		if err := h.resume(ctx, silent); err != nil {
			return nil, nil, err
		}
		if err := w.settled(ctx, silent...); err != nil {
			return nil, nil, err
		}
		t.say("%d hosts, round %d: p50 %.0f ms, p99 %.0f ms; bare chain p50 %.0f ms, p99 %.0f ms", n, round+1,
			ms(lags.median()), ms(lags.quantile(0.99)), ms(bare.median()), ms(bare.quantile(0.99)))
	}
	return lags, bare, h.check()
}

// bareChain does what a verdict cannot do without, on a host of its own.
type bareChain struct {
	world         *world
	host          *lightHost
	echo, written *sightings
	marks         int64
}

// measure does it again and again for as long as length.
func (c *bareChain) measure(ctx context.Context, took samples, length time.Duration) (samples, error) {
	services, _, err := c.world.targets(ctx, []string{c.host.name})
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		c.marks++
		begin := time.Now()
		if err := c.host.renew(ctx); err != nil {
			return nil, err
		}
		c.host.mu.Lock()
		echo := c.host.name + c.host.lease.ResourceVersion
		c.host.mu.Unlock()
		if err := c.echo.waitFor(ctx, echo); err != nil {
			return nil, err
		}
		if err := c.world.write(ctx, services[0], c.marks); err != nil {
			return nil, err
		}
		if err := c.written.waitFor(ctx, markTime(c.marks).UTC().String()); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return took, nil
}
