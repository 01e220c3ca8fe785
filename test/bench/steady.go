// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

var steady = scenario{
	name: "steady", title: "A fleet in which nothing happens",
	sizes: []int{1000}, sizesAre: "hosts, 10 servers on each", repeats: 1,
	run: runSteady,
}

const (
	steadyServersPerHost = 10
	// idleWindow is for how long the processes are watched without any host.
	idleWindow = 30 * time.Second
)

func runSteady(ctx context.Context, t *trial) error {
	for _, n := range t.scenario.sizes {
		err := t.steadyState(ctx, n)
		t.close()
		if err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
	}
	t.result.note("The window is %s; each host renews every %s. The bare informer is a process beside the manager that watches the same renewals at the same time, and does nothing with them.", t.window, renewInterval)
	t.result.note("CPU per renewal is without what the same process used before there was a host: for the manager mostly the renewal of the leader's Lease every second and the canaries.")
	t.result.note("The two lease namespaces have a canary each, every 2 s.")
	return nil
}

func (t *trial) steadyState(ctx context.Context, n int) error {
	w, err := t.newWorld(ctx)
	if err != nil {
		return err
	}
	m, err := w.startManager(ctx)
	if err != nil {
		return err
	}
	config, err := w.fleet.ManagerConfig()
	if err != nil {
		return err
	}
	informer, err := t.startInformer(w.fleet.Dir, config)
	if err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	processes := []*controlplane.Process{m.Process, informer}
	idle, err := cpuDuring(ctx, idleWindow, processes...)
	if err != nil {
		return err
	}
	empty, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}
	all := names(n, hostName)
	if err := w.addHosts(ctx, all); err != nil {
		return err
	}
	h, err := w.startHosts(ctx, all, leaseDuration, renewInterval)
	if err != nil {
		return err
	}
	if err := w.settled(ctx, all...); err != nil {
		return err
	}
	withHosts, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}
	servers := n * steadyServersPerHost
	if err := w.addServers(ctx, 0, servers, all, false); err != nil {
		return err
	}
	if err := w.settled(ctx, all...); err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	withServers, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}

	t.say("%d hosts, %d servers: watching for %s", n, servers, t.window)
	before, err := w.steadyCounts(ctx, m)
	if err != nil {
		return err
	}
	m.profile("steady", min(t.window, time.Minute))
	used, err := cpuDuring(ctx, t.window, processes...)
	if err != nil {
		return err
	}
	after, err := w.steadyCounts(ctx, m)
	if err != nil {
		return err
	}
	changed := 0
	for name, version := range before.versions {
		if after.versions[name] != version {
			changed++
		}
	}
	renewals := after.renewals - before.renewals
	size := fmt.Sprintf("%s, %s", count(n, "hosts"), count(servers, "servers"))
	perSecond := func(v float64) float64 { return v / t.window.Seconds() }
	perRenewal := func(i int) float64 {
		without := float64(idle[i]) * float64(t.window) / float64(idleWindow)
		return (float64(used[i]) - without) / 1000 / renewals
	}
	t.result.add(size, "objects written to, of all hosts and servers", float64(changed), "", atMost(0))
	t.result.add(size, "writes of the manager beside canaries and leader's Lease", after.patches-before.patches-(after.canaries-before.canaries), "", atMost(0))
	t.result.add(size, "canaries", perSecond(after.canaries-before.canaries), "/s")
	t.result.add(size, "leader's Lease", perSecond(after.updates-before.updates), "/s")
	t.result.add(size, "reconciles", after.reconciles-before.reconciles, "")
	t.result.add(size, "renewals seen", perSecond(renewals), "/s")
	t.result.addBeside(size, "CPU per renewal", perRenewal(0), "µs", "bare informer", perRenewal(1), ratioAtMost(1.3))
	t.result.addBeside(size, "CPU in all", 100*perSecond(used[0].Seconds()), "% of a core", "bare informer", 100*perSecond(used[1].Seconds()))
	t.result.addBeside(size, "idle CPU, without hosts", 100*idle[0].Seconds()/idleWindow.Seconds(), "% of a core", "bare informer", 100*idle[1].Seconds()/idleWindow.Seconds())
	t.result.add(size, "live heap, empty manager", empty/(1<<20), "MiB")
	t.result.add(size, "live heap per host", (withHosts-empty)/1024/float64(n), "KiB", atMost(6))
	t.result.add(size, "live heap per server", (withServers-withHosts)/1024/float64(servers), "KiB", atMost(1.25))
	return h.check()
}

// cpuDuring returns the CPU time that each process uses within length.
func cpuDuring(ctx context.Context, length time.Duration, processes ...*controlplane.Process) ([]time.Duration, error) {
	used := make([]time.Duration, len(processes))
	read := func(sign time.Duration) error {
		for i, p := range processes {
			cpu, err := cpuOf(p.Pid())
			if err != nil {
				return err
			}
			used[i] += sign * cpu
		}
		return nil
	}
	if err := read(-1); err != nil {
		return nil, err
	}
	if err := sleep(ctx, length); err != nil {
		return nil, err
	}
	return used, read(1)
}

// steadyCounts is what must not change while nothing happens, and what does.
type steadyCounts struct {
	versions                                         map[string]string
	patches, updates, canaries, reconciles, renewals float64
}

func (w *world) steadyCounts(ctx context.Context, m *managerProcess) (c steadyCounts, err error) {
	c.versions = map[string]string{}
	var services v1alpha1.ComputeServiceList
	if err := w.admin.List(ctx, &services); err != nil {
		return c, fmt.Errorf("listing ComputeServices: %w", err)
	}
	for i := range services.Items {
		c.versions[services.Items[i].Name] = services.Items[i].ResourceVersion
	}
	var servers v1alpha1.ServerList
	if err := w.admin.List(ctx, &servers); err != nil {
		return c, fmt.Errorf("listing Servers: %w", err)
	}
	for i := range servers.Items {
		c.versions[client.ObjectKeyFromObject(&servers.Items[i]).String()] = servers.Items[i].ResourceVersion
	}
	for _, part := range []struct {
		into *float64
		read func() (float64, error)
	}{
		{&c.patches, func() (float64, error) { return requests(m.metrics, "PATCH") }},
		{&c.updates, func() (float64, error) { return requests(m.metrics, "PUT") }},
		{&c.canaries, func() (float64, error) { return metric(m.metrics, "hoststatus_heartbeat_canary_writes_total{") }},
		{&c.reconciles, func() (float64, error) { return metric(m.metrics, "controller_runtime_reconcile_total{") }},
		{&c.renewals, func() (float64, error) { return metric(m.metrics, "hoststatus_heartbeat_lease_events_total{") }},
	} {
		if *part.into, err = part.read(); err != nil {
			return c, err
		}
	}
	return c, nil
}
