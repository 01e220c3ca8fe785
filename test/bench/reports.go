// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/agent/report"
	"hoststatus.dev/hoststatus/internal/reported"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

var reports = scenario{
	name: "reports", title: "What a host reports of its servers",
	sizes: []int{10, 50, 200}, sizesAre: "VMs that change together", repeats: 10,
	run: runReports,
}

const (
	// restartedAgents is how many agents are started again at once, and reportedPerAgent
	// how many servers each reports.
	restartedAgents  = 1000
	reportedPerAgent = 10
)

func runReports(ctx context.Context, t *trial) error {
	for _, n := range t.scenario.sizes {
		err := t.changesTogether(ctx, n)
		t.close()
		if err != nil {
			return fmt.Errorf("%d VMs: %w", n, err)
		}
	}
	err := t.restartAgents(ctx)
	t.close()
	if err != nil {
		return fmt.Errorf("restarting agents: %w", err)
	}
	t.result.note("From the moment the driver knows until the last Server has it, on a watch. The bare loop patches the status of each Server, one after the other, as agents of 0.1 did. The report waits for 200 ms in which nothing else changes.")
	t.result.note("Requests are the agent's; the manager writes each Server once, as the bare loop does.")
	return nil
}

// counting counts the requests of a client.
type counting struct {
	http.RoundTripper
	n *atomic.Int64
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// startReporter keeps the HostReport of a host until stop is called.
func (w *world) startReporter(ctx context.Context, config *rest.Config, host string, requests *atomic.Int64) (r *report.Reporter, stop func(), err error) {
	config = rest.CopyConfig(config)
	config.Wrap(func(to http.RoundTripper) http.RoundTripper { return counting{to, requests} })
	c, err := report.NewClient(config)
	if err != nil {
		return nil, nil, err
	}
	r = report.New(host, c, logr.Discard())
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	return r, func() {
		cancel()
		<-done
	}, nil
}

// vmsOf are the VMs of servers, with this power state.
func vmsOf(servers []*v1alpha1.Server, power v1alpha1.PowerState) []driver.VM {
	var vms []driver.VM
	for _, s := range servers {
		vms = append(vms, driver.VM{Server: client.ObjectKeyFromObject(s), Fields: reported.Fields{State: "ACTIVE", PowerState: power}})
	}
	return vms
}

// changesTogether measures how long it takes until all of n VMs that change have arrived.
func (t *trial) changesTogether(ctx context.Context, n int) error {
	w, err := t.newWorld(ctx)
	if err != nil {
		return err
	}
	if _, err := w.startManager(ctx); err != nil {
		return err
	}
	host := hostName(n)
	if err := w.addHosts(ctx, []string{host}); err != nil {
		return err
	}
	if err := w.addServers(ctx, 0, n, []string{host}, false); err != nil {
		return err
	}
	var servers []*v1alpha1.Server
	for i := range n {
		servers = append(servers, newServer(i, host))
	}
	seen := newSightings()
	var wanted atomic.Value
	wanted.Store(v1alpha1.PowerState(""))
	err = follow(ctx, w, &v1alpha1.ServerList{}, func(s *v1alpha1.Server, at time.Time) {
		if s.Status.PowerState == wanted.Load() {
			seen.first(s.Name, at)
		}
	})
	if err != nil {
		return err
	}
	config, err := w.fleet.HostConfig(host)
	if err != nil {
		return err
	}
	var requests atomic.Int64
	powers := []v1alpha1.PowerState{"RUNNING", "PAUSED"}
	round := func(power v1alpha1.PowerState, change func() error) (time.Duration, error) {
		seen.clear()
		wanted.Store(power)
		begin := time.Now()
		if err := change(); err != nil {
			return 0, err
		}
		if err := seen.wait(ctx, n, time.Minute); err != nil {
			return 0, err
		}
		_, last := seen.span()
		return last.Sub(begin), nil
	}
	var bare, ours samples
	for i := range t.scenario.repeats {
		took, err := round("CRASHED", func() error {
			for _, s := range servers {
				patch := client.RawPatch(types.MergePatchType, mustJSON(map[string]any{"status": map[string]any{"state": "ACTIVE", "powerState": "CRASHED"}}))
				if err := w.admin.Status().Patch(ctx, &v1alpha1.Server{ObjectMeta: s.ObjectMeta}, patch); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("bare loop: %w", err)
		}
		bare = append(bare, took)
		// An agent for each round, so that what the bare loop wrote is not put right by its
		// report, which is deleted at the end.
		reporter, stop, err := w.startReporter(ctx, config, host, &requests)
		if err != nil {
			return err
		}
		if _, err := round(powers[0], func() error { reporter.Know(vmsOf(servers, powers[0])); return nil }); err != nil {
			stop()
			return fmt.Errorf("first report: %w", err)
		}
		// The manager lets a host rest for 20 ms for each write that it caused.
		if err := sleep(ctx, time.Duration(n)*25*time.Millisecond+time.Second); err != nil {
			stop()
			return err
		}
		before := requests.Load()
		took, err = round(powers[1], func() error { reporter.Know(vmsOf(servers, powers[1])); return nil })
		stop()
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		ours = append(ours, took)
		if i == 0 {
			t.result.addBeside(count(n, "VMs"), "requests of the agent", float64(requests.Load()-before), "", "bare loop", float64(n))
		}
		if err := w.admin.Delete(ctx, &agentv1alpha1.HostReport{ObjectMeta: metav1.ObjectMeta{Name: host}}); err != nil {
			return fmt.Errorf("deleting the report: %w", err)
		}
		if err := sleep(ctx, time.Duration(n)*25*time.Millisecond+time.Second); err != nil {
			return err
		}
	}
	t.result.addBeside(count(n, "VMs"), "until the last Server, median", ms(t.typical(ours)), "ms", "bare loop", ms(t.typical(bare)))
	return nil
}

// restartAgents starts a thousand agents again at once.
func (t *trial) restartAgents(ctx context.Context) error {
	w, err := t.newWorld(ctx)
	if err != nil {
		return err
	}
	m, err := w.startManager(ctx)
	if err != nil {
		return err
	}
	all := names(restartedAgents, hostName)
	if err := w.addHosts(ctx, all); err != nil {
		return err
	}
	if err := w.addServers(ctx, 0, restartedAgents*reportedPerAgent, all, false); err != nil {
		return err
	}
	// All of them as one user: a thousand certificates would measure TLS.
	config, err := w.fleet.Cluster.AdminConfig()
	if err != nil {
		return err
	}
	var requests atomic.Int64
	start := func() (took time.Duration, err error) {
		before := requests.Load()
		begin := time.Now()
		var stops []func()
		defer func() {
			for _, stop := range slices.Backward(stops) {
				stop()
			}
		}()
		for i, host := range all {
			r, stop, err := w.startReporter(ctx, config, host, &requests)
			if err != nil {
				return 0, err
			}
			stops = append(stops, stop)
			var servers []*v1alpha1.Server
			for n := range reportedPerAgent {
				servers = append(servers, newServer(i+n*restartedAgents, host))
			}
			r.Know(vmsOf(servers, "RUNNING"))
		}
		err = expect.Poll(ctx, settleTimeout, func() error {
			var reports agentv1alpha1.HostReportList
			if err := w.admin.List(ctx, &reports); err != nil {
				return err
			}
			written := 0
			for i := range reports.Items {
				if reports.Items[i].CreationTimestamp.Time.Add(time.Second).After(begin) {
					written++
				}
			}
			if written < restartedAgents || requests.Load()-before < 2*restartedAgents {
				return fmt.Errorf("%d of %d reports are written", written, restartedAgents)
			}
			return nil
		})
		return time.Since(begin), err
	}
	if _, err := start(); err != nil {
		return err
	}
	err = expect.Poll(ctx, settleTimeout, func() error {
		var servers v1alpha1.ServerList
		if err := w.admin.List(ctx, &servers); err != nil {
			return err
		}
		for i := range servers.Items {
			if servers.Items[i].Status.PowerState != "RUNNING" {
				return fmt.Errorf("server %s has not been reported", servers.Items[i].Name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	sent, err := patches(m.metrics)
	if err != nil {
		return err
	}
	cpu, err := cpuOf(m.Pid())
	if err != nil {
		return err
	}
	before := requests.Load()
	took, err := start()
	if err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	after, err := cpuOf(m.Pid())
	if err != nil {
		return err
	}
	written, err := patches(m.metrics)
	if err != nil {
		return err
	}
	size := count(restartedAgents, "agents started again")
	t.result.add(size, "requests of each agent", float64(requests.Load()-before)/restartedAgents, "")
	t.result.add(size, "until all have reported", took.Seconds(), "s")
	t.result.add(size, "manager's CPU, for each agent", us(after-cpu)/restartedAgents, "µs")
	// Canaries are patches, too: one in two seconds for each of two lease namespaces.
	t.result.add(size, "manager's patches, canaries included", written-sent, "")
	return nil
}

func patches(address string) (float64, error) { return requests(address, http.MethodPatch) }
