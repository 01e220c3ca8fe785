// SPDX-License-Identifier: Apache-2.0

// Package leaks runs what our binaries run inside the test's own process, against a
// real API server, and looks for goroutines that are left when it has ended.
package leaks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent"
	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/manager"
	"hoststatus.dev/hoststatus/internal/tenantapi"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// env is the control plane that the tests share.
var env struct {
	dir     string
	cluster *controlplane.Cluster
	admin   client.Client
	kube    *kubernetes.Clientset
	// tenantPort is where kube-apiserver looks for the tenant API.
	tenantPort string
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	defer func() {
		if env.cluster != nil {
			env.cluster.Stop()
		}
		_ = os.RemoveAll(env.dir)
	}()
	if err := start(context.Background()); err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

func start(ctx context.Context) (err error) {
	if env.dir, err = os.MkdirTemp("", "hoststatus-leaks-"); err != nil {
		return err
	}
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	if env.cluster, err = controlplane.Start(ctx, controlplane.Options{Dir: filepath.Join(env.dir, "cluster"), Log: os.Stdout}); err != nil {
		return err
	}
	config, err := env.cluster.AdminConfig()
	if err != nil {
		return err
	}
	if env.admin, err = fleet.NewClient(config); err != nil {
		return err
	}
	if env.kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return err
	}
	env.tenantPort = ports[0]
	manifests := filepath.Join(env.dir, "tenant-apiserver")
	if err := fleet.TenantAPIManifests(root, manifests, env.tenantPort); err != nil {
		return err
	}
	kubeconfig := filepath.Join(env.dir, "admin.kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(root, "config", "default"), manifests} {
		// A new CRD takes a moment to be served.
		err := expect.Poll(context.Background(), 20*time.Second, func() error {
			if out, err := env.cluster.Kubectl(ctx, kubeconfig, "apply", "--server-side", "-k", dir).CombinedOutput(); err != nil {
				return fmt.Errorf("applying %s: %w\n%s", dir, err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// goroutines returns the stacks of all goroutines, by their numbers.
func goroutines() map[int]string {
	buffer := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buffer, true)
		if n < len(buffer) {
			buffer = buffer[:n]
			break
		}
		buffer = make([]byte, 2*len(buffer))
	}
	stacks := map[int]string{}
	for stack := range bytes.SplitSeq(buffer, []byte("\n\n")) {
		number, _, _ := strings.Cut(strings.TrimPrefix(string(stack), "goroutine "), " ")
		if n, err := strconv.Atoi(number); err == nil {
			stacks[n] = string(stack)
		}
	}
	return stacks
}

// link is the only way of what is tested to the API server, so that its connections
// can be cut, and are gone in the end: a client keeps those that it may need again.
type link struct {
	listener net.Listener
	to       string

	mu          sync.Mutex
	connections map[net.Conn]struct{}
	running     sync.WaitGroup
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	expect.NoError(t, err)
	l := &link{listener: listener, to: to, connections: map[net.Conn]struct{}{}}
	l.running.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.pass(connection) })
		}
	})
	return l
}

func (l *link) pass(from net.Conn) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	l.mu.Lock()
	l.connections[from], l.connections[to] = struct{}{}, struct{}{}
	l.mu.Unlock()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_, _ = from.Close(), to.Close()
		})
	}
	both.Wait()
	l.mu.Lock()
	delete(l.connections, from)
	delete(l.connections, to)
	l.mu.Unlock()
}

// cut breaks all connections.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for connection := range l.connections {
		_ = connection.Close()
	}
}

func (l *link) close() {
	_ = l.listener.Close()
	l.cut()
	l.running.Wait()
}

// subject is something that runs until it is told to stop.
type subject struct {
	user   string
	groups []string
	run    func(context.Context, *rest.Config) error
	// works returns nil once it does what it is for.
	works func() error
}

// slack is by how many goroutines a process may differ that works as before.
const slack = 6

// leaves runs s, cuts its connections several times, stops it, and returns the
// goroutines that are left after patience.
func leaves(t *testing.T, s subject, cuts int, patience time.Duration) map[int]string {
	t.Helper()
	before := goroutines()
	api, err := url.Parse(env.cluster.URL)
	expect.NoError(t, err)
	l := newLink(t, api.Host)
	config, err := env.cluster.ConfigFor(s.user, s.groups...)
	expect.NoError(t, err)
	config.Host = "https://" + l.listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, config) }()
	expect.Eventually(t, time.Minute, s.works)
	settled := len(goroutines())
	for range cuts {
		l.cut()
		expect.Eventually(t, time.Minute, s.works)
	}
	// A watch that is opened again replaces one; it does not come beside it.
	expect.Eventually(t, time.Minute, func() error {
		if now := len(goroutines()); now > settled+slack {
			return fmt.Errorf("%d goroutines after the connections were cut %d times, %d before", now, cuts, settled)
		}
		return nil
	})
	cancel()
	select {
	case err := <-ended:
		expect.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("does not stop")
	}
	l.close()
	var left map[int]string
	_ = expect.Poll(context.Background(), patience, func() error {
		left = goroutines()
		for number := range before {
			delete(left, number)
		}
		if len(left) > 0 {
			return errors.New("not yet")
		}
		return nil
	})
	return left
}

// subjects are what our binaries run.
func subjects(t *testing.T) map[string]subject {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	account := fleet.TenantAPIGroups
	const managerUser = "system:serviceaccount:hoststatus-system:hoststatus-manager"
	var monitor *heartbeat.Monitor
	return map[string]subject{
		"the monitor": {managerUser, account,
			func(ctx context.Context, config *rest.Config) error {
				leases, err := kubernetes.NewForConfig(config)
				if err != nil {
					return err
				}
				elected := make(chan struct{})
				close(elected)
				monitor = heartbeat.NewMonitor(heartbeat.Options{
					Leases: leases.CoordinationV1(), Namespaces: []string{v1alpha1.DefaultLeaseNamespace}, DefaultDuration: 3 * time.Second,
					Identity: "leaks", Elected: elected, Clock: clock.RealClock{}, Logger: logr.Discard(),
				})
				monitor.Track(heartbeat.Subject{Name: "a", UID: "a", Generation: 1})
				return monitor.Start(ctx)
			},
			func() error { return renewedNow(v1alpha1.CanaryLeaseName) },
		},
		"the agent": {"system:hoststatus:host:leaks", []string{"system:hoststatus:hosts"},
			func(ctx context.Context, config *rest.Config) error {
				options := agent.NewOptions()
				options.HostName, options.LeaseDuration, options.RenewInterval = "leaks", 3*time.Second, 200*time.Millisecond
				options.Driver, options.FakeDriverFile = agent.DriverFake, filepath.Join(root, "config", "samples", "fake-driver", "compute-1.yaml")
				return agent.Run(ctx, config, options, logr.Discard())
			},
			func() error { return renewedNow("leaks") },
		},
		"the manager": {managerUser, account,
			func(ctx context.Context, config *rest.Config) error {
				options := manager.NewOptions()
				options.MetricsBindAddress, options.HealthProbeBindAddress = "0", "0"
				return manager.Run(ctx, config, options, logr.Discard())
			},
			aStatusIsDerived,
		},
		"the tenant API server": {fleet.TenantAPIUser, account,
			func(ctx context.Context, config *rest.Config) error {
				options := tenantapi.NewOptions()
				options.BindAddress, options.ShutdownDelay = net.IPv4(127, 0, 0, 1), 0
				var err error
				if options.SecurePort, err = strconv.Atoi(env.tenantPort); err != nil {
					return err
				}
				return tenantapi.Run(ctx, config, options, logr.Discard())
			},
			watchTheOwnersView,
		},
	}
}

// renewedNow waits for a renewal of a Lease that comes after the call.
func renewedNow(name string) error {
	begin := time.Now()
	return expect.Poll(context.Background(), 10*time.Second, func() error {
		lease, err := env.kube.CoordinationV1().Leases(v1alpha1.DefaultLeaseNamespace).Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Before(&metav1.MicroTime{Time: begin}) {
			return fmt.Errorf("Lease %s was renewed at %v, not after %v", name, lease.Spec.RenewTime, begin)
		}
		return nil
	})
}

// aStatusIsDerived makes a ComputeService with a maintenance window, and waits for its status,
// with what owners have answered: that is the last that a manager knows after its start.
func aStatusIsDerived() error {
	ctx := context.Background()
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{GenerateName: "derived-"}}
	service.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: ptr.To(metav1.NewTime(time.Now().Add(time.Hour)))}
	if err := env.admin.Create(ctx, service); err != nil {
		return err
	}
	err := expect.Poll(context.Background(), 20*time.Second, func() error {
		if err := env.admin.Get(ctx, client.ObjectKeyFromObject(service), service); err != nil {
			return err
		}
		if service.Status.HostStatusReason == "" || service.Status.Maintenance == nil {
			return errors.New("no status is derived")
		}
		return nil
	})
	return errors.Join(err, env.admin.Delete(ctx, service))
}

// watchTheOwnersView opens watches through kube-apiserver, and closes them.
func watchTheOwnersView() error {
	const path = "/apis/tenant.hoststatus.dev/v1alpha1/servers"
	if err := env.kube.RESTClient().Get().AbsPath(path).Do(context.Background()).Error(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 20 {
		stream, err := env.kube.RESTClient().Get().AbsPath(path).Param("watch", "true").Stream(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
	}
	return nil
}

// What runs once in a process may be kept by the libraries for as long as the process
// lives, so each is run twice: the second time leaves nothing.
func TestNothingIsLeftOfWhatHasRun(t *testing.T) {
	for name, s := range subjects(t) {
		t.Run(name, func(t *testing.T) {
			leaves(t, s, 0, time.Second)
			for _, stack := range leaves(t, s, 2*slack, 15*time.Second) {
				t.Errorf("left:\n%s", stack)
			}
		})
	}
}

// The helper finds a goroutine that is left, or it would prove nothing.
func TestALeakIsFound(t *testing.T) {
	stop := make(chan struct{})
	leaky := subject{
		user: "nobody",
		run: func(ctx context.Context, _ *rest.Config) error {
			go func() { <-stop }()
			<-ctx.Done()
			return nil
		},
		works: func() error { return nil },
	}
	defer close(stop)
	if left := leaves(t, leaky, 1, time.Second); len(left) != 1 {
		t.Errorf("%d goroutines are left, want the one that waits", len(left))
	}
}
