// SPDX-License-Identifier: Apache-2.0

// Package fleet runs the whole of hoststatus on a local control plane: the
// shipped manifests, the manager, an agent for each host and the sample fleet.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// Hosts are the hosts of the sample fleet.
var Hosts = []string{"compute-1", "compute-2", "compute-3", "compute-4"}

const (
	// leaseNamespaces lets hosts and kubelets report.
	leaseNamespaces = "--lease-namespaces=" + v1alpha1.DefaultLeaseNamespace + "," + corev1.NamespaceNodeLease
	// restartDelay is how long a manager that ended stays down, as under a kubelet.
	restartDelay = time.Second
	// settleTimeout is how long a fleet may take to be as it should.
	settleTimeout = time.Minute
)

// Options are how to run a Fleet.
type Options struct {
	// Dir holds everything that the fleet writes. What was there is removed.
	Dir string
	// LeaseDuration and RenewInterval are the agents' flags.
	LeaseDuration, RenewInterval time.Duration
	// Fsync lets etcd wait for the disk on each write, as in production.
	Fsync bool
	// Kubernetes is the release of kube-apiserver. Empty means controlplane.Main.
	Kubernetes controlplane.Release
	// Log takes progress, for a person.
	Log io.Writer
	// APIServerArgs are added to kube-apiserver's own, ManagerArgs to each manager's.
	APIServerArgs, ManagerArgs []string
	// Environment is what the processes of hoststatus have besides this one's.
	Environment []string
	// Driver returns the flags by which the agent of a host finds its VMs. Nil means those of
	// the fake driver and the files of the sample fleet.
	Driver func(host string) []string
	// Installation is another way to install hoststatus and to run its processes. Nil
	// means the manifests of config/ and binaries that are built from the sources.
	Installation Installation
}

// Installation installs hoststatus on a control plane, and makes its processes.
type Installation interface {
	// Install installs everything but the sample fleet. The webhook and the tenant API
	// listen on these ports of localhost. It is repeated until it works.
	Install(ctx context.Context, f *Fleet, webhookPort, tenantAPIPort string) error
	// Process makes a process, which the fleet starts.
	Process(f *Fleet, c Command) (*controlplane.Process, error)
}

// Command is a process of hoststatus as a Fleet would run it.
type Command struct {
	// Binary is the program, and Name what this run of it is called.
	Binary, Name string
	// Host is the host of an agent.
	Host string
	// Config is the identity of the process, with a client certificate.
	Config *rest.Config
	// Addresses are the flags for where it listens, which every Installation must pass on.
	// Args are all others, and may override them.
	Args, Addresses []string
}

// Fleet is a running control plane with hoststatus and the sample fleet on it.
type Fleet struct {
	Options
	Cluster *controlplane.Cluster
	// Client may do everything.
	Client client.Client
	// AdminKubeconfig is the file that lets kubectl do everything.
	AdminKubeconfig string

	Manager *controlplane.Process
	// ManagerMetrics is the address of the manager's /metrics.
	ManagerMetrics string
	// WebhookPort is where kube-apiserver looks for the webhook, and tenantAPIPort
	// where for the tenant API.
	WebhookPort   string
	tenantAPIPort string
	TenantAPI     *controlplane.Process
	// NovaAPI is there after StartNovaAPI, and NovaMetrics is the address of its /metrics, which
	// it serves without TLS.
	NovaAPI     *controlplane.Process
	NovaMetrics string
	Agents      map[string]*controlplane.Process

	// told is how many steps of the story have been told.
	told int

	unlock   func()
	stop     chan struct{}
	watching sync.WaitGroup
}

// Start starts everything and waits until all servers of the sample fleet are UP.
func Start(ctx context.Context, options Options) (_ *Fleet, err error) {
	f, err := Install(ctx, options)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Stop()
		}
	}()
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	if err := f.StartTenantAPI(ctx); err != nil {
		return nil, err
	}
	f.progress("Starting the manager and %d agents", len(Hosts))
	if err := f.startManager(); err != nil {
		return nil, err
	}
	for _, host := range Hosts {
		if err := f.startAgent(root, host); err != nil {
			return nil, err
		}
	}
	f.progress("Waiting until every server is UP")
	if err := f.WaitFor(ctx, settleTimeout, All(v1alpha1.HostStatusUp)); err != nil {
		return nil, err
	}
	if err := f.waitForWebhook(ctx); err != nil {
		return nil, err
	}
	if err := f.WaitForTenantAPI(ctx); err != nil {
		return nil, err
	}
	return f, nil
}

// Install starts a control plane and installs what comes before the processes of
// hoststatus, which it builds but does not start.
func Install(ctx context.Context, options Options) (_ *Fleet, err error) {
	f := &Fleet{Options: options, Agents: map[string]*controlplane.Process{}, stop: make(chan struct{})}
	if f.unlock, err = lock(options.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Stop()
		}
	}()
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	if f.Installation == nil {
		f.Installation = shipped{root}
		f.progress("Building hoststatus")
		if err := controlplane.BuildCommands(ctx, f.path("bin")); err != nil {
			return nil, err
		}
	}
	f.progress("Starting the control plane (etcd, kube-apiserver, kube-controller-manager)")
	if f.Cluster, err = controlplane.Start(ctx, controlplane.Options{
		Dir: f.path("cluster"), Log: options.Log, Fsync: options.Fsync, Kubernetes: options.Kubernetes, APIServerArgs: options.APIServerArgs,
	}); err != nil {
		return nil, err
	}
	if err := f.connect(); err != nil {
		return nil, err
	}
	f.progress("Installing the CRDs, the roles and the sample fleet")
	if err := f.install(ctx, root); err != nil {
		return nil, err
	}
	return f, nil
}

// Stop ends everything that was started.
func (f *Fleet) Stop() {
	close(f.stop)
	f.watching.Wait()
	if f.NovaAPI != nil {
		f.NovaAPI.Stop()
	}
	for _, agent := range f.Agents {
		agent.Stop()
	}
	if f.Manager != nil {
		f.Manager.Stop()
	}
	if f.TenantAPI != nil {
		f.TenantAPI.Stop()
	}
	if f.Cluster != nil {
		f.Cluster.Stop()
	}
	f.unlock()
}

// Kubectl returns a command that runs kubectl as administrator, with the plugins.
func (f *Fleet) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	command := f.Cluster.Kubectl(ctx, f.AdminKubeconfig, args...)
	command.Env = append(command.Env, "PATH="+f.path("bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	return command
}

// LogFile is where the process called name writes its log.
func (f *Fleet) LogFile(name string) string { return f.path(name + ".log") }

// DriverFile is the file that the fake driver on host reads.
func (f *Fleet) DriverFile(host string) string { return f.path("fake-driver", host+".yaml") }

// StartAgent starts the agent on host again, after it has ended.
func (f *Fleet) StartAgent(host string) error { return f.Agents[host].Start() }

// WaitFor waits until check returns no error.
func (f *Fleet) WaitFor(ctx context.Context, limit time.Duration, check func([]v1alpha1.Server) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f.retry(ctx, func() error {
		var servers v1alpha1.ServerList
		if err := f.Client.List(ctx, &servers); err != nil {
			return err
		}
		return check(servers.Items)
	})
}

// All checks that every server, or each on one of hosts, has the host status want.
func All(want v1alpha1.HostStatus, hosts ...string) func([]v1alpha1.Server) error {
	return func(servers []v1alpha1.Server) error {
		found := false
		for _, s := range servers {
			if len(hosts) > 0 && s.Spec.Host != hosts[0] {
				continue
			}
			found = true
			if got := s.Status.HostStatus; got == nil || *got != want {
				return fmt.Errorf("server %s/%s on %s has host status %s (%s), not %q",
					s.Namespace, s.Name, s.Spec.Host, Show(got), s.Status.HostStatusReason, want)
			}
		}
		if !found {
			return errors.New("there are no servers")
		}
		return nil
	}
}

// Show prints a host status, absent or not.
func Show(s *v1alpha1.HostStatus) string {
	if s == nil {
		return "absent"
	}
	return fmt.Sprintf("%q", string(*s))
}

// retry repeats do until it works or ctx ends.
func (f *Fleet) retry(ctx context.Context, do func() error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

func (f *Fleet) path(elements ...string) string {
	return filepath.Join(append([]string{f.Dir}, elements...)...)
}

func (f *Fleet) progress(format string, args ...any) {
	_, _ = fmt.Fprintf(f.Log, "- "+format+"\n", args...)
}

func (f *Fleet) connect() error {
	config, err := f.Cluster.AdminConfig()
	if err != nil {
		return err
	}
	f.AdminKubeconfig = f.path("admin.kubeconfig")
	if err := controlplane.WriteKubeconfig(f.AdminKubeconfig, config); err != nil {
		return err
	}
	f.Client, err = NewClient(config)
	return err
}

// NewClient returns a client that knows the kinds of hoststatus, without a cache.
func NewClient(config *rest.Config) (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), agentv1alpha1.AddToScheme(scheme), ownerv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("registering the kinds: %w", err)
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return c, nil
}

// install applies what comes before the processes. A new control plane takes a
// moment to have its namespaces, and a new CRD to be served, so it tries again.
func (f *Fleet) install(ctx context.Context, root string) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return err
	}
	f.WebhookPort, f.tenantAPIPort = ports[0], ports[1]
	if err := f.retry(ctx, func() error { return f.Installation.Install(ctx, f, f.WebhookPort, f.tenantAPIPort) }); err != nil {
		return err
	}
	return f.retry(ctx, func() error { return f.Apply(ctx, filepath.Join(root, "config", "samples")) })
}

// shipped installs the manifests of config/ and runs what was built from root.
type shipped struct{ root string }

// Install implements Installation. The tenant API is registered when it starts.
func (s shipped) Install(ctx context.Context, f *Fleet, webhookPort, _ string) error {
	if err := DefaultManifests(s.root, f.path("default"), webhookPort); err != nil {
		return err
	}
	for _, dir := range []string{f.path("default"), filepath.Join(s.root, "config", "node-leases")} {
		if err := f.Apply(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// Process implements Installation.
func (shipped) Process(f *Fleet, c Command) (*controlplane.Process, error) {
	return f.NewProcess(f.path("bin", c.Binary), c)
}

// NewProcess makes a process of the program at path, as a Fleet would run it.
func (f *Fleet) NewProcess(path string, c Command) (*controlplane.Process, error) {
	kubeconfig := f.path(c.Name + ".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, c.Config); err != nil {
		return nil, err
	}
	args := slices.Concat([]string{"--kubeconfig=" + kubeconfig, "--log-format=text"}, c.Addresses, c.Args)
	return controlplane.NewProcess(c.Name, path, f.LogFile(c.Name), append(os.Environ(), f.Environment...), args...), nil
}

// Apply applies manifests, with the kustomize that is in kubectl.
func (f *Fleet) Apply(ctx context.Context, dir string) error {
	out, err := f.Kubectl(ctx, "apply", "--server-side", "-k", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("applying %s: %w\n%s", dir, err, out)
	}
	return nil
}

func (f *Fleet) startManager() (err error) {
	if f.Manager, f.ManagerMetrics, err = f.newManager("manager", f.WebhookPort); err != nil {
		return err
	}
	f.watching.Go(f.keepManager)
	return nil
}

// StartManager starts another manager, called name, with additional flags, and returns
// the address of its /metrics. Its caller stops it. It also serves the webhook, but
// kube-apiserver does not know that one.
func (f *Fleet) StartManager(name string, flags ...string) (p *controlplane.Process, metrics string, err error) {
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return nil, "", err
	}
	return f.newManager(name, ports[0], flags...)
}

func (f *Fleet) newManager(name, webhookPort string, flags ...string) (p *controlplane.Process, metrics string, err error) {
	config, err := f.ManagerConfig()
	if err != nil {
		return nil, "", err
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return nil, "", err
	}
	metrics = net.JoinHostPort("127.0.0.1", ports[0])
	args := append([]string{leaseNamespaces}, f.ManagerArgs...)
	if _, ok := f.Installation.(shipped); ok { // Not of another release, which may not know the flag.
		args = append(args, "--shutdown-delay=0s")
	}
	p, err = f.start(Command{Binary: "manager", Name: name, Config: config, Args: append(args, flags...), Addresses: []string{
		"--metrics-bind-address=" + metrics,
		"--health-probe-bind-address=" + net.JoinHostPort("127.0.0.1", ports[1]),
		"--webhook-bind-address=" + net.JoinHostPort("127.0.0.1", webhookPort),
	}})
	return p, metrics, err
}

// ManagerConfig is the client configuration of the manager's service account.
func (f *Fleet) ManagerConfig() (*rest.Config, error) {
	return f.Cluster.ConfigFor("system:serviceaccount:hoststatus-system:hoststatus-manager", "system:serviceaccounts", "system:serviceaccounts:hoststatus-system")
}

// HostConfig is the client configuration of the agent on a host.
func (f *Fleet) HostConfig(host string) (*rest.Config, error) {
	return f.Cluster.ConfigFor("system:hoststatus:host:"+host, "system:hoststatus:hosts")
}

// keepManager restarts the manager when it ends: it exits when it loses its
// leadership, and relies on being restarted.
func (f *Fleet) keepManager() {
	for {
		select {
		case <-f.stop:
			return
		case <-f.Manager.Done():
		}
		select {
		case <-f.stop:
			return
		case <-time.After(restartDelay):
		}
		if err := f.Manager.Start(); err != nil {
			f.progress("Restarting the manager failed: %v", err)
			return
		}
	}
}

func (f *Fleet) startAgent(root, host string) error {
	config, err := f.HostConfig(host)
	if err != nil {
		return err
	}
	driver := f.Driver
	if driver == nil {
		if err := f.copyDriverFile(root, host); err != nil {
			return err
		}
		driver = func(host string) []string {
			return []string{"--driver=fake", "--fake-driver-file=" + f.DriverFile(host)}
		}
	}
	f.Agents[host], err = f.start(Command{Binary: "agent", Name: "agent-" + host, Host: host, Config: config, Args: append([]string{
		"--host-name=" + host,
		"--lease-duration=" + f.LeaseDuration.String(), "--renew-interval=" + f.RenewInterval.String(),
	}, driver(host)...)})
	return err
}

func (f *Fleet) copyDriverFile(root, host string) error {
	sample, err := os.ReadFile(filepath.Join(root, "config", "samples", "fake-driver", host+".yaml"))
	if err != nil {
		return fmt.Errorf("reading the sample fleet: %w", err)
	}
	if err := os.MkdirAll(f.path("fake-driver"), 0o755); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	if err := os.WriteFile(f.DriverFile(host), sample, 0o644); err != nil {
		return fmt.Errorf("writing the file of the fake driver: %w", err)
	}
	return nil
}

func (f *Fleet) start(c Command) (*controlplane.Process, error) {
	p, err := f.Installation.Process(f, c)
	if err != nil {
		return nil, err
	}
	return p, p.Start()
}

// lock makes dir this process's own, and empty.
func lock(dir string) (unlock func(), err error) {
	if err := controlplane.PrivateFolder(dir); err != nil {
		return nil, fmt.Errorf("making %s: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("a local hoststatus already runs in %s; use its %s, or stop it with Ctrl-C first", dir, filepath.Join(dir, "admin.kubeconfig"))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", dir, err)
	}
	for _, entry := range entries {
		if entry.Name() == ".lock" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return nil, fmt.Errorf("removing what an earlier run left: %w", err)
		}
	}
	return func() { _ = f.Close() }, nil
}
