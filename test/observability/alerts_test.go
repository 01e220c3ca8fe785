// SPDX-License-Identifier: Apache-2.0

package observability

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

func TestAlertsFollowWhatHappensToTheFleet(t *testing.T) {
	system, standby := startFleet(t)
	applyManifests(t, system)
	novaURL, err := system.StartNovaAPI(t.Context())
	expect.NoError(t, err)
	p := startPrometheus(t, system, []string{system.ManagerMetrics, standby}, startNotifier(t, system), serveResources(t, system))
	ctx := t.Context()
	readAsTenants(t, system)
	readVersions(t, novaURL)
	expect.Eventually(t, patience, p.scrapesAll(ctx, 6))
	expect.Eventually(t, patience, p.says(ctx, `min(hoststatus_hosts{host_status="UP"})`, "4"))
	expect.Eventually(t, patience, p.says(ctx, "sum(hoststatus_leading)", "1"))
	expect.Eventually(t, patience, p.fires(ctx))

	t.Run("a host dies", func(t *testing.T) {
		system.Agents["compute-3"].Kill()
		expect.Eventually(t, patience, p.fires(ctx, "HoststatusHostSilent"))
		firing, err := p.firing(ctx)
		expect.NoError(t, err)
		if got, want := firing["HoststatusHostSilent"], "1 host(s) do not report: host status UNKNOWN"; got != want {
			t.Errorf("the alert says %q, want %q", got, want)
		}
	})
	t.Run("the leader and the standby say the same of the fleet", func(t *testing.T) {
		for expr, want := range map[string]string{
			`count(count by (host_status) (count by (host_status) (hoststatus_hosts) == 2))`:                  "6",
			`count(hoststatus_hosts{host_status="UNKNOWN"} == 1)`:                                             "2",
			`max(hoststatus_servers{host_status="UNKNOWN"}) - min(hoststatus_servers{host_status="UNKNOWN"})`: "0",
			`count(hoststatus_propagation_pending_servers)`:                                                   "1",
			`sum(hoststatus_host_transitions_total{from="UP", to="UNKNOWN"})`:                                 "1",
			`sum(hoststatus_tenantapi_decisions_total{verb="list", outcome="unknown_only"})`:                  "1",
			`sum(hoststatus_tenantapi_decisions_total{verb="list", outcome="hidden"})`:                        "1",
			`sum(hoststatus_tenantapi_decisions_total{verb="get", outcome="granted"})`:                        "1",
			`sum(hoststatus_detection_lag_seconds_count)`:                                                     "1",
			`sum(hoststatus_detection_lag_seconds_bucket{le="2.5"})`:                                          "1",
		} {
			expect.Eventually(t, patience, p.says(ctx, expr, want))
		}
	})
	t.Run("every query of the dashboard returns data", func(t *testing.T) {
		for title, expr := range dashboardQueries(t) {
			expect.Eventually(t, patience, func() error {
				samples, err := p.query(ctx, expr)
				if err != nil {
					return err
				}
				for _, s := range samples {
					if s.Value[1] != "NaN" {
						return nil
					}
				}
				return fmt.Errorf("panel %s: nothing comes of %s: %v", title, expr, samples)
			})
		}
	})
	t.Run("the host returns", func(t *testing.T) {
		expect.NoError(t, system.StartAgent("compute-3"))
		expect.NoError(t, system.WaitFor(ctx, 30*time.Second, fleet.All(v1alpha1.HostStatusUp)))
		expect.Eventually(t, patience, p.fires(ctx))
	})
	t.Run("three hosts die at once", func(t *testing.T) {
		for _, host := range []string{"compute-1", "compute-2", "compute-4"} {
			system.Agents[host].Kill()
		}
		expect.Eventually(t, patience, p.fires(ctx, "HoststatusHostSilent", "HoststatusManyHostsSilent"))
		for _, host := range []string{"compute-1", "compute-2", "compute-4"} {
			expect.NoError(t, system.StartAgent(host))
		}
		expect.Eventually(t, patience, p.fires(ctx))
	})
	t.Run("the tenant API is down", func(t *testing.T) {
		system.TenantAPI.Stop()
		expect.Eventually(t, patience, p.fires(ctx, "HoststatusTenantAPIDown"))
		expect.NoError(t, system.TenantAPI.Start())
		expect.Eventually(t, patience, p.fires(ctx))
	})
	t.Run("the operator is blind", func(t *testing.T) {
		// etcd is paused, for less than a leader puts up with. On a busy machine one try
		// may be too short for Prometheus to see.
		blind := func() error {
			expect.NoError(t, system.Cluster.Etcd.Signal(syscall.SIGSTOP))
			defer func() { expect.NoError(t, system.Cluster.Etcd.Signal(syscall.SIGCONT)) }()
			return expect.Poll(ctx, 4*time.Second, func() error {
				firing, err := p.firing(ctx)
				if _, ok := firing["HoststatusBlind"]; err == nil && !ok {
					err = fmt.Errorf("firing are %v", firing)
				}
				return err
			})
		}
		var err error
		for range 3 {
			if err = blind(); err == nil {
				break
			}
			expect.Eventually(t, patience, p.fires(ctx))
		}
		expect.NoError(t, err)
		expect.Eventually(t, patience, p.fires(ctx))
	})
}

// startNotifier starts one that tells a sink of team-a, and returns the address of its metrics.
func startNotifier(t *testing.T, system *fleet.Fleet) (metrics string) {
	t.Helper()
	sink := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(sink.Close)
	file := filepath.Join(t.TempDir(), "config.yaml")
	config := "namespaces: [team-a]\nsinks: [{name: bus, cloudEvents: {url: " + sink.URL + "}}]\nroutes: [{name: all, sink: bus}]\n"
	expect.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	n, err := system.StartNotifier(t.Context(), "notifier", fleet.Account{Namespace: "team-a", Name: "notifier", Roles: []string{"hoststatus-server-viewer", "hoststatus-host-status-viewer"}}, file)
	expect.NoError(t, err)
	t.Cleanup(n.Stop)
	return n.Metrics
}

// readAsTenants makes the tenant API decide, for callers with all grants.
func readAsTenants(t *testing.T, system *fleet.Fleet) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "servers", "-n", "team-a"}, {"get", "servers", "-n", "team-a", "--as=ana"}, {"get", "servers", "web-1", "-n", "team-a", "--as=ana"},
		{"get", "servers", "-n", "team-a", "--as=abe"}, {"get", "servers", "-n", "team-a", "--as=ada"},
	} {
		if out, err := system.Kubectl(t.Context(), args...).CombinedOutput(); err != nil {
			t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// readVersions asks nova-api for something, so that there is a request to count.
func readVersions(t *testing.T, url string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v2.1/", nil)
	expect.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	expect.NoError(t, err)
	expect.NoError(t, answer.Body.Close())
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("nova-api answers %s", answer.Status)
	}
}

// dashboardQueries are the queries of the shipped dashboard, by panel, with what Grafana
// would fill in.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "config", "prometheus", "dashboard.json"))
	expect.NoError(t, err)
	var board struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				RefID string `json:"refId"`
				Expr  string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	expect.NoError(t, json.Unmarshal(content, &board))
	queries := map[string]string{}
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			queries[panel.Title+" "+target.RefID] = strings.ReplaceAll(target.Expr, "$__rate_interval", "15m") // Longer than the test takes until here.
		}
	}
	if len(queries) < 20 {
		t.Fatalf("the dashboard has %d queries only", len(queries))
	}
	return queries
}
