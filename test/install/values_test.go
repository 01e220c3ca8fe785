// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/internal/agent"
	"hoststatus.dev/hoststatus/internal/cli"
	"hoststatus.dev/hoststatus/internal/manager"
	"hoststatus.dev/hoststatus/internal/notify"
	"hoststatus.dev/hoststatus/internal/nova"
	"hoststatus.dev/hoststatus/internal/tenantapi"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// withNotifier are values for a notifier.
const withNotifier = "notifier.enabled=true,notifier.config.namespaces={team-a},notifier.config.sinks[0].name=bus,notifier.config.sinks[0].cloudEvents.url=https://bus.example.com," +
	"notifier.config.routes[0].name=all,notifier.config.routes[0].sink=bus"

// whole are flags of helm for all that a release can have.
const whole = "--set=agent.enabled=true,novaAPI.enabled=true," + withNotifier

// notifierConfig is what config/notifier has, as a flag of helm.
const notifierConfig = `--set-json=notifier.config={"namespaces":["*"],"sinks":[{"name":"alertmanager","alertmanager":{"url":"http://alertmanager-operated.monitoring.svc:9093"}}],"routes":[{"name":"hosts","sink":"alertmanager","hostStatuses":["DOWN","UNKNOWN"],"minSeconds":5,"groupByHost":true}]}`

// render renders the chart with values, as helm install would be given them in a file.
func render(t *testing.T, values string, args ...string) (string, error) {
	t.Helper()
	// Not in t.TempDir: for helm a comma in a path divides two.
	file := filepath.Join(scratch, "values.yaml")
	expect.NoError(t, os.WriteFile(file, []byte(values), 0o644))
	return run(t.Context(), "", "helm", append([]string{"template", release, sources(t, "charts", "hoststatus"), "--namespace", namespace, registry, "--values", file}, args...)...)
}

// refusedByBinaries returns what the binaries say of the flags that are rendered for them, and
// the notifier of its configuration.
func refusedByBinaries(t *testing.T, all []*unstructured.Unstructured) (refused []string) {
	t.Helper()
	for _, obj := range all {
		if config, _, _ := unstructured.NestedString(obj.Object, "data", "config.yaml"); config != "" {
			file := filepath.Join(t.TempDir(), "config.yaml")
			expect.NoError(t, os.WriteFile(file, []byte(config), 0o644))
			if _, err := notify.LoadConfig(file, ""); err != nil {
				refused = append(refused, "notifier: "+err.Error())
			}
		}
		for _, container := range containers(obj) {
			name, _ := container["name"].(string)
			var options interface {
				AddFlags(*pflag.FlagSet)
				Validate() field.ErrorList
			}
			switch name {
			case "manager":
				options = manager.NewOptions()
			case "tenant-apiserver":
				options = tenantapi.NewOptions()
			case "nova-api":
				options = nova.NewOptions()
			case "notifier":
				options = notify.NewOptions()
			case "agent":
				options = agent.NewOptions()
			default:
				continue
			}
			var args []string
			for _, arg := range container["args"].([]any) {
				args = append(args, strings.ReplaceAll(arg.(string), "$(NODE_NAME)", "node-1"))
			}
			if err := cli.FlagSet(name, options).Parse(args); err != nil {
				refused = append(refused, name+": "+err.Error())
				continue
			}
			for _, err := range options.Validate() {
				// It is mounted into the pod.
				if !strings.HasSuffix(err.Field, "cert-dir") {
					refused = append(refused, name+": "+err.Error())
				}
			}
		}
	}
	return refused
}

// What the chart lets pass and a binary refuses ends in a pod that never starts.
func TestTheChartRefusesWhatTheBinariesRefuse(t *testing.T) {
	duration := func(value string) map[string]string {
		return map[string]string{
			"manager.defaultLeaseDuration": "manager: {defaultLeaseDuration: '" + value + "'}",
			"agent.leaseDuration":          "agent: {leaseDuration: '" + value + "', renewInterval: 1s}",
		}
	}
	type attempt struct{ value, values string }
	var attempts []attempt
	for _, d := range []string{"3s", "1h", "60m", "3000ms", "0.05m", "1m30s", "30s1m", "59m60s", "2s", "0s", "2999ms", "3.5s", "3s500ms", "90m", "1h1s", "3600001ms", "99999999999999999999h"} {
		for value, values := range duration(d) {
			attempts = append(attempts, attempt{value, values})
		}
	}
	for _, pair := range []string{"1m 10s", "1m 20s", "30s 10s", "10s 3.333s", "3s 1s", "3s 999ms", "1m 20001ms", "10s 3.334s", "3s 1001ms", "1m 30s", "1m 0s", "10s 1m"} {
		d, r, _ := strings.Cut(pair, " ")
		attempts = append(attempts, attempt{"agent.renewInterval", "agent: {leaseDuration: " + d + ", renewInterval: " + r + "}"})
	}
	for _, selector := range []string{
		"", "  ", "a", "!a", "! a", "a=b", "a==b", "a = b", "a!=b", "a=", "a!=", "a,b", "a , !b", "a in (b)", "a in (b,c)", "a in (,b)", "a in(b)", "a notin ( b , c )", "a>1", "a < 12", "example.com/a=b", "example.com/a in (x)", "in=in",
		"a=b=c", "a b", "=b", "a,", ",a", "a,,b", "!a=b", "a in b", "a in ()", "a in (b", "a>b", "a>", "a>-1", "A/B/c", "-a", "a-", "a=-b", "a=b c", "a in (b) c", "example..com/a", "(a)", "a;b", strings.Repeat("a", 64), "a=" + strings.Repeat("b", 64),
	} {
		encoded, err := json.Marshal(selector)
		expect.NoError(t, err)
		attempts = append(attempts, attempt{"nodeMirror.selector", `nodeMirror: {enabled: true, selector: ` + string(encoded) + `}`})
	}
	for _, selector := range []string{"", "a!=b", "kubevirt.io/vm in (a,b)", "a in b", "a=b=c"} {
		attempts = append(attempts, attempt{"vmiMirror.selector", `vmiMirror: {enabled: true, selector: '` + selector + `'}`})
	}
	for _, prefix := range []string{"example.com", "a", "a.b-c.d", "a..b", "a.-b", "a-.b", ".a", "A", "a/", strings.Repeat("a", 254)} {
		attempts = append(attempts, attempt{"tenantAPI/visibleLabelPrefixes", "tenantAPI: {visibleLabelPrefixes: ['" + prefix + "']}"})
	}
	for _, name := range []string{"a", "a-1", "A", "a.b", "a-", strings.Repeat("a", 64)} {
		attempts = append(attempts, attempt{"leaseNamespaces", "leaseNamespaces: [hoststatus-leases, '" + name + "']"})
	}
	accepted, tried := 0, 0
	for _, attempt := range attempts {
		t.Run(attempt.values, func(t *testing.T) {
			tried++
			wanted := wouldStart(t, attempt.values)
			out, err := render(t, attempt.values, whole)
			if err != nil {
				if wanted {
					t.Errorf("the chart refuses what the binaries accept: %v", err)
				}
				if !strings.Contains(strings.ReplaceAll(err.Error(), "/", "."), strings.ReplaceAll(attempt.value, "/", ".")) {
					t.Errorf("the chart does not name %s: %v", attempt.value, err)
				}
				return
			}
			accepted++
			if refused := refusedByBinaries(t, objects(t, out)); len(refused) > 0 {
				t.Errorf("the chart renders what the binaries refuse: %q", refused)
			}
		})
	}
	if accepted == 0 || accepted == tried {
		t.Errorf("%d of %d values were accepted", accepted, tried)
	}
}

// wouldStart says whether the binaries would start with values, of which each has one
// meaning for them.
func wouldStart(t *testing.T, values string) bool {
	t.Helper()
	var v struct {
		Manager               struct{ DefaultLeaseDuration string }
		Agent                 struct{ LeaseDuration, RenewInterval string }
		NodeMirror, VMIMirror struct {
			Enabled  bool
			Selector string
		}
		TenantAPI       struct{ VisibleLabelPrefixes []string }
		LeaseNamespaces []string
	}
	decodeText(t, values, &v)
	m, ta, a := manager.NewOptions(), tenantapi.NewOptions(), agent.NewOptions()
	a.HostName = "node-1"
	var mArgs, tArgs, aArgs []string
	set := func(args *[]string, flag, value string) {
		if value != "" {
			*args = append(*args, "--"+flag+"="+value)
		}
	}
	set(&mArgs, "default-lease-duration", v.Manager.DefaultLeaseDuration)
	set(&aArgs, "lease-duration", v.Agent.LeaseDuration)
	set(&aArgs, "renew-interval", v.Agent.RenewInterval)
	set(&mArgs, "lease-namespaces", strings.Join(v.LeaseNamespaces, ","))
	set(&tArgs, "lease-namespaces", strings.Join(v.LeaseNamespaces, ","))
	set(&tArgs, "visible-label-prefixes", strings.Join(v.TenantAPI.VisibleLabelPrefixes, ","))
	if v.NodeMirror.Enabled {
		mArgs = append(mArgs, "--mirror-nodes", "--lease-namespaces=hoststatus-leases,kube-node-lease", "--mirror-nodes-selector="+v.NodeMirror.Selector)
	}
	if v.VMIMirror.Enabled {
		mArgs = append(mArgs, "--mirror-virtualmachineinstances", "--mirror-virtualmachineinstances-selector="+v.VMIMirror.Selector)
	}
	return cli.FlagSet("manager", m).Parse(mArgs) == nil && len(m.Validate()) == 0 &&
		cli.FlagSet("tenant-apiserver", ta).Parse(tArgs) == nil && len(ta.Validate()) == 0 &&
		cli.FlagSet("agent", a).Parse(aArgs) == nil && len(a.Validate()) == 0
}

func TestWhatCannotWorkIsRefusedInASentence(t *testing.T) {
	const unknown = "must be a registry with an optional path"
	for values, want := range map[string]string{
		"image: {registry: ''}":                                                             `image.registry is required: set it to where your images are, for example --set image.registry=registry.example.com/hoststatus.`,
		"image: {registry: hoststatus}":                                                     `image.registry: "hoststatus" ` + unknown,
		"image: {registry: library/hoststatus}":                                             `image.registry: "library/hoststatus" ` + unknown,
		"image: {registry: 'https://registry.example.com/a'}":                               `image.registry: "https://registry.example.com/a" has a scheme`,
		"image: {registry: registry.example.com/}":                                          `image.registry: "registry.example.com/" ` + unknown,
		"image: {registry: registry.example.com/A}":                                         `image.registry: "registry.example.com/A" ` + unknown,
		"manager: {image: manager}":                                                         `manager.image: "manager" is not a full image reference`,
		"tenantAPI: {image: 'https://r.example.com/tenant'}":                                `tenantAPI.image: "https://r.example.com/tenant" is not a full image reference`,
		"agent: {enabled: true, image: 'hoststatus/agent:1'}":                               `agent.image: "hoststatus/agent:1" is not a full image reference`,
		"test: {image: a b}":                                                                `test.image: "a b" is not a full image reference`,
		"leaseNamespaces: [kube-node-lease]":                                                `leaseNamespaces: hoststatus-leases is not among ["kube-node-lease"]`,
		"manager: {defaultLeaseDuration: 90m}":                                              `manager.defaultLeaseDuration: "90m" must be whole seconds from 3s to 1h`,
		"agent: {renewInterval: 30s}":                                                       `agent.renewInterval: "30s" must be from 100ms to a third of agent.leaseDuration, which is "1m"`,
		"nodeMirror: {enabled: true, selector: 'a in b'}":                                   `nodeMirror.selector: "a in b" must be a label selector as kubectl's -l takes it`,
		"nodeMirror: {writeConditions: true}":                                               "nodeMirror.writeConditions is for mirrored Nodes: set nodeMirror.enabled=true",
		"vmiMirror: {enabled: true, selector: 'a in b'}":                                    `vmiMirror.selector: "a in b" must be a label selector as kubectl's -l takes it`,
		"certificates: {issuerRef: {name: internal}}":                                       "certificates.issuerRef is for cert-manager, which is off: set certificates.certManager=true",
		"certificates: {certManager: true, issuerRef: {name: a, kind: Issue}}":              `certificates.issuerRef.kind: "Issue" must be Issuer or ClusterIssuer`,
		"networkPolicy: {webhookFrom: [{ipBlock: {cidr: 10.0.0.1}}]}":                       `networkPolicy.webhookFrom[0].ipBlock: "10.0.0.1" must be an address range in CIDR notation, for example 10.0.0.0/28`,
		"networkPolicy: {metricsFrom: [{podSelector: {}}, {ipBlock: {cidr: '::1/129'}}]}":   `networkPolicy.metricsFrom[1].ipBlock: "::1/129" must be`,
		"networkPolicy: {metricsFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1]}}]}": `networkPolicy.metricsFrom[0].ipBlock: "10.0.0.1" must be`,
		"manager: {metricsPort: 9443}":                                                      "webhook.port: 9443 is already used by manager.metricsPort in the same network; choose another, for example 9444",
		"manager: {hostNetwork: true}\ntenantAPI: {hostNetwork: true}":                      "tenantAPI.port: 8443 is already used by manager.metricsPort in the same network, because hostNetwork is on; choose another, for example 8444",
		"tenantAPI: {hostNetwork: true, port: 10250}":                                       "tenantAPI.port: 10250 is used by the kubelet or kube-proxy, and tenantAPI.hostNetwork is on",
		"manager: {hostNetwork: true}\nwebhook: {port: 443}":                                "webhook.port: 443 is below 1024",
		"manager: {podLabels: {app.kubernetes.io/name: a}}":                                 "manager.podLabels: app.kubernetes.io/name is set by the chart",
		"tenantAPI: {extraVolumes: [{name: certificate}]}":                                  "tenantAPI.extraVolumes: the name certificate is used by the chart",
		"agent: {extraVolumeMounts: [{name: a, mountPath: /a}]}":                            `agent.extraVolumeMounts: there is no "a" among agent.extraVolumes`,
		"agent: {extraEnv: [{name: NODE_NAME, value: a}]}":                                  "agent.extraEnv: NODE_NAME is set by the chart",
		"novaAPI: {enabled: true, plainHTTP: true, certificateSecret: a}":                   "novaAPI.plainHTTP: without TLS there is no use for novaAPI.certificateSecret",
		"novaAPI: {enabled: true, port: 8081}":                                              "novaAPI.probesPort: 8081 is already used by novaAPI.port in the same network; choose another, for example 8082",
		"novaAPI: {extraVolumes: [{name: kube}]}":                                           "novaAPI.extraVolumes: the name kube is used by the chart",
		"novaAPI: {enabled: true, image: nova}":                                             `novaAPI.image: "nova" is not a full image reference`,
		"networkPolicy: {novaFrom: [{ipBlock: {cidr: 10.0.0.1}}]}":                          `networkPolicy.novaFrom[0].ipBlock: "10.0.0.1" must be an address range in CIDR notation`,
		"notifier: {enabled: true}":                                                         "notifier.config: is required with notifier.enabled",
		"notifier: {enabled: true, config: {}}\ntenantAPI: {enabled: false}":                "notifier.enabled: it watches the owners' view, which is off",
		"notifier: {extraVolumes: [{name: secrets}]}":                                       "notifier.extraVolumes: the name secrets is used by the chart",
		"networkPolicy: {notifierTo: [{ipBlock: {cidr: 10.0.0.1}}]}":                        `networkPolicy.notifierTo[0].ipBlock: "10.0.0.1" must be an address range in CIDR notation`,
		"agent: {driver: fake}":                                                             "agent.driver: fake needs a file to read: add --fake-driver-file=PATH to agent.extraArgs",
		"agent: {driver: libvirt, libvirt: {resync: 10ms}}":                                 `agent.libvirt.resync: "10ms" must be at least 1s`,
		"agent: {driver: libvirt, libvirt: {novaNamespace: a}}":                             "agent.libvirt.novaNamespace: needs nova in agent.libvirt.identity",
		"agent: {driver: libvirt, extraArgs: [--libvirt-uri=a]}":                            `agent.extraArgs: "--libvirt-uri=a": set the value of agent.libvirt instead`,
		"agent: {extraArgs: [--driver=fake]}":                                               `agent.extraArgs: "--driver=fake": set agent.driver instead`,
		// The schema's words.
		"securityContext: {runAsUser: 0}":                                       "at '/securityContext/runAsUser': minimum",
		"networkPolicy: {webhookFrom: [{ipBlock: {cidr: a}, podSelector: {}}]}": "at '/networkPolicy/webhookFrom/0'",
		"manager: {resources: {limits: {memory: much}}}":                        "at '/manager/resources/limits/memory': 'much' does not match pattern",
		"image: {pullSecrets: [a..b]}":                                          "at '/image/pullSecrets/0': 'a..b' does not match pattern",
		"manager: {podAnnotations: {'a b': c}}":                                 `manager.podAnnotations: "a b" is not a label or annotation key`,
		"metrics: {dashboard: {labels: {a/b/c: d}}}":                            `metrics.dashboard.labels: "a/b/c" is not a label or annotation key`,
		"metrics: {serviceMonitor: {interval: 0s}}":                             "at '/metrics/serviceMonitor/interval'",
		"manager: {hostAliases: [{ip: 10.0.0.1}]}":                              "at '/manager/hostAliases/0': missing property 'hostnames'",
		"tenantAPI: {dnsPolicy: Sometimes}":                                     "at '/tenantAPI/dnsPolicy': value must be one of",
		"notifier: {config: {sinks: []}}":                                       "at '/notifier/config': missing property 'routes'",
		"notifier: {config: {sinks: [{name: a}], routes: []}}":                  "at '/notifier/config/sinks/0': missing property 'cloudEvents'",
		"notifier: {config: {sinks: [{name: a, cloudEvents: {url: a}}]}}":       "at '/notifier/config/sinks/0/cloudEvents/url': 'a' does not match pattern",
		"notifier: {config: {sinks: [{name: a, timeoutSeconds: 61}]}}":          "at '/notifier/config/sinks/0/timeoutSeconds': maximum: got 61, want 60",
		"notifier: {config: {sinks: [{name: a, tls: {certFile: a}}]}}":          "at '/notifier/config/sinks/0/tls': properties 'keyFile' required",
		"notifier: {config: {routes: [{name: a, sinc: a}]}}":                    "at '/notifier/config/routes/0': additional properties 'sinc' not allowed",
		"notifier: {config: {routes: [{name: a, hostStatuses: [Down]}]}}":       "at '/notifier/config/routes/0/hostStatuses/0': value must be one of",
	} {
		t.Run(values, func(t *testing.T) {
			args := []string(nil)
			if strings.HasPrefix(values, "image: {registry") {
				var v struct{ Image struct{ Registry string } }
				decodeText(t, values, &v)
				args = append(args, "--set=image.registry="+v.Image.Registry)
			}
			_, err := render(t, values, args...)
			if err == nil || !strings.Contains(strings.Join(strings.Fields(err.Error()), " "), want) {
				t.Errorf("helm says %v, which should have %q in it", err, want)
			}
		})
	}
}

// Everybody who forgets image.registry would run what a stranger has published under the
// name that stood there.
func TestWithoutARegistryNothingIsInstalled(t *testing.T) {
	_, err := run(t.Context(), "", "helm", "template", release, sources(t, "charts", "hoststatus"), "--namespace", namespace)
	if err == nil || !strings.Contains(err.Error(), "image.registry is required") {
		t.Errorf("helm says %v of a chart without image.registry", err)
	}
	named := "--set=manager.image=r.example.com/m@sha256:" + strings.Repeat("a", 64) + ",tenantAPI.image=r.example.com:5000/a/t:1,test.image=localhost/k"
	_, err = run(t.Context(), "", "helm", "template", release, sources(t, "charts", "hoststatus"), "--namespace", namespace, named)
	if err != nil {
		t.Errorf("with all images named whole: %v", err)
	}
	for _, obj := range kustomization(t, "install", "agent") {
		for _, container := range containers(obj) {
			// RFC 2606: nobody can ever have it.
			if image, _ := container["image"].(string); !strings.HasPrefix(image, "registry.invalid/") {
				t.Errorf("config/ has image %s in %s, which may be anybody's", image, obj.GetName())
			}
		}
	}
}

// helm takes a value away where it is null, and everything with --reuse-values that the
// chart of before did not have.
func TestAValueThatIsTakenAwayIsMissedByNameOrNotAtAll(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what renders the chart for each value")
	}
	var values map[string]any
	decode(t, sources(t, "charts", "hoststatus", "values.yaml"), &values)
	for _, path := range leaves("", values) {
		t.Run(path, func(t *testing.T) {
			out, err := render(t, "", whole, "--set="+path+"=null")
			if err != nil {
				parts := strings.Split(path, ".")
				if !strings.Contains(err.Error(), "missing property '"+parts[len(parts)-1]+"'") && !strings.Contains(err.Error(), path) {
					t.Errorf("helm does not name it: %v", err)
				}
				return
			}
			if refused := refusedByBinaries(t, objects(t, out)); len(refused) > 0 {
				t.Errorf("the chart renders what the binaries refuse: %q", refused)
			}
			if strings.Contains(out, "<no value>") || strings.Contains(out, "<nil>") {
				t.Error("the chart renders nothing in its place")
			}
		})
	}
}

func leaves(prefix string, values map[string]any) (paths []string) {
	for name, value := range values {
		if mapping, ok := value.(map[string]any); ok && len(mapping) > 0 && name != "labels" && name != "resources" {
			paths = append(paths, leaves(prefix+name+".", mapping)...)
			continue
		}
		paths = append(paths, prefix+name)
	}
	slices.Sort(paths)
	return paths
}

// One value moves the flag, the port of the container, what the Service leads to and what
// the NetworkPolicy lets in.
func TestOneValueMovesEverythingOfAPort(t *testing.T) {
	for name, test := range map[string]struct {
		set                              []string
		webhook, metrics, probes, tenant int32
		low                              bool
	}{
		"as shipped":                  {nil, 9443, 8443, 8081, 8443, false},
		"a private cluster's":         {[]string{"--set=webhook.port=10250,tenantAPI.port=10250"}, 10250, 8443, 8081, 10250, false},
		"below 1024":                  {[]string{"--set=webhook.port=443,tenantAPI.port=443"}, 443, 8443, 8081, 443, true},
		"those of probes and metrics": {[]string{"--set=manager.metricsPort=9090,manager.probesPort=9091"}, 9443, 9090, 9091, 8443, false},
		"in the nodes' network":       {[]string{"--set=manager.hostNetwork=true,tenantAPI.hostNetwork=true,tenantAPI.port=9445"}, 9443, 8443, 8081, 9445, false},
	} {
		t.Run(name, func(t *testing.T) {
			all := chart(t, append(test.set, "--set=metrics.service.enabled=true")...)
			for _, way := range []struct {
				service, deployment, port string
				want                      int32
			}{
				{"hoststatus-webhook", "hoststatus-manager", "--webhook-bind-address=:", test.webhook},
				{"hoststatus-manager-metrics", "hoststatus-manager", "--metrics-bind-address=:", test.metrics},
				{"", "hoststatus-manager", "--health-probe-bind-address=:", test.probes},
				{"hoststatus-tenant-apiserver", "hoststatus-tenant-apiserver", "--secure-port=", test.tenant},
			} {
				pod := podOf(t, all, way.deployment)
				if want := way.port + strconv.Itoa(int(way.want)); !slices.Contains(pod.Containers[0].Args, want) {
					t.Errorf("%s is started with %q, without %s", way.deployment, pod.Containers[0].Args, want)
				}
				if way.service == "" {
					if got := podPort(t, pod, pod.Containers[0].ReadinessProbe.HTTPGet.Port); got != way.want {
						t.Errorf("%s is probed on %d, not %d", way.deployment, got, way.want)
					}
					continue
				}
				service := serviceOf(t, all, way.service)
				if got := podPort(t, pod, service.Spec.Ports[0].TargetPort); got != way.want {
					t.Errorf("the Service %s leads to %d, not %d", way.service, got, way.want)
				}
				// By name, so that during an upgrade it leads old pods' callers to old ports.
				if service.Spec.Ports[0].TargetPort.Type != intstr.String {
					t.Errorf("the Service %s names the port by its number", way.service)
				}
				admitted(t, all, service, service.Spec.Ports[0])
			}
			for _, name := range []string{"hoststatus-manager", "hoststatus-tenant-apiserver"} {
				pod := podOf(t, all, name)
				if low := len(pod.SecurityContext.Sysctls) > 0; low != test.low {
					t.Errorf("%s has the sysctls %v", name, pod.SecurityContext.Sysctls)
				}
			}
		})
	}
}

func TestInTheNodesNetworkPodsFindNamesAndAnUpgradeFindsRoom(t *testing.T) {
	all := chart(t, "--set=agent.enabled=true,agent.hostNetwork=true,manager.hostNetwork=true,tenantAPI.hostNetwork=true,tenantAPI.port=9445")
	for _, name := range []string{"hoststatus-manager", "hoststatus-tenant-apiserver", "hoststatus-agent"} {
		pod := podOf(t, all, name)
		if !pod.HostNetwork || pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
			t.Errorf("%s has hostNetwork %v and dnsPolicy %s", name, pod.HostNetwork, pod.DNSPolicy)
		}
	}
	for _, obj := range all {
		if obj.GetKind() != "Deployment" {
			continue
		}
		surge, found, err := unstructured.NestedFieldNoCopy(obj.Object, "spec", "strategy", "rollingUpdate", "maxSurge")
		if fmt.Sprint(surge) != "0" || !found || err != nil {
			t.Errorf("an upgrade of %s starts a pod beside one that has its ports: maxSurge is %v", obj.GetName(), surge)
		}
	}
	if pod := podOf(t, chart(t, "--set=manager.hostNetwork=true,manager.dnsPolicy=Default"), "hoststatus-manager"); pod.DNSPolicy != corev1.DNSDefault {
		t.Errorf("with manager.dnsPolicy=Default it is %s", pod.DNSPolicy)
	}
}

// OpenShift gives each namespace users of its own, and refuses others.
func TestTheUserCanBeLeftToTheCluster(t *testing.T) {
	for set, want := range map[string]*int64{"securityContext.runAsUser=null": nil, "securityContext.runAsUser=1000680000": new(int64(1000680000))} {
		all := chart(t, "--set="+set, whole)
		pods := 0
		for _, obj := range all {
			if len(containers(obj)) == 0 {
				continue
			}
			pods++
			security := podIn(t, obj).SecurityContext
			for _, got := range []*int64{security.RunAsUser, security.RunAsGroup} {
				if (got == nil) != (want == nil) || got != nil && *got != *want {
					t.Errorf("with %s %s runs as user %v and group %v", set, obj.GetName(), security.RunAsUser, security.RunAsGroup)
				}
			}
			if security.RunAsNonRoot == nil || !*security.RunAsNonRoot {
				t.Errorf("with %s %s may run as root", set, obj.GetName())
			}
		}
		if pods != 6 {
			t.Errorf("%d pods, not 6", pods)
		}
	}
}

func TestAgentsMayReportOnServersOnlyWithADriver(t *testing.T) {
	const pods = "ServiceAccount/hoststatus-agent"
	for values, want := range map[string][]string{
		"agent: {enabled: true}": {"Group/system:hoststatus:hosts"},
		"agent: {enabled: true, driver: fake, extraArgs: [--fake-driver-file=/etc/servers.yaml]}": {"Group/system:hoststatus:hosts", pods},
		"agent: {enabled: true, driver: libvirt}":                                                 {"Group/system:hoststatus:hosts", pods},
	} {
		out, err := render(t, values, whole)
		expect.NoError(t, err)
		var got []string
		for _, obj := range objects(t, out) {
			if obj.GetKind() != "ClusterRoleBinding" || obj.GetName() != "hoststatus-agent" {
				continue
			}
			subjects, _, _ := unstructured.NestedSlice(obj.Object, "subjects")
			for _, subject := range subjects {
				s, _ := subject.(map[string]any)
				got = append(got, fmt.Sprintf("%s/%s", s["kind"], s["name"]))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: who may report on servers (-want +got):\n%s", values, diff)
		}
	}
}

// What runs on a node with libvirt: its folder, as a user that has a name there, and nothing
// else that is privileged.
func TestAgentsWithLibvirtMountItsFolderAsNobody(t *testing.T) {
	out, err := render(t, "agent: {enabled: true, driver: libvirt, libvirt: {folder: /var/run/libvirt, identity: [metadata, nova], novaNamespace: nova}}", whole)
	expect.NoError(t, err)
	all := objects(t, out)
	if refused := refusedByBinaries(t, all); len(refused) > 0 {
		t.Errorf("the binaries refuse %q", refused)
	}
	for _, obj := range all {
		if obj.GetKind() != "DaemonSet" {
			continue
		}
		pod := podIn(t, obj)
		if len(pod.Volumes) != 1 || pod.Volumes[0].HostPath == nil || pod.Volumes[0].HostPath.Path != "/var/run/libvirt" {
			t.Errorf("volumes %+v", pod.Volumes)
		}
		c := pod.Containers[0]
		if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].MountPath != "/run/libvirt" || !c.VolumeMounts[0].ReadOnly {
			t.Errorf("mounts %+v", c.VolumeMounts)
		}
		if s := c.SecurityContext; s.RunAsUser == nil || *s.RunAsUser != 65534 || s.RunAsGroup == nil || *s.RunAsGroup != 65534 || s.Privileged != nil {
			t.Errorf("security context %+v", s)
		}
		if flags := strings.Join(c.Args, " "); !strings.Contains(flags, "--libvirt-identity=metadata,nova --libvirt-nova-namespace=nova") {
			t.Errorf("flags %s", flags)
		}
		return
	}
	t.Error("there is no DaemonSet")
}

// Agents of 0.1 are let go on, or not, by one policy of the same name.
func TestAgentsOf01AreLetGoOnOnlyIfAsked(t *testing.T) {
	for values, want := range map[string]bool{"{}": false, "agent: {legacyReports: true}": true} {
		out, err := render(t, values)
		expect.NoError(t, err)
		policies, rights := 0, 0
		for _, obj := range objects(t, out) {
			switch {
			case obj.GetKind() == "ValidatingAdmissionPolicy" && obj.GetName() == "hoststatus-reports":
				policies++
				validations, _, _ := unstructured.NestedSlice(obj.Object, "spec", "validations")
				if (len(validations) == 1) == want {
					t.Errorf("%s: %d rules", values, len(validations))
				}
			case strings.HasSuffix(obj.GetName(), "-before-0.2"):
				rights++
			}
		}
		if policies != 1 || (rights == 2) != want || (rights == 0) == want {
			t.Errorf("%s: %d policies, %d objects with rights", values, policies, rights)
		}
	}
}

func TestValuesThatEveryChartHas(t *testing.T) {
	const each = `
%s:
  podLabels: {team: compute}
  podAnnotations: {note: here}
  serviceAccountAnnotations: {example.com/role: reader}
  extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
  extraVolumes: [{name: ca, configMap: {name: ca}}]
  extraVolumeMounts: [{name: ca, mountPath: /etc/ssl/certs}]
  hostAliases: [{ip: 10.0.0.1, hostnames: [api.internal]}]
  priorityClassName: ""
`
	for component, name := range map[string]string{"manager": "hoststatus-manager", "tenantAPI": "hoststatus-tenant-apiserver", "novaAPI": "hoststatus-nova-api", "notifier": "hoststatus-notifier", "agent": "hoststatus-agent"} {
		for _, more := range []string{"certificates.certManager=false", "certificates.certManager=true"} {
			out, err := render(t, fmt.Sprintf(each, component), whole, "--set="+more)
			expect.NoError(t, err)
			all := objects(t, out)
			pod, mine := podOf(t, all, name), false
			container := pod.Containers[0]
			for _, variable := range container.Env {
				mine = mine || variable.Name == "HTTPS_PROXY"
			}
			certificate := more == "certificates.certManager=true" && component != "agent" && component != "notifier"
			volumes := 1
			if certificate {
				volumes = 2
			}
			if component == "notifier" {
				volumes = 3 // Also its configuration and its Secret.
			}
			if component == "novaAPI" {
				volumes = 3 // Also how it reaches the API server; its certificate is always in a Secret.
			}
			if !mine || len(pod.Volumes) != volumes || len(container.VolumeMounts) != volumes || len(pod.HostAliases) != 1 || pod.PriorityClassName != "" {
				t.Errorf("%s with %s: env %v, volumes %v, mounts %v, aliases %v, class %q", name, more, container.Env, pod.Volumes, container.VolumeMounts, pod.HostAliases, pod.PriorityClassName)
			}
			for _, obj := range all {
				if obj.GetName() != name {
					continue
				}
				switch obj.GetKind() {
				case "ServiceAccount":
					if obj.GetAnnotations()["example.com/role"] != "reader" {
						t.Errorf("the account %s has the annotations %v", name, obj.GetAnnotations())
					}
				case "Deployment", "DaemonSet":
					labels, _, _ := unstructured.NestedStringMap(obj.Object, "spec", "template", "metadata", "labels")
					annotations, _, _ := unstructured.NestedStringMap(obj.Object, "spec", "template", "metadata", "annotations")
					if labels["team"] != "compute" || annotations["note"] != "here" {
						t.Errorf("the pods of %s have labels %v and annotations %v", name, labels, annotations)
					}
				}
			}
		}
	}
	for values, want := range map[string]int{
		"manager: {topologySpreadConstraints: []}": 0,
		"manager: {topologySpreadConstraints: [{maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}]}": 1,
	} {
		out, err := render(t, values)
		expect.NoError(t, err)
		if got := podOf(t, objects(t, out), "hoststatus-manager").TopologySpreadConstraints; len(got) != want {
			t.Errorf("with %s: %v", values, got)
		}
	}
}

// podOf returns what a Deployment or DaemonSet makes pods of.
func podOf(t *testing.T, all []*unstructured.Unstructured, name string) corev1.PodSpec {
	t.Helper()
	for _, obj := range all {
		if kind := obj.GetKind(); obj.GetName() == name && (kind == "Deployment" || kind == "DaemonSet") {
			return podIn(t, obj)
		}
	}
	t.Fatalf("there is no %s", name)
	return corev1.PodSpec{}
}

func podIn(t *testing.T, obj *unstructured.Unstructured) corev1.PodSpec {
	t.Helper()
	path := []string{"spec", "template", "spec"}
	if obj.GetKind() == "Pod" {
		path = []string{"spec"}
	}
	spec, _, err := unstructured.NestedMap(obj.Object, path...)
	expect.NoError(t, err)
	return *fromUnstructured(t, &unstructured.Unstructured{Object: spec}, &corev1.PodSpec{})
}

func serviceOf(t *testing.T, all []*unstructured.Unstructured, name string) *corev1.Service {
	t.Helper()
	for _, obj := range all {
		if obj.GetKind() == "Service" && obj.GetName() == name {
			return fromUnstructured(t, obj, &corev1.Service{})
		}
	}
	t.Fatalf("there is no Service %s", name)
	return nil
}

// podPort returns the number of a port of a pod, which others may know by its name.
func podPort(t *testing.T, pod corev1.PodSpec, port intstr.IntOrString) int32 {
	t.Helper()
	for _, has := range pod.Containers[0].Ports {
		if port.Type == intstr.String && has.Name == port.StrVal || port.Type == intstr.Int && has.ContainerPort == port.IntVal {
			return has.ContainerPort
		}
	}
	t.Errorf("the pod has no port %s", port.String())
	return 0
}
