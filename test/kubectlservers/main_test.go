// SPDX-License-Identifier: Apache-2.0

// Package kubectlservers tests the plugin kubectl-servers as owners use it: against the real
// owners' view, with a manager at work, by the rights that each owner has.
package kubectlservers

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// patience is how long something may take that is not timed.
const patience = 30 * time.Second

// env is what the tests share: a control plane with a manager and the owners' view.
var env struct {
	dir, root, kubeconfig string
	cluster               *controlplane.Cluster
	admin                 client.Client
	processes             []*controlplane.Process
}

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if testing.Short() {
		fmt.Println("skipped: -short leaves out what needs a control plane")
		return 0
	}
	var err error
	if env.dir, err = os.MkdirTemp("", "hoststatus-kubectlservers-"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(env.dir) }()
	defer func() {
		for _, p := range env.processes {
			p.Stop()
		}
		if env.cluster != nil {
			env.cluster.Stop()
		}
	}()
	if err := start(context.Background()); err != nil {
		fmt.Println("starting the environment:", err)
		return 1
	}
	return m.Run()
}

func start(ctx context.Context) (err error) {
	if env.root, err = controlplane.RepositoryRoot(); err != nil {
		return err
	}
	if err := controlplane.BuildCommands(ctx, filepath.Join(env.dir, "bin"), "kubectl-servers", "manager", "tenant-apiserver"); err != nil {
		return err
	}
	if env.cluster, err = controlplane.Start(ctx, controlplane.Options{Dir: filepath.Join(env.dir, "cluster"), Log: os.Stderr}); err != nil {
		return err
	}
	config, err := env.cluster.AdminConfig()
	if err != nil {
		return err
	}
	env.kubeconfig = filepath.Join(env.dir, "admin.kubeconfig")
	if err := controlplane.WriteKubeconfig(env.kubeconfig, config); err != nil {
		return err
	}
	if err := apply(ctx, filepath.Join(env.root, "config", "default")); err != nil {
		return err
	}
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme, ownerv1alpha1.AddToScheme} {
		if err := add(all); err != nil {
			return err
		}
	}
	if env.admin, err = client.New(config, client.Options{Scheme: all}); err != nil {
		return err
	}
	if err := process("manager", "system:serviceaccount:hoststatus-system:hoststatus-manager", []string{"system:serviceaccounts", "system:serviceaccounts:hoststatus-system"},
		"--metrics-bind-address=0", "--health-probe-bind-address=0"); err != nil {
		return err
	}
	return startView(ctx)
}

// startView starts the owners' view, and waits until kube-apiserver serves it.
func startView(ctx context.Context) error {
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return err
	}
	manifests := filepath.Join(env.dir, "tenant-apiserver-manifests")
	if err := fleet.TenantAPIManifests(env.root, manifests, ports[0]); err != nil {
		return err
	}
	if err := apply(ctx, manifests); err != nil {
		return err
	}
	if err := process("tenant-apiserver", fleet.TenantAPIUser, fleet.TenantAPIGroups, "--bind-address=127.0.0.1", "--secure-port="+ports[0], "--shutdown-delay=0s"); err != nil {
		return err
	}
	return expect.Poll(ctx, 2*patience, func() error {
		if out, err := kubectl(ctx, env.kubeconfig, "get", "servers.tenant.hoststatus.dev", "-A").CombinedOutput(); err != nil {
			return fmt.Errorf("reading the owners' view: %w\n%s", err, out)
		}
		return nil
	})
}

// process starts a binary as the user that it runs as.
func process(name, user string, groups []string, args ...string) error {
	config, err := env.cluster.ConfigFor(user, groups...)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(env.dir, name+".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		return err
	}
	p := controlplane.NewProcess(name, filepath.Join(env.dir, "bin", name), filepath.Join(env.dir, name+".log"), os.Environ(), append(args, "--kubeconfig="+kubeconfig)...)
	env.processes = append(env.processes, p)
	return p.Start()
}

// apply retries, because a new CRD takes a moment to be served.
func apply(ctx context.Context, dir string) error {
	return expect.Poll(ctx, patience, func() error {
		if out, err := kubectl(ctx, env.kubeconfig, "apply", "--server-side", "--force-conflicts", "-k", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("applying %s: %w\n%s", dir, err, out)
		}
		return nil
	})
}

// kubectl runs kubectl with the plugin in its path.
func kubectl(ctx context.Context, kubeconfig string, args ...string) *exec.Cmd {
	cmd := env.cluster.Kubectl(ctx, kubeconfig, args...)
	cmd.Env = append(cmd.Env, "TZ=UTC", "PATH="+strings.Join([]string{filepath.Join(env.dir, "bin"), filepath.Dir(env.cluster.KubectlPath()), os.Getenv("PATH")}, ":"))
	return cmd
}

// owner is somebody with some ClusterRoles in a namespace, and no other right.
type owner struct{ namespace, kubeconfig string }

func newOwner(t *testing.T, user, namespace string, roles ...string) *owner {
	t.Helper()
	config, err := env.cluster.ConfigFor(user)
	expect.NoError(t, err)
	o := &owner{namespace, filepath.Join(t.TempDir(), "kubeconfig")}
	expect.NoError(t, controlplane.WriteKubeconfig(o.kubeconfig, config))
	err = env.admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		create(t, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: user + "-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
		})
	}
	return o
}

// run runs the plugin through kubectl, and returns its exit code.
func (o *owner) run(ctx context.Context, t *testing.T, args ...string) (out, complaints string, code int) {
	t.Helper()
	var printed, complained bytes.Buffer
	cmd := kubectl(ctx, o.kubeconfig, append([]string{"servers"}, append(args, "--namespace="+o.namespace)...)...)
	cmd.Stdout, cmd.Stderr = &printed, &complained
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return printed.String(), complained.String(), cmd.ProcessState.ExitCode()
}

// create makes an object until the test ends.
func create(t *testing.T, obj client.Object) {
	t.Helper()
	expect.NoError(t, env.admin.Create(t.Context(), obj))
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(env.admin.Delete(context.Background(), obj)); err != nil {
			t.Error(err)
		}
	})
}

// host makes a host that reports, with a window or none.
func host(t *testing.T, name string, window *v1alpha1.MaintenanceWindow) *v1alpha1.ComputeService {
	t.Helper()
	service := &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ComputeServiceSpec{LeaseDurationSeconds: v1alpha1.MaxLeaseDurationSeconds, MaintenanceWindow: window},
	}
	create(t, service)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: name},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: time.Now()}, LeaseDurationSeconds: ptr.To[int32](3600)},
	}
	create(t, lease)
	expect.Eventually(t, patience, func() error {
		lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
		if err := env.admin.Update(t.Context(), lease); err != nil {
			return err
		}
		if err := env.admin.Get(t.Context(), client.ObjectKeyFromObject(service), service); err != nil {
			return err
		}
		if service.Status.HostStatusReason != v1alpha1.ReasonReporting && service.Status.HostStatusReason != v1alpha1.ReasonWindowAnnounced {
			return fmt.Errorf("%s is %s", name, service.Status.HostStatusReason)
		}
		return nil
	})
	return service
}

// server makes a server on a host.
func server(t *testing.T, namespace, name, host string) *v1alpha1.Server {
	t.Helper()
	s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.ServerSpec{Host: host}}
	create(t, s)
	expect.Eventually(t, patience, func() error {
		if err := env.admin.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if s.Status.HostStatus == nil {
			return fmt.Errorf("%s has no host status yet", name)
		}
		return nil
	})
	return s
}

// opening is a window that opens in an hour, and can be put off for two.
func opening() *v1alpha1.MaintenanceWindow {
	at := func(d time.Duration) *metav1.Time {
		return &metav1.Time{Time: time.Now().Add(d).UTC().Truncate(time.Second)}
	}
	return &v1alpha1.MaintenanceWindow{
		StartTime: at(time.Hour), LatestStartTime: at(3 * time.Hour), EndTime: at(5 * time.Hour),
		Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot, Reason: ptr.To("rack r12 of compute-1 gets new disks"),
	}
}
