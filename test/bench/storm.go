// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

var storm = scenario{
	name: "storm", title: "A part of a data centre fails at once, and its owners watch",
	sizes: []int{300}, sizesAre: "hosts, 50 servers on each, of 200 owners", repeats: 3,
	run: runStorm,
}

const (
	stormNamespaces = 200
	stormWatchers   = 500
	// watchersOfOne share connections.
	watchersOfOne = 50
	// references is how often each of what a storm is compared with runs before it: they are
	// short, and their times differ more.
	references = 4
)

func runStorm(ctx context.Context, t *trial) error {
	for _, n := range t.scenario.sizes {
		err := t.storm(ctx, n)
		t.close()
		if err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
	}
	t.result.note("The leases of all hosts run out within about 50 ms. Measured is from the first of their ComputeServices, as it arrives on a watch, until the last of %d watches of the owners' view has the last of its servers. The bare loop writes the status of the ComputeServices alone, which nobody copies. Beside it the same loop runs until so many watches of ComputeServices have all of its writes that kube-apiserver sends as many events as the owners' view does; and until %d watches of a bare aggregated API server, behind kube-apiserver as the owners' view is, have the event of each server, which that server has encoded before. The clients look for a name and a status in each event and decode nothing, since they share the cores.", stormWatchers, stormWatchers)
	return nil
}

func (t *trial) storm(ctx context.Context, n int) error {
	const duration, interval = 20 * time.Second, 5 * time.Second
	w, _, err := t.newOwnersWorld(ctx)
	if err != nil {
		return err
	}
	all, servers := names(n, hostName), n*serversPerHost
	if err := w.addHosts(ctx, all); err != nil {
		return err
	}
	tenant := func(i int) string { return fmt.Sprintf("owner-%03d", i%stormNamespaces) }
	for i := range stormNamespaces {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenant(i)}}
		if _, err := w.leases.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating a namespace: %w", err)
		}
	}
	err = parallel(ctx, creators, servers, func(ctx context.Context, i int) error {
		s := newServer(i, all[i%n])
		s.Namespace = tenant(i)
		return w.admin.Create(ctx, s)
	})
	if err != nil {
		return fmt.Errorf("creating servers: %w", err)
	}
	h, err := w.startHosts(ctx, all, duration, interval)
	if err != nil {
		return err
	}
	if err := w.settled(ctx, all...); err != nil {
		return err
	}

	services, told := newSightings(), newSightings()
	var wanted atomic.Pointer[expectation]
	wanted.Store(&expectation{status: v1alpha1.HostStatusUp})
	err = follow(ctx, w, &v1alpha1.ComputeServiceList{}, func(s *v1alpha1.ComputeService, at time.Time) {
		e := wanted.Load()
		if e.mark == 0 && ptr.Deref(s.Status.HostStatus, "") == e.status || e.mark != 0 && s.Status.LastSeenUpTime.Equal(ptr.To(markTime(e.mark))) {
			services.first(s.Name, at)
		}
	})
	if err != nil {
		return err
	}
	watched, stop := context.WithCancel(ctx)
	t.later(stop)
	var ended atomic.Int32
	var owner *person
	expected := 0
	for i := range stormWatchers {
		if i%watchersOfOne == 0 {
			if owner, err = w.newPerson(ctx, fmt.Sprintf("owner-%d", i), viewer, statusViewer); err != nil {
				return err
			}
		}
		err := watchLines(watched, owner, tenantPath+"/namespaces/"+tenant(i)+"/servers", func(line []byte, at time.Time) {
			if kind := textOf(line, "type"); kind == "ERROR" || kind == watchEnded {
				ended.Add(1)
				return
			}
			if want := wanted.Load(); want.mark == 0 && textOf(line, "hostStatus") == string(want.status) {
				told.first(strconv.Itoa(i)+"/"+textOf(line, "name"), at)
			}
		})
		if err != nil {
			return err
		}
		expected += servers / stormNamespaces
	}

	mark := int64(0)
	next := func() int64 { mark++; return mark }
	targets, err := w.serviceTargets(ctx, all)
	if err != nil {
		return err
	}
	best, _, err := w.bestConcurrency(ctx, targets, next)
	if err != nil {
		return err
	}
	loop := func(marks *sightings, want int) (time.Duration, error) {
		targets, err := w.serviceTargets(ctx, all)
		if err != nil {
			return 0, err
		}
		marks.clear()
		marked := next()
		wanted.Store(&expectation{mark: marked})
		begin := time.Now()
		if _, err := w.writeAll(ctx, targets, best, marked); err != nil {
			return 0, err
		}
		if err := marks.wait(ctx, want, settleTimeout); err != nil {
			return 0, fmt.Errorf("bare loop: %w", err)
		}
		_, last := marks.span()
		return last.Sub(begin), nil
	}
	// withWatches runs the loop until n watches, each begun by begin, have noted want events.
	withWatches := func(n, want int, begin func(context.Context, *person, int, *sightings) error) (time.Duration, error) {
		marks := newSightings()
		unwatch, err := w.beginWatches(ctx, n, func(ctx context.Context, p *person, i int) error { return begin(ctx, p, i, marks) })
		if err != nil {
			return 0, err
		}
		defer unwatch()
		return loop(marks, want)
	}
	if err := w.startBareView(ctx, owner); err != nil {
		return err
	}
	watches := expected / n // They take as many events as the owners' watches.
	var ours, bare, heard, passed samples
	for round := range t.scenario.repeats {
		for range references {
			took, err := loop(services, n)
			if err != nil {
				return err
			}
			bare = append(bare, took)
			if took, err = withWatches(watches, watches*n, func(ctx context.Context, p *person, i int, marks *sightings) error {
				return watchLines(ctx, p, computePath+"/computeservices", func(line []byte, at time.Time) {
					if want := wanted.Load(); want.mark != 0 && textOf(line, "lastSeenUpTime") == markTime(want.mark).UTC().Format(time.RFC3339) {
						marks.first(strconv.Itoa(i)+"/"+textOf(line, "name"), at)
					}
				})
			}); err != nil {
				return err
			}
			heard = append(heard, took)
			if took, err = withWatches(stormWatchers, expected, func(ctx context.Context, p *person, i int, marks *sightings) error {
				return watchLines(ctx, p, barePath+"/namespaces/"+tenant(i)+"/servers", func(line []byte, at time.Time) {
					marks.first(strconv.Itoa(i)+"/"+textOf(line, "name"), at)
				})
			}); err != nil {
				return err
			}
			passed = append(passed, took)
			t.say("bare loop %.2f s, with as many events for watches %.2f s, through a bare view %.2f s", bare[len(bare)-1].Seconds(), heard[len(heard)-1].Seconds(), passed[len(passed)-1].Seconds())
		}
		if err := h.stopTogether(ctx, all); err != nil {
			return err
		}
		turn := func(status v1alpha1.HostStatus) {
			wanted.Store(&expectation{status: status})
			services.clear()
			told.clear()
		}
		turn(v1alpha1.HostStatusUnknown)
		if err := told.wait(ctx, expected, settleTimeout); err != nil {
			return fmt.Errorf("falling silent: %w", err)
		}
		first, lastHost := services.span()
		_, last := told.span()
		ours = append(ours, last.Sub(first))
		t.say("round %d: %.2f s (the hosts took %.2f s)", round+1, last.Sub(first).Seconds(), lastHost.Sub(first).Seconds())
		if err := w.copied(ctx, v1alpha1.HostStatusUnknown, servers); err != nil {
			return err
		}
		turn(v1alpha1.HostStatusUp)
		if err := h.resume(ctx, all); err != nil {
			return err
		}
		if err := told.wait(ctx, expected, settleTimeout); err != nil {
			return fmt.Errorf("coming back: %w", err)
		}
		if err := w.copied(ctx, v1alpha1.HostStatusUp, servers); err != nil {
			return err
		}
	}
	size, name := fmt.Sprintf("%s, %s", count(n, "hosts"), count(servers, "servers")), fmt.Sprintf("bare loop, %d at once", best)
	t.result.addBeside(size, "last owner, median", ours.median().Seconds(), "s", name, bare.median().Seconds(), ratioAtMost(1.5))
	t.result.addBeside(size, "last owner, worst", ours.quantile(1).Seconds(), "s", name, bare.quantile(1).Seconds())
	t.result.addBeside(size, "last owner, median, beside watches of as many events", ours.median().Seconds(), "s", fmt.Sprintf("the same loop, until %d watches of ComputeServices have each", watches), heard.median().Seconds())
	t.result.addBeside(size, "last owner, median, beside a bare view", ours.median().Seconds(), "s", fmt.Sprintf("the same loop, until %d watches of a bare view have each server", stormWatchers), passed.median().Seconds())
	t.result.add(size, "watches that had to begin again", float64(ended.Load()), "", atMost(0))
	return h.check()
}

// beginWatches begins n watches of administrators, who share connections, each by begin. They
// end with unwatch.
func (w *world) beginWatches(ctx context.Context, n int, begin func(context.Context, *person, int) error) (unwatch func(), err error) {
	ctx, unwatch = context.WithCancel(ctx)
	w.trial.later(unwatch)
	var p *person
	for i := range n {
		if i%watchersOfOne == 0 {
			if p, err = w.administrator(); err != nil {
				break
			}
		}
		if err = begin(ctx, p, i); err != nil {
			break
		}
	}
	if err != nil {
		unwatch()
		return nil, err
	}
	return unwatch, nil
}

// serviceTargets returns the ComputeServices called hosts, as they are now.
func (w *world) serviceTargets(ctx context.Context, hosts []string) ([]*target, error) {
	var list v1alpha1.ComputeServiceList
	if err := w.admin.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing ComputeServices: %w", err)
	}
	var targets []*target
	for i := range list.Items {
		if slices.Contains(hosts, list.Items[i].Name) {
			targets = append(targets, serviceTarget(&list.Items[i]))
		}
	}
	return targets, nil
}

// copied waits until all servers have a status stored, so that the next round begins in
// peace.
func (w *world) copied(ctx context.Context, status v1alpha1.HostStatus, servers int) error {
	return expect.Poll(ctx, settleTimeout, func() error {
		var list v1alpha1.ServerList
		options := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}
		if err := w.admin.List(ctx, &list, options, client.MatchingFields{"status.hostStatus": string(status)}); err != nil {
			return err
		}
		if n := len(list.Items); n != servers {
			return fmt.Errorf("%d of %d servers are stored as %s", n, servers, status)
		}
		return nil
	})
}
