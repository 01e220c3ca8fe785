// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

const (
	// creators is how many objects are created at once.
	creators = 16
	// settleTimeout is how long a fleet may take to be as it should.
	settleTimeout = 10 * time.Minute
	// serversPerNamespace is how many servers a tenant has.
	serversPerNamespace = 1000
)

// trial is a scenario under way.
type trial struct {
	options
	scenario scenario
	result   *result
	// short leaves out what takes long.
	short   bool
	closers []func()
}

func (t *trial) say(format string, args ...any) {
	fmt.Printf("%s %s: %s\n", time.Now().Format("15:04:05"), t.scenario.name, fmt.Sprintf(format, args...))
}

// typical is the median; in a short run, which may share its machine, the fastest
// quarter ends there: what other work adds is not what it looks for.
func (t *trial) typical(s samples) time.Duration {
	if t.short {
		return s.quantile(0.25)
	}
	return s.median()
}

// later calls f when the trial ends.
func (t *trial) later(f func()) { t.closers = append(t.closers, f) }

func (t *trial) close() {
	for i := len(t.closers) - 1; i >= 0; i-- {
		t.closers[i]()
	}
	t.closers = nil
}

// world is a control plane with hoststatus, and with as many hosts and servers as
// a scenario asks for.
type world struct {
	trial *trial
	fleet *fleet.Fleet
	admin client.WithWatch
	// leases takes and gives protobuf.
	leases kubernetes.Interface
	// manager is what the manager's service account may do, for bare loops.
	manager *rest.RESTClient
}

// newWorld starts a control plane with hoststatus installed, and nothing in it.
func (t *trial) newWorld(ctx context.Context) (*world, error) {
	dir, err := os.MkdirTemp("", "hoststatus-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary folder: %w", err)
	}
	t.later(func() { _ = os.RemoveAll(dir) })
	installed, err := fleet.Install(ctx, fleet.Options{Dir: dir, Log: io.Discard, Fsync: t.fsync, Environment: []string{memoryLimit}})
	if err != nil {
		return nil, err
	}
	t.later(installed.Stop)
	w := &world{trial: t, fleet: installed}
	config, err := installed.Cluster.AdminConfig()
	if err != nil {
		return nil, err
	}
	if w.admin, err = fleet.NewClient(config); err != nil {
		return nil, err
	}
	if w.leases, err = protobufClient(config); err != nil {
		return nil, err
	}
	if config, err = installed.ManagerConfig(); err != nil {
		return nil, err
	}
	if w.manager, err = restClient(config); err != nil {
		return nil, err
	}
	// The sample fleet is not part of what is measured.
	for _, namespace := range []string{"team-a", "team-b"} {
		if err := w.admin.DeleteAllOf(ctx, &v1alpha1.Server{}, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("deleting the sample fleet: %w", err)
		}
	}
	if err := w.admin.DeleteAllOf(ctx, &v1alpha1.ComputeService{}); err != nil {
		return nil, fmt.Errorf("deleting the sample fleet: %w", err)
	}
	return w, nil
}

func protobufClient(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return c, nil
}

// --- The manager -----------------------------------------------------------

// managerProcess is a manager that can be looked into.
type managerProcess struct {
	*controlplane.Process
	trial          *trial
	metrics, pprof string
}

// memoryLimit is what processes keep to as they are installed: nine tenths of 512 MiB.
const memoryLimit = "GOMEMLIMIT=483183820"

// newOwnersWorld is newWorld with the manager and the owners' view.
func (t *trial) newOwnersWorld(ctx context.Context) (*world, *managerProcess, error) {
	w, err := t.newWorld(ctx)
	if err != nil {
		return nil, nil, err
	}
	m, err := w.startManager(ctx)
	if err != nil {
		return nil, nil, err
	}
	return w, m, w.startTenantAPI(ctx)
}

// startManager starts a manager, which ends with the trial.
func (w *world) startManager(ctx context.Context) (*managerProcess, error) {
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return nil, err
	}
	pprof := net.JoinHostPort("127.0.0.1", ports[0])
	process, metrics, err := w.fleet.StartManager("manager", "--metrics-secure=false", "--pprof-bind-address="+pprof)
	if err != nil {
		return nil, err
	}
	w.trial.later(process.Stop)
	m := &managerProcess{Process: process, trial: w.trial, metrics: metrics, pprof: pprof}
	return m, m.waitLeading(ctx)
}

// waitLeading waits until the manager leads.
func (m *managerProcess) waitLeading(ctx context.Context) error {
	return expect.Poll(ctx, time.Minute, func() error {
		leads, err := metric(m.metrics, "leader_election_master_status{")
		if err != nil {
			return err
		}
		if leads != 1 {
			return errors.New("the manager does not lead")
		}
		return nil
	})
}

// profile writes what the manager does with its CPU from now on, if profiles are
// wanted. It returns at once.
func (m *managerProcess) profile(name string, length time.Duration) {
	if m.trial.profiles == "" {
		return
	}
	go m.saveProfile(name, fmt.Sprintf("profile?seconds=%d", int(length.Seconds())))
}

// heapProfile writes what the manager's memory holds, if profiles are wanted.
func (m *managerProcess) heapProfile(name string) {
	if m.trial.profiles != "" {
		m.saveProfile(name, "heap?gc=1")
	}
}

func (m *managerProcess) saveProfile(name, query string) {
	path := filepath.Join(m.trial.profiles, m.trial.scenario.name+"-"+name+".pprof")
	body, err := fetch("http://" + m.pprof + "/debug/pprof/" + query)
	if err == nil {
		err = os.WriteFile(path, []byte(body), 0o644)
	}
	if err != nil {
		m.trial.say("no profile: %v", err)
	}
}

// --- The fleet -------------------------------------------------------------

func hostName(i int) string   { return fmt.Sprintf("host-%05d", i) }
func serverName(i int) string { return fmt.Sprintf("server-%06d", i) }
func namespaceOf(i int) string {
	return fmt.Sprintf("tenant-%03d", i/serversPerNamespace)
}

func names(n int, name func(int) string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = name(i)
	}
	return out
}

func newService(name string, duration time.Duration) *v1alpha1.ComputeService {
	return &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ComputeServiceSpec{LeaseDurationSeconds: int32(duration.Seconds())},
	}
}

// newServer is a server like those of a real fleet: with labels, an annotation and
// networks, most of which the manager does not need.
func newServer(i int, host string) *v1alpha1.Server {
	return &v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceOf(i), Name: serverName(i),
			Labels:      map[string]string{"app.kubernetes.io/name": "web", "flavor": "m1.large"},
			Annotations: map[string]string{"example.com/image": "registry.example.com/images/debian-13@sha256:0123456789abcdef"},
		},
		Spec: v1alpha1.ServerSpec{Host: host, ProviderID: fmt.Sprintf("libvirt:///%s/%08d-aaaa-bbbb-cccc-0123456789ab", host, i)},
		Status: v1alpha1.ServerStatus{
			State: "ACTIVE", PowerState: "RUNNING",
			Networks: []v1alpha1.ServerNetwork{{Name: "blue-net", Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)}}},
		},
	}
}

// addHosts creates ComputeServices.
func (w *world) addHosts(ctx context.Context, hosts []string) error {
	return parallel(ctx, creators, len(hosts), func(ctx context.Context, i int) error {
		return w.admin.Create(ctx, newService(hosts[i], 0))
	})
}

// addServers creates n servers from the number first on, spread over hosts, and
// what was reported of them if reported.
func (w *world) addServers(ctx context.Context, first, n int, hosts []string, reported bool) error {
	for i := first / serversPerNamespace; i*serversPerNamespace < first+n; i++ {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceOf(i * serversPerNamespace)}}
		_, err := w.leases.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		if err != nil && i*serversPerNamespace >= first {
			return fmt.Errorf("creating a namespace: %w", err)
		}
	}
	return parallel(ctx, creators, n, func(ctx context.Context, i int) error {
		s := newServer(first+i, hosts[i%len(hosts)])
		status := s.Status
		if err := w.admin.Create(ctx, s); err != nil || !reported {
			return err
		}
		patch := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
		return w.admin.Status().Patch(ctx, patch, client.RawPatch(types.MergePatchType, mustJSON(map[string]any{"status": status})))
	})
}

// settled waits until every one of hosts, and every server on it, is UP.
func (w *world) settled(ctx context.Context, hosts ...string) error {
	const status = v1alpha1.HostStatusUp
	wanted := map[string]bool{}
	for _, h := range hosts {
		wanted[h] = true
	}
	return expect.Poll(ctx, settleTimeout, func() error {
		var services v1alpha1.ComputeServiceList
		if err := w.admin.List(ctx, &services, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}); err != nil {
			return err
		}
		for i := range services.Items {
			if s := &services.Items[i]; wanted[s.Name] && ptr.Deref(s.Status.HostStatus, "") != status {
				return fmt.Errorf("ComputeService %s is %s, not %s", s.Name, fleet.Show(s.Status.HostStatus), status)
			}
		}
		selector := client.MatchingFields{v1alpha1.ServerHostField: ""}
		for _, h := range hosts {
			selector[v1alpha1.ServerHostField] = h
			if len(hosts) > 20 {
				selector = nil // One list of all is cheaper.
			}
			var servers v1alpha1.ServerList
			options := []client.ListOption{&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}}
			if selector != nil {
				options = append(options, selector)
			}
			if err := w.admin.List(ctx, &servers, options...); err != nil {
				return err
			}
			for i := range servers.Items {
				if s := &servers.Items[i]; wanted[s.Spec.Host] && ptr.Deref(s.Status.HostStatus, "") != status {
					return fmt.Errorf("server %s is %s, not %s", s.Name, fleet.Show(s.Status.HostStatus), status)
				}
			}
			if selector == nil {
				break
			}
		}
		return nil
	})
}

// --- Common ----------------------------------------------------------------

// parallel calls do for each number below n, as many at once as workers, and
// returns the first error, after which it starts no more.
func parallel(ctx context.Context, workers, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan int)
	var running sync.WaitGroup
	for range min(workers, n) {
		running.Go(func() {
			for i := range queue {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		queue <- i
	}
	close(queue)
	running.Wait()
	return context.Cause(ctx)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
