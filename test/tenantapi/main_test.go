// SPDX-License-Identifier: Apache-2.0

// Package tenantapi tests the tenant API through the aggregation layer of a real
// kube-apiserver, as its users reach it.
package tenantapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// patience is how long something may take that is not timed.
const patience = time.Minute

// env is the control plane that the tests share. Each test has namespaces and users
// of its own.
var env *environment

type environment struct {
	dir, root string
	cluster   *controlplane.Cluster
	admin     client.Client
	// adminKubeconfig lets kubectl do everything.
	adminKubeconfig string
	// balancer is what the APIService points to; replicas are behind it.
	balancer *balancer
	replicas []*replica
	users    atomic.Int64
}

// replica is one tenant API server.
type replica struct {
	*controlplane.Process
	address string
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	e := &environment{}
	defer func() { e.stop() }()
	if err := e.start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "starting the environment:", err)
		return 1
	}
	env = e
	return max(m.Run(), fleet.ReportCrashes(os.Stderr, e.dir))
}

func (e *environment) start(ctx context.Context) (err error) {
	if e.dir, err = os.MkdirTemp("", "hoststatus-tenantapi-"); err != nil {
		return err
	}
	if e.root, err = controlplane.RepositoryRoot(); err != nil {
		return err
	}
	if err := controlplane.BuildCommands(ctx, e.dir, "tenant-apiserver", "manager"); err != nil {
		return err
	}
	if e.cluster, err = controlplane.Start(ctx, controlplane.Options{Dir: filepath.Join(e.dir, "cluster"), Log: os.Stderr}); err != nil {
		return err
	}
	config, err := e.cluster.AdminConfig()
	if err != nil {
		return err
	}
	e.adminKubeconfig = filepath.Join(e.dir, "admin.kubeconfig")
	if err := controlplane.WriteKubeconfig(e.adminKubeconfig, config); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{computev1alpha1.AddToScheme, corev1.AddToScheme, rbacv1.AddToScheme, coordinationv1.AddToScheme, authorizationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	if err := e.apply(ctx, filepath.Join(e.root, "config", "default")); err != nil {
		return err
	}
	if e.admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if e.balancer, err = newBalancer(); err != nil {
		return err
	}
	manifests := filepath.Join(e.dir, "tenant-apiserver-manifests")
	if err := fleet.TenantAPIManifests(e.root, manifests, e.balancer.port()); err != nil {
		return err
	}
	if err := e.apply(ctx, manifests); err != nil {
		return err
	}
	// Most tests are about something else than the manager: it counts as alive.
	if err := e.renewCanary(ctx); err != nil {
		return err
	}
	first, err := e.newReplica("tenant-apiserver-0")
	if err != nil {
		return err
	}
	e.replicas = []*replica{first}
	e.balancer.use(first)
	return e.waitServed(ctx)
}

func (e *environment) stop() {
	for _, r := range e.replicas {
		r.Stop()
	}
	if e.balancer != nil {
		e.balancer.close()
	}
	if e.cluster != nil {
		e.cluster.Stop()
	}
	if os.Getenv("KEEP_TEST_DIR") == "" {
		_ = os.RemoveAll(e.dir)
	}
}

func (e *environment) kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return e.cluster.Kubectl(ctx, e.adminKubeconfig, args...)
}

// apply retries, because a new CRD takes a moment to be served.
func (e *environment) apply(ctx context.Context, dir string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := e.kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-k", dir).CombinedOutput()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("applying %s: %w\n%s", dir, err, out)
		}
	}
}

// renewCanary writes a canary that holds for longer than the tests run.
func (e *environment) renewCanary(ctx context.Context) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: computev1alpha1.CanaryLeaseName, Namespace: computev1alpha1.DefaultLeaseNamespace}}
	err := e.admin.Get(ctx, client.ObjectKeyFromObject(lease), lease)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	lease.Spec = coordinationv1.LeaseSpec{
		HolderIdentity:       ptr.To("test"),
		RenewTime:            ptr.To(metav1.NowMicro()),
		LeaseDurationSeconds: ptr.To[int32](3600),
	}
	if missing {
		return e.admin.Create(ctx, lease)
	}
	return e.admin.Update(ctx, lease)
}

func (e *environment) newReplica(name string) (*replica, error) {
	config, err := e.cluster.ConfigFor(fleet.TenantAPIUser, fleet.TenantAPIGroups...)
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(e.dir, name+".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		return nil, err
	}
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return nil, err
	}
	r := &replica{address: net.JoinHostPort("127.0.0.1", ports[0])}
	r.Process = controlplane.NewProcess(name, filepath.Join(e.dir, "tenant-apiserver"), filepath.Join(e.dir, name+".log"), os.Environ(),
		"--kubeconfig="+kubeconfig, "--log-format=text", "--bind-address=127.0.0.1", "--secure-port="+ports[0], "--shutdown-delay=0s")
	return r, r.Start()
}

// waitServed waits until kube-apiserver serves the tenant API.
func (e *environment) waitServed(ctx context.Context) error {
	out, err := e.kubectl(ctx, "wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1alpha1.tenant.hoststatus.dev").CombinedOutput()
	if err != nil {
		return fmt.Errorf("waiting for the APIService: %w\n%s", err, out)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		out, err := e.kubectl(ctx, "get", "--raw", "/apis/tenant.hoststatus.dev/v1alpha1/servers").CombinedOutput()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("listing servers: %w\n%s", err, out)
		}
	}
}

// balancer passes TCP connections on to the replicas in turn.
type balancer struct {
	listener net.Listener

	mu          sync.Mutex
	backends    []*replica
	next        int
	connections map[net.Conn]struct{}
}

func newBalancer() (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: listener, connections: map[net.Conn]struct{}{}}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go b.serve(connection)
		}
	}()
	return b, nil
}

func (b *balancer) port() string {
	_, port, _ := net.SplitHostPort(b.listener.Addr().String())
	return port
}

func (b *balancer) close() {
	_ = b.listener.Close()
	b.drop()
}

// use sets the replicas that new connections go to.
func (b *balancer) use(backends ...*replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = backends
}

// drop breaks every connection.
func (b *balancer) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for connection := range b.connections {
		_ = connection.Close()
	}
}

func (b *balancer) serve(client net.Conn) {
	b.mu.Lock()
	var backend *replica
	if len(b.backends) > 0 {
		backend = b.backends[b.next%len(b.backends)]
		b.next++
	}
	b.mu.Unlock()
	defer func() { _ = client.Close() }()
	if backend == nil {
		return
	}
	server, err := net.Dial("tcp", backend.address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	b.mu.Lock()
	b.connections[client], b.connections[server] = struct{}{}, struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.connections, client)
		delete(b.connections, server)
	}()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}
