// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// byHelm installs the chart, and runs the pods of its Deployments and of its DaemonSet.
type byHelm struct {
	chart     string
	kube      kubernetes.Interface
	installed bool
}

// Install implements fleet.Installation. Pods have to keep to the strictest of the
// pod security standards.
func (h *byHelm) Install(ctx context.Context, f *fleet.Fleet, webhookPort, tenantAPIPort string) error {
	config, err := f.Cluster.AdminConfig()
	if err != nil {
		return err
	}
	if h.kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	for _, needed := range []string{"kube-system", "kube-node-lease"} {
		if _, err := h.kube.CoreV1().Namespaces().Get(ctx, needed, metav1.GetOptions{}); err != nil {
			return err
		}
	}
	_, err = h.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if !h.installed {
		if _, err := run(ctx, f.AdminKubeconfig, "helm", "install", release, h.chart, "--namespace="+namespace, "--no-hooks", registry,
			"--set=nodeMirror.enabled=true,nodeMirror.selector=hypervisor=true",
			"--set=agent.enabled=true,agent.leaseDuration="+f.LeaseDuration.String()+",agent.renewInterval="+f.RenewInterval.String()); err != nil {
			return err
		}
		h.installed = true
	}
	return toLocalhost(ctx, f, webhookPort, tenantAPIPort)
}

// toLocalhost turns what leads to pods to ports of this machine.
func toLocalhost(ctx context.Context, f *fleet.Fleet, webhookPort, tenantAPIPort string) error {
	service := func(port string) string {
		return `{"spec":{"type":"ExternalName","externalName":"localhost","clusterIP":null,"clusterIPs":null,"selector":null,"ports":[{"name":"https","port":` + port + `}]}}`
	}
	webhooks := make([]string, 3)
	for i := range webhooks {
		webhooks[i] = fmt.Sprintf(`{"op":"replace","path":"/webhooks/%d/clientConfig/service/port","value":%s}`, i, webhookPort)
	}
	for _, patch := range [][]string{
		{"service/hoststatus-webhook", "--type=merge", service(webhookPort)},
		{"service/hoststatus-tenant-apiserver", "--type=merge", service(tenantAPIPort)},
		{"validatingwebhookconfiguration/hoststatus-webhook", "--type=json", "[" + strings.Join(webhooks, ",") + "]"},
		{"apiservice/v1alpha1.tenant.hoststatus.dev", "--type=merge", `{"spec":{"service":{"port":` + tenantAPIPort + `}}}`},
	} {
		if out, err := f.Kubectl(ctx, "patch", patch[0], "--namespace="+namespace, patch[1], "--patch", patch[2]).CombinedOutput(); err != nil {
			return fmt.Errorf("patching %s: %w\n%s", patch[0], err, out)
		}
	}
	return nil
}

// Process implements fleet.Installation.
func (h *byHelm) Process(f *fleet.Fleet, c fleet.Command) (*controlplane.Process, error) {
	ctx := context.Background()
	var template corev1.PodTemplateSpec
	node, add := "node-1", c.Addresses
	var files map[string]string
	if c.Binary == "agent" {
		set, err := h.kube.AppsV1().DaemonSets(namespace).Get(ctx, "hoststatus-agent", metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		servers, err := os.ReadFile(f.DriverFile(c.Host))
		if err != nil {
			return nil, err
		}
		template, node = set.Spec.Template, c.Host
		const file = "/driver/servers.yaml"
		files = map[string]string{file: string(servers)}
		add = append(add, "--driver=fake", "--fake-driver-file="+file)
	} else {
		deployment, err := h.kube.AppsV1().Deployments(namespace).Get(ctx, "hoststatus-"+c.Binary, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		template = deployment.Spec.Template
	}
	pod, err := createPod(ctx, h.kube, "hoststatus-"+c.Name, node, template)
	if err != nil {
		return nil, err
	}
	return runPod(ctx, f, h.kube, pod, files, add...)
}

// What the chart installs passes the story of `make demo`: the shipped command lines
// in the shipped images' surroundings, with the rights of the shipped roles. It is the
// story's run on the newest Kubernetes: test/e2e has it on the main one, and
// TestTheAPIServerIsUpgraded on the oldest.
func TestTheStoryHoldsForWhatTheChartInstalls(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what needs a control plane")
	}
	// Before the clocks of the story run.
	_, err := binaries()
	expect.NoError(t, err)
	installation := &byHelm{chart: sources(t, "charts", "hoststatus")}
	f, err := fleet.Start(t.Context(), fleet.Options{
		Dir: filepath.Join(scratch, "story"), LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: t.Output(), Installation: installation, Kubernetes: controlplane.Newest,
	})
	expect.NoError(t, err)
	defer f.Stop()
	standby, _, err := f.StartManager("manager-2")
	expect.NoError(t, err)
	defer standby.Stop()

	if err := f.Story(t.Context(), t.Output()); err != nil {
		t.Error(err)
	}
	t.Run("an agent's token is for its own node", func(t *testing.T) { testTokenOfANode(t, f, installation.kube) })
	t.Run("a selected Node gets a ComputeService", func(t *testing.T) { testMirror(t, f, installation.kube) })
	t.Run("helm test passes", func(t *testing.T) { testHelmTest(t, f, installation.kube, standby) })
	t.Run("nothing but JSON is in the logs", func(t *testing.T) { testLogs(t, f) })
	if code := fleet.ReportCrashes(t.Output(), f.Dir); code != 0 {
		t.Error("a process has crashed")
	}
}

// A control plane is upgraded release by release under an installation that runs. No
// status changes by that, and whoever falls silent afterwards is noticed.
func TestTheAPIServerIsUpgradedUnderARunningInstallation(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what needs a control plane")
	}
	_, err := binaries()
	expect.NoError(t, err)
	f, err := fleet.Start(t.Context(), fleet.Options{
		Dir: filepath.Join(scratch, "upgraded"), LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: t.Output(),
		Installation: &byHelm{chart: sources(t, "charts", "hoststatus")}, Kubernetes: controlplane.Oldest,
	})
	expect.NoError(t, err)
	defer f.Stop()
	if err := f.Story(t.Context(), t.Output()); err != nil {
		t.Errorf("on the oldest: %v", err)
	}
	expect.NoError(t, f.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUp)))
	transitions := func() map[string]string {
		var services v1alpha1.ComputeServiceList
		expect.NoError(t, f.Client.List(t.Context(), &services))
		since := map[string]string{}
		for _, s := range services.Items {
			since[s.Name] = fmt.Sprint(fleet.Show(s.Status.HostStatus), s.Status.HostStatusTransitionTime)
		}
		return since
	}
	config, err := f.Cluster.AdminConfig()
	expect.NoError(t, err)
	kube, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	version := func() string {
		v, err := kube.Discovery().ServerVersion()
		expect.NoError(t, err)
		return v.GitVersion
	}
	before := transitions()
	for _, release := range []controlplane.Release{controlplane.Main, controlplane.Newest} {
		was := version()
		expect.NoError(t, f.Cluster.ReplaceAPIServer(t.Context(), release, t.Output()))
		if is := version(); is == was {
			t.Fatalf("the API server of %s is %s, as before", release, is)
		} else {
			t.Logf("the API server is %s now; it was %s", is, was)
		}
		expect.NoError(t, f.WaitForTenantAPI(t.Context()))
		// Who leads has renewed its Lease, and has seen heartbeats, when it acts again.
		f.Agents["compute-3"].Kill()
		expect.NoError(t, f.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUnknown, "compute-3")))
		expect.NoError(t, f.StartAgent("compute-3"))
		expect.NoError(t, f.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUp)))
		after := transitions()
		delete(after, "compute-3")
		delete(before, "compute-3")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("what the upgrade to %s changed (-before +after):\n%s", release, diff)
		}
	}
	if code := fleet.ReportCrashes(t.Output(), f.Dir); code != 0 {
		t.Error("a process has crashed")
	}
}

// The manifests say --log-format=json, and whoever collects the logs takes it at its word.
func testLogs(t *testing.T, f *fleet.Fleet) {
	for _, name := range []string{"hoststatus-manager", "hoststatus-manager-2", "hoststatus-tenant-apiserver", "hoststatus-agent-compute-1"} {
		log, err := os.ReadFile(f.LogFile(name))
		expect.NoError(t, err)
		lines := 0
		for line := range strings.Lines(string(log)) {
			lines++
			if !json.Valid([]byte(line)) {
				t.Errorf("the log of %s has a line that is not JSON: %s", name, line)
			}
		}
		if lines == 0 {
			t.Errorf("%s has logged nothing", name)
		}
	}
}

// The token of the pod on one node renews no other node's Lease.
func testTokenOfANode(t *testing.T, f *fleet.Fleet, kube kubernetes.Interface) {
	pod, err := kube.CoreV1().Pods(namespace).Get(t.Context(), "hoststatus-agent-compute-1", metav1.GetOptions{})
	expect.NoError(t, err)
	token, err := kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "hoststatus-agent", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
			ExpirationSeconds: ptr.To[int64](600),
		},
	}, metav1.CreateOptions{})
	expect.NoError(t, err)
	agent, err := kubernetes.NewForConfig(f.Cluster.ConfigWithToken(token.Status.Token))
	expect.NoError(t, err)
	for host, allowed := range map[string]bool{"compute-1": true, "compute-2": false} {
		// Admission only looks at a Lease that nobody has renewed meanwhile.
		err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			lease, err := kube.CoordinationV1().Leases(v1alpha1.DefaultLeaseNamespace).Get(t.Context(), host, metav1.GetOptions{})
			if err != nil {
				return err
			}
			lease.Annotations = map[string]string{"touched": "by the test"}
			_, err = agent.CoordinationV1().Leases(v1alpha1.DefaultLeaseNamespace).Update(t.Context(), lease, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		})
		if allowed && err != nil || !allowed && !apierrors.IsForbidden(err) {
			t.Errorf("the agent on compute-1 renews the Lease of %s: %v; allowed should be %v", host, err, allowed)
		}
	}
}

// The chart's values start the mirror, and its roles are enough.
func testMirror(t *testing.T, f *fleet.Fleet, kube kubernetes.Interface) {
	for _, node := range []metav1.ObjectMeta{{Name: "no-hypervisor"}, {Name: "hypervisor-1", Labels: map[string]string{"hypervisor": "true"}}} {
		_, err := kube.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: node}, metav1.CreateOptions{})
		expect.NoError(t, err)
	}
	expect.Eventually(t, patience, func() error {
		out, err := f.Kubectl(t.Context(), "get", "computeservice", "hypervisor-1", "--output=jsonpath={.spec.leaseRef.namespace}").CombinedOutput()
		if err == nil && string(out) != corev1.NamespaceNodeLease {
			err = fmt.Errorf("its Lease is in %s", out)
		}
		return err
	})
	// It would have come first.
	out, err := f.Kubectl(t.Context(), "get", "computeservice", "no-hypervisor", "--ignore-not-found", "--output=name").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("a Node that is not selected is mirrored: %s %v", out, err)
	}
}

// testHelmTest runs the pod of `helm test`, with the role that comes with it.
func testHelmTest(t *testing.T, f *fleet.Fleet, kube kubernetes.Interface, standby *controlplane.Process) {
	var pod corev1.Pod
	for _, obj := range chart(t) {
		if obj.GetAnnotations()[hookAnnotation] != "test" {
			continue
		}
		switch obj.GetKind() {
		case "ServiceAccount":
			_, err := kube.CoreV1().ServiceAccounts(namespace).Create(t.Context(), fromUnstructured(t, obj, &corev1.ServiceAccount{}), metav1.CreateOptions{})
			expect.NoError(t, err)
		case "ClusterRoleBinding":
			_, err := kube.RbacV1().ClusterRoleBindings().Create(t.Context(), fromUnstructured(t, obj, &rbacv1.ClusterRoleBinding{}), metav1.CreateOptions{})
			expect.NoError(t, err)
		case "RoleBinding":
			_, err := kube.RbacV1().RoleBindings(namespace).Create(t.Context(), fromUnstructured(t, obj, &rbacv1.RoleBinding{}), metav1.CreateOptions{})
			expect.NoError(t, err)
		case "Pod":
			fromUnstructured(t, obj, &pod)
		default:
			t.Errorf("helm test has a %s, which this test does not know", obj.GetKind())
		}
	}
	helmTest := func(name string, add ...string) (string, error) {
		t.Helper()
		created, err := createPod(t.Context(), kube, name, "node-1", corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec})
		expect.NoError(t, err)
		p, err := runPod(t.Context(), f, kube, created, nil, add...)
		expect.NoError(t, err)
		expect.NoError(t, p.Start())
		select {
		case <-p.Done():
		case <-time.After(2 * time.Minute):
			p.Kill()
		}
		printed, err := os.ReadFile(f.LogFile(name))
		expect.NoError(t, err)
		return string(printed), p.Err()
	}
	printed, err := helmTest(pod.Name)
	if err != nil || strings.Count(printed, " ok\n") != 3 {
		t.Errorf("helm test ends with %v and says\n%s", err, printed)
	}
	// With nothing running it has nothing good to say, but of the custom resources.
	standby.Stop()
	// The fleet starts its manager again when it ends, so it is paused.
	expect.NoError(t, f.Manager.Signal(syscall.SIGSTOP))
	defer func() { expect.NoError(t, f.Manager.Signal(syscall.SIGCONT)) }()
	f.TenantAPI.Stop()
	printed, err = helmTest(pod.Name+"-of-nothing", "--timeout=6s")
	for _, want := range []string{
		"custom resources ok\n", "manager, by its canary in hoststatus-leases was last renewed ",
		"2 of 3 checks failed",
	} {
		if err == nil || !strings.Contains(strings.Join(strings.FieldsFunc(printed, func(r rune) bool { return r == ' ' }), " "), want) {
			t.Errorf("with nothing running helm test ends with %v and does not say %q:\n%s", err, want, printed)
		}
	}
}

func fromUnstructured[T any](t *testing.T, obj *unstructured.Unstructured, into *T) *T {
	t.Helper()
	expect.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into))
	return into
}
