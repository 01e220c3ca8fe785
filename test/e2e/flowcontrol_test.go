// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

// levelOf returns the priority level at which the API server serves a request.
func levelOf(t *testing.T, config *rest.Config, method, path string) string {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	expect.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, nil)
	expect.NoError(t, err)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := client.Do(request)
	expect.NoError(t, err)
	expect.NoError(t, response.Body.Close())
	uid := response.Header.Get("X-Kubernetes-PF-PriorityLevel-UID")
	levels, err := kube.FlowcontrolV1().PriorityLevelConfigurations().List(t.Context(), metav1.ListOptions{})
	expect.NoError(t, err)
	for _, level := range levels.Items {
		if string(level.UID) == uid {
			return level.Name
		}
	}
	return "none"
}

func TestNothingThatAVerdictNeedsSharesAPriorityLevelWithAgentsOrTenants(t *testing.T) {
	agent, err := system.HostConfig("compute-1")
	expect.NoError(t, err)
	pod, err := system.Cluster.ConfigFor("system:serviceaccount:hoststatus-system:hoststatus-agent", "system:serviceaccounts")
	expect.NoError(t, err)
	manager, err := system.ManagerConfig()
	expect.NoError(t, err)
	tenant, err := system.Cluster.ConfigFor("somebody")
	expect.NoError(t, err)
	const (
		leases      = "/apis/coordination.k8s.io/v1/namespaces/hoststatus-leases/leases"
		servicePath = "/apis/compute.hoststatus.dev/v1alpha1/computeservices/compute-1/status"
		reportPath  = "/apis/agent.hoststatus.dev/v1alpha1/hostreports"
		serverPath  = "/apis/compute.hoststatus.dev/v1alpha1/namespaces/team-a/servers/web-1/status"
	)
	for _, test := range []struct {
		what         string
		config       *rest.Config
		method, path string
		want         string
	}{
		{"a heartbeat", agent, http.MethodPut, leases + "/compute-1", "hoststatus-heartbeats"},
		{"a heartbeat of the DaemonSet's agent", pod, http.MethodPut, leases + "/compute-1", "hoststatus-heartbeats"},
		{"a canary", manager, http.MethodPatch, leases + "/hoststatus-canary", "hoststatus-heartbeats"},
		{"the first canary", manager, http.MethodPost, leases, "hoststatus-heartbeats"},
		{"the list of the heartbeats", manager, http.MethodGet, leases, "hoststatus-heartbeats"},
		{"a canary of the kubelets", manager, http.MethodPatch, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/hoststatus-canary", "hoststatus-manager"},
		{"the leader's renewal", manager, http.MethodPut, leaderLease, "hoststatus-manager"},
		{"its renewal of the Lease of 0.1", manager, http.MethodPut, leases + "/hoststatus-manager", "hoststatus-manager"},
		{"who leads", manager, http.MethodGet, leaderLease, "hoststatus-manager"},
		{"a verdict", manager, http.MethodPatch, servicePath, "hoststatus-manager"},
		{"a server's host status", manager, http.MethodPatch, serverPath, "hoststatus-servers"},
		{"the list of the agents' reports", manager, http.MethodGet, reportPath, "hoststatus-servers"},
		{"an agent's report", agent, http.MethodPut, reportPath + "/compute-1", "hoststatus-reports"},
		{"a report of the DaemonSet's agent", pod, http.MethodPut, reportPath + "/compute-1", "hoststatus-reports"},
		{"a report of an agent of 0.1", agent, http.MethodPatch, serverPath, "hoststatus-reports"},
		{"what an agent may not do to a host", agent, http.MethodPatch, servicePath, "hoststatus-reports"},
		{"a tenant's list", tenant, http.MethodGet, "/apis/compute.hoststatus.dev/v1alpha1/servers", "global-default"},
	} {
		t.Run(test.what, func(t *testing.T) {
			expect.Eventually(t, patience, func() error { // A new level takes a moment.
				if got := levelOf(t, test.config, test.method, test.path); got != test.want {
					return fmt.Errorf("is served at the level %s, not %s", got, test.want)
				}
				return nil
			})
		})
	}
}
