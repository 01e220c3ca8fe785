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
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/kubectlplugin"
)

// patience is how long something may take that is not timed.
const patience = 30 * time.Second

// env is what the tests share: a control plane with a manager and the owners' view.
var env kubectlplugin.World

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	os.Exit(env.Main(m, start, "kubectl-servers", "manager", "tenant-apiserver"))
}

func start(ctx context.Context) error {
	if err := env.Install(ctx); err != nil {
		return err
	}
	if _, err := env.StartManager(); err != nil {
		return err
	}
	return env.StartView(ctx)
}

// owner is somebody with some ClusterRoles in a namespace, and no other right.
type owner struct{ namespace, kubeconfig string }

func newOwner(t *testing.T, user, namespace string, roles ...string) *owner {
	t.Helper()
	err := env.Admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	return &owner{namespace, env.As(t, user, namespace, roles...)}
}

// run runs the plugin through kubectl, and returns its exit code.
func (o *owner) run(ctx context.Context, t *testing.T, args ...string) (out, complaints string, code int) {
	t.Helper()
	var printed, complained bytes.Buffer
	cmd := env.Kubectl(ctx, o.kubeconfig, append([]string{"servers"}, append(args, "--namespace="+o.namespace)...)...)
	cmd.Stdout, cmd.Stderr = &printed, &complained
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return printed.String(), complained.String(), cmd.ProcessState.ExitCode()
}

// host makes a host that reports, with a window or none.
func host(t *testing.T, name string, window *v1alpha1.MaintenanceWindow) *v1alpha1.ComputeService {
	t.Helper()
	service := &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ComputeServiceSpec{LeaseDurationSeconds: v1alpha1.MaxLeaseDurationSeconds, MaintenanceWindow: window},
	}
	env.Create(t, service)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: name},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: time.Now()}, LeaseDurationSeconds: ptr.To[int32](3600)},
	}
	env.Create(t, lease)
	expect.Eventually(t, patience, func() error {
		lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
		if err := env.Admin.Update(t.Context(), lease); err != nil {
			return err
		}
		if err := env.Admin.Get(t.Context(), client.ObjectKeyFromObject(service), service); err != nil {
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
	env.Create(t, s)
	expect.Eventually(t, patience, func() error {
		if err := env.Admin.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
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
