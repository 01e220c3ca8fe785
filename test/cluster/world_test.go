// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/docs"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
	"hoststatus.dev/hoststatus/test/framework/sandbox"
)

// patience is how long something may take that is not timed.
const patience = 3 * time.Minute

const (
	release   = "hoststatus"
	namespace = "hoststatus-system"
)

// world is a cluster with nodes and nothing of hoststatus on it.
type world struct {
	*controlplane.Cluster
	nodes      []*node
	kube       kubernetes.Interface
	client     client.WithWatch
	kubeconfig string
	root       string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if skipped != "" {
		t.Skip("NOT TESTED: hoststatus on real nodes. " + skipped)
	}
	begin := time.Now()
	newNetwork(t)
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	dir := sandbox.Folder()
	w := &world{root: root, kubeconfig: filepath.Join(dir, "admin.kubeconfig")}
	w.Cluster, err = controlplane.Start(t.Context(), controlplane.Options{
		Dir: filepath.Join(dir, "controlplane"), Log: t.Output(),
		Nodes: &controlplane.Nodes{Address: nodeAddress(0), Services: services, APIServerService: apiServerService},
	})
	expect.NoError(t, err)
	config, err := w.AdminConfig()
	expect.NoError(t, err)
	expect.NoError(t, controlplane.WriteKubeconfig(w.kubeconfig, config))
	w.client, err = fleet.NewClient(config)
	expect.NoError(t, err)
	w.kube, err = kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	w.kubectl(t, "create", "clusterrolebinding", "kube-proxy", "--clusterrole=system:node-proxier", "--user=system:kube-proxy")
	for i := range nodes {
		n := startNode(t, w.Cluster, i)
		n.load(t, "pause")
		w.nodes = append(w.nodes, n)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.describe(t)
		}
	})
	for _, n := range w.nodes {
		expect.Eventually(t, patience, func() error { return w.nodeIs(n.name, corev1.ConditionTrue) })
	}
	t.Logf("a cluster of %d nodes is ready after %.1f s:\n%s", nodes, time.Since(begin).Seconds(), w.kubectl(t, "get", "nodes", "-o", "wide"))
	return w
}

// describe prints what helps to find out why a test has failed.
func (w *world) describe(t *testing.T) {
	for _, args := range [][]string{
		{"get", "nodes,pods,computeservices,servers.compute.hoststatus.dev,apiservices", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
	} {
		out, err := w.Kubectl(context.Background(), w.kubeconfig, args...).CombinedOutput()
		t.Logf("kubectl %v: %v\n%s", args, err, out)
	}
	for _, n := range w.nodes {
		logs, err := filepath.Glob(filepath.Join(n.dir, "*.log"))
		if err != nil {
			t.Log(err)
		}
		for _, log := range logs {
			content, err := os.ReadFile(log)
			t.Logf("%s: %v\n%s", log, err, content[max(0, len(content)-3000):])
		}
	}
}

// kubectl runs kubectl as administrator and returns what it printed.
func (w *world) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return w.must(t, w.Kubectl(t.Context(), w.kubeconfig, args...))
}

func (w *world) must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, complaint.String())
	}
	return string(out)
}

// helm runs a command of Helm that a page has, and returns how long that took.
func (w *world) helm(t *testing.T, page, begin string, more ...string) time.Duration {
	t.Helper()
	args, err := docs.Helm(page, begin, filepath.Join(w.root, "charts", "hoststatus"))
	expect.NoError(t, err)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "image.tag=NEW", "image.tag="+nextTag)
	}
	args = append(args, more...)
	begun := time.Now()
	cmd := exec.CommandContext(t.Context(), filepath.Join(w.root, "bin", "helm"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.kubeconfig, "HOME="+w.Dir)
	out := w.must(t, cmd)
	took := time.Since(begun)
	t.Logf("$ helm %s\n%s(%.1f s)", strings.Join(args, " "), out, took.Seconds())
	return took
}

// page runs the commands of kubectl of a block of a page.
func (w *world) page(t *testing.T, page, begin string) {
	t.Helper()
	script, err := docs.Kubectl(page, begin)
	expect.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "bash", "-ec", script)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.kubeconfig, "HOME="+w.Dir, "PATH="+filepath.Dir(w.KubectlPath())+":"+os.Getenv("PATH"))
	t.Logf("$ %s%s", script, w.must(t, cmd))
}

// nodeIs checks what Kubernetes reports of a node: whether it is ready.
func (w *world) nodeIs(name string, want corev1.ConditionStatus) error {
	got, err := w.kube.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range got.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == want {
			return nil
		}
	}
	return fmt.Errorf("node %s is not Ready=%s: %v", name, want, got.Status.Conditions)
}

// ready checks that all of the release's pods of a component run on different nodes.
func (w *world) pods(component string) ([]corev1.Pod, error) {
	list, err := w.kube.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// apart checks that a component has one pod that is ready on each node.
func (w *world) apart(component string) error {
	pods, err := w.pods(component)
	if err != nil {
		return err
	}
	ready := map[string]int{}
	for _, pod := range pods {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
				ready[pod.Spec.NodeName]++
			}
		}
	}
	for _, n := range w.nodes {
		if ready[n.name] != 1 || len(pods) != nodes {
			return fmt.Errorf("of %d pods of %s so many are ready, by node: %v", len(pods), component, ready)
		}
	}
	return nil
}

// allApart waits until every component has one ready pod on each node.
func (w *world) allApart(t *testing.T) {
	t.Helper()
	for _, component := range []string{"manager", "tenant-apiserver", "agent"} {
		expect.Eventually(t, patience, func() error { return w.apart(component) })
	}
}

func (w *world) lease(in, name string) (*coordinationv1.Lease, error) {
	return w.kube.CoordinationV1().Leases(in).Get(context.Background(), name, metav1.GetOptions{})
}

// leader returns the pod that leads.
func (w *world) leader() (*corev1.Pod, error) {
	lease, err := w.lease(namespace, "hoststatus-manager")
	if err != nil {
		return nil, err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return nil, fmt.Errorf("nobody leads")
	}
	pods, err := w.pods("manager")
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if strings.HasPrefix(*lease.Spec.HolderIdentity, pods[i].Name+"_") || *lease.Spec.HolderIdentity == pods[i].Name {
			return &pods[i], nil
		}
	}
	return nil, fmt.Errorf("%s leads, which is no pod", *lease.Spec.HolderIdentity)
}

// leads checks that the leader is on a node.
func (w *world) leads(node string) error {
	pod, err := w.leader()
	if err == nil && pod.Spec.NodeName != node {
		err = fmt.Errorf("the leader %s is on %s, not on %s", pod.Name, pod.Spec.NodeName, node)
	}
	return err
}

// as returns a configuration with the rights of a service account's token.
func (w *world) as(t *testing.T, args ...string) *rest.Config {
	t.Helper()
	config, err := w.AdminConfig()
	expect.NoError(t, err)
	config.CertData, config.KeyData = nil, nil
	config.BearerToken = strings.TrimSpace(w.kubectl(t, append([]string{"create", "token"}, args...)...))
	return config
}
