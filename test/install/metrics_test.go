// SPDX-License-Identifier: Apache-2.0

package install

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

func TestEachValueForMetricsAddsItsObjectsOnly(t *testing.T) {
	scraping := []string{
		"ClusterRole /hoststatus-metrics-reader", "ClusterRoleBinding /hoststatus-metrics-reader", "Secret hoststatus-system/hoststatus-metrics-scraper",
		"Service hoststatus-system/hoststatus-manager-metrics", "ServiceAccount hoststatus-system/hoststatus-metrics-scraper",
	}
	monitored := append([]string{"ServiceMonitor hoststatus-system/hoststatus-manager", "ServiceMonitor hoststatus-system/hoststatus-tenant-apiserver"}, scraping...)
	const nova, notifier = ",novaAPI.enabled=true", "," + withNotifier
	for set, want := range map[string][]string{
		"metrics.service.enabled=true":                   scraping,
		"metrics.serviceMonitor.enabled=true":            monitored,
		"metrics.service.enabled=true" + nova:            append([]string{"Service hoststatus-system/hoststatus-nova-api-metrics"}, scraping...),
		"metrics.serviceMonitor.enabled=true" + nova:     append([]string{"Service hoststatus-system/hoststatus-nova-api-metrics", "ServiceMonitor hoststatus-system/hoststatus-nova-api"}, monitored...),
		"metrics.service.enabled=true" + notifier:        append([]string{"Service hoststatus-system/hoststatus-notifier-metrics"}, scraping...),
		"metrics.serviceMonitor.enabled=true" + notifier: append([]string{"Service hoststatus-system/hoststatus-notifier-metrics", "ServiceMonitor hoststatus-system/hoststatus-notifier"}, monitored...),
		"metrics.prometheusRule.enabled=true":            {"PrometheusRule hoststatus-system/hoststatus"},
		"metrics.dashboard.enabled=true":                 {"ConfigMap hoststatus-system/hoststatus-dashboard"},
	} {
		t.Run(set, func(t *testing.T) {
			var without map[string]any
			if _, component, ok := strings.Cut(set, ","); ok {
				without = byName(chart(t, "--set="+component))
			} else {
				without = byName(chart(t))
			}
			with := byName(chart(t, "--set="+set))
			for name, object := range without {
				if diff := cmp.Diff(object, with[name]); diff != "" {
					t.Errorf("it changes %s:\n%s", name, diff)
				}
				delete(with, name)
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(with))); diff != "" {
				t.Errorf("what should be added (-) and what is (+) differ:\n%s", diff)
			}
		})
	}
}

// Alerts that nothing is scraped of an API that is not served would never end.
func TestWithoutTheTenantAPINobodyLooksForIt(t *testing.T) {
	for _, obj := range chart(t, "--set=tenantAPI.enabled=false,metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true") {
		if obj.GetKind() == "ServiceMonitor" && obj.GetName() != "hoststatus-manager" {
			t.Errorf("the ServiceMonitor %s is there", obj.GetName())
		}
		groups, _, _ := unstructured.NestedSlice(obj.Object, "spec", "groups")
		for _, group := range groups {
			if name, _, _ := unstructured.NestedString(group.(map[string]any), "name"); strings.Contains(name, "tenant") {
				t.Errorf("the alerts %s are there", name)
			}
		}
	}
}

func TestMonitorsAreAsTheValuesSay(t *testing.T) {
	all := byName(chart(t, "--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=prometheus,metrics.serviceMonitor.interval=1m",
		"--set=metrics.prometheusRule.enabled=true,metrics.prometheusRule.labels.release=prometheus", "--set=certificates.certManager=true,novaAPI.enabled=true,"+withNotifier))
	wantLabels := map[string]any{"app.kubernetes.io/name": "hoststatus", "release": "prometheus"}
	for _, name := range []string{
		"ServiceMonitor hoststatus-system/hoststatus-manager", "ServiceMonitor hoststatus-system/hoststatus-tenant-apiserver", "ServiceMonitor hoststatus-system/hoststatus-nova-api", "ServiceMonitor hoststatus-system/hoststatus-notifier", "PrometheusRule hoststatus-system/hoststatus",
	} {
		object, _ := all[name].(map[string]any)
		got, _, _ := unstructured.NestedMap(object, "metadata", "labels")
		if diff := cmp.Diff(wantLabels, got); diff != "" {
			t.Errorf("%s has other labels:\n%s", name, diff)
		}
		endpoints, _, _ := unstructured.NestedSlice(object, "spec", "endpoints")
		for _, endpoint := range endpoints {
			endpoint := endpoint.(map[string]any)
			if endpoint["interval"] != "1m" {
				t.Errorf("%s scrapes every %v, not every 1m", name, endpoint["interval"])
			}
			ca, found, _ := unstructured.NestedString(endpoint, "tlsConfig", "ca", "secret", "name")
			if want := "hoststatus-tenant-apiserver-cert"; found && ca != want {
				t.Errorf("%s trusts what is in the Secret %s; cert-manager's is %s", name, ca, want)
			}
		}
	}
}

// From the ServiceMonitor by the Service to the pods: each port on the way exists, and
// the pods' NetworkPolicy lets in whom metricsFrom names. The tenant API's lets in
// everybody, because no policy can name the API server.
func TestScrapesComeThrough(t *testing.T) {
	const from = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring"
	for name, test := range map[string]struct {
		values   []string
		confined map[string]bool
	}{
		"by default":       {nil, nil},
		"with metricsFrom": {[]string{"--set=" + from}, map[string]bool{"hoststatus-manager": true, "hoststatus-nova-api": true, "hoststatus-notifier": true}},
	} {
		t.Run(name, func(t *testing.T) {
			all := chart(t, append(test.values, "--set=metrics.serviceMonitor.enabled=true,novaAPI.enabled=true,"+withNotifier)...)
			monitors := 0
			for _, monitor := range all {
				if monitor.GetKind() != "ServiceMonitor" {
					continue
				}
				monitors++
				service, port := scraped(t, all, monitor)
				peers := admitted(t, all, service, port)
				if confined := len(peers) > 0; confined != test.confined[monitor.GetName()] {
					t.Errorf("%s may be scraped by %v; an empty list is everybody", monitor.GetName(), peers)
				}
				for _, peer := range peers {
					if peer.NamespaceSelector == nil || peer.NamespaceSelector.MatchLabels["name"] != "monitoring" {
						t.Errorf("%s may be scraped by %v", monitor.GetName(), peer)
					}
				}
			}
			if monitors != 4 {
				t.Errorf("there are %d ServiceMonitors, not 4", monitors)
			}
		})
	}
}

func TestOnlyWhoIsNamedReachesTheWebhook(t *testing.T) {
	for name, test := range map[string]struct {
		values []string
		want   []networkingv1.NetworkPolicyPeer
	}{
		"by default":       {nil, nil},
		"with webhookFrom": {[]string{"--set=networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28"}, []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/28"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			all := chart(t, test.values...)
			i := slices.IndexFunc(all, func(obj *unstructured.Unstructured) bool {
				return obj.GetKind() == "Service" && obj.GetName() == "hoststatus-webhook"
			})
			if i < 0 {
				t.Fatal("there is no Service of the webhook")
			}
			service := fromUnstructured(t, all[i], &corev1.Service{})
			if diff := cmp.Diff(test.want, admitted(t, all, service, service.Spec.Ports[0])); diff != "" {
				t.Errorf("peers (-want +got):\n%s", diff)
			}
		})
	}
}

// Without a certificate it serves its metrics in clear, too.
func TestNovaAPIBehindAProxyIsScrapedInClear(t *testing.T) {
	for set, want := range map[string]string{"novaAPI.enabled=true": "https", "novaAPI.enabled=true,novaAPI.plainHTTP=true": "http"} {
		object, _ := byName(chart(t, "--set=metrics.serviceMonitor.enabled=true,"+set))["ServiceMonitor hoststatus-system/hoststatus-nova-api"].(map[string]any)
		endpoints, _, _ := unstructured.NestedSlice(object, "spec", "endpoints")
		if len(endpoints) != 1 {
			t.Fatalf("%s: it has the endpoints %v", set, endpoints)
		}
		endpoint := endpoints[0].(map[string]any)
		if _, secured := endpoint["tlsConfig"]; endpoint["scheme"] != want || secured != (want == "https") {
			t.Errorf("%s: it is scraped by %v", set, endpoint)
		}
	}
}

// scraped returns the Service that a ServiceMonitor finds, and its port.
func scraped(t *testing.T, all []*unstructured.Unstructured, monitor *unstructured.Unstructured) (*corev1.Service, corev1.ServicePort) {
	t.Helper()
	selector, _, _ := unstructured.NestedStringMap(monitor.Object, "spec", "selector", "matchLabels")
	endpoints, _, _ := unstructured.NestedSlice(monitor.Object, "spec", "endpoints")
	for _, obj := range all {
		if obj.GetKind() != "Service" || !labels.SelectorFromSet(selector).Matches(labels.Set(obj.GetLabels())) {
			continue
		}
		service := fromUnstructured(t, obj, &corev1.Service{})
		for _, port := range service.Spec.Ports {
			if port.Name == endpoints[0].(map[string]any)["port"] {
				return service, port
			}
		}
	}
	t.Fatalf("%s finds no Service with its port", monitor.GetName())
	return nil, corev1.ServicePort{}
}

// admitted returns who may connect to the pods behind a port of a Service; nobody in
// the list stands for everybody.
func admitted(t *testing.T, all []*unstructured.Unstructured, service *corev1.Service, port corev1.ServicePort) []networkingv1.NetworkPolicyPeer {
	t.Helper()
	for _, obj := range all {
		if obj.GetKind() != "NetworkPolicy" {
			continue
		}
		policy := fromUnstructured(t, obj, &networkingv1.NetworkPolicy{})
		if !labels.SelectorFromSet(policy.Spec.PodSelector.MatchLabels).Matches(labels.Set(service.Spec.Selector)) {
			continue
		}
		for _, rule := range policy.Spec.Ingress {
			for _, allowed := range rule.Ports {
				if *allowed.Port == port.TargetPort {
					return rule.From
				}
			}
		}
	}
	t.Fatalf("no NetworkPolicy lets anybody connect to port %s behind %s", port.TargetPort.String(), service.Name)
	return nil
}
