// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/internal/version"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	hookAnnotation = "helm.sh/hook"
	keepAnnotation = "helm.sh/resource-policy"
)

func TestChartAndKustomizeInstallTheSame(t *testing.T) {
	for _, test := range []struct {
		name    string
		values  []string
		folders []string
	}{
		{"by default", nil, []string{"install"}},
		{"on Kubernetes before 1.36", []string{"--kube-version=1.33.0"}, []string{"before-1.36"}},
		{"with the compute API", []string{"--set=novaAPI.enabled=true"}, []string{"install", "nova-api"}},
		{"with the notifier", []string{"--set=notifier.enabled=true", notifierConfig}, []string{"install", "notifier"}},
		{"with agents", []string{"--set=agent.enabled=true"}, []string{"install", "agent"}},
		{"with what Prometheus and Grafana look for", valuesFromDocs(t, "install.md", "upgrade"), []string{"install", "prometheus"}},
		{"with the compute API, which is scraped", append(valuesFromDocs(t, "install.md", "upgrade"), "--set=novaAPI.enabled=true"), []string{"install", "nova-api", "nova-api/prometheus", "prometheus"}},
		{"with the notifier, which is scraped", append(valuesFromDocs(t, "install.md", "upgrade"), "--set=notifier.enabled=true", notifierConfig), []string{"install", "notifier", "notifier/prometheus", "prometheus"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := byName(kustomization(t, test.folders...))
			// helm makes the namespace of a release itself: --create-namespace.
			delete(want, "Namespace /"+namespace)
			if diff := cmp.Diff(want, byName(chart(t, test.values...))); diff != "" {
				t.Errorf("config/ (-) and charts/hoststatus (+) differ:\n%s", diff)
			}
		})
	}
}

func TestTheOverlaysInTheDocsSayWhatTheChartSaysByValues(t *testing.T) {
	for _, test := range []struct {
		page   string
		values []string
	}{
		{"install.md", []string{"--set=image.registry=registry.example.com/hoststatus,agent.enabled=true,leaseNamespaces={hoststatus-leases,kube-node-lease}"}},
		{"nodes-as-hosts.md", valuesFromDocs(t, "nodes-as-hosts.md", "upgrade")},
		{"kubevirt.md", valuesFromDocs(t, "kubevirt.md", "upgrade")},
	} {
		t.Run(test.page, func(t *testing.T) {
			want := byName(chart(t, test.values...))
			got := byName(overlayFromDocs(t, test.page))
			delete(got, "Namespace /"+namespace)
			// A flag twice, or once with both, is the same.
			asFlagTwice := cmp.Transformer("flags", func(flag string) string {
				return strings.Replace(flag, "--lease-namespaces=hoststatus-leases,kube-node-lease", "--lease-namespaces=hoststatus-leases", 1)
			})
			added := cmpopts.IgnoreSliceElements(func(flag any) bool { return flag == "--lease-namespaces=kube-node-lease" })
			if diff := cmp.Diff(want, got, asFlagTwice, added); diff != "" {
				t.Errorf("the chart (-) and the overlay in docs/operate/%s (+) differ:\n%s", test.page, diff)
			}
		})
	}
}

// overlayFromDocs renders the kustomization.yaml on a page.
func overlayFromDocs(t *testing.T, page string) []*unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile(sources(t, "docs", "operate", page))
	expect.NoError(t, err)
	_, overlay, found := strings.Cut(string(content), "```yaml\n# kustomization.yaml\n")
	if !found {
		t.Fatalf("docs/operate/%s has no kustomization.yaml", page)
	}
	overlay, _, _ = strings.Cut(overlay, "```")
	// kustomize wants relative paths, and takes links for what they point to.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	expect.NoError(t, err)
	repository, err := filepath.EvalSymlinks(sources(t))
	expect.NoError(t, err)
	here, err := filepath.Rel(dir, repository)
	expect.NoError(t, err)
	overlay = strings.ReplaceAll(overlay, "- hoststatus/config", "- "+here+"/config")
	expect.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o644))
	out, err := run(t.Context(), "", "kustomize", "build", dir)
	expect.NoError(t, err)
	return objects(t, out)
}

// valuesFromDocs returns the values that the first helm command of its kind on a page
// sets.
func valuesFromDocs(t *testing.T, page, command string) (values []string) {
	t.Helper()
	args := fromDocs(t, page, command, "")
	for i, arg := range args {
		if arg == "--set" {
			values = append(values, arg, args[i+1])
		}
	}
	if len(values) == 0 {
		t.Fatalf("helm %s on docs/operate/%s sets no value", command, page)
	}
	return values
}

func TestTheMirrorReadsTheLeasesOfKubeletsAlsoWhereNoValueSaysSo(t *testing.T) {
	named := byName(chart(t, "--set=nodeMirror.enabled=true,leaseNamespaces={hoststatus-leases,kube-node-lease}"))
	if diff := cmp.Diff(named, byName(chart(t, "--set=nodeMirror.enabled=true"))); diff != "" {
		t.Errorf("with kube-node-lease named (-) and not (+) it differs:\n%s", diff)
	}
}

func TestASelectorOfNodesIsOneArgumentWhateverIsInIt(t *testing.T) {
	const selector = `hypervisor in (kvm, xen),!spare,zone!=a`
	values := filepath.Join(t.TempDir(), "values.yaml")
	expect.NoError(t, os.WriteFile(values, []byte("nodeMirror: {enabled: true, selector: '"+selector+"'}\n"), 0o644))
	for _, obj := range chart(t, "--values="+values) {
		if obj.GetKind() != "Deployment" || obj.GetName() != "hoststatus-manager" {
			continue
		}
		args, _ := containers(obj)[0]["args"].([]any)
		if !slices.Contains(args, any("--mirror-nodes-selector="+selector)) {
			t.Errorf("the manager's arguments are %q; one should be --mirror-nodes-selector=%s", args, selector)
		}
	}
}

func TestKubeletsAsReportersGetTheSameRightsFromBoth(t *testing.T) {
	got := byName(chart(t, "--set=leaseNamespaces={hoststatus-leases,kube-node-lease}"))
	for name, want := range byName(kustomization(t, "node-leases")) {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s in config/node-leases (-) and charts/hoststatus (+) differ:\n%s", name, diff)
		}
	}
}

// byName returns objects without what only helm has: its hooks, and what it keeps.
func byName(objects []*unstructured.Unstructured) map[string]any {
	all := map[string]any{}
	for _, obj := range objects {
		annotations := obj.GetAnnotations()
		if annotations[hookAnnotation] != "" {
			continue
		}
		delete(annotations, keepAnnotation)
		if len(annotations) == 0 {
			annotations = nil
		}
		obj.SetAnnotations(annotations)
		all[obj.GetKind()+" "+obj.GetNamespace()+"/"+obj.GetName()] = folded(obj.Object)
	}
	return all
}

// folded returns value with single spaces in its strings: kustomize writes long
// expressions with other line ends.
func folded(value any) any {
	switch value := value.(type) {
	case string:
		return strings.Join(strings.Fields(value), " ")
	case []any:
		for i := range value {
			value[i] = folded(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = folded(value[key])
		}
	}
	return value
}

func TestNothingNamesAnotherNamespaceThanTheRelease(t *testing.T) {
	out, err := run(t.Context(), "", "helm", "template", release, sources(t, "charts", "hoststatus"), "--namespace=elsewhere", registry,
		"--set=agent.enabled=true,certificates.certManager=true,nodeMirror.enabled=true,nodeMirror.writeConditions=true,vmiMirror.enabled=true",
		"--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true")
	expect.NoError(t, err)
	for line := range strings.Lines(out) {
		if strings.Contains(line, namespace) {
			t.Errorf("the chart in namespace elsewhere says %q", line)
		}
	}
}

func TestNobodyTemplatesACABundle(t *testing.T) {
	for _, obj := range slices.Concat(chart(t), chart(t, "--set=certificates.certManager=true"), kustomization(t, "install")) {
		encoded, err := json.Marshal(obj.Object)
		expect.NoError(t, err)
		if strings.Contains(string(encoded), `"caBundle":`) {
			t.Errorf("%s %s has a caBundle, which would replace the one that its server has put there", obj.GetKind(), obj.GetName())
		}
	}
}

// With cert-manager the manager needs nothing for its certificate: a stolen token of it
// then leads to no Secret, and to no webhook.
func TestWithCertManagerTheManagerHasNoRightsOnCertificates(t *testing.T) {
	rights := func(all []*unstructured.Unstructured) (found []string) {
		for _, obj := range all {
			if kind := obj.GetKind(); kind != "Role" && kind != "ClusterRole" {
				continue
			}
			if strings.HasPrefix(obj.GetName(), "hoststatus-fleet-") {
				continue // People's, who may see whether the owners' view is there.
			}
			encoded, err := json.Marshal(obj.Object["rules"])
			expect.NoError(t, err)
			for _, right := range []string{`"validatingwebhookconfigurations"`, `"secrets"`, `"apiservices"`} {
				if strings.Contains(string(encoded), right) {
					found = append(found, obj.GetName()+" "+right)
				}
			}
		}
		slices.Sort(found)
		return found
	}
	key := `hoststatus-tenant-apiserver "secrets"` // The key of the host ids stays its own.
	if got := rights(chart(t, "--set=certificates.certManager=true")); !slices.Equal(got, []string{key}) {
		t.Errorf("the chart with cert-manager has roles for %q", got)
	}
	if got := rights(kustomization(t, "webhook-cert-manager")); len(got) > 0 {
		t.Errorf("kustomize with cert-manager has roles for %q", got)
	}
	if got := rights(chart(t)); len(got) != 4 {
		t.Errorf("without it the roles are for %q", got)
	}
}

func TestTheChartIsOfThisRelease(t *testing.T) {
	var chart struct{ Version, AppVersion string }
	decode(t, sources(t, "charts", "hoststatus", "Chart.yaml"), &chart)
	if chart.Version != version.Version || chart.AppVersion != version.Version {
		t.Errorf("Chart.yaml has version %s and appVersion %s; both should be %s, as in internal/version", chart.Version, chart.AppVersion, version.Version)
	}
	for _, obj := range kustomization(t, "install", "agent", "nova-api", "notifier") {
		for _, container := range containers(obj) {
			if image, _ := container["image"].(string); !strings.HasSuffix(image, ":"+version.Version) {
				t.Errorf("config/ has image %s in %s; its tag should be %s, as in internal/version", image, obj.GetName(), version.Version)
			}
		}
	}
}

// containers returns the containers of a Pod, or of what makes Pods.
func containers(obj *unstructured.Unstructured) (containers []map[string]any) {
	path := []string{"spec", "template", "spec", "containers"}
	if obj.GetKind() == "Pod" {
		path = []string{"spec", "containers"}
	}
	all, _, _ := unstructured.NestedSlice(obj.Object, path...)
	for _, container := range all {
		if container, ok := container.(map[string]any); ok {
			containers = append(containers, container)
		}
	}
	return containers
}

func TestTheSchemaKnowsEveryValue(t *testing.T) {
	var values, schema map[string]any
	decode(t, sources(t, "charts", "hoststatus", "values.yaml"), &values)
	decode(t, sources(t, "charts", "hoststatus", "values.schema.json"), &schema)
	compareWithSchema(t, "", values, schema)
}

func compareWithSchema(t *testing.T, path string, values, schema map[string]any) {
	t.Helper()
	properties, _ := schema["properties"].(map[string]any)
	if properties == nil {
		return
	}
	if schema["additionalProperties"] != false {
		t.Errorf("values.schema.json lets anything be under %q", path)
	}
	for name, value := range values {
		property, known := properties[name].(map[string]any)
		if !known {
			t.Errorf("values.schema.json does not know %s%s", path, name)
			continue
		}
		if mapping, ok := value.(map[string]any); ok {
			compareWithSchema(t, path+name+".", mapping, property)
		}
	}
	// The value of something that holds values is described in values.yaml by them.
	for name := range properties {
		if _, there := values[name]; !there && path+name != "global" && len(values) > 0 {
			t.Errorf("values.schema.json knows %s%s, which values.yaml does not have", path, name)
		}
	}
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	expect.NoError(t, err)
	decodeText(t, string(content), into)
}

func decodeText(t *testing.T, text string, into any) {
	t.Helper()
	expect.NoError(t, yaml.Unmarshal([]byte(text), into))
}

func TestABadValueIsNamed(t *testing.T) {
	for set, want := range map[string]string{
		"manager.replica=3":                    "at '/manager': additional properties 'replica' not allowed",
		"manager.replicas=0":                   "at '/manager/replicas': minimum",
		"manager.replicas=two":                 "at '/manager/replicas': got string, want integer",
		"manager.defaultLeaseDuration=60":      "at '/manager/defaultLeaseDuration': got number, want string",
		"manager.extraArgs={mirror-nodes}":     "at '/manager/extraArgs/0': 'mirror-nodes' does not match pattern",
		"manager.logLevel=warn":                "at '/manager/logLevel': value must be one of 'debug', 'info', 'error'",
		"image.pullPolicy=always":              "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
		"image.tag=a b":                        "at '/image/tag': 'a b' does not match pattern",
		"leaseNamespaces=hoststatus-leases":    "at '/leaseNamespaces': got string, want array",
		"tenantAPI.groupPriority=0":            "at '/tenantAPI/groupPriority': minimum",
		"agent.leaseDuration=soon":             "at '/agent/leaseDuration': 'soon' does not match pattern",
		"certificates.issuerRef.kind=Issuer":   "at '/certificates/issuerRef': properties 'name' required, if 'kind' exists",
		"networkPolicy.apiServerPorts={70000}": "at '/networkPolicy/apiServerPorts/0': maximum",
		"nodeMirror.enabled=yes":               "at '/nodeMirror/enabled': got string, want boolean",
		"metrics.serviceMonitor.interval=soon": "at '/metrics/serviceMonitor/interval': 'soon' does not match pattern",
		"metrics.prometheusRule.labels.a=b c":  "at '/metrics/prometheusRule/labels/a': 'b c' does not match pattern",
		"metrics.dashboard=true":               "at '/metrics/dashboard': got boolean, want object",
		"crds.keep=perhaps":                    "at '/crds/keep': got string, want boolean",
		"nonsense=1":                           "at '': additional properties 'nonsense' not allowed",
	} {
		t.Run(set, func(t *testing.T) {
			_, err := run(t.Context(), "", "helm", "template", release, sources(t, "charts", "hoststatus"), registry, "--set", set)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("helm says %v, which should have %q in it", err, want)
			}
		})
	}
}

func TestNothingMayRunInTheNamespacesThatIsNotConfined(t *testing.T) {
	for name, all := range map[string][]*unstructured.Unstructured{"chart": chart(t), "config": kustomization(t, "install")} {
		namespaces := 0
		for _, obj := range all {
			if obj.GetKind() != "Namespace" {
				continue
			}
			namespaces++
			if got := obj.GetLabels()["pod-security.kubernetes.io/enforce"]; got != "restricted" {
				t.Errorf("%s: the namespace %s is under the pod security standard %q", name, obj.GetName(), got)
			}
		}
		if namespaces == 0 {
			t.Errorf("%s has no namespace", name)
		}
	}
}

func TestAnAccountOfNoPodMountsNoToken(t *testing.T) {
	for name, all := range map[string][]*unstructured.Unstructured{
		"chart": chart(t, "--set=agent.enabled=true,metrics.service.enabled=true"), "config": kustomization(t, "install", "agent", "prometheus"),
	} {
		used := map[string]bool{}
		for _, obj := range all {
			if len(containers(obj)) > 0 {
				used[podIn(t, obj).ServiceAccountName] = true
			}
		}
		spare := 0
		for _, obj := range all {
			if obj.GetKind() != "ServiceAccount" || used[obj.GetName()] {
				continue
			}
			// The chart has the agent's roles also for agents that it does not run.
			spare++
			if mounts, found, _ := unstructured.NestedBool(obj.Object, "automountServiceAccountToken"); mounts || !found {
				t.Errorf("%s: no pod runs as %s, and one that did would get its token", name, obj.GetName())
			}
		}
		if len(used) < 3 || spare != 1 {
			t.Errorf("%s has %d accounts with pods and %d without", name, len(used), spare)
		}
	}
}

// A probe that fails while a process starts is an event of kind Unhealthy.
func TestNoProbeLooksBeforeTheProcessListens(t *testing.T) {
	for name, all := range map[string][]*unstructured.Unstructured{"chart": chart(t, "--set=novaAPI.enabled=true,notifier.enabled=true", notifierConfig), "config": kustomization(t, "install", "nova-api", "notifier")} {
		for _, deployment := range []string{"hoststatus-manager", "hoststatus-tenant-apiserver", "hoststatus-nova-api", "hoststatus-notifier"} {
			container := podOf(t, all, deployment).Containers[0]
			if probe := container.StartupProbe; probe == nil || probe.InitialDelaySeconds < 2 || probe.FailureThreshold < 30 {
				t.Errorf("%s: %s has the startup probe %v", name, deployment, probe)
			}
		}
	}
}
