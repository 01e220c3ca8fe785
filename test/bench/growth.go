// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

var growth = scenario{
	name: "growth", title: "The same manager with ever larger fleets, on a synthetic API",
	sizes: []int{100, 1000, 10000}, sizesAre: "hosts, 10 servers on each", repeats: 1,
	run: runGrowth,
}

const (
	growthServersPerHost = 10
	// growthDuration is longer than a size takes, as the hosts of a synthetic fleet
	// renew when they are told.
	growthDuration = time.Hour
	// eventRate and eventWindow are how many events of a sort come, whatever the
	// size.
	eventRate   = 1000
	eventWindow = 8 * time.Second
	shortWindow = 3 * time.Second
	// silentDuration is D of the few hosts that fall silent.
	silentDuration = 8 * time.Second
	silentHosts    = 20
)

// growthFigures are the curves.
type growthFigures struct {
	perHost, perServer, start, renewal, bareRenewal, change, write series
}

func runGrowth(ctx context.Context, t *trial) error {
	g := &growthFigures{
		perHost: series{Name: "per host"}, perServer: series{Name: "per server"}, start: series{Name: "restart"},
		renewal: series{Name: "a renewal"}, bareRenewal: series{Name: "a renewal, bare informer"},
		change: series{Name: "a change of what is reported of a server"}, write: series{Name: "a server's status, written"},
	}
	for _, n := range t.scenario.sizes {
		err := t.grow(ctx, n, g)
		t.close()
		if err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
	}
	x := "hosts, with 10 servers on each"
	t.result.picture(picture{File: "growth-memory", Title: "Live heap by size of the fleet", XLabel: x, YLabel: "KiB", LogX: true, Series: []series{g.perHost, g.perServer}})
	t.result.picture(picture{File: "growth-cpu", Title: "The manager's CPU time for one event, by size of the fleet", XLabel: x, YLabel: "µs", LogX: true, Series: []series{g.renewal, g.bareRenewal, g.change, g.write}})
	t.result.picture(picture{File: "growth-start", Title: "From the start of the process until everything has been judged", XLabel: x, YLabel: "s", LogX: true, LogY: true, Series: []series{g.start}})
	t.result.Synthetic = true
	t.result.note("The API is synthetic: a process of the benchmark that lists, watches and patches the three kinds from memory, over plain HTTP. The local control plane would be the limit. Events come at %d a second whatever the size; CPU per event is without what the process used before there was a host.", eventRate)
	t.result.note("The bare informer watches the same Leases at the same time, in a process of its own.")
	return nil
}

func (t *trial) grow(ctx context.Context, n int, g *growthFigures) error {
	dir, err := os.MkdirTemp("", "hoststatus-bench-")
	if err != nil {
		return fmt.Errorf("making a temporary folder: %w", err)
	}
	t.later(func() { _ = os.RemoveAll(dir) })
	s, err := t.startSource()
	if err != nil {
		return err
	}
	correct, unknown := newSightings(), newSightings()
	var wanted expectation
	s.statusWritten = func(obj client.Object) { // The source is locked.
		switch o := obj.(type) {
		case *v1alpha1.Server:
			if wanted.met(&o.Status) {
				correct.put(o.Name, time.Now())
			}
		case *v1alpha1.ComputeService:
			if ptr.Deref(o.Status.HostStatus, "") == v1alpha1.HostStatusUnknown {
				unknown.put(o.Name, time.Now())
			}
			if o.Status.HostStatus != nil && *o.Status.HostStatus == wanted.status {
				correct.put(o.Name, time.Now())
			}
		}
	}
	want := func(status v1alpha1.HostStatus) {
		s.mu.Lock()
		defer s.mu.Unlock()
		wanted.status = status
		correct.clear()
	}
	m, err := t.startManagerOn(ctx, dir, s.url)
	if err != nil {
		return err
	}
	informer, err := t.startInformer(dir, &rest.Config{Host: s.url})
	if err != nil {
		return err
	}
	if err := sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	window := eventWindow
	if t.short {
		window = shortWindow
	}
	idle, err := cpuDuring(ctx, window, m.Process, informer)
	if err != nil {
		return err
	}
	empty, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}

	// Memory: hosts, then servers.
	servers := n * growthServersPerHost
	all := names(n, hostName)
	want(v1alpha1.HostStatusUp)
	for _, host := range all {
		s.put(newService(host, 0))
		s.renew(host, growthDuration)
	}
	if err := correct.wait(ctx, n, settleTimeout); err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	withHosts, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}
	want(v1alpha1.HostStatusUp)
	cpu, err := cpuOf(m.Pid())
	if err != nil {
		return err
	}
	for i := range servers {
		s.put(newServer(i, all[i%n]))
	}
	if err := correct.wait(ctx, servers, settleTimeout); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	cpuAfter, err := cpuOf(m.Pid())
	if err != nil {
		return err
	}
	perWrite := us(cpuAfter-cpu) / float64(servers)
	withServers, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}

	m.heapProfile(fmt.Sprintf("heap-%d", n))

	// Events, at the same rate whatever the size.
	if n == t.scenario.sizes[len(t.scenario.sizes)-1] {
		m.profile("renewals", window)
	}
	renewal, err := cpuPerEvent(ctx, window, idle, func(i int) { s.renew(all[i%n], growthDuration) }, m.Process, informer)
	if err != nil {
		return err
	}
	powers := []string{"RUNNING", "PAUSED"}
	report, err := cpuPerEvent(ctx, window, idle, func(i int) {
		name := types.NamespacedName{Namespace: namespaceOf(i % servers), Name: serverName(i % servers)}
		change(s, name, func(o *v1alpha1.Server) { o.Status.PowerState = v1alpha1.PowerState(powers[(i/servers+1)%2]) })
	}, m.Process, informer)
	if err != nil {
		return err
	}

	// Silence, while the others renew.
	var lags samples
	if !t.short {
		if lags, err = t.silence(ctx, s, all, unknown); err != nil {
			return err
		}
	}

	// A restart.
	m.Stop()
	s.mu.Lock()
	written := s.writes
	s.mu.Unlock()
	begin := time.Now()
	if m, err = t.startManagerOn(ctx, dir, s.url); err != nil {
		return err
	}
	if err := m.judged(ctx, n+servers); err != nil {
		return err
	}
	start := time.Since(begin)
	peak, err := peakOf(m.Pid())
	if err != nil {
		return err
	}
	s.mu.Lock()
	written = s.writes - written
	s.mu.Unlock()

	hostKiB, serverKiB := (withHosts-empty)/1024/float64(n), (withServers-withHosts)/1024/float64(servers)
	size, x := fmt.Sprintf("%s, %s", count(n, "hosts"), count(servers, "servers")), float64(n)
	t.result.add(size, "live heap per host", hostKiB, "KiB", atMost(6))
	t.result.add(size, "live heap per server", serverKiB, "KiB", atMost(1.25))
	t.result.addBeside(size, "CPU of a renewal", renewal[0], "µs", "bare informer", renewal[1], ratioAtMost(1.3))
	t.result.add(size, "CPU of a change reported of a server", report[0], "µs")
	t.result.add(size, "CPU of a server's first status", perWrite, "µs")
	if len(lags) > 0 {
		t.result.add(size, "lag of UNKNOWN, worst of 20", ms(lags.quantile(1)), "ms", atMost(250))
	}
	t.result.add(size, "restart until all is judged", start.Seconds(), "s")
	t.result.add(size, "writes of the restart", float64(written), "", atMost(0))
	t.result.add(size, "peak of the resident memory", peak/(1<<20), "MiB")
	g.perHost.add(x, hostKiB)
	g.perServer.add(x, serverKiB)
	g.renewal.add(x, renewal[0])
	g.bareRenewal.add(x, renewal[1])
	g.change.add(x, report[0])
	g.write.add(x, perWrite)
	g.start.add(x, start.Seconds())
	t.say("%s: %.2f KiB a host, %.2f KiB a server, %.0f µs a renewal (bare %.0f), restart %.1f s", size, hostKiB, serverKiB, renewal[0], renewal[1], start.Seconds())
	return s.err()
}

// silence lets a few new hosts fall silent while the others renew.
func (t *trial) silence(ctx context.Context, s *source, others []string, unknown *sightings) (samples, error) {
	last := map[string]time.Time{}
	for i := range silentHosts {
		name := fmt.Sprintf("silent-%02d", i)
		s.put(newService(name, silentDuration))
	}
	if err := sleep(ctx, time.Second); err != nil {
		return nil, err
	}
	for i := range silentHosts {
		name := fmt.Sprintf("silent-%02d", i)
		last[name] = time.Now()
		s.renew(name, silentDuration)
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if _, err := events(ctx, eventRate, silentDuration, func(i int) { s.renew(others[i%len(others)], growthDuration) }); err != nil {
		return nil, err
	}
	if err := unknown.wait(ctx, silentHosts, time.Minute); err != nil {
		return nil, err
	}
	var lags samples
	for name, at := range last {
		seen, _ := unknown.of(name)
		lags = append(lags, seen.Sub(at.Add(silentDuration)))
	}
	return lags, nil
}

// cpuPerEvent returns the CPU time in µs that each process takes for one event,
// beyond what it takes without any.
func cpuPerEvent(ctx context.Context, window time.Duration, idle []time.Duration, do func(i int), processes ...*controlplane.Process) ([]float64, error) {
	var n int
	ended := make(chan error, 1)
	go func() {
		var err error
		n, err = events(ctx, eventRate, window-500*time.Millisecond, do)
		ended <- err
	}()
	used, err := cpuDuring(ctx, window, processes...)
	if err := errors.Join(err, <-ended); err != nil {
		return nil, err
	}
	out := make([]float64, len(used))
	for i := range used {
		out[i] = us(used[i]-idle[i]) / float64(n)
	}
	return out, nil
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// startManagerOn starts a manager on a synthetic source. It ends with the trial.
func (t *trial) startManagerOn(ctx context.Context, dir, url string) (*managerProcess, error) {
	binary := filepath.Join(dir, "manager")
	if _, err := os.Stat(binary); err != nil {
		if err := controlplane.BuildCommands(ctx, dir, "manager"); err != nil {
			return nil, err
		}
	}
	kubeconfig := filepath.Join(dir, "manager.kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, &rest.Config{Host: url}); err != nil {
		return nil, err
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return nil, err
	}
	m := &managerProcess{trial: t, metrics: net.JoinHostPort("127.0.0.1", ports[0]), pprof: net.JoinHostPort("127.0.0.1", ports[1])}
	m.Process = controlplane.NewProcess("manager", binary, filepath.Join(dir, "manager.log"), os.Environ(),
		"--kubeconfig="+kubeconfig, "--log-format=text", "--metrics-secure=false", "--health-probe-bind-address=0", "--webhook-bind-address=0",
		"--metrics-bind-address="+m.metrics, "--pprof-bind-address="+m.pprof)
	if err := m.Start(); err != nil {
		return nil, err
	}
	t.later(m.Stop)
	return m, m.waitLeading(ctx)
}

// judged waits until the manager has looked at n objects and has nothing left to do.
func (m *managerProcess) judged(ctx context.Context, n int) error {
	return expect.Poll(ctx, settleTimeout, func() error {
		reconciled, err := metric(m.metrics, "controller_runtime_reconcile_total{")
		if err != nil {
			return err
		}
		waiting, err := metric(m.metrics, "workqueue_depth{")
		if err != nil {
			return err
		}
		if int(reconciled) < n || waiting > 0 {
			return fmt.Errorf("%v of %d objects were judged, %v wait", reconciled, n, waiting)
		}
		return nil
	})
}
