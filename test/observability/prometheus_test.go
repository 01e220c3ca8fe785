// SPDX-License-Identifier: Apache-2.0

package observability

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// The rhythm of the test's Prometheus, for 15 s and minutes in a cluster.
const (
	scrapeInterval = 250 * time.Millisecond
	alertFor       = 500 * time.Millisecond
)

// prometheus is a running Prometheus.
type prometheus struct {
	*controlplane.Process
	url string
}

// startPrometheus starts one that scrapes the fleet as the ServiceMonitors say, with
// the token of the service account that is shipped for it.
func startPrometheus(t *testing.T, system *fleet.Fleet, managers []string, notifier, resources string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	kubectl := func(args ...string) string {
		out, err := system.Kubectl(t.Context(), args...).Output()
		expect.NoError(t, err)
		return string(out)
	}
	token := kubectl("create", "token", "hoststatus-metrics-scraper", "-n", "hoststatus-system")
	authority, err := base64.StdEncoding.DecodeString(kubectl("get", "secret", "hoststatus-tenant-apiserver-tls", "-n", "hoststatus-system", "-o", `jsonpath={.data.ca\.crt}`))
	expect.NoError(t, err)
	tenantAPI := "127.0.0.1:" + kubectl("get", "apiservice", "v1alpha1.tenant.hoststatus.dev", "-o", "jsonpath={.spec.service.port}")
	monitors := monitors(t)
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		expect.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	credentials := map[string]any{"type": "Bearer", "credentials_file": write("token", []byte(strings.TrimSpace(token)))}
	job := func(name string, tls tlsConfig, targets ...string) map[string]any {
		out := map[string]any{"insecure_skip_verify": tls.InsecureSkipVerify}
		if tls.ServerName != "" {
			out["server_name"], out["ca_file"] = tls.ServerName, write("ca.crt", authority)
		}
		return map[string]any{
			"job_name": name, "scheme": "https", "authorization": credentials, "tls_config": out,
			"static_configs": []any{map[string]any{"targets": targets}},
		}
	}
	config, err := yaml.Marshal(map[string]any{
		"global":     map[string]any{"scrape_interval": scrapeInterval.String(), "scrape_timeout": scrapeInterval.String(), "evaluation_interval": scrapeInterval.String()},
		"rule_files": []string{write("alerts.yaml", hastyAlerts(t))},
		"scrape_configs": []any{
			job("hoststatus-manager", monitors["hoststatus-manager"], managers...),
			job("notifier", tlsConfig{InsecureSkipVerify: true}, notifier),
			job("hoststatus-tenant-apiserver", monitors["hoststatus-tenant-apiserver"], tenantAPI),
			map[string]any{"job_name": "nova-api", "authorization": credentials, "static_configs": []any{map[string]any{"targets": []string{system.NovaMetrics}}}},
			map[string]any{"job_name": "kube-state-metrics", "static_configs": []any{map[string]any{"targets": []string{resources}}}},
		},
	})
	expect.NoError(t, err)
	ports, err := controlplane.FreePorts(1)
	expect.NoError(t, err)
	address := net.JoinHostPort("127.0.0.1", ports[0])
	log := filepath.Join(dir, "prometheus.log")
	p := &prometheus{url: "http://" + address, Process: controlplane.NewProcess("prometheus", filepath.Join(binaries, "prometheus"), log, os.Environ(),
		"--config.file="+write("prometheus.yml", config), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)}
	expect.NoError(t, p.Start())
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			content, _ := os.ReadFile(log)
			t.Logf("the end of Prometheus' log:\n%s", content[max(0, len(content)-4000):])
		}
	})
	return p
}

// tlsConfig is what a ServiceMonitor says of the certificate.
type tlsConfig struct {
	InsecureSkipVerify bool   `json:"insecureSkipVerify"`
	ServerName         string `json:"serverName"`
}

// monitors returns what the shipped ServiceMonitors say, by name.
func monitors(t *testing.T) map[string]tlsConfig {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "config", "prometheus", "servicemonitors.yaml"))
	expect.NoError(t, err)
	found := map[string]tlsConfig{}
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		var monitor struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			Spec struct {
				Endpoints []struct {
					TLSConfig tlsConfig `json:"tlsConfig"`
				} `json:"endpoints"`
			} `json:"spec"`
		}
		expect.NoError(t, yaml.Unmarshal([]byte(document), &monitor))
		found[monitor.Metadata.Name] = monitor.Spec.Endpoints[0].TLSConfig
	}
	return found
}

// hastyAlerts are the shipped alerts, which do not wait as long.
func hastyAlerts(t *testing.T) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "config", "prometheus", "alerts.yaml"))
	expect.NoError(t, err)
	var rules struct {
		Groups []struct {
			Name  string           `json:"name"`
			Rules []map[string]any `json:"rules"`
		} `json:"groups"`
	}
	expect.NoError(t, yaml.Unmarshal(content, &rules))
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			rule["for"] = alertFor.String()
		}
	}
	content, err = yaml.Marshal(rules)
	expect.NoError(t, err)
	return content
}

// sample is one series that a query has found.
type sample struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
}

func (s sample) String() string { return fmt.Sprintf("%v = %v", s.Metric, s.Value[1]) }

// get asks Prometheus' API for data.
func (p *prometheus) get(ctx context.Context, path string, parameters url.Values, data any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+parameters.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w: %s", response.Status, err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

func (p *prometheus) query(ctx context.Context, expr string) ([]sample, error) {
	var data struct {
		Result []sample `json:"result"`
	}
	err := p.get(ctx, "/api/v1/query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}

// says checks the one value of a query.
func (p *prometheus) says(ctx context.Context, expr, want string) func() error {
	return func() error {
		samples, err := p.query(ctx, expr)
		if err != nil {
			return err
		}
		if len(samples) != 1 || samples[0].Value[1] != want {
			return fmt.Errorf("%s is %v, want %s", expr, samples, want)
		}
		return nil
	}
}

// firing returns the alerts that fire, with what they say.
func (p *prometheus) firing(ctx context.Context) (map[string]string, error) {
	var data struct {
		Alerts []struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
			State       string            `json:"state"`
		} `json:"alerts"`
	}
	if err := p.get(ctx, "/api/v1/alerts", nil, &data); err != nil {
		return nil, err
	}
	firing := map[string]string{}
	for _, a := range data.Alerts {
		if a.State == "firing" {
			firing[a.Labels["alertname"]] = a.Annotations["summary"]
		}
	}
	return firing, nil
}

// fires checks that these alerts fire, and no others.
func (p *prometheus) fires(ctx context.Context, want ...string) func() error {
	return func() error {
		firing, err := p.firing(ctx)
		if err != nil {
			return err
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(firing)); !slices.Equal(got, want) {
			return fmt.Errorf("firing are %v, want %v", firing, want)
		}
		return nil
	}
}

// scrapesAll checks that every target answers.
func (p *prometheus) scrapesAll(ctx context.Context, targets int) func() error {
	return func() error {
		var data struct {
			Active []struct {
				Health    string `json:"health"`
				ScrapeURL string `json:"scrapeUrl"`
				LastError string `json:"lastError"`
			} `json:"activeTargets"`
		}
		if err := p.get(ctx, "/api/v1/targets", nil, &data); err != nil {
			return err
		}
		if len(data.Active) != targets {
			return fmt.Errorf("there are %d targets, want %d", len(data.Active), targets)
		}
		for _, target := range data.Active {
			if target.Health != "up" {
				return fmt.Errorf("%s is %s: %s", target.ScrapeURL, target.Health, target.LastError)
			}
		}
		return nil
	}
}
