// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/chaos/judge"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

const (
	// shortest is the shortest D of any host, in each lease namespace.
	shortest = 4 * time.Second
	// blindAfter is the gap between canaries that is blind time: a quarter of it.
	blindAfter = shortest / 4
	// bigHost carries more servers than a fan-out writes before anything can be
	// done to its manager.
	bigHost        = "chaos-big"
	bigHostServers = 500
	tenant         = "team-a"
)

// world is a fleet with two managers, which reach the API server through a proxy,
// as the hosts do.
type world struct {
	fleet    *fleet.Fleet
	proxy    *proxy
	managers []*manager
	// replicas are of the owners' view, beside the one that kube-apiserver asks.
	replicas []*replica
	owners   []*owner
	hosts    []*host
	agents   []*host // those of hosts whose agent is a process
	seen     *observer
	begin    time.Time
	kube     kubernetes.Interface
	measured atomic.Int64
	// stormRate is what measure returned within a storm of requests; 0 for none.
	stormRate atomic.Int64

	stop context.CancelFunc
}

// size is how large a world is.
type size struct {
	hosts, serversPerHost int
	// owners says that there are two replicas of the owners' view, and their clients.
	owners bool
}

func newWorld(ctx context.Context, dir string, s size) (_ *world, err error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &world{stop: cancel, seen: newObserver()}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.fleet, err = fleet.Install(ctx, fleet.Options{Dir: dir, Log: os.Stdout}); err != nil {
		return nil, err
	}
	if w.proxy, err = startProxy(w.fleet.Cluster); err != nil {
		return nil, err
	}
	admin, err := w.fleet.Cluster.AdminConfig()
	if err != nil {
		return nil, err
	}
	if w.kube, err = kubernetes.NewForConfig(admin); err != nil {
		return nil, err
	}
	if err := w.addHosts(s); err != nil {
		return nil, err
	}
	if err := w.createFleet(ctx); err != nil {
		return nil, err
	}
	w.begin = time.Now()
	if err := w.seen.run(ctx, admin, w.proxy.via(admin), w.namespaces(), blindAfter); err != nil {
		return nil, err
	}
	for i := range 2 {
		m, err := w.startManager(fmt.Sprintf("manager-%d", i), w.managerBinary())
		if err != nil {
			return nil, err
		}
		w.managers = append(w.managers, m)
	}
	for _, h := range w.hosts {
		if err := h.live(); err != nil {
			return nil, err
		}
	}
	if err := w.fleet.StartTenantAPI(ctx); err != nil {
		return nil, err
	}
	if err := w.settle(ctx, recoveryLimit); err != nil {
		return nil, err
	}
	if s.owners {
		if err := w.startOwners(ctx); err != nil {
			return nil, err
		}
		if err := w.settle(ctx, recoveryLimit); err != nil {
			return nil, err
		}
	}
	return w, w.fleet.WaitForTenantAPI(ctx)
}

func (w *world) close() {
	for _, m := range w.managers {
		m.end()
	}
	for _, h := range w.hosts {
		h.die()
	}
	w.stop()
	for _, r := range w.replicas {
		r.stop()
	}
	if w.fleet != nil {
		w.fleet.Stop()
	}
	if w.proxy != nil {
		w.proxy.stop()
	}
}

func (w *world) namespaces() []string {
	return []string{v1alpha1.DefaultLeaseNamespace, corev1.NamespaceNodeLease}
}

// addHosts adds hosts with several D in one namespace, some that report as
// kubelets do, and those of the sample fleet, whose agents are processes.
func (w *world) addHosts(s size) error {
	kinds := []struct {
		namespace          string
		duration, interval time.Duration
	}{
		{v1alpha1.DefaultLeaseNamespace, 6 * time.Second, 1500 * time.Millisecond},
		{v1alpha1.DefaultLeaseNamespace, 6 * time.Second, 2 * time.Second},
		{v1alpha1.DefaultLeaseNamespace, shortest, time.Second},
		{v1alpha1.DefaultLeaseNamespace, 12 * time.Second, 4 * time.Second},
		{corev1.NamespaceNodeLease, shortest, time.Second},
		{corev1.NamespaceNodeLease, 8 * time.Second, 2 * time.Second},
	}
	for i := range s.hosts {
		kind := kinds[i%len(kinds)]
		h := &host{name: fmt.Sprintf("chaos-%03d", i), namespace: kind.namespace, duration: kind.duration, servers: s.serversPerHost}
		if i == 0 {
			h.name, h.servers = bigHost, bigHostServers
		}
		config, err := w.fleet.HostConfig(h.name)
		if h.namespace == corev1.NamespaceNodeLease {
			// A kubelet's rights are the node authorizer's matter, which is not ours.
			config, err = w.fleet.Cluster.AdminConfig()
		}
		if err != nil {
			return err
		}
		if h.power, err = newRenewer(w.proxy.via(config), h.namespace, h.name, kind.duration, kind.interval, w.seen); err != nil {
			return err
		}
		w.hosts = append(w.hosts, h)
	}
	for _, name := range fleet.Hosts {
		config, err := w.fleet.HostConfig(name)
		if err != nil {
			return err
		}
		const duration = 6 * time.Second
		agent, err := w.newProcess("agent-"+name, filepath.Join(w.fleet.Dir, "bin", "agent"), w.proxy.via(config),
			"--host-name="+name, "--lease-duration="+duration.String(), "--renew-interval="+(duration/4).String())
		if err != nil {
			return err
		}
		h := &host{name: name, namespace: v1alpha1.DefaultLeaseNamespace, duration: duration, power: process{agent}}
		w.hosts, w.agents = append(w.hosts, h), append(w.agents, h)
	}
	return nil
}

func (w *world) newProcess(name, binary string, config *rest.Config, args ...string) (*controlplane.Process, error) {
	kubeconfig := filepath.Join(w.fleet.Dir, name+".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		return nil, err
	}
	return controlplane.NewProcess(name, binary, w.fleet.LogFile(name), os.Environ(),
		append([]string{"--kubeconfig=" + kubeconfig, "--log-format=text"}, args...)...), nil
}

// createFleet makes the ComputeServices and Servers.
func (w *world) createFleet(ctx context.Context) error {
	var objects []client.Object
	for _, h := range w.hosts {
		if strings.HasPrefix(h.name, "chaos-") {
			service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: h.name}}
			if h.namespace != v1alpha1.DefaultLeaseNamespace {
				service.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: h.namespace, Name: h.name}
			}
			objects = append(objects, service)
		}
		for i := range h.servers {
			objects = append(objects, &v1alpha1.Server{
				ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("%s-%03d", h.name, i)},
				Spec:       v1alpha1.ServerSpec{Host: h.name},
			})
		}
	}
	if err := inParallel(objects, func(o client.Object) error { return w.fleet.Client.Create(ctx, o) }); err != nil {
		return fmt.Errorf("creating the fleet: %w", err)
	}
	return createBareObjects(ctx, w.kube, w.fleet.Client)
}

// measure returns how many statuses of Servers a bare client writes in a second.
func (w *world) measure(ctx context.Context) (float64, error) {
	body := fmt.Sprintf(`{"status":{"taskState":"measured-%d"}}`, w.measured.Add(1))
	servers := make([]*v1alpha1.Server, 200)
	for i := range servers {
		servers[i] = &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("%s-%03d", bigHost, i)}}
	}
	begin := time.Now()
	err := inParallel(servers, func(s *v1alpha1.Server) error {
		return w.fleet.Client.Status().Patch(ctx, s, client.RawPatch(types.MergePatchType, []byte(body)))
	})
	return float64(len(servers)) / time.Since(begin).Seconds(), err
}

// inParallel does do with as many at once as the manager writes Servers.
func inParallel[T any](items []T, do func(T) error) error {
	const workers = 16
	var running sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, workers)
	for i := range workers {
		running.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(items) {
					return
				}
				errs[i] = do(items[n])
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// manager is a manager that is started again when it ends, unless it is held.
type manager struct {
	process *controlplane.Process
	metrics string

	log    string
	ending chan struct{}
	ended  chan struct{}
}

// managerBinary is the manager as it is shipped.
func (w *world) managerBinary() string { return filepath.Join(w.fleet.Dir, "bin", "manager") }

func (w *world) startManager(name, binary string) (*manager, error) {
	config, err := w.fleet.ManagerConfig()
	if err != nil {
		return nil, err
	}
	ports, err := controlplane.FreePorts(3)
	if err != nil {
		return nil, err
	}
	if len(w.managers) == 0 {
		ports[2] = w.fleet.WebhookPort // One of them is asked.
	}
	m := &manager{log: w.fleet.LogFile(name), metrics: net.JoinHostPort("127.0.0.1", ports[0]), ending: make(chan struct{}), ended: make(chan struct{})}
	m.process, err = w.newProcess(name, binary, w.proxy.via(config),
		"--lease-namespaces="+strings.Join(w.namespaces(), ","),
		"--metrics-bind-address="+m.metrics, "--metrics-secure=false",
		"--health-probe-bind-address="+net.JoinHostPort("127.0.0.1", ports[1]),
		"--webhook-bind-address="+net.JoinHostPort("127.0.0.1", ports[2]), "--shutdown-delay=0s")
	if err != nil {
		return nil, err
	}
	if err := m.process.Start(); err != nil {
		return nil, err
	}
	go m.keep()
	return m, nil
}

// starts are the moments at which it had listed what there is, and went on to ask for the
// leadership: its log has them. While the API server is down, that can be long after its
// process has started.
func (m *manager) starts() (at []time.Time) {
	log, err := os.ReadFile(m.log)
	if err != nil {
		panic(err) // It is written as soon as the process starts.
	}
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, `msg="Attempting to acquire leader lease..."`) {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		t, err := time.Parse(time.RFC3339, stamp)
		if err != nil {
			panic(err) // A log begins each line with its time.
		}
		at = append(at, t)
	}
	return at
}

// keep starts the manager again a second after it has ended, as a kubelet would.
func (m *manager) keep() {
	defer close(m.ended)
	for {
		select {
		case <-m.ending:
			return
		case <-m.process.Done():
		}
		select {
		case <-m.ending:
			return
		case <-time.After(time.Second):
		}
		if err := m.process.Start(); err != nil {
			fmt.Println(err)
			return
		}
	}
}

func (m *manager) end() {
	close(m.ending)
	<-m.ended
	_ = m.process.Signal(syscall.SIGCONT)
	m.process.Stop()
}

// leads says whether m leads, as it says itself.
func (m *manager) leads() bool {
	client := http.Client{Timeout: time.Second}
	response, err := client.Get("http://" + m.metrics + "/metrics")
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "leader_election_master_status{") {
			return strings.HasSuffix(lines.Text(), " 1")
		}
	}
	return false
}

// leader returns the manager that leads, waiting until one does.
func (w *world) leader(ctx context.Context) (*manager, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, m := range w.managers {
			if m.leads() {
				return m, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.New("no manager leads")
}

// wanted is the host status that is true of a host.
func (w *world) wanted(h *host, service *v1alpha1.ComputeService) string {
	switch {
	case service.Spec.ForcedDown != nil && *service.Spec.ForcedDown:
		return "DOWN"
	case service.Spec.Disabled != nil && *service.Spec.Disabled:
		return "MAINTENANCE"
	case !h.lives():
		return judge.Unknown
	}
	return judge.Up
}

// wrong returns what the API says that is not so, and of how many objects.
func (w *world) wrong(ctx context.Context) (n int, example string, err error) {
	var services v1alpha1.ComputeServiceList
	if err := w.fleet.Client.List(ctx, &services); err != nil {
		return 0, "", err
	}
	var servers v1alpha1.ServerList
	if err := w.fleet.Client.List(ctx, &servers); err != nil {
		return 0, "", err
	}
	byName := map[string]*host{}
	for _, h := range w.hosts {
		byName[h.name] = h
	}
	want := map[string]string{}
	compare := func(kind, name, host string, status *v1alpha1.HostStatus) {
		if got := strings.Trim(fleet.Show(status), `"`); got != want[host] {
			n++
			example = fmt.Sprintf("%s %s on %s is %s, not %s", kind, name, host, got, want[host])
		}
	}
	for i := range services.Items {
		s := &services.Items[i]
		want[s.Name] = w.wanted(byName[s.Name], s)
		compare("ComputeService", s.Name, s.Name, s.Status.HostStatus)
	}
	for _, s := range servers.Items {
		if byName[s.Spec.Host] != nil {
			compare("Server", s.Name, s.Spec.Host, s.Status.HostStatus)
		}
	}
	if wrong, of := w.wrongForOwners(servers.Items, want); wrong > 0 {
		n, example = n+wrong, of
	}
	return n, example, nil
}

// settle waits until everything that the API says is so.
func (w *world) settle(ctx context.Context, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		n, example, err := w.wrong(ctx)
		switch {
		case err == nil && n == 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return &unsettled{n: n, example: example, err: err}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// unsettled is what was still wrong when waiting ended.
type unsettled struct {
	n       int
	example string
	err     error
}

func (u *unsettled) Error() string {
	if u.err != nil {
		return "the API server cannot be asked: " + u.err.Error()
	}
	return fmt.Sprintf("%d objects are wrong, for example: %s", u.n, u.example)
}

// sight is what a leader can have seen of a lease namespace.
func (w *world) sight(namespace string, end time.Time, latency time.Duration) judge.Sight {
	s := judge.Sight{Latency: latency, Bare: w.seen.bareVerdicts(), Busy: w.seen.loads()}
	s.Blind, s.BlindAtBest = w.seen.blind(namespace, blindAfter, w.begin, end)
	s.BlindAtBest = judge.Relisted(s.BlindAtBest, w.proxy.listed(namespace), blindAfter)
	var starts []time.Time
	for _, m := range w.managers {
		starts = append(starts, m.starts()...)
	}
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	for _, t := range w.seen.takeovers {
		// Which of the managers took over is not to be seen from outside, so it is
		// taken for the one that knows the least.
		s.Takeovers = append(s.Takeovers, judge.Takeover{At: t.at, Started: lastBefore(starts, t.at)})
	}
	return s
}

// lastBefore returns the last of some moments that is before t, the zero time if none is.
func lastBefore(moments []time.Time, t time.Time) (last time.Time) {
	for _, at := range moments {
		if at.Before(t) && at.After(last) {
			last = at
		}
	}
	return last
}
