// SPDX-License-Identifier: Apache-2.0

// Package nodemirror shows that Nodes become hosts, on a real control plane with the
// real manager under its shipped roles. The kubelets' Leases are renewed by the
// agent's code, in their place.
package nodemirror

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/lease"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// patience is how long something may take that is not timed.
const patience = 30 * time.Second

// Which Nodes the manager under test mirrors.
const (
	selectedBy = "hypervisor"
	selector   = selectedBy + "=true"
)

var (
	system *fleet.Fleet
	kube   *kubernetes.Clientset
)

// release is the kube-apiserver that all this runs on: a folder of hack/deps.
var release = flag.String("release", string(controlplane.Main), "kube-apiserver to use: controlplane, controlplane-oldest or controlplane-newest")

func TestMain(m *testing.M) { os.Exit(fleet.RunTests(m, "nodemirror", start)) }

// start installs the system, gives the mirror its rights and starts the manager.
func start(ctx context.Context, dir string) (_ *fleet.Fleet, err error) {
	system, err = fleet.Install(ctx, fleet.Options{Dir: filepath.Join(dir, "fleet"), Kubernetes: controlplane.Release(*release), Log: os.Stdout})
	if err != nil {
		return nil, err
	}
	config, err := system.Cluster.AdminConfig()
	if err != nil {
		return system, err
	}
	if kube, err = kubernetes.NewForConfig(config); err != nil {
		return system, err
	}
	if err := giveRights(ctx); err != nil {
		return system, err
	}
	system.ManagerArgs = []string{"--mirror-nodes", "--mirror-nodes-selector=" + selector, "--write-node-conditions",
		"--webhook-bind-address=" + net.JoinHostPort("127.0.0.1", system.WebhookPort)}
	system.Manager, _, err = system.StartManager("manager")
	return system, err
}

// giveRights applies what the mirror needs, as its page says.
func giveRights(ctx context.Context) error {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	for _, part := range []string{"node-mirror", "node-conditions"} {
		if err := system.Apply(ctx, filepath.Join(root, "config", part)); err != nil {
			return err
		}
	}
	return nil
}

// restart stops the manager, does what is to happen meanwhile, and starts it again.
func restart(t *testing.T, meanwhile func()) {
	t.Helper()
	system.Manager.Stop()
	meanwhile()
	expect.NoError(t, system.Manager.Start())
}

// kubectl runs kubectl as administrator.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := system.Kubectl(t.Context(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newNode makes a Node that is selected, as a kubelet would register it. It and its
// ComputeService are gone after the test.
func newNode(t *testing.T, name string, modify ...func(*corev1.Node)) *corev1.Node {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{selectedBy: "true"}}}
	for _, m := range modify {
		m(node)
	}
	node, err := kube.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	expect.NoError(t, err)
	t.Cleanup(func() {
		deleteNode(t, name)
		err := system.Client.Delete(context.Background(), &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if err := client.IgnoreNotFound(err); err != nil {
			t.Error(err)
		}
	})
	return node
}

func deleteNode(t *testing.T, name string) {
	t.Helper()
	if err := client.IgnoreNotFound(kube.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{})); err != nil {
		t.Error(err)
	}
}

// newKubelet renews a Node's Lease until it is told to fall silent.
func newKubelet(t *testing.T, name string) (silence func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	beat := lease.Heartbeat{
		Leases: kube.CoordinationV1().Leases(corev1.NamespaceNodeLease), Name: name,
		Duration: 4 * time.Second, Interval: time.Second, Clock: clock.RealClock{}, Logger: klog.Background(),
	}
	go func() {
		defer close(done)
		beat.Run(ctx)
	}()
	silence = func() { cancel(); <-done }
	t.Cleanup(silence)
	return silence
}

// newKubeletOf renews the Lease of a Node as its kubelet does, with the Node for its
// owner, and makes it again when the garbage collector has taken it.
func newKubeletOf(t *testing.T, node *corev1.Node) (silence func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	leases := kube.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node.Name, LeaseDurationSeconds: ptr.To[int32](4)},
	}
	go func() {
		defer close(done)
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
			patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, lease.Spec.RenewTime.UTC().Format(metav1.RFC3339Micro))
			if _, err := leases.Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}); apierrors.IsNotFound(err) {
				_, _ = leases.Create(ctx, lease, metav1.CreateOptions{})
			}
		}, 500*time.Millisecond)
	}()
	silence = func() {
		cancel()
		<-done
		if err := client.IgnoreNotFound(leases.Delete(context.Background(), node.Name, metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(silence)
	return silence
}

// newServer makes a Server that is deleted after the test.
func newServer(t *testing.T, name, host string) *v1alpha1.Server {
	t.Helper()
	server := &v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name},
		Spec:       v1alpha1.ServerSpec{Host: host},
	}
	expect.NoError(t, system.Client.Create(t.Context(), server))
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(system.Client.Delete(context.Background(), server)); err != nil {
			t.Error(err)
		}
	})
	return server
}

func get(name string) (*v1alpha1.ComputeService, error) {
	service := &v1alpha1.ComputeService{}
	return service, system.Client.Get(context.Background(), client.ObjectKey{Name: name}, service)
}

// is checks the host status of a ComputeService.
func is(name string, want v1alpha1.HostStatus) func() error {
	return func() error {
		service, err := get(name)
		if err == nil && (service.Status.HostStatus == nil || *service.Status.HostStatus != want) {
			err = fmt.Errorf("%s has host status %s (%s), not %q", name, fleet.Show(service.Status.HostStatus), service.Status.HostStatusReason, want)
		}
		return err
	}
}

// says checks the flags of a ComputeService; "" is an absent one.
func says(name, disabled, disabledReason, forcedDown, forcedDownReason string) func() error {
	return func() error {
		service, err := get(name)
		if err != nil {
			return err
		}
		text := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		flag := func(b *bool) string {
			if b == nil {
				return ""
			}
			return fmt.Sprint(*b)
		}
		s := service.Spec
		got := [...]string{flag(s.Disabled), text(s.DisabledReason), flag(s.ForcedDown), text(s.ForcedDownReason)}
		if want := [...]string{disabled, disabledReason, forcedDown, forcedDownReason}; got != want {
			return fmt.Errorf("%s says %q, not %q", name, got, want)
		}
		return nil
	}
}

// gone checks that there is no ComputeService of that name, or another one.
func gone(name string, old *v1alpha1.ComputeService) func() error {
	return func() error {
		service, err := get(name)
		if client.IgnoreNotFound(err) == nil && err != nil {
			return nil
		}
		if err == nil && service.UID == old.UID {
			err = errors.New(name + " is still there")
		}
		return err
	}
}

// exists checks that there is a ComputeService of that name.
func exists(name string) func() error {
	return func() error {
		_, err := get(name)
		return err
	}
}

// settled waits until the mirror has looked at everything that came before: it has
// mirrored a Node that comes now, and queues are in order for a worker, so twice.
func settled(t *testing.T) {
	t.Helper()
	for i := range 3 {
		name := fmt.Sprintf("settled-%d-%d", time.Now().UnixNano(), i)
		newNode(t, name)
		expect.Eventually(t, patience, exists(name))
	}
}

// logged counts the lines of the manager's log that have all of these words.
func logged(t *testing.T, words ...string) (n int) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(system.Dir, "manager.log"))
	expect.NoError(t, err)
	for line := range strings.Lines(string(log)) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			n++
		}
	}
	return n
}
