// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

func unmarshal(raw []byte, into any) error { return json.Unmarshal(raw, into) }

// fleetManifest has a server on each node.
const fleetManifest = `
apiVersion: compute.hoststatus.dev/v1alpha1
kind: Server
metadata: {name: web-%[1]d, namespace: team-a}
spec: {host: node-%[1]d}
---
`

// What happens on a cluster from the first installation to the last trace of it. Each
// step needs those before it.
func TestHoststatusLivesOnRealNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what needs a control plane")
	}
	w, life := newWorld(t), t
	var tenant *owner
	for _, step := range []struct {
		name string
		run  func(t *testing.T)
		long bool
	}{
		{"Helm installs it under the pod security standard restricted", func(t *testing.T) { w.install(t) }, false},
		{"API server and pods reach each other through Services", func(t *testing.T) { w.services(t) }, false},
		{"helm test passes", func(t *testing.T) { w.helm(t, "install.md", "test") }, false},
		{"a tenant sees the status of the host and not the host", func(t *testing.T) { tenant = w.tenant(t, life) }, false},
		{"an agent speaks for its own node only", func(t *testing.T) { w.agents(t) }, false},
		{"a silent kubelet makes its node UNKNOWN", func(t *testing.T) { w.silence(t, tenant) }, true},
		{"a node that is cut off takes nothing with it", func(t *testing.T) { w.cutOff(t, tenant) }, true},
		{"an upgrade and a rollback interrupt nothing", func(t *testing.T) { w.upgrade(t, tenant) }, true},
		{"it is uninstalled, and nothing is stuck", func(t *testing.T) { w.uninstall(t) }, false},
		{"a namespace that was deleted first is cured by the page", func(t *testing.T) { w.wrongOrder(t) }, true},
	} {
		if step.long && !*all {
			continue
		}
		if !t.Run(step.name, step.run) {
			t.FailNow()
		}
	}
}

func (w *world) install(t *testing.T) {
	for _, n := range w.nodes {
		n.load(t, tag)
	}
	w.kubectl(t, "create", "namespace", namespace)
	w.page(t, "install.md", "$ kubectl label namespace hoststatus-system pod-security")
	w.helm(t, "install.md", "install", "--set=image.tag="+tag+",agent.enabled=true,nodeMirror.enabled=true")
	w.allApart(t)
	w.page(t, "install.md", "$ kubectl rollout status deployment/hoststatus-manager")
	for _, name := range []string{"manager", "tenant-apiserver"} {
		// Nine tenths of the chart's 512 MiB.
		if log, want := w.kubectl(t, "logs", "-n", namespace, "deployment/hoststatus-"+name), `"memoryLimit":483183820`; !strings.Contains(log, want) {
			t.Errorf("%s does not know the memory of its container, %s:\n%s", name, want, log)
		}
	}
	t.Logf("\n%s", w.kubectl(t, "get", "pods", "-n", namespace, "-o", "wide"))
}

func (w *world) services(t *testing.T) {
	w.kubectl(t, "wait", "--for=condition=Available", "apiservice/v1alpha1.tenant.hoststatus.dev", "--timeout=1m")
	// The mirror has made a ComputeService for each node, whose kubelet reports.
	for _, n := range w.nodes {
		expect.Eventually(t, patience, w.hostIs(n.name, v1alpha1.HostStatusUp))
	}
	// Only the webhook refuses this: it knows of the server.
	w.kubectl(t, "create", "namespace", "protected")
	w.apply(t, `{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"Server","metadata":{"name":"vm","namespace":"protected"},"spec":{"host":"node-1"}}`)
	w.kubectl(t, "annotate", "computeservice", "node-1", "compute.hoststatus.dev/deletion-protection=true")
	expect.Eventually(t, patience, func() error {
		out, err := w.Kubectl(t.Context(), w.kubeconfig, "delete", "computeservice", "node-1", "--dry-run=server").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "deletion-protection") {
			return fmt.Errorf("the webhook does not protect node-1:\n%s", out)
		}
		t.Logf("$ kubectl delete computeservice node-1 --dry-run=server\n%s", out)
		return nil
	})
	w.kubectl(t, "annotate", "computeservice", "node-1", "compute.hoststatus.dev/deletion-protection-")
	w.kubectl(t, "delete", "namespace", "protected")
}

func (w *world) apply(t *testing.T, manifest string) {
	t.Helper()
	cmd := w.Kubectl(t.Context(), w.kubeconfig, "apply", "--server-side", "--filename=-")
	cmd.Stdin = strings.NewReader(manifest)
	w.must(t, cmd)
}

func (w *world) hostIs(name string, want v1alpha1.HostStatus) func() error {
	return func() error {
		host := &v1alpha1.ComputeService{}
		err := w.client.Get(context.Background(), client.ObjectKey{Name: name}, host)
		if err == nil && ptr.Deref(host.Status.HostStatus, "") != want {
			err = fmt.Errorf("host %s is %s, not %s", name, ptr.Deref(host.Status.HostStatus, ""), want)
		}
		return err
	}
}

// tenant makes a team with a server on each node, and an owner who reads them until life ends.
func (w *world) tenant(t, life *testing.T) *owner {
	config := w.granted(t)
	var manifests strings.Builder
	for i := range w.nodes {
		fmt.Fprintf(&manifests, fleetManifest, i+1)
	}
	w.apply(t, manifests.String())
	kubeconfig := w.Dir + "/owner.kubeconfig"
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, config))
	o := newOwner(life, config)
	for i := range w.nodes {
		expect.Eventually(t, patience, o.sees(fmt.Sprintf("web-%d", i+1), "UP"))
	}
	out := w.must(t, w.Kubectl(t.Context(), kubeconfig, "get", "servers", "-n", team))
	t.Logf("$ kubectl get servers -n team-a\n%s", out)
	everything := w.must(t, w.Kubectl(t.Context(), kubeconfig, "get", "servers", "-n", team, "-o", "yaml"))
	if strings.Contains(out+everything, "node-") {
		t.Errorf("the tenant sees the name of a host:\n%s", everything)
	}
	if out, err := w.Kubectl(t.Context(), kubeconfig, "get", "computeservices").CombinedOutput(); err == nil {
		t.Errorf("the tenant may list hosts:\n%s", out)
	}
	return o
}

// agents checks what an agent's pod may do: its node's name is in its token, by the kubelet
// that it runs under.
func (w *world) agents(t *testing.T) {
	pods, err := w.pods("agent")
	expect.NoError(t, err)
	for _, pod := range pods {
		on := pod.Spec.NodeName
		expect.Eventually(t, patience, func() error {
			lease, err := w.lease("hoststatus-leases", on)
			if err == nil && (lease.Spec.RenewTime == nil || time.Since(lease.Spec.RenewTime.Time) > time.Minute) {
				err = fmt.Errorf("the agent on %s does not renew", on)
			}
			return err
		})
		config := w.as(t, "hoststatus-agent", "-n", namespace, "--bound-object-kind=Pod", "--bound-object-name="+pod.Name, "--bound-object-uid="+string(pod.UID))
		kube, err := kubernetes.NewForConfig(config)
		expect.NoError(t, err)
		for _, n := range w.nodes {
			lease, err := w.lease("hoststatus-leases", n.name)
			expect.NoError(t, err)
			lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
			_, err = kube.CoordinationV1().Leases("hoststatus-leases").Update(t.Context(), lease, metav1.UpdateOptions{})
			switch {
			case n.name == on && err != nil && !apierrors.IsConflict(err): // The agent itself was faster.
				t.Errorf("the agent on %s cannot renew its Lease: %v", on, err)
			case n.name != on && !apierrors.IsForbidden(err):
				t.Errorf("the agent on %s renews the Lease of %s: %v", on, n.name, err)
			case n.name != on:
				t.Logf("the agent on %s renews the Lease of %s: %v", on, n.name, err)
			}
		}
	}
}

// silence stops a kubelet, as one that hangs, and compares how long it takes until the
// silence is known with the time that Kubernetes itself takes.
func (w *world) silence(t *testing.T, tenant *owner) {
	n := w.nodes[1]
	expect.NoError(t, n.kubelet.Signal(syscall.SIGSTOP))
	lease, err := w.lease("kube-node-lease", n.name)
	expect.NoError(t, err)
	last := lease.Spec.RenewTime.Time
	known := map[string]time.Duration{}
	wait := func(what string, from time.Time, check func() error) {
		t.Helper()
		expect.Eventually(t, patience, check)
		known[what] = time.Since(from)
		t.Logf("%s: %.1f s after %s", what, known[what].Seconds(), from.Format(time.TimeOnly))
	}
	wait("the host is UNKNOWN", last, w.hostIs(n.name, v1alpha1.HostStatusUnknown))
	wait("the owner sees UNKNOWN", last, tenant.sees("web-2", "UNKNOWN"))
	wait("Kubernetes' node is not ready", last, func() error { return w.nodeIs(n.name, corev1.ConditionUnknown) })
	if known["the host is UNKNOWN"] > known["Kubernetes' node is not ready"] {
		t.Error("Kubernetes was faster")
	}
	expect.NoError(t, n.kubelet.Signal(syscall.SIGCONT))
	back := time.Now()
	wait("the host is UP again", back, w.hostIs(n.name, v1alpha1.HostStatusUp))
	wait("the owner sees UP again", back, tenant.sees("web-2", "UP"))
	wait("Kubernetes' node is ready again", back, func() error { return w.nodeIs(n.name, corev1.ConditionTrue) })
	// Pods that Kubernetes has begun to move.
	w.allApart(t)
}

// cutOff takes the cable out of the node that the leader is on.
func (w *world) cutOff(t *testing.T, tenant *owner) {
	n := w.nodes[1]
	w.moveLeader(t, n)
	w.servedBeside(t)
	tenant.reset()
	n.cut(t)
	begin := time.Now()
	expect.Eventually(t, patience, func() error { return w.leads(w.nodes[0].name) })
	t.Logf("the leader is on the other node %.1f s after the cut", time.Since(begin).Seconds())
	expect.Eventually(t, patience, w.hostIs(n.name, v1alpha1.HostStatusUnknown))
	t.Logf("the host is UNKNOWN %.1f s after the cut", time.Since(begin).Seconds())
	expect.Eventually(t, patience, func() error { return w.nodeIs(n.name, corev1.ConditionUnknown) })
	t.Logf("Kubernetes' node is not ready %.1f s after the cut; %v", time.Since(begin).Seconds(), tenant.since())
	expect.Eventually(t, patience, tenant.sees("web-2", "UNKNOWN"))
	if r := tenant.since(); r.longest > cutOffLimit {
		t.Errorf("%v; the limit is %v", r, cutOffLimit)
	}
	if err := w.hostIs(w.nodes[0].name, v1alpha1.HostStatusUp)(); err != nil {
		t.Error(err)
	}
	n.plug(t)
	back := time.Now()
	expect.Eventually(t, patience, w.hostIs(n.name, v1alpha1.HostStatusUp))
	t.Logf("the host is UP %.1f s after the cable was back", time.Since(back).Seconds())
	expect.Eventually(t, patience, func() error { return w.nodeIs(n.name, corev1.ConditionTrue) })
	w.allApart(t)
	t.Logf("all pods are ready %.1f s after the cable was back; %v", time.Since(back).Seconds(), tenant.since())
}

// moveLeader lets leaders end until one is on a node. Who follows is open: the standby on the
// other node, or the pod that replaces the one that has ended.
func (w *world) moveLeader(t *testing.T, n *node) {
	t.Helper()
	for range 10 {
		pod, err := w.leader()
		expect.NoError(t, err)
		if pod.Spec.NodeName == n.name {
			return
		}
		w.kubectl(t, "delete", "pod", pod.Name, "-n", namespace)
		expect.Eventually(t, patience, func() error {
			now, err := w.leader()
			if err == nil && now.Name == pod.Name {
				err = fmt.Errorf("%s leads", pod.Name)
			}
			return err
		})
		w.allApart(t)
	}
	t.Fatalf("none of 10 leaders was on %s", n.name)
}

// servedBeside waits until kube-apiserver has no connection for the owners' view but with the
// replica on its own node, also if another one has served it meanwhile, as in a rollout.
func (w *world) servedBeside(t *testing.T) {
	t.Helper()
	var other string
	pods, err := w.pods("tenant-apiserver")
	expect.NoError(t, err)
	for _, pod := range pods {
		if pod.Spec.NodeName == w.nodes[0].name {
			w.kubectl(t, "delete", "pod", pod.Name, "-n", namespace)
		} else {
			other = pod.Status.PodIP
		}
	}
	begin := time.Now()
	expect.Eventually(t, patience, func() error {
		if flows := w.flows(t, other); flows == "" {
			return errors.New("the other replica does not serve")
		}
		return nil
	})
	w.allApart(t)
	expect.Eventually(t, patience, func() error {
		if flows := w.flows(t, other); flows != "" {
			return fmt.Errorf("the replica on another node is still asked:\n%s", flows)
		}
		return nil
	})
	t.Logf("kube-apiserver asks the replica on its node again after %.1f s", time.Since(begin).Seconds())
}

// flows lists the connections from kube-apiserver to a pod.
func (w *world) flows(t *testing.T, pod string) string {
	t.Helper()
	return w.nodes[0].run(t, "bash", "-c", "conntrack -L -p tcp --state ESTABLISHED --src "+nodeAddress(0)+" --reply-src "+pod+" 2>/dev/null")
}

// cutOffLimit is how long an owner may be without an answer while a node is cut off.
const cutOffLimit = 5 * time.Second

func (w *world) upgrade(t *testing.T, tenant *owner) {
	for _, n := range w.nodes {
		n.load(t, nextTag)
	}
	changed := map[string]*metav1.Time{}
	for _, n := range w.nodes {
		host := &v1alpha1.ComputeService{}
		expect.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Name: n.name}, host))
		changed[n.name] = host.Status.HostStatusTransitionTime
	}
	for _, step := range []struct{ command, tag string }{{"upgrade", nextTag}, {"rollback", tag}} {
		tenant.reset()
		w.helm(t, "upgrade.md", step.command)
		for _, name := range []string{"manager", "tenant-apiserver"} {
			w.kubectl(t, "rollout", "status", "deployment/hoststatus-"+name, "-n", namespace, "--timeout=3m")
		}
		w.kubectl(t, "rollout", "status", "daemonset/hoststatus-agent", "-n", namespace, "--timeout=3m")
		w.allApart(t)
		for _, component := range []string{"manager", "tenant-apiserver", "agent"} {
			pods, err := w.pods(component)
			expect.NoError(t, err)
			for _, pod := range pods {
				if !strings.HasSuffix(pod.Spec.Containers[0].Image, ":"+step.tag) {
					t.Errorf("after the %s pod %s has image %s", step.command, pod.Name, pod.Spec.Containers[0].Image)
				}
			}
		}
		expect.Eventually(t, patience, func() error { _, err := w.leader(); return err })
		r := tenant.since()
		t.Logf("during the %s %v", step.command, r)
		if r.failed > 0 {
			t.Errorf("during the %s %v", step.command, r)
		}
		w.helm(t, "install.md", "test")
	}
	for _, n := range w.nodes {
		host := &v1alpha1.ComputeService{}
		expect.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Name: n.name}, host))
		if before := changed[n.name]; !host.Status.HostStatusTransitionTime.Equal(before) {
			t.Errorf("the host status of %s has changed at %v", n.name, host.Status.HostStatusTransitionTime)
		}
	}
}

func (w *world) uninstall(t *testing.T) {
	w.helm(t, "upgrade.md", "uninstall")
	w.gone(t)
	// Namespaces can be deleted, and what was kept is there.
	w.kubectl(t, "create", "namespace", "short-lived")
	w.kubectl(t, "delete", "namespace", "short-lived", "--timeout=30s")
	w.kubectl(t, "get", "computeservice", "node-1", "node-2")
	w.page(t, "upgrade.md", "$ kubectl delete namespace hoststatus-system")
	w.page(t, "upgrade.md", "$ kubectl delete lease hoststatus-canary ")
}

// gone checks that no process of the release runs, and nothing leads to one.
func (w *world) gone(t *testing.T) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		list, err := w.kube.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d pods are left", len(list.Items))
		}
		return err
	})
	for _, kind := range []string{"apiservice/v1alpha1.tenant.hoststatus.dev", "validatingwebhookconfiguration/hoststatus-webhook"} {
		if out := w.kubectl(t, "get", kind, "--ignore-not-found", "-o", "name"); out != "" {
			t.Errorf("%s is left", out)
		}
	}
}

func (w *world) wrongOrder(t *testing.T) {
	w.kubectl(t, "create", "namespace", namespace)
	w.page(t, "install.md", "$ kubectl label namespace hoststatus-system pod-security")
	w.helm(t, "install.md", "install", "--set=image.tag="+tag)
	w.kubectl(t, "delete", "namespace", namespace, "--wait=false")
	expect.Eventually(t, patience, func() error {
		list, err := w.kube.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = errors.New("there are still pods")
		}
		return err
	})
	w.page(t, "upgrade.md", "$ kubectl delete apiservice v1alpha1.tenant.hoststatus.dev\n$ kubectl wait ")
	w.helm(t, "upgrade.md", "install")
	w.helm(t, "upgrade.md", "uninstall")
	w.gone(t)
	w.kubectl(t, "delete", "namespace", namespace, "--timeout=2m")
	w.kubectl(t, "create", "namespace", "short-lived")
	w.kubectl(t, "delete", "namespace", "short-lived", "--timeout=30s")
}
