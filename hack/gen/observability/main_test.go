// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/utils/ptr"
	controllermetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/internal/telemetry"
)

const root = "../../.."

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestMetricsFollowTheConventionsOfPrometheus(t *testing.T) {
	kinds := map[telemetry.Kind]dto.MetricType{
		telemetry.KindCounter: dto.MetricType_COUNTER, telemetry.KindGauge: dto.MetricType_GAUGE, telemetry.KindHistogram: dto.MetricType_HISTOGRAM,
	}
	for _, set := range []*telemetry.Set{telemetry.Manager, telemetry.TenantAPI, telemetry.NovaAPI, telemetry.Notifier} {
		var families []*dto.MetricFamily
		for _, m := range set.Metrics() {
			kind, ok := kinds[m.Kind]
			if !ok {
				t.Errorf("%s is a %q", m.Name, m.Kind)
			}
			series := &dto.Metric{Counter: &dto.Counter{}, Gauge: &dto.Gauge{}, Histogram: &dto.Histogram{}}
			for _, label := range m.Labels {
				series.Label = append(series.Label, &dto.LabelPair{Name: ptr.To(label.Name), Value: ptr.To("x")})
			}
			families = append(families, &dto.MetricFamily{Name: &m.Name, Help: &m.Help, Type: &kind, Metric: []*dto.Metric{series}})
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

var fullName = regexp.MustCompile(`fqName: "(hoststatus_[a-z_]+)"`)

// A metric that is registered past the catalogue would be in no reference.
func TestTheReferenceHasEveryMetricThatIsRegistered(t *testing.T) {
	manager, ok := controllermetrics.Registry.(prometheus.Collector)
	if !ok {
		t.Fatalf("the registry is a %T, which does not describe itself", controllermetrics.Registry)
	}
	names := func(describe func(chan<- *prometheus.Desc)) []string {
		descs := make(chan *prometheus.Desc)
		go func() { describe(descs); close(descs) }()
		var found []string
		for desc := range descs {
			if match := fullName.FindStringSubmatch(desc.String()); match != nil {
				found = append(found, match[1])
			}
		}
		return found
	}
	page := read(t, "docs/operate/metrics.md")
	registered := names(manager.Describe)
	if len(registered) != len(telemetry.Manager.Metrics()) {
		t.Errorf("%d metrics of the manager are registered, %d are in the catalogue", len(registered), len(telemetry.Manager.Metrics()))
	}
	for _, name := range registered {
		if !bytes.Contains(page, []byte("| `"+name+"` |")) {
			t.Errorf("docs/operate/metrics.md does not have %s", name)
		}
	}
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "hoststatus_") && !bytes.Contains(page, []byte("| `"+family.GetName()+"` |")) {
			t.Errorf("docs/operate/metrics.md does not have %s", family.GetName())
		}
	}
}

// knownMetrics are those of the binaries, with the series of histograms, and those
// that kube-state-metrics makes by our configuration.
func knownMetrics(t *testing.T) map[string][]string {
	t.Helper()
	// Those of kube-apiserver, with the labels that it gives them.
	known := map[string][]string{
		"aggregator_unavailable_apiservice":              {"name"},
		"apiserver_flowcontrol_current_inqueue_requests": {"priority_level", "flow_schema"},
		"apiserver_flowcontrol_rejected_requests_total":  {"priority_level", "flow_schema", "reason"},
	}
	for _, set := range []*telemetry.Set{telemetry.Manager, telemetry.TenantAPI, telemetry.NovaAPI, telemetry.Notifier} {
		for _, m := range set.Metrics() {
			var labels []string
			for _, label := range m.Labels {
				labels = append(labels, label.Name)
			}
			if m.Kind != telemetry.KindHistogram {
				known[m.Name] = labels
				continue
			}
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[m.Name+suffix] = append([]string{"le"}, labels...)
			}
		}
	}
	var config struct {
		Spec struct {
			Resources []struct {
				MetricNamePrefix string         `json:"metricNamePrefix"`
				LabelsFromPath   map[string]any `json:"labelsFromPath"`
				Metrics          []struct {
					Name string `json:"name"`
					Each struct {
						StateSet struct {
							LabelName string `json:"labelName"`
						} `json:"stateSet"`
						Info struct {
							LabelsFromPath map[string]any `json:"labelsFromPath"`
						} `json:"info"`
					} `json:"each"`
				} `json:"metrics"`
			} `json:"resources"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(read(t, "config/prometheus/kube-state-metrics.yaml"), &config); err != nil {
		t.Fatal(err)
	}
	for _, resource := range config.Spec.Resources {
		for _, m := range resource.Metrics {
			labels := []string{m.Each.StateSet.LabelName}
			for label := range resource.LabelsFromPath {
				labels = append(labels, label)
			}
			for label := range m.Each.Info.LabelsFromPath {
				labels = append(labels, label)
			}
			known[resource.MetricNamePrefix+"_"+m.Name] = labels
		}
	}
	return known
}

var (
	metricName = regexp.MustCompile(`\b(?:hoststatus|aggregator|apiserver)_[a-z_]+`)
	grouping   = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
	matcher    = regexp.MustCompile(`([a-z_]+)(?:=~|!=|=)"`)
)

// checkQuery looks for metrics and labels that nobody exports.
func checkQuery(t *testing.T, where, expr string, known map[string][]string) {
	t.Helper()
	labels := []string{""}
	used := metricName.FindAllString(expr, -1)
	for _, name := range used {
		of, ok := known[name]
		if !ok {
			t.Errorf("%s asks for %s, which is no metric:\n%s", where, name, expr)
		}
		labels = append(labels, of...)
	}
	if len(used) == 0 {
		t.Errorf("%s asks for no metric of hoststatus or kube-apiserver:\n%s", where, expr)
	}
	var asked []string
	for _, match := range grouping.FindAllStringSubmatch(expr, -1) {
		asked = append(asked, strings.Split(match[1], ", ")...)
	}
	for _, match := range matcher.FindAllStringSubmatch(expr, -1) {
		asked = append(asked, match[1])
	}
	for _, label := range asked {
		if !slices.Contains(labels, label) {
			t.Errorf("%s asks for the label %s, which its metrics do not have:\n%s", where, label, expr)
		}
	}
}

type panel struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		X int `json:"x"`
		Y int `json:"y"`
		W int `json:"w"`
		H int `json:"h"`
	} `json:"gridPos"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
}

// panels are those of the dashboard as it is shipped.
func panels(t *testing.T) []panel {
	t.Helper()
	var board struct {
		Panels []panel `json:"panels"`
	}
	if err := json.Unmarshal(read(t, "config/prometheus/dashboard.json"), &board); err != nil {
		t.Fatal(err)
	}
	return board.Panels
}

func TestTheDashboardAsksForMetricsThatExist(t *testing.T) {
	known, asked := knownMetrics(t), map[string]bool{}
	for _, p := range panels(t) {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for _, q := range p.Targets {
			checkQuery(t, "panel "+p.Title, q.Expr, known)
			for _, name := range metricName.FindAllString(q.Expr, -1) {
				asked[strings.TrimSuffix(name, "_bucket")] = true
			}
		}
	}
	for _, set := range []*telemetry.Set{telemetry.Manager, telemetry.TenantAPI, telemetry.NovaAPI, telemetry.Notifier} {
		for _, m := range set.Metrics() {
			if !asked[m.Name] && m.Name != "hoststatus_build_info" {
				t.Errorf("no panel shows %s", m.Name)
			}
		}
	}
}

func TestPanelsDoNotOverlap(t *testing.T) {
	const boardWidth = 24
	taken := map[[2]int]string{}
	for _, p := range panels(t) {
		if p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("%q has no size", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.GridPos.X+p.GridPos.W > boardWidth {
			t.Errorf("%q is wider than the board", p.Title)
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

func TestEachAlertIsWholeAndHasAPageThatSaysWhatToDo(t *testing.T) {
	groups, err := readAlerts(filepath.Join(root, "config/prometheus/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(string(read(t, "docs/operate/troubleshooting.md")), -1) {
		anchors[strings.ReplaceAll(strings.ToLower(match[1]), " ", "-")] = true
	}
	known := knownMetrics(t)
	for _, group := range groups.Groups {
		for _, a := range group.Rules {
			checkQuery(t, a.Alert, a.Expr, known)
			if a.For == "" {
				t.Errorf("%s has no for", a.Alert)
			}
			if severity := a.Labels["severity"]; severity != "warning" && severity != "critical" {
				t.Errorf("%s has severity %q", a.Alert, severity)
			}
			if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
				t.Errorf("%s does not say what is wrong", a.Alert)
			}
			anchor, ok := strings.CutPrefix(a.Annotations["runbook_url"], "https://hoststatus.dev/hoststatus/docs/operate/troubleshooting.md#")
			if !ok || !anchors[anchor] {
				t.Errorf("%s: docs/operate/troubleshooting.md has nothing at %s", a.Alert, a.Annotations["runbook_url"])
			}
		}
	}
}

// object is what a Service and a ServiceMonitor have that must fit together.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Selector  map[string]any `json:"selector"`
		Endpoints []struct {
			Port string `json:"port"`
		} `json:"endpoints"`
		Ports []struct {
			Name string `json:"name"`
		} `json:"ports"`
	} `json:"spec"`
}

func objects(t *testing.T, path string) []object {
	t.Helper()
	var all []object
	for document := range strings.SplitSeq(string(read(t, path)), "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

func TestEachServiceMonitorFindsOneService(t *testing.T) {
	var services []object
	for _, path := range []string{"config/prometheus/service.yaml", "config/tenant-apiserver/service.yaml", "config/webhook/service.yaml", "config/nova-api/access.yaml", "config/nova-api/prometheus/service.yaml", "config/notifier/prometheus/service.yaml"} {
		services = append(services, objects(t, path)...)
	}
	var monitors []object
	for _, path := range []string{"config/prometheus/servicemonitors.yaml", "config/nova-api/prometheus/servicemonitor.yaml", "config/notifier/prometheus/servicemonitor.yaml"} {
		monitors = append(monitors, objects(t, path)...)
	}
	for _, monitor := range monitors {
		labels, _ := monitor.Spec.Selector["matchLabels"].(map[string]any)
		if len(labels) == 0 {
			t.Errorf("%s selects every Service", monitor.Metadata.Name)
		}
		var found []string
		for _, service := range services {
			matches := service.Metadata.Namespace == monitor.Metadata.Namespace
			for key, value := range labels {
				matches = matches && service.Metadata.Labels[key] == value
			}
			if !matches {
				continue
			}
			found = append(found, service.Metadata.Name)
			if service.Spec.Ports[0].Name != monitor.Spec.Endpoints[0].Port {
				t.Errorf("%s asks for port %s of %s, which is called %s", monitor.Metadata.Name, monitor.Spec.Endpoints[0].Port, service.Metadata.Name, service.Spec.Ports[0].Name)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s selects the Services %v", monitor.Metadata.Name, found)
		}
	}
}
