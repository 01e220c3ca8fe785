// SPDX-License-Identifier: Apache-2.0

// Package vmimirror shows that VirtualMachineInstances become Servers, on a real control
// plane with KubeVirt's CustomResourceDefinition and the real manager under its shipped
// roles. No KubeVirt runs here: the tests write what its components would.
package vmimirror

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/vmimirror"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// patience is how long something may take that is not timed. The garbage collector learns
// of a new kind after half a minute.
const patience = 90 * time.Second

// selector says which VirtualMachineInstances the manager under test mirrors.
const selector = "mirrored!=no"

var (
	system *fleet.Fleet
	kube   *kubernetes.Clientset
)

func TestMain(m *testing.M) { os.Exit(fleet.RunTests(m, "vmimirror", start)) }

// start installs the system, gives the mirrors their rights and starts the manager, before
// there is any KubeVirt.
func start(ctx context.Context, dir string) (_ *fleet.Fleet, err error) {
	system, err = fleet.Install(ctx, fleet.Options{Dir: filepath.Join(dir, "fleet"), Log: os.Stdout})
	if err != nil {
		return nil, err
	}
	config, err := system.Cluster.AdminConfig()
	if err != nil {
		return system, err
	}
	config.QPS = -1
	if kube, err = kubernetes.NewForConfig(config); err != nil {
		return system, err
	}
	for _, part := range []string{"node-mirror", "vmi-mirror"} {
		if err := giveRights(ctx, part); err != nil {
			return system, err
		}
	}
	system.ManagerArgs = []string{"--mirror-nodes", "--mirror-virtualmachineinstances", "--mirror-virtualmachineinstances-selector=" + selector,
		"--webhook-bind-address=" + net.JoinHostPort("127.0.0.1", system.WebhookPort)}
	system.Manager, _, err = system.StartManager("manager")
	return system, err
}

// giveRights applies a part of config.
func giveRights(ctx context.Context, part string) error {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	return system.Apply(ctx, filepath.Join(root, "config", part))
}

var installed sync.Once

// kubevirt installs KubeVirt's CustomResourceDefinition, once, and waits until it is served.
func kubevirt(t *testing.T) {
	t.Helper()
	installed.Do(func() {
		kubectl(t, "apply", "--server-side", "--filename=testdata/virtualmachineinstances.yaml")
		// `kubectl wait` fails as long as there are no conditions at all.
		expect.Eventually(t, patience, func() error {
			return system.Kubectl(t.Context(), "wait", "crd/virtualmachineinstances.kubevirt.io", "--for=condition=Established", "--timeout=30s").Run()
		})
	})
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
	out, err := system.Kubectl(context.WithoutCancel(t.Context()), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newNamespace makes a namespace, which is gone with everything in it some time after the
// test.
func newNamespace(t *testing.T, name string) string {
	t.Helper()
	kubevirt(t)
	_, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	expect.NoError(t, err)
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(kube.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	})
	return name
}

// vmi returns a VirtualMachineInstance of KubeVirt's own form, with a status as KubeVirt
// writes it: the kind has no subresource for it.
func vmi(namespace, name, status string) *unstructured.Unstructured {
	v := &unstructured.Unstructured{Object: map[string]any{
		"spec":   map[string]any{"domain": map[string]any{"devices": map[string]any{}}},
		"status": decoded(status),
	}}
	v.SetGroupVersionKind(vmimirror.GroupVersion.WithKind(vmimirror.Kind))
	v.SetNamespace(namespace)
	v.SetName(name)
	return v
}

func decoded(text string) map[string]any {
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	return out
}

// newVMI creates one with these labels.
func newVMI(t *testing.T, namespace, name, status string, labels map[string]string) *unstructured.Unstructured {
	t.Helper()
	v := vmi(namespace, name, status)
	v.SetLabels(labels)
	// The CustomResourceDefinition may be established before it is served.
	expect.Eventually(t, patience, func() error { return system.Client.Create(t.Context(), v) })
	return v
}

// runningOn is the status of one that runs on a node.
func runningOn(node string) string {
	return fmt.Sprintf(`{"phase":"Running","nodeName":%q,"interfaces":[{"name":"default","ipAddress":"10.0.0.4","ipAddresses":["10.0.0.4","fd00::4"]}],
		"conditions":[{"type":"Ready","status":"True"},{"type":"LiveMigratable","status":"True"}]}`, node)
}

// merge changes a VirtualMachineInstance as KubeVirt would.
func merge(t *testing.T, namespace, name, body string) {
	t.Helper()
	expect.NoError(t, system.Client.Patch(t.Context(), vmi(namespace, name, `{}`), client.RawPatch(types.MergePatchType, []byte(body))))
}

func deleteVMI(t *testing.T, namespace, name string) {
	t.Helper()
	expect.NoError(t, system.Client.Delete(t.Context(), vmi(namespace, name, `{}`), client.PropagationPolicy(metav1.DeletePropagationBackground)))
}

// newHost makes a Node whose kubelet renews its Lease, and waits until it is UP.
func newHost(t *testing.T, name string) (silence func()) {
	t.Helper()
	node, err := kube.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	expect.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	expect.NoError(t, createLease(ctx, node, 10))
	go func() {
		defer close(done)
		wait.UntilWithContext(ctx, func(ctx context.Context) { _ = renewLease(ctx, name) }, time.Second)
	}()
	silence = func() { cancel(); <-done }
	t.Cleanup(func() {
		silence()
		if err := client.IgnoreNotFound(kube.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	})
	expect.Eventually(t, patience, func() error {
		service := &v1alpha1.ComputeService{}
		err := system.Client.Get(context.Background(), client.ObjectKey{Name: name}, service)
		if err == nil && ptr.Deref(service.Status.HostStatus, "") != v1alpha1.HostStatusUp {
			err = fmt.Errorf("%s has host status %s", name, fleet.Show(service.Status.HostStatus))
		}
		return err
	})
	return silence
}

// createLease makes the Lease of a Node, as its kubelet does.
func createLease(ctx context.Context, node *corev1.Node, seconds int32) error {
	_, err := kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node.Name, LeaseDurationSeconds: &seconds, RenewTime: &metav1.MicroTime{Time: time.Now()}},
	}, metav1.CreateOptions{})
	return err
}

func renewLease(ctx context.Context, node string) error {
	patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
	_, err := kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func get(namespace, name string) (*v1alpha1.Server, error) {
	server := &v1alpha1.Server{}
	return server, system.Client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, server)
}

// line is what a Server shows, in one line.
func line(s *v1alpha1.Server) string {
	var networks []string
	for _, n := range s.Status.Networks {
		networks = append(networks, n.Name+"="+strings.Join(n.Addresses, ","))
	}
	host := "(not derived)"
	if s.Status.HostStatus != nil {
		host = string(*s.Status.HostStatus)
	}
	return strings.Join([]string{s.Spec.Host, string(s.Status.State), string(s.Status.PowerState), s.Status.TaskState, strings.Join(networks, ";"), host}, "|")
}

// shows checks what a Server shows, as line has it.
func shows(namespace, name, want string) func() error {
	return func() error {
		server, err := get(namespace, name)
		if err == nil && line(server) != want {
			err = fmt.Errorf("%s shows %q, not %q", name, line(server), want)
		}
		return err
	}
}

// gone checks that there is no Server of that name.
func gone(namespace, name string) func() error {
	return func() error {
		_, err := get(namespace, name)
		if err == nil {
			return fmt.Errorf("%s is still there", name)
		}
		return client.IgnoreNotFound(err)
	}
}

// settled waits until the mirror has looked at everything that came before: it has
// mirrored what comes now, and queues are in order for a worker, so several times.
func settled(t *testing.T) {
	t.Helper()
	const namespace = "settled"
	if _, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for i := range settlers {
		name := fmt.Sprintf("settled-%d-%d", time.Now().UnixNano(), i)
		newVMI(t, namespace, name, `{"phase":"Failed"}`, nil)
		expect.Eventually(t, patience, shows(namespace, name, "|ERROR|CRASHED|||"))
	}
}

// settlers is how many VirtualMachineInstances settled makes.
const settlers = 3

// logged counts the lines of the manager's log that have all of these words.
func logged(t *testing.T, words ...string) int {
	t.Helper()
	return len(loggedLines(t, words...))
}

// loggedErrors returns the lines of the manager's log by which controllers report errors,
// and not those that a manager writes when it is stopped.
func loggedErrors(t *testing.T) []string {
	t.Helper()
	return loggedLines(t, "level=ERROR", "Reconciler error")
}

func loggedLines(t *testing.T, words ...string) (lines []string) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(system.Dir, "manager.log"))
	expect.NoError(t, err)
	for line := range strings.Lines(string(log)) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			lines = append(lines, line)
		}
	}
	return lines
}

// written counts the requests by which Servers and their status were written so far, by
// anybody and to any effect.
func written(t *testing.T) (n float64) {
	t.Helper()
	raw, err := kube.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	expect.NoError(t, err)
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "apiserver_request_total{") || !strings.Contains(line, `resource="servers"`) {
			continue
		}
		for _, verb := range []string{"POST", "PUT", "PATCH", "APPLY", "DELETE"} {
			if strings.Contains(line, `verb="`+verb+`"`) {
				var count float64
				_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &count)
				expect.NoError(t, err)
				n += count
			}
		}
	}
	return n
}

// cordonedNode is a Node that is a host in MAINTENANCE.
func cordonedNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Unschedulable: true}}
}

// cpuOf returns the CPU time that a process has used.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	expect.NoError(t, err)
	// The fields after the name, which ends with the last parenthesis: user time is the
	// 12th, system time the 13th, in hundredths of a second.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, sys int64
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &sys)
	expect.NoError(t, err)
	return time.Duration(user+sys) * 10 * time.Millisecond
}
