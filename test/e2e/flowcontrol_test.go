// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// levelOf returns the priority level at which the API server serves a request.
func levelOf(t *testing.T, config *rest.Config, method, path string) string {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, nil)
	must(t, err)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := client.Do(request)
	must(t, err)
	must(t, response.Body.Close())
	uid := response.Header.Get("X-Kubernetes-PF-PriorityLevel-UID")
	levels, err := kube.FlowcontrolV1().PriorityLevelConfigurations().List(t.Context(), metav1.ListOptions{})
	must(t, err)
	for _, level := range levels.Items {
		if string(level.UID) == uid {
			return level.Name
		}
	}
	return "none"
}

func TestHeartbeatsAndVerdictsDoNotShareTheirPriorityLevelWithTenants(t *testing.T) {
	agent, err := fleet.Cluster.ConfigFor("system:hoststatus:host:compute-1", "system:hoststatus:hosts")
	must(t, err)
	manager, err := fleet.Cluster.ConfigFor("system:serviceaccount:hoststatus-system:hoststatus-manager", "system:serviceaccounts")
	must(t, err)
	tenant, err := fleet.Cluster.ConfigFor("somebody")
	must(t, err)
	const (
		leasePath   = "/apis/coordination.k8s.io/v1/namespaces/hoststatus-leases/leases/compute-1"
		canaryPath  = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/hoststatus-canary"
		servicePath = "/apis/compute.hoststatus.dev/v1alpha1/computeservices/compute-1/status"
		serverPath  = "/apis/compute.hoststatus.dev/v1alpha1/namespaces/team-a/servers/web-1/status"
	)
	for _, test := range []struct {
		what         string
		config       *rest.Config
		method, path string
		want         string
	}{
		{"a heartbeat", agent, http.MethodPut, leasePath, "hoststatus-heartbeats"},
		{"a canary", manager, http.MethodPatch, canaryPath, "hoststatus-heartbeats"},
		{"a verdict", manager, http.MethodPatch, servicePath, "hoststatus-heartbeats"},
		{"a server's host status", manager, http.MethodPatch, serverPath, "hoststatus-servers"},
		{"an agent's report", agent, http.MethodPatch, serverPath, "hoststatus-servers"},
		{"a tenant's list", tenant, http.MethodGet, "/apis/compute.hoststatus.dev/v1alpha1/servers", "global-default"},
	} {
		t.Run(test.what, func(t *testing.T) {
			eventually(t, 10*time.Second, func() error { // A new level takes a moment.
				if got := levelOf(t, test.config, test.method, test.path); got != test.want {
					return fmt.Errorf("is served at the level %s, not %s", got, test.want)
				}
				return nil
			})
		})
	}
}
