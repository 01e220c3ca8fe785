// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/docs"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// cluster is a control plane with nothing of hoststatus on it.
type cluster struct {
	*controlplane.Cluster
	kubeconfig string
	audit      string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return newClusterWith(t, controlplane.Options{})
}

func newClusterWith(t *testing.T, options controlplane.Options) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out what needs a control plane")
	}
	dir := t.TempDir()
	c := &cluster{kubeconfig: filepath.Join(dir, "kubeconfig"), audit: filepath.Join(dir, "audit.log")}
	policy := filepath.Join(dir, "audit.yaml")
	expect.NoError(t, os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  verbs: [delete]\n- level: None\n"), 0o644))
	options.Dir, options.Log = filepath.Join(dir, "cluster"), t.Output()
	options.APIServerArgs = []string{"--audit-policy-file=" + policy, "--audit-log-path=" + c.audit, "--audit-log-mode=blocking"}
	started, err := controlplane.Start(t.Context(), options)
	expect.NoError(t, err)
	t.Cleanup(started.Stop)
	c.Cluster = started
	config, err := started.AdminConfig()
	expect.NoError(t, err)
	expect.NoError(t, controlplane.WriteKubeconfig(c.kubeconfig, config))
	expect.Eventually(t, patience, func() error {
		_, err := c.kubectl("get", "namespace", "kube-node-lease")
		return err
	})
	return c
}

// knowsMonitoring gives the cluster the CRDs of the Prometheus operator.
func (c *cluster) knowsMonitoring(t *testing.T) {
	t.Helper()
	files, err := controlplane.MonitoringCRDs(t.Context(), t.TempDir())
	expect.NoError(t, err)
	for _, file := range files {
		c.must(t, "apply", "--server-side", "--filename="+file)
	}
	// `kubectl wait` fails as long as there are no conditions at all.
	expect.Eventually(t, patience, func() error {
		_, err := c.kubectl("wait", "--for=condition=Established", "--timeout=1m", "crd/servicemonitors.monitoring.coreos.com", "crd/prometheusrules.monitoring.coreos.com")
		return err
	})
}

func (c *cluster) kubectl(args ...string) (string, error) { return c.kubectlIn("", args...) }

func (c *cluster) kubectlIn(stdin string, args ...string) (string, error) {
	cmd := c.Kubectl(context.Background(), c.kubeconfig, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %v: %w\n%s", args, err, complaint.String())
	}
	return out.String(), nil
}

func (c *cluster) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.kubectl(args...)
	expect.NoError(t, err)
	return out
}

func (c *cluster) helm(t *testing.T, args ...string) {
	t.Helper()
	_, err := run(t.Context(), c.kubeconfig, "helm", args...)
	expect.NoError(t, err)
}

// fromDocs returns the arguments of the first helm command of its kind on a page, for
// a chart in place of the repository's. No pod will get ready here, so it does not wait.
func fromDocs(t *testing.T, page, command, chart string) []string {
	t.Helper()
	args, err := docs.Helm(page, command, chart)
	expect.NoError(t, err)
	return slices.DeleteFunc(args, func(arg string) bool { return arg == "--wait" })
}

// runFromPage runs the commands of kubectl in the blocks of a page that begin with one of
// begins, as its reader would. Those of helm in them are left to c.helm.
func (c *cluster) runFromPage(t *testing.T, page string, begins ...string) {
	t.Helper()
	for _, begin := range begins {
		script, err := docs.Kubectl(page, begin)
		expect.NoError(t, err)
		shell := exec.CommandContext(t.Context(), "bash", "-ec", script)
		shell.Env = []string{"KUBECONFIG=" + c.kubeconfig, "HOME=" + c.Dir, "PATH=" + filepath.Dir(c.KubectlPath()) + ":" + os.Getenv("PATH")}
		if out, err := shell.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
}

// What is claimed is what these tests run on: Chart.yaml names the oldest Kubernetes, and
// the page about installing all of them.
func TestTheAPIServerAcceptsEveryObject(t *testing.T) {
	page, err := os.ReadFile(sources(t, "docs", "operate", "install.md"))
	expect.NoError(t, err)
	for _, release := range []controlplane.Release{controlplane.Oldest, controlplane.Main, controlplane.Newest} {
		t.Run(string(release), func(t *testing.T) {
			c := newClusterWith(t, controlplane.Options{Kubernetes: release})
			config, err := c.AdminConfig()
			expect.NoError(t, err)
			kube, err := kubernetes.NewForConfig(config)
			expect.NoError(t, err)
			server, err := kube.Discovery().ServerVersion()
			expect.NoError(t, err)
			var claim struct{ KubeVersion string }
			decode(t, sources(t, "charts", "hoststatus", "Chart.yaml"), &claim)
			if want := fmt.Sprintf(">=%s.%s.0-0", server.Major, server.Minor); release == controlplane.Oldest && claim.KubeVersion != want {
				t.Errorf("Chart.yaml claims Kubernetes %q, and what was tested is %s: %q", claim.KubeVersion, server.GitVersion, want)
			}
			if want := server.Major + "." + server.Minor; !strings.Contains(string(page), want) {
				t.Errorf("docs/operate/install.md does not name Kubernetes %s", want)
			}
			c.acceptsEveryObject(t, server.GitVersion)
		})
	}
}

func (c *cluster) acceptsEveryObject(t *testing.T, version string) {
	t.Helper()
	c.knowsMonitoring(t)
	for _, name := range []string{namespace, "hoststatus-leases"} {
		c.must(t, "create", "namespace", name)
	}
	c.must(t, "create", "serviceaccount", "hoststatus-test", "--namespace="+namespace)
	// What helm does in a cluster of this version.
	rendered := func(args ...string) []*unstructured.Unstructured {
		return chart(t, append(args, "--kube-version="+version)...)
	}
	install, withCertManager := "install", kustomization(t, "webhook-cert-manager")
	if utilversion.MustParseGeneric(version).LessThan(utilversion.MustParseGeneric("1.36.0")) {
		install = "before-1.36"
		withCertManager = slices.DeleteFunc(withCertManager, func(obj *unstructured.Unstructured) bool {
			return strings.HasPrefix(obj.GetKind(), "MutatingAdmissionPolicy")
		})
		for _, obj := range withCertManager {
			unstructured.RemoveNestedField(obj.Object, "spec", "trafficDistribution")
		}
	}
	for name, all := range map[string][]*unstructured.Unstructured{
		"chart": rendered(),
		"chart with everything": rendered("--set=agent.enabled=true,nodeMirror.enabled=true,nodeMirror.selector=hypervisor=true,nodeMirror.writeConditions=true,vmiMirror.enabled=true,vmiMirror.selector=tier!=test,certificates.certManager=true",
			"--set=notifier.enabled=true,networkPolicy.notifierTo[0].ipBlock.cidr=10.0.0.0/8", notifierConfig,
			"--set=novaAPI.enabled=true,novaAPI.publicURL=https://nova.example.com,networkPolicy.novaFrom[0].ipBlock.cidr=10.0.0.0/8",
			"--set=image.pullSecrets={registry},manager.nodeSelector.disk=ssd,manager.tolerations[0].operator=Exists,networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring,networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28",
			"--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=prometheus,metrics.serviceMonitor.interval=1m30s",
			"--set=metrics.prometheusRule.enabled=true,metrics.prometheusRule.labels.release=prometheus,metrics.dashboard.enabled=true,metrics.dashboard.labels.team=a",
			"--set=tenantAPI.visibleLabelPrefixes={example.com},manager.extraArgs={--default-lease-duration=30s},manager.podAnnotations.a=b,agent.maxUnavailable=1"),
		"chart with nothing that can be left out":   rendered("--set=crds.install=false,crds.keep=false,rbac.aggregate=false,flowControl.enabled=false,webhook.enabled=false,networkPolicy.enabled=false,tenantAPI.enabled=false,manager.podDisruptionBudget=false,manager.priorityClassName="),
		"chart with the compute API behind a proxy": rendered("--set=novaAPI.enabled=true,novaAPI.plainHTTP=true,novaAPI.replicas=1"),
		"chart with metrics of no tenant API":       rendered("--set=tenantAPI.enabled=false,metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true"),
		"kustomize":                                 kustomization(t, install, "agent", "nova-api", "nova-api/prometheus", "notifier", "notifier/prometheus", "node-mirror", "node-conditions", "vmi-mirror", "prometheus"),
		"kustomize with cert-manager":               withCertManager,
	} {
		t.Run(name, func(t *testing.T) {
			var list unstructured.UnstructuredList
			for _, obj := range all {
				// Its kinds are cert-manager's own, which is not here.
				if obj.GroupVersionKind().Group != "cert-manager.io" {
					list.Items = append(list.Items, *obj)
				}
			}
			list.SetAPIVersion("v1")
			list.SetKind("List")
			manifests, err := json.Marshal(&list)
			expect.NoError(t, err)
			out, err := c.kubectlIn(string(manifests), "apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
			expect.NoError(t, err)
			if accepted := strings.Count(out, "(server dry run)"); accepted != len(list.Items) {
				t.Errorf("%d of %d objects were accepted:\n%s", accepted, len(list.Items), out)
			}
			t.Logf("Kubernetes %s accepts %d objects", version, len(list.Items))
		})
	}
}

func TestHelmInstallsUpgradesAndRemoves(t *testing.T) {
	c := newCluster(t)
	path := sources(t, "charts", "hoststatus")
	c.helm(t, fromDocs(t, "install.md", "install", path)...)
	expect.Eventually(t, patience, func() error {
		_, err := c.kubectlIn(host, "apply", "--filename=-")
		return err
	})
	uid := c.must(t, "get", "computeservice", "compute-1", "--output=jsonpath={.metadata.uid}")
	c.trust(t)

	t.Run("upgrades turn on what the docs say they do", func(t *testing.T) {
		c.knowsMonitoring(t)
		c.helm(t, fromDocs(t, "install.md", "upgrade", path)...)
		c.helm(t, fromDocs(t, "nodes-as-hosts.md", "upgrade", path)...)
		c.must(t, "get", "--namespace="+namespace, "servicemonitor/hoststatus-manager", "servicemonitor/hoststatus-tenant-apiserver", "prometheusrule/hoststatus", "configmap/hoststatus-dashboard")
		if got := c.must(t, "get", "deployment", "hoststatus-manager", "--namespace="+namespace, "--output=jsonpath={.spec.template.spec.containers[0].args}"); !strings.Contains(got, `"--mirror-nodes"`) {
			t.Errorf("the manager's arguments are %s, without the mirror", got)
		}
		c.stillTrusted(t)
	})
	t.Run("an upgrade updates the CRDs and leaves the certificates", func(t *testing.T) {
		next := nextChart(t, path)
		c.helm(t, append(fromDocs(t, "upgrade.md", "upgrade", next), "--set=manager.replicas=3")...)
		if got := c.must(t, "get", "crd", "computeservices.compute.hoststatus.dev", "--output=jsonpath={.spec.versions[0].schema.openAPIV3Schema.description}"); !strings.Contains(got, changed) {
			t.Errorf("the CRD was not updated; it says %q", got)
		}
		if got := c.must(t, "get", "deployment", "hoststatus-manager", "--namespace="+namespace, "--output=jsonpath={.spec.replicas}"); got != "3" {
			t.Errorf("the manager has %s replicas, not 3", got)
		}
		c.stillTrusted(t)
	})
	t.Run("so does a rollback", func(t *testing.T) {
		c.helm(t, fromDocs(t, "upgrade.md", "rollback", "")...)
		if got := c.must(t, "get", "crd", "computeservices.compute.hoststatus.dev", "--output=jsonpath={.spec.versions[0].schema.openAPIV3Schema.description}"); strings.Contains(got, changed) {
			t.Errorf("the CRD was not taken back; it says %q", got)
		}
		c.stillTrusted(t)
	})
	t.Run("uninstall first removes what leads to the processes", func(t *testing.T) {
		c.helm(t, fromDocs(t, "upgrade.md", "uninstall", "")...)
		c.checkOrderOfDeletion(t)
		c.checkGone(t, chart(t, append(valuesFromDocs(t, "install.md", "upgrade"), valuesFromDocs(t, "nodes-as-hosts.md", "upgrade")...)...))
	})
	t.Run("what was kept is whole, and a namespace can be deleted", func(t *testing.T) {
		if got := c.must(t, "get", "computeservice", "compute-1", "--output=jsonpath={.metadata.uid}"); got != uid {
			t.Errorf("compute-1 has uid %s, and had %s", got, uid)
		}
		c.must(t, "get", "namespace", "hoststatus-leases")
		c.must(t, "create", "namespace", "short-lived")
		c.must(t, "delete", "namespace", "short-lived", "--timeout=30s")
	})
	t.Run("an installation takes up what was kept", func(t *testing.T) {
		c.helm(t, "install", release, path, "--namespace="+namespace, registry)
		if got := c.must(t, "get", "computeservice", "compute-1", "--output=jsonpath={.metadata.uid}"); got != uid {
			t.Errorf("compute-1 has uid %s, and had %s", got, uid)
		}
	})
	t.Run("the mirror switched off leaves kubelets their readers as long as a host needs them", func(t *testing.T) {
		c.helm(t, fromDocs(t, "nodes-as-hosts.md", "upgrade", path)...)
		c.must(t, "patch", "computeservice", "compute-1", "--type=merge", `--patch={"spec":{"leaseRef":{"namespace":"kube-node-lease"}}}`)
		off := fromDocs(t, "nodes-as-hosts.md", "upgrade hoststatus charts/hoststatus --namespace hoststatus-system --reset-then-reuse-values --set", path)
		reads := func(want bool) {
			t.Helper()
			for _, name := range []string{"hoststatus-manager", "hoststatus-tenant-apiserver"} {
				args := c.must(t, "get", "deployment", name, "--namespace="+namespace, "--output=jsonpath={.spec.template.spec.containers[0].args}")
				if got := strings.Contains(args, "kube-node-lease"); got != want || strings.Contains(args, "--mirror-nodes") {
					t.Errorf("the arguments of %s are %s; kube-node-lease should be there: %v", name, args, want)
				}
				role := c.must(t, "get", "role", name, "--namespace=kube-node-lease", "--ignore-not-found", "--output=name")
				if got := role != ""; got != want {
					t.Errorf("%s has a Role in kube-node-lease: %v, want %v", name, got, want)
				}
			}
		}
		c.helm(t, off...) // Where the selector is still among the values.
		reads(true)
		c.must(t, "patch", "computeservice", "compute-1", "--type=merge", `--patch={"spec":{"leaseRef":null}}`)
		c.helm(t, off...)
		reads(false)
	})
	t.Run("uninstall removes everything if asked", func(t *testing.T) {
		c.helm(t, append(fromDocs(t, "upgrade.md", "upgrade", path), "--set=crds.keep=false")...)
		c.helm(t, fromDocs(t, "upgrade.md", "uninstall", "")...)
		c.checkGone(t, chart(t, "--set=crds.keep=false"))
	})
	t.Run("what the processes have made goes by the commands of the page", func(t *testing.T) {
		const lease = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":%q,"namespace":%q}}`
		_, err := c.kubectlIn(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"node-1"}}`, "create", "--filename=-")
		expect.NoError(t, err)
		c.helm(t, fromDocs(t, "upgrade.md", "install", path)...)
		for name, in := range map[string]string{"hoststatus-canary": "kube-node-lease", "node-1": "hoststatus-leases"} {
			_, err := c.kubectlIn(fmt.Sprintf(lease, name, in), "create", "--filename=-")
			expect.NoError(t, err)
		}
		expect.Eventually(t, patience, func() error {
			_, err := c.kubectlIn(`{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"ComputeService","metadata":{"name":"node-1"}}`, "apply", "--filename=-")
			return err
		})
		c.runFromPage(t, "upgrade.md", "$ kubectl delete lease hoststatus-canary ", "$ nodes=$(")
		if left := c.must(t, "get", "leases,computeservices", "--all-namespaces", "--output=name"); strings.Contains(left, "canary") || strings.Contains(left, "node-1") {
			t.Errorf("there are still\n%s", left)
		}
	})
	t.Run("a namespace that was deleted first is cured by the commands of the page", func(t *testing.T) {
		c.must(t, "delete", "namespace", namespace, "--wait=false")
		expect.Eventually(t, patience, func() error {
			_, err := run(t.Context(), c.kubeconfig, "helm", "status", release, "--namespace="+namespace)
			if err == nil {
				return errors.New("helm still knows the release")
			}
			return nil
		})
		if _, err := run(t.Context(), c.kubeconfig, "helm", fromDocs(t, "upgrade.md", "uninstall", "")...); err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("helm uninstall says %v", err)
		}
		c.runFromPage(t, "upgrade.md", "$ kubectl delete apiservice v1alpha1.tenant.hoststatus.dev\n$ kubectl wait ")
		c.helm(t, fromDocs(t, "upgrade.md", "install", path)...)
		c.helm(t, fromDocs(t, "upgrade.md", "uninstall", "")...)
		c.checkGone(t, chart(t))
	})
}

const host = `{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"ComputeService","metadata":{"name":"compute-1"},"spec":{"disabled":true}}`

// changed is what the next chart's CRDs say.
const changed = "What the next release says of it."

// nextChart is a copy of the chart with other CRDs.
func nextChart(t *testing.T, path string) string {
	t.Helper()
	next := filepath.Join(t.TempDir(), "hoststatus")
	expect.NoError(t, os.CopyFS(next, os.DirFS(path)))
	crds := filepath.Join(next, "templates", "generated", "crds.yaml")
	content, err := os.ReadFile(crds)
	expect.NoError(t, err)
	const place = "      openAPIV3Schema:\n        description: "
	if !bytes.Contains(content, []byte(place)) {
		t.Fatalf("%s has no %q", crds, place)
	}
	content = bytes.ReplaceAll(content, []byte("        description: |-\n          ComputeService"), []byte("        description: |-\n          "+changed+" ComputeService"))
	if !bytes.Contains(content, []byte(changed)) {
		content = bytes.ReplaceAll(content, []byte(place), []byte(place+changed+" "))
	}
	expect.NoError(t, os.WriteFile(crds, content, 0o644))
	return next
}

// trust does what webhook and tenant API do with their own certificates.
func (c *cluster) trust(t *testing.T) {
	t.Helper()
	bundle := c.bundle(t)
	c.must(t, "patch", "apiservice", "v1alpha1.tenant.hoststatus.dev", "--type=merge", "--field-manager=hoststatus-serving-certificate",
		"--patch", `{"spec":{"caBundle":"`+bundle+`"}}`)
	var webhooks []string
	for i := range 3 {
		webhooks = append(webhooks, fmt.Sprintf(`{"op":"add","path":"/webhooks/%d/clientConfig/caBundle","value":%q}`, i, bundle))
	}
	c.must(t, "patch", "validatingwebhookconfiguration", "hoststatus-webhook", "--type=json", "--field-manager=hoststatus-serving-certificate",
		"--patch", "["+strings.Join(webhooks, ",")+"]")
	c.stillTrusted(t)
}

func (c *cluster) stillTrusted(t *testing.T) {
	t.Helper()
	bundle := c.bundle(t)
	got := c.must(t, "get", "apiservice", "v1alpha1.tenant.hoststatus.dev", "--output=jsonpath={.spec.caBundle}") + " " +
		c.must(t, "get", "validatingwebhookconfiguration", "hoststatus-webhook", "--output=jsonpath={.webhooks[*].clientConfig.caBundle}")
	if got != strings.Join([]string{bundle, bundle, bundle, bundle}, " ") {
		t.Errorf("the APIService and the webhooks have lost a caBundle: %.60s...", got)
	}
}

func (c *cluster) bundle(t *testing.T) string {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(c.Dir, "server-ca.crt"))
	expect.NoError(t, err)
	return base64.StdEncoding.EncodeToString(pem)
}

// checkOrderOfDeletion looks into the audit log: nothing that leads to a process is
// there any more when the process, or the way to it, goes.
func (c *cluster) checkOrderOfDeletion(t *testing.T) {
	t.Helper()
	f, err := os.Open(c.audit)
	expect.NoError(t, err)
	defer func() { _ = f.Close() }()
	var order []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			UserAgent string
			ObjectRef struct{ Resource, Name string }
		}
		expect.NoError(t, json.Unmarshal(lines.Bytes(), &event))
		if strings.Contains(event.UserAgent, "elm") && strings.HasPrefix(event.ObjectRef.Name, "hoststatus") || event.ObjectRef.Resource == "apiservices" {
			order = append(order, event.ObjectRef.Resource)
		}
	}
	expect.NoError(t, lines.Err())
	for _, first := range []string{"validatingwebhookconfigurations", "apiservices"} {
		for _, later := range []string{"services", "deployments", "serviceaccounts", "roles", "clusterroles"} {
			i, j := slices.Index(order, first), slices.Index(order, later)
			if i < 0 || j < 0 || i > j {
				t.Errorf("helm deletes %s (place %d) not before %s (place %d): %v", first, i, later, j, order)
			}
		}
	}
}

// checkGone checks that nothing of a release is left, but for what is to be kept.
func (c *cluster) checkGone(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, obj := range objects {
		if obj.GetAnnotations()[hookAnnotation] != "" || obj.GetAnnotations()[keepAnnotation] != "" {
			continue
		}
		kind := obj.GroupVersionKind()
		args := []string{"get", kind.Kind + "." + kind.Version + "." + kind.Group, obj.GetName(), "--ignore-not-found", "--output=name"}
		if kind.Group == "" {
			args[1] = kind.Kind
		}
		if obj.GetNamespace() != "" {
			args = append(args, "--namespace="+obj.GetNamespace())
		}
		expect.Eventually(t, patience, func() error {
			out, err := c.kubectl(args...)
			if err == nil && out != "" {
				err = errors.New("helm uninstall has left " + out)
			}
			return err
		})
	}
}
