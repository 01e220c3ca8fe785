// SPDX-License-Identifier: Apache-2.0

// Package fencing runs a chain from a management controller to the owner of a server, as
// docs/operate/evacuate.md has it: ipmi_sim stands for the controller of a host, on loopback,
// and cuts the power of that host's real agent when the real fence_ipmilan asks for it.
package fencing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/docs"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

const (
	// patience is how long something may take that is not timed.
	patience = time.Minute
	page     = "evacuate.md"
)

var (
	// system is the sample fleet, which the tests share, one after the other.
	system *fleet.Fleet
	// scratch is a folder for files of the tests.
	scratch string
)

func TestMain(m *testing.M) {
	// fence_ipmilan is where not everybody's path leads to.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, name := range []string{"ipmi_sim", "fence_ipmilan", "ipmitool", "bash"} {
		if _, err := exec.LookPath(name); err != nil {
			fmt.Printf("SKIPPED: the fencing chain is not tested: %v; hack/ensure-packages.sh fencing installs it\n", err)
			if os.Getenv("CI") == "true" {
				fmt.Println("CI does not accept that.")
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(fleet.RunTests(m, "fencing", start))
}

func start(ctx context.Context, dir string) (_ *fleet.Fleet, err error) {
	scratch = dir
	if err := saveScripts(); err != nil {
		return nil, err
	}
	system, err = fleet.Start(ctx, fleet.Options{
		// A host that loses its power must not become UNKNOWN before it is reported.
		Dir: filepath.Join(scratch, "fleet"), LeaseDuration: 5 * time.Minute, RenewInterval: time.Second, Log: os.Stdout,
	})
	return system, err
}

// saveScripts saves the scripts of the page where a shell finds them, and beside them what
// stands for the platform: start-server records what it is to do.
func saveScripts() error {
	bin := filepath.Join(scratch, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	scripts := map[string]string{"start-server": `#!/usr/bin/env bash
set -euo pipefail
# A server that runs already would run twice.
status=$(kubectl get computeservice "$(kubectl get servers.compute "$2" -n "$1" -o jsonpath='{.spec.host}')" -o jsonpath='{.status.hostStatus}')
echo "$1/$2 on $3, $status" >>` + startedFile() + `
if [ -e ` + hookFile() + ` ]; then bash ` + hookFile() + ` "$@"; fi
`}
	for _, name := range []string{"fence-host", "evacuate-host"} {
		script, err := docs.Script(page, name)
		if err != nil {
			return err
		}
		scripts[name] = script
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(os.MkdirAll(bmcFolder(), 0o700), os.Setenv("BMC_DIR", bmcFolder()), os.Setenv("PATH", bin+":"+os.Getenv("PATH")))
}

func startedFile() string { return filepath.Join(scratch, "started") }

// hookFile is a script that start-server runs in the end, if it is there.
func hookFile() string  { return filepath.Join(scratch, "hook") }
func bmcFolder() string { return filepath.Join(scratch, "bmc") }

// started is what start-server was asked to do since this was asked before.
func started(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(startedFile())
	if os.IsNotExist(err) {
		return ""
	}
	expect.NoError(t, err)
	expect.NoError(t, os.Remove(startedFile()))
	return string(content)
}

// administrator may do everything.
func administrator(t *testing.T) kubernetes.Interface {
	t.Helper()
	config, err := system.Cluster.AdminConfig()
	expect.NoError(t, err)
	kube, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	return kube
}

// script runs one of the page's, as a user with ClusterRoles and no other right; it ends
// with the test.
func script(t *testing.T, user string, roles []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	config, err := system.Cluster.ConfigFor(user)
	expect.NoError(t, err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, config))
	kube := administrator(t)
	for _, role := range roles {
		binding, err := kube.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: user + "-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
		}, metav1.CreateOptions{})
		expect.NoError(t, err)
		t.Cleanup(func() {
			if err := kube.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	expect.NoError(t, system.Cluster.WaitForRights(t.Context(), config, "", roles...))
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = slices.Concat(system.Cluster.Kubectl(t.Context(), kubeconfig).Env, []string{"PATH=" + filepath.Dir(system.Cluster.KubectlPath()) + ":" + os.Getenv("PATH")})
	return cmd
}

// hostIs checks the status of a host.
func hostIs(name string, want v1alpha1.HostStatus) func() error {
	return func() error {
		var s v1alpha1.ComputeService
		if err := system.Client.Get(context.Background(), client.ObjectKey{Name: name}, &s); err != nil {
			return err
		}
		if got := s.Status.HostStatus; got == nil || *got != want {
			return fmt.Errorf("%s is %s, want %s", name, fleet.Show(got), want)
		}
		return nil
	}
}

// patch merges something into a ComputeService, also when the test has ended.
func patch(t *testing.T, host, body string) {
	t.Helper()
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}}
	expect.NoError(t, system.Client.Patch(context.WithoutCancel(t.Context()), service, client.RawPatch(types.MergePatchType, []byte(body))))
}
