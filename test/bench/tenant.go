// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

var tenantAPI = scenario{
	name: "tenantapi", title: "The owners' view beside the custom resource",
	sizes: []int{1000, 10000}, sizesAre: "servers", repeats: 30,
	run: runTenantAPI,
}

const (
	manyClients        = 50
	connectionsPerUser = 10
	// theWay is a request for the group's own description: through the aggregation layer
	// to the owners' view and back, where nothing is read or asked. With it the custom
	// resource's own get is the least that a get of the view can take.
	theWay = "the way there and back alone"
	// watchClients watch while watchedChanges servers change.
	watchClients   = 200
	watchedChanges = 100
	watchRounds    = 5
)

func runTenantAPI(ctx context.Context, t *trial) error {
	// The manager's canary is what tells readers that the statuses are fresh.
	w, m, err := t.newOwnersWorld(ctx)
	if err != nil {
		return err
	}
	all := names(20, hostName)
	if err := w.addHosts(ctx, all); err != nil {
		return err
	}
	if _, err := w.startHosts(ctx, all, leaseDuration, renewInterval); err != nil {
		return err
	}
	have := 0
	slices.Sort(t.scenario.sizes)
	for i, n := range t.scenario.sizes {
		t.say("%d servers", n)
		if err := w.addServers(ctx, have, n-have, all, true); err != nil {
			return err
		}
		have = n
		if err := w.settled(ctx, all...); err != nil {
			return err
		}
		size := count(n, "servers")
		if err := w.viewMemory(size, "resident memory, nobody asking", "VmRSS"); err != nil {
			return err
		}
		if i == 0 {
			if err := w.race(ctx, "get", n, false); err != nil {
				return err
			}
			if err := w.raceWatches(ctx); err != nil {
				return err
			}
		}
		if err := w.race(ctx, "list", n, i > 0); err != nil {
			return err
		}
		if err := w.viewMemory(size, fmt.Sprintf("peak of the resident memory, %d clients listing all at once", manyClients), "VmHWM"); err != nil {
			return err
		}
	}
	t.result.note("Requests go through the aggregation layer, in turn with the administrator's for the custom resource; times are medians of one request. With %d clients each has a connection, and all ask at the same time. Larger lists have fewer rounds.", manyClients)
	t.result.note("A list of up to %d servers is of one namespace, a larger one of all namespaces. Gets ask for one server after the other in random order, so that no answer of the authorizer about one server serves twice.", serversPerNamespace)
	select {
	case <-m.Done():
		t.result.note("The administrator's requests are exempt from priority and fairness. Those of %d at once kept the manager from renewing its leader's Lease for 5 s, so that it ended, as it must; nobody started it again here.", manyClients)
	default:
	}
	return nil
}

func (w *world) viewMemory(size, name, kind string) error {
	used, err := memoryOf(w.fleet.TenantAPI.Pid(), kind)
	if err != nil {
		return err
	}
	w.trial.result.add(size, name, used/(1<<20), "MiB")
	return nil
}

// contender is one way to ask for the same, measured in turn with the others.
type contender struct {
	name string
	// people are the connections that ask.
	people []*person
	path   func() string
	took   samples
}

// race measures a verb with one client and with many.
func (w *world) race(ctx context.Context, verb string, n int, heavy bool) error {
	t := w.trial
	tenant, compute := tenantPath+"/namespaces/"+namespaceOf(0)+"/servers", computePath+"/namespaces/"+namespaceOf(0)+"/servers"
	if n > serversPerNamespace {
		tenant, compute = tenantPath+"/servers", computePath+"/servers"
	}
	one := func(path string) func() string {
		if verb == "list" {
			return func() string { return path }
		}
		return func() string { return path + "/" + serverName(rand.IntN(min(n, serversPerNamespace))) }
	}
	admins, err := w.crowd(ctx, "")
	if err != nil {
		return err
	}
	granted, err := w.crowd(ctx, fmt.Sprintf("granted-%s-%d", verb, n), viewer, statusViewer)
	if err != nil {
		return err
	}
	ungranted, err := w.crowd(ctx, fmt.Sprintf("ungranted-%s-%d", verb, n), viewer)
	if err != nil {
		return err
	}
	clientCounts := []int{1, manyClients}
	if t.short {
		clientCounts = clientCounts[:1]
	}
	for _, clients := range clientCounts {
		contenders := []*contender{
			{name: "the custom resource", people: admins, path: one(compute)},
			{name: "granted", people: granted, path: one(tenant)},
			{name: "ungranted", people: ungranted, path: one(tenant)},
		}
		if verb == "list" {
			contenders = append(contenders, &contender{name: "granted, resourceVersion=0", people: granted, path: one(tenant + "?resourceVersion=0")})
		} else {
			contenders = append(contenders, &contender{name: theWay, people: granted, path: func() string { return tenantPath }})
		}
		rounds, asks := t.scenario.repeats, 1
		switch {
		case t.short:
			rounds, asks = shortAsks, 1
		case verb == "get":
			asks = 10
		case heavy && clients > 1:
			rounds = 1
		case heavy || clients > 1:
			rounds = max(2, rounds/5)
		}
		warmUp := 1
		if heavy && clients > 1 {
			warmUp = 0 // One client has warmed up for all.
		}
		for round := range rounds + warmUp {
			for i := range contenders {
				c := contenders[(i+round)%len(contenders)] // Nobody always goes first.
				if heavy && clients > 1 {
					// While the administrator's lists, which are exempt from all limits, keep the
					// machine busy, kube-apiserver may find the aggregated API gone.
					if err := w.fleet.WaitForTenantAPI(ctx); err != nil {
						return err
					}
				}
				took, err := c.askAll(ctx, clients, asks)
				if err != nil {
					return err
				}
				if round >= warmUp {
					c.took = append(c.took, took...)
				}
			}
		}
		size := count(n, "servers, 1 client")
		if clients > 1 {
			size = fmt.Sprintf("%s, %d clients", count(n, "servers"), clients)
		}
		reference := contenders[0]
		for _, c := range contenders[1:] {
			var bounds []*bound
			if n == 1000 && clients == 1 && c.name != theWay {
				bounds = []*bound{ratioAtMost(map[string]float64{"list": 1.2, "get": 2.5}[verb])}
			}
			t.result.addBeside(size, verb+", "+c.name, ms(t.typical(c.took)), "ms", reference.name, ms(t.typical(reference.took)), bounds...)
			t.say("%s, %s, %s: %.2f ms, custom resource %.2f ms", verb, c.name, size, ms(c.took.median()), ms(reference.took.median()))
		}
		if verb == "list" {
			t.result.addBeside(size, "list, ungranted", ms(t.typical(contenders[2].took)), "ms", "granted", ms(t.typical(contenders[1].took)))
		}
	}
	return nil
}

// crowd is many connections of users with roles; of an administrator if there is no
// name. The owners' view answers a bounded number of requests of one user at once.
func (w *world) crowd(ctx context.Context, name string, roles ...string) ([]*person, error) {
	var people []*person
	for i := range connectionsOf(w.trial) {
		if name == "" {
			p, err := w.administrator()
			if err != nil {
				return nil, err
			}
			people = append(people, p)
			continue
		}
		var granted []string
		if i%connectionsPerUser == 0 {
			granted = roles
		}
		p, err := w.newPerson(ctx, fmt.Sprintf("%s-%d", name, i/connectionsPerUser), granted...)
		if err != nil {
			return nil, err
		}
		people = append(people, p)
	}
	return people, nil
}

func connectionsOf(t *trial) int {
	if t.short {
		return 1
	}
	return manyClients
}

// askAll lets clients ask at the same time, each for asks times.
func (c *contender) askAll(ctx context.Context, clients, asks int) (took samples, err error) {
	var mu sync.Mutex
	err = parallel(ctx, clients, clients, func(ctx context.Context, i int) error {
		for range asks {
			begin := time.Now()
			if err := c.people[i].get(ctx, c.path()); err != nil {
				return err
			}
			d := time.Since(begin)
			mu.Lock()
			took = append(took, d)
			mu.Unlock()
		}
		return nil
	})
	return took, err
}

// raceWatches measures from the last of many changes until every watch has it.
func (w *world) raceWatches(ctx context.Context) error {
	t := w.trial
	admins, err := w.crowd(ctx, "")
	if err != nil {
		return err
	}
	granted, err := w.crowd(ctx, "watcher", viewer, statusViewer)
	if err != nil {
		return err
	}
	_, targets, err := w.targets(ctx, names(20, hostName))
	if err != nil {
		return err
	}
	targets = slices.DeleteFunc(targets, func(t *target) bool { return t.namespace != namespaceOf(0) })
	targets = targets[:min(watchedChanges, len(targets))]
	contenders := []*contender{
		{name: "the custom resource", people: admins, path: func() string { return computePath + "/namespaces/" + namespaceOf(0) + "/servers" }},
		{name: "granted", people: granted, path: func() string { return tenantPath + "/namespaces/" + namespaceOf(0) + "/servers" }},
	}
	mark := int64(0)
	for round := range watchRounds + 1 {
		for _, c := range contenders {
			mark++
			took, err := w.watchChanges(ctx, c, targets, mark)
			if err != nil {
				return err
			}
			if round > 0 {
				c.took = append(c.took, took)
			}
		}
	}
	size := fmt.Sprintf("%d watches, %d changes", watchClients, len(targets))
	t.result.addBeside(size, "last event after the last change, median", ms(contenders[1].took.median()), "ms", contenders[0].name, ms(contenders[0].took.median()))
	t.result.addBeside(size, "last event after the last change, worst", ms(contenders[1].took.quantile(1)), "ms", contenders[0].name, ms(contenders[0].took.quantile(1)))
	return nil
}

func (w *world) watchChanges(ctx context.Context, c *contender, targets []*target, mark int64) (time.Duration, error) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	seen := newSightings()
	want := &expectation{mark: mark}
	for i := range watchClients {
		err := watchPath(watching, c.people[i%len(c.people)], c.path(), func(e *seenServer, at time.Time) {
			if want.met(&e.Object.Status) {
				seen.first(fmt.Sprint(i, e.Object.Metadata.Name), at)
			}
		})
		if err != nil {
			return 0, err
		}
	}
	if _, err := w.writeAll(ctx, targets, 8, mark); err != nil {
		return 0, err
	}
	written := time.Now()
	if err := seen.wait(ctx, watchClients*len(targets), time.Minute); err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	_, last := seen.span()
	return max(0, last.Sub(written)), nil
}
