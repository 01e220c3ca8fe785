// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var notice = scenario{
	name: "notice", title: "From forcedDown to the last of the host's owners",
	sizes: []int{10, 100, 1000}, sizesAre: "servers on the host", repeats: 10,
	run: runNotice,
}

// peace is the time between two notices.
const peace = 300 * time.Millisecond

func runNotice(ctx context.Context, t *trial) error {
	w, m, err := t.newOwnersWorld(ctx)
	if err != nil {
		return err
	}
	if err := w.notice(ctx, m); err != nil {
		return err
	}
	t.result.note("From the moment before forcedDown is patched until a watch has the last of the host's servers DOWN: one of the owners' view, through the aggregation layer, and one of servers.compute, whose copies are written one by one. The bare loop makes as many writes as the manager, two of the host and then one of each server, and is seen on the same watches.")
	return nil
}

// notice measures with a host for each size of the trial.
func (w *world) notice(ctx context.Context, m *managerProcess) error {
	t := w.trial
	var all []string
	for _, n := range t.scenario.sizes {
		all = append(all, hostName(n))
	}
	if err := w.addHosts(ctx, all); err != nil {
		return err
	}
	first := 0
	for i, n := range t.scenario.sizes {
		if err := w.addServers(ctx, first, n, all[i:i+1], true); err != nil {
			return err
		}
		first = (first + n + serversPerNamespace - 1) / serversPerNamespace * serversPerNamespace
	}
	h, err := w.startHosts(ctx, all, leaseDuration, renewInterval)
	if err != nil {
		return err
	}
	if err := w.settled(ctx, all...); err != nil {
		return err
	}
	owner, err := w.newPerson(ctx, "owner", viewer, statusViewer)
	if err != nil {
		return err
	}
	watched, stop := context.WithCancel(ctx)
	t.later(stop)
	seen, copies := newSightings(), newSightings()
	var wanted atomic.Pointer[expectation]
	wanted.Store(&expectation{})
	err = follow(ctx, w, &v1alpha1.ServerList{}, func(s *v1alpha1.Server, at time.Time) {
		if wanted.Load().met(&s.Status) {
			copies.first(s.Name, at)
		}
	})
	if err != nil {
		return err
	}
	err = watchPath(watched, owner, tenantPath+"/servers", func(e *seenServer, at time.Time) {
		if wanted.Load().met(&e.Object.Status) {
			seen.first(e.Object.Metadata.Name, at)
		}
	})
	if err != nil {
		return err
	}

	mark := int64(0)
	next := func() int64 { mark++; return mark }
	curve := picture{File: "notice", Title: "From forcedDown to the last of the host's servers on an owner's watch", XLabel: "servers on the host", YLabel: "ms, median", LogX: true, LogY: true}
	ours, theirs, bare := series{Name: "owners' view"}, series{Name: "servers.compute"}, series{Name: "bare loop"}
	for i, n := range t.scenario.sizes {
		_, servers, err := w.targets(ctx, all[i:i+1])
		if err != nil {
			return err
		}
		best, _, err := w.bestConcurrency(ctx, servers, next)
		if err != nil {
			return err
		}
		var took, copied, beside samples
		for round := range t.scenario.repeats + 1 {
			// The bare loop: as many writes, on the way from one status of the host to
			// the other.
			services, servers, err := w.targets(ctx, all[i:i+1])
			if err != nil {
				return err
			}
			seen.clear()
			copies.clear()
			marked := next()
			wanted.Store(&expectation{mark: marked})
			begin := time.Now()
			for range 2 {
				if err := w.write(ctx, services[0], next()); err != nil {
					return err
				}
			}
			if _, err := w.writeAll(ctx, servers, best, marked); err != nil {
				return err
			}
			if err := seen.wait(ctx, n, time.Minute); err != nil {
				return fmt.Errorf("bare loop, %d servers: %w", n, err)
			}
			_, last := seen.span()
			beside = append(beside, last.Sub(begin))

			if round == 1 {
				m.profile(fmt.Sprint(n), 5*time.Second)
			}
			for _, down := range []bool{true, false} {
				wanted.Store(&expectation{status: map[bool]v1alpha1.HostStatus{true: v1alpha1.HostStatusDown, false: v1alpha1.HostStatusUp}[down]})
				seen.clear()
				copies.clear()
				// What is written just before is a storm to the owners' view, which then sends
				// events together.
				if err := sleep(ctx, peace); err != nil {
					return err
				}
				begin := time.Now()
				if err := w.forceDown(ctx, all[i], down); err != nil {
					return err
				}
				if err := seen.wait(ctx, n, time.Minute); err != nil {
					return fmt.Errorf("%d servers: %w", n, err)
				}
				if err := copies.wait(ctx, n, time.Minute); err != nil {
					return fmt.Errorf("%d servers.compute: %w", n, err)
				}
				if down {
					_, last := seen.span()
					took = append(took, last.Sub(begin))
					_, last = copies.span()
					copied = append(copied, last.Sub(begin))
				}
			}
		}
		// The first round warms up.
		took, copied, beside = slices.Delete(took, 0, 1), slices.Delete(copied, 0, 1), slices.Delete(beside, 0, 1)
		size, name := count(n, "servers"), fmt.Sprintf("bare loop, %d at once", best)
		var bounds []*bound
		if n == 100 {
			bounds = []*bound{ratioAtMost(1.5), atMost(1000)}
		}
		t.result.addBeside(size, "last server, median", ms(t.typical(took)), "ms", name, ms(t.typical(beside)), bounds...)
		t.result.addBeside(size, "last server, p99", ms(took.quantile(0.99)), "ms", name, ms(beside.quantile(0.99)))
		t.result.addBeside(size, "last servers.compute, median", ms(copied.median()), "ms", name, ms(beside.median()))
		t.result.addBeside(size, "last servers.compute, p99", ms(copied.quantile(0.99)), "ms", name, ms(beside.quantile(0.99)))
		ours.add(float64(n), ms(took.median()))
		theirs.add(float64(n), ms(copied.median()))
		bare.add(float64(n), ms(beside.median()))
		t.say("%d servers: %.0f ms, servers.compute %.0f ms, bare loop %.0f ms", n, ms(took.median()), ms(copied.median()), ms(beside.median()))
	}
	curve.Series = []series{ours, theirs, bare}
	t.result.picture(curve)
	return h.check()
}

func (w *world) forceDown(ctx context.Context, host string, down bool) error {
	value := any(nil)
	if down {
		value = true
	}
	service := &v1alpha1.ComputeService{}
	service.Name = host
	err := w.admin.Patch(ctx, service, client.RawPatch(types.MergePatchType, mustJSON(map[string]any{"spec": map[string]any{"forcedDown": value}})))
	if err != nil {
		return fmt.Errorf("forcing %s down: %w", host, err)
	}
	return nil
}
