// SPDX-License-Identifier: Apache-2.0

// Package kubectlplugin is where the kubectl plugins are tested: a control plane with
// hoststatus installed, the binaries that a suite needs, and kubectl with the plugin in its
// path. What krew has to do with each plugin is here, too.
package kubectlplugin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// patience is how long something may take that is not timed.
const patience = 30 * time.Second

const managerUser = "system:serviceaccount:hoststatus-system:hoststatus-manager"

var managerGroups = []string{"system:serviceaccounts", "system:serviceaccounts:hoststatus-system"}

// World is what the tests of a suite share. Tests that run beside each other have
// namespaces, hosts and users of their own.
type World struct {
	// Dir holds everything of this suite; the binaries are in Bin, below it.
	Dir, Bin string
	// Root is the repository.
	Root string
	// Kubeconfig is the administrator's.
	Kubeconfig string
	Cluster    *controlplane.Cluster
	// Admin may do everything.
	Admin client.Client

	processes []*controlplane.Process
}

// Main builds commands, starts a control plane, lets start make of it what the tests need,
// and runs them. It returns the exit code of the suite, of which nothing is left.
func (w *World) Main(m *testing.M, start func(context.Context) error, commands ...string) int {
	if testing.Short() {
		fmt.Println("skipped: -short leaves out what needs a control plane")
		return 0
	}
	var err error
	if w.Dir, err = os.MkdirTemp("", "hoststatus-plugin-"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(w.Dir) }()
	defer func() {
		for _, p := range w.processes {
			p.Stop()
		}
		if w.Cluster != nil {
			w.Cluster.Stop()
		}
	}()
	ctx := context.Background()
	if err := w.begin(ctx, commands); err != nil {
		fmt.Println("starting the control plane:", err)
		return 1
	}
	if err := start(ctx); err != nil {
		fmt.Println("starting the environment:", err)
		return 1
	}
	return m.Run()
}

func (w *World) begin(ctx context.Context, commands []string) (err error) {
	w.Bin = filepath.Join(w.Dir, "bin")
	if w.Root, err = controlplane.RepositoryRoot(); err != nil {
		return err
	}
	if err := controlplane.BuildCommands(ctx, w.Bin, commands...); err != nil {
		return err
	}
	if w.Cluster, err = controlplane.Start(ctx, controlplane.Options{Dir: filepath.Join(w.Dir, "cluster"), Log: os.Stderr}); err != nil {
		return err
	}
	config, err := w.Cluster.AdminConfig()
	if err != nil {
		return err
	}
	w.Kubeconfig = filepath.Join(w.Dir, "admin.kubeconfig")
	return controlplane.WriteKubeconfig(w.Kubeconfig, config)
}

// Install installs hoststatus, as config/default has it, and connects Admin.
func (w *World) Install(ctx context.Context) error {
	if err := w.Apply(ctx, filepath.Join(w.Root, "config", "default")); err != nil {
		return err
	}
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme, ownerv1alpha1.AddToScheme} {
		if err := add(all); err != nil {
			return err
		}
	}
	config, err := w.Cluster.AdminConfig()
	if err != nil {
		return err
	}
	if w.Admin, err = client.New(config, client.Options{Scheme: all}); err != nil {
		return err
	}
	return w.waitFor(ctx, "computeservices,servers.compute,maintenanceanswers")
}

// Apply retries, because a new CRD takes a moment to be served.
func (w *World) Apply(ctx context.Context, dir string) error {
	return expect.Poll(ctx, patience, func() error {
		if out, err := w.Kubectl(ctx, w.Kubeconfig, "apply", "--server-side", "--force-conflicts", "-k", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("applying %s: %w\n%s", dir, err, out)
		}
		return nil
	})
}

// waitFor waits until kube-apiserver serves resources.
func (w *World) waitFor(ctx context.Context, resources string) error {
	return expect.Poll(ctx, 2*patience, func() error {
		if out, err := w.Kubectl(ctx, w.Kubeconfig, "get", resources, "-A").CombinedOutput(); err != nil {
			return fmt.Errorf("reading %s: %w\n%s", resources, err, out)
		}
		return nil
	})
}

// StartManager runs the manager until the suite ends, or until it is stopped.
func (w *World) StartManager() (*controlplane.Process, error) {
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return nil, err
	}
	// Other suites run beside this one: none has the default ports.
	return w.start("manager", "manager", managerUser, managerGroups, "--metrics-bind-address=0", "--health-probe-bind-address=0", "--webhook-bind-address=127.0.0.1:"+ports[0])
}

// StartAgent runs the agent of a host, whose heartbeats are valid for so long, until the suite
// ends, or until it is stopped or killed.
func (w *World) StartAgent(host string, valid time.Duration) (*controlplane.Process, error) {
	return w.start("agent", "agent-"+host, "system:hoststatus:host:"+host, []string{"system:hoststatus:hosts"},
		"--host-name="+host, "--lease-duration="+valid.String(), "--renew-interval="+(valid/3).String())
}

// StartView runs the owners' view, and returns once kube-apiserver serves it.
func (w *World) StartView(ctx context.Context) error {
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return err
	}
	manifests := filepath.Join(w.Dir, "tenant-apiserver-manifests")
	if err := fleet.TenantAPIManifests(w.Root, manifests, ports[0]); err != nil {
		return err
	}
	if err := w.Apply(ctx, manifests); err != nil {
		return err
	}
	if _, err := w.start("tenant-apiserver", "tenant-apiserver", fleet.TenantAPIUser, fleet.TenantAPIGroups, "--bind-address=127.0.0.1", "--secure-port="+ports[0], "--shutdown-delay=0s"); err != nil {
		return err
	}
	return w.waitFor(ctx, "servers.tenant.hoststatus.dev")
}

// start runs a binary, which is called name, as the user that it runs as.
func (w *World) start(binary, name, user string, groups []string, args ...string) (*controlplane.Process, error) {
	kubeconfig := filepath.Join(w.Dir, name+".kubeconfig")
	if _, err := w.identify(kubeconfig, user, groups...); err != nil {
		return nil, err
	}
	p := controlplane.NewProcess(name, filepath.Join(w.Bin, binary), filepath.Join(w.Dir, name+".log"), os.Environ(), append(args, "--kubeconfig="+kubeconfig)...)
	w.processes = append(w.processes, p)
	return p, p.Start()
}

// identify writes a kubeconfig of a user in groups, which gives no right.
func (w *World) identify(path, user string, groups ...string) (*rest.Config, error) {
	config, err := w.Cluster.ConfigFor(user, groups...)
	if err != nil {
		return nil, err
	}
	return config, controlplane.WriteKubeconfig(path, config)
}

// As writes a kubeconfig of a user who has some ClusterRoles until the test ends, and no other
// right, in a namespace or, if that is "", everywhere. It returns the file's path.
func (w *World) As(t *testing.T, user, namespace string, clusterRoles ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config, err := w.identify(path, user)
	expect.NoError(t, err)
	for _, role := range clusterRoles {
		meta := metav1.ObjectMeta{Namespace: namespace, Name: user + "-" + role}
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
		subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
		if namespace == "" {
			w.Create(t, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
		} else {
			w.Create(t, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
		}
	}
	expect.NoError(t, w.Cluster.WaitForRights(t.Context(), config, namespace, clusterRoles...))
	return path
}

// Kubectl runs kubectl with the plugins in its path, on a machine whose clock shows UTC.
func (w *World) Kubectl(ctx context.Context, kubeconfig string, args ...string) *exec.Cmd {
	cmd := w.Cluster.Kubectl(ctx, kubeconfig, args...)
	cmd.Env = append(cmd.Env, "TZ=UTC", "PATH="+strings.Join([]string{w.Bin, filepath.Dir(w.Cluster.KubectlPath()), os.Getenv("PATH")}, ":"))
	return cmd
}

// InstallCompletion installs the script by which kubectl completes what is typed after the
// plugin's name.
func (w *World) InstallCompletion(t *testing.T, plugin string) {
	t.Helper()
	name := "kubectl_complete-" + plugin
	script, err := os.ReadFile(filepath.Join(w.Root, "cmd", "kubectl-"+plugin, name))
	expect.NoError(t, err)
	expect.NoError(t, os.WriteFile(filepath.Join(w.Bin, name), script, 0o755))
}

// Create makes an object until the test ends. Its fields are set by "test".
func (w *World) Create(t *testing.T, obj client.Object) {
	t.Helper()
	expect.NoError(t, w.Admin.Create(t.Context(), obj, client.FieldOwner("test")))
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(w.Admin.Delete(context.Background(), obj)); err != nil {
			t.Error(err)
		}
	})
}
