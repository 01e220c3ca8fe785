// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// The components of which a lost node must not take both replicas.
var spread = []string{"manager", "tenant-apiserver"}

// A real kube-scheduler places the pods of the real Deployments, on nodes that are there
// in name only. One of them has so much more to give that it is the better one for every
// pod, as long as nothing says that pods are to be apart.
func TestALostNodeTakesOneReplicaAtMost(t *testing.T) {
	c := newClusterWith(t, controlplane.Options{Pods: true})
	config, err := c.AdminConfig()
	expect.NoError(t, err)
	kube, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	p := &placement{cluster: c, kube: kube}
	p.node(t, "large", "64", "256Gi")
	p.node(t, "small", "2", "4Gi")
	p.runPods(t)
	c.helm(t, fromDocs(t, "install.md", "install", sources(t, "charts", "hoststatus"))...)
	p.rolledOut(t)

	t.Run("no node has a zone", func(t *testing.T) {
		for i := range 4 {
			if i > 0 {
				p.rollout(t)
			}
			p.apart(t, corev1.LabelHostname, "large", "small")
		}
	})
	t.Run("all nodes have one zone", func(t *testing.T) {
		p.label(t, "large", "zone-a")
		p.label(t, "small", "zone-a")
		p.rollout(t)
		p.apart(t, corev1.LabelHostname, "large", "small")
	})
	t.Run("there are two zones, and another large node in the first", func(t *testing.T) {
		p.node(t, "large-2", "64", "256Gi")
		p.label(t, "large-2", "zone-a")
		p.label(t, "small", "zone-b")
		for range 2 {
			p.rollout(t)
			p.apart(t, corev1.LabelTopologyZone, "zone-a", "zone-b")
		}
	})
	t.Run("one node is left, and has to do for all", func(t *testing.T) {
		for _, name := range []string{"large", "large-2"} {
			c.must(t, "cordon", name)
		}
		p.rollout(t)
		p.apart(t, corev1.LabelHostname, "small")
		for _, name := range []string{"large", "large-2"} {
			c.must(t, "uncordon", name)
		}
		p.rollout(t)
		p.apart(t, corev1.LabelTopologyZone, "zone-a", "zone-b")
	})
	t.Run("pods leave a lost node soon", func(t *testing.T) {
		for _, pod := range p.pods(t) {
			for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
				if got := tolerates(pod, taint); got > 30 {
					t.Errorf("pod %s stays for %d s where a node has the taint %s", pod.Name, got, taint)
				}
			}
		}
	})
}

// tolerates returns for how many seconds a pod stays on a node with a taint, as
// Kubernetes counts: by the first toleration that fits.
func tolerates(pod *corev1.Pod, taint string) int64 {
	for _, toleration := range pod.Spec.Tolerations {
		if toleration.Key == taint || toleration.Key == "" {
			return ptr.Deref(toleration.TolerationSeconds, 1<<62)
		}
	}
	return 0
}

// placement is a cluster in which pods are placed and not run.
type placement struct {
	*cluster
	kube kubernetes.Interface
}

// node makes a Node that is ready.
func (p *placement) node(t *testing.T, name, cpu, memory string) {
	t.Helper()
	nodes := p.kube.CoreV1().Nodes()
	node, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}, metav1.CreateOptions{})
	expect.NoError(t, err)
	// What a new node is tainted with until it is ready.
	node.Spec.Taints = nil
	node, err = nodes.Update(t.Context(), node, metav1.UpdateOptions{})
	expect.NoError(t, err)
	has := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("110")}
	node.Status.Capacity, node.Status.Allocatable = has, has
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Test"}}
	_, err = nodes.UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	expect.NoError(t, err)
}

func (p *placement) label(t *testing.T, node, zone string) {
	t.Helper()
	p.must(t, "label", "node", node, corev1.LabelTopologyZone+"="+zone, "--overwrite")
}

// runPods says of every pod that was placed that it is ready, and of every one that ends
// that it has ended, as kubelets would, until the test ends.
func (p *placement) runPods(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			pods, err := p.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
			if err != nil {
				return // The next round tries again.
			}
			for i := range pods.Items {
				p.attend(ctx, &pods.Items[i])
			}
		}, 100*time.Millisecond)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func (p *placement) attend(ctx context.Context, pod *corev1.Pod) {
	pods := p.kube.CoreV1().Pods(namespace)
	switch {
	case pod.Spec.NodeName == "":
	case pod.DeletionTimestamp != nil:
		_ = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	case pod.Status.Phase != corev1.PodRunning:
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
		_, _ = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	}
}

// rollout starts all pods anew.
func (p *placement) rollout(t *testing.T) {
	t.Helper()
	for _, component := range spread {
		// A template that differs, also where two rollouts fall into one second.
		p.must(t, "patch", "deployment", "hoststatus-"+component, "--namespace="+namespace, "--type=merge",
			fmt.Sprintf(`--patch={"spec":{"template":{"metadata":{"annotations":{"rollout":"%d"}}}}}`, time.Now().UnixNano()))
	}
	p.rolledOut(t)
}

func (p *placement) rolledOut(t *testing.T) {
	t.Helper()
	for _, component := range spread {
		p.must(t, "rollout", "status", "deployment/hoststatus-"+component, "--namespace="+namespace, "--timeout=2m")
	}
	expect.Eventually(t, patience, func() error {
		if pods := p.pods(t); len(pods) != 2*len(spread) {
			return fmt.Errorf("there are %d pods, not two of each of %v", len(pods), spread)
		}
		return nil
	})
}

func (p *placement) pods(t *testing.T) (pods []*corev1.Pod) {
	t.Helper()
	list, err := p.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	expect.NoError(t, err)
	for i := range list.Items {
		pods = append(pods, &list.Items[i])
	}
	return pods
}

// apart checks that the pods of each component are where they should be: one in each of
// the domains, by a label of nodes.
func (p *placement) apart(t *testing.T, label string, domains ...string) {
	t.Helper()
	got := map[string]map[string]int{}
	for _, pod := range p.pods(t) {
		node, err := p.kube.CoreV1().Nodes().Get(t.Context(), pod.Spec.NodeName, metav1.GetOptions{})
		expect.NoError(t, client.IgnoreNotFound(err))
		component := pod.Labels["app.kubernetes.io/component"]
		if got[component] == nil {
			got[component] = map[string]int{}
		}
		got[component][node.Labels[label]]++
	}
	for _, component := range spread {
		for _, domain := range domains {
			if got[component][domain] != 2/len(domains) {
				t.Errorf("the pods of %s are in %v; %d should be in %s", component, got[component], 2/len(domains), domain)
			}
		}
	}
	t.Logf("placed: %v", got)
}
