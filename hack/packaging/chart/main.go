// SPDX-License-Identifier: Apache-2.0

// Command chart writes what of charts/hoststatus is generated: the templates of what
// config/ has already, the dashboard, and the table of values in its README. Its argument is the root
// of the repository.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: chart ROOT, where ROOT is the root of the repository")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// template is a template of the chart: files of config/, where edits stand, if a
// condition holds.
type template struct {
	name  string
	files []string
	// begin and end stand around it all.
	begin, end string
	edits      []edit
}

// edit replaces old, which must be there as often as times says: what config/ says
// otherwise one day must not be lost here.
type edit struct {
	old, new string
	times    int
}

func when(condition string) (begin, end string) {
	return "{{- if " + condition + " }}\n", "{{- end }}\n"
}

// annotated gives the service account of a component the annotations that the values
// name.
func annotated(name, component string) edit {
	const account = "kind: ServiceAccount\nmetadata:\n  name: %s\n  namespace: {{ .Release.Namespace }}\n"
	old := fmt.Sprintf(account, name)
	return edit{old, old + "  {{- with .Values." + component + ".serviceAccountAnnotations }}\n  annotations:\n    {{- toYaml . | nindent 4 }}\n  {{- end }}\n", 1}
}

func templates() []template {
	crds := template{
		name:  "crds",
		files: []string{"crd/compute.hoststatus.dev_computeservices.yaml", "crd/compute.hoststatus.dev_servers.yaml"},
		edits: []edit{{"  annotations:\n    controller-gen", "  annotations:\n    {{- if .Values.crds.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n    controller-gen", 2}},
	}
	crds.begin, crds.end = when(".Values.crds.install")

	people := template{
		name:  "roles",
		files: []string{"rbac/people.yaml", "rbac/fleet.yaml", "rbac/tenants.yaml"},
		edits: []edit{{
			"  labels:\n    rbac.authorization.k8s.io/aggregate-to-view: \"true\"\n",
			"  {{- if .Values.rbac.aggregate }}\n  labels:\n    rbac.authorization.k8s.io/aggregate-to-view: \"true\"\n  {{- end }}\n", 1,
		}},
	}

	more := template{
		name:  "more-lease-namespaces",
		files: []string{"node-leases/role.yaml", "node-leases/tenant-apiserver.yaml"},
		begin: "{{- range without (include \"hoststatus.leaseNamespaces\" $ | fromJsonArray) \"hoststatus-leases\" }}\n---\n", end: "{{- end }}\n",
		edits: []edit{
			{"namespace: kube-node-lease", "namespace: {{ . }}", 4},
			{"{{ .Release.Namespace }}", "{{ $.Release.Namespace }}", 2},
		},
	}

	mirror := template{name: "node-mirror-rbac", files: []string{"node-mirror/rbac.yaml"}}
	mirror.begin, mirror.end = when(".Values.nodeMirror.enabled")

	flow := template{
		name:  "flowcontrol",
		files: []string{"flowcontrol/flowcontrol.yaml"},
		edits: []edit{
			{"namespaces: [hoststatus-leases, kube-node-lease]", `namespaces: {{ append .Values.leaseNamespaces "kube-node-lease" | uniq | toJson }}`, 1},
			{"namespaces: [{{ .Release.Namespace }}, hoststatus-leases]", `namespaces: {{ list .Release.Namespace .Values.manager.formerLeaderElectionNamespace | compact | uniq | toJson }}`, 1},
		},
	}
	flow.begin, flow.end = when(".Values.flowControl.enabled")
	tenantFlow := template{name: "tenant-apiserver-flowcontrol", files: []string{"flowcontrol/tenant-apiserver.yaml"}}
	tenantFlow.begin, tenantFlow.end = when("and .Values.flowControl.enabled .Values.tenantAPI.enabled")

	webhook := template{
		name:  "webhook",
		files: []string{"webhook/service.yaml", "webhook/webhook.yaml"},
		edits: []edit{{
			"  name: hoststatus-webhook\nwebhooks:\n",
			"  name: hoststatus-webhook\n  {{- if .Values.certificates.certManager }}\n  annotations:\n    cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/hoststatus-webhook\n  {{- end }}\nwebhooks:\n", 1,
		}},
	}
	webhook.begin, webhook.end = when(".Values.webhook.enabled")
	webhookRBAC := template{name: "webhook-rbac", files: []string{"webhook/rbac.yaml"}}
	webhookRBAC.begin, webhookRBAC.end = when("and .Values.webhook.enabled (not .Values.certificates.certManager)")

	const own, end = "{{- if not .Values.certificates.certManager }}\n", "{{- end }}\n"
	const (
		apiServices = "- apiGroups: [apiregistration.k8s.io]\n  resources: [apiservices]\n  resourceNames: [v1alpha1.tenant.hoststatus.dev]\n  verbs: [get, list, watch, patch]\n"
		certificate = "- apiGroups: [\"\"]\n  resources: [secrets]\n  resourceNames: [hoststatus-tenant-apiserver-tls]\n  verbs: [get, update]\n"
	)
	tenant := template{
		name:  "tenant-apiserver-api",
		files: []string{"tenant-apiserver/rbac.yaml", "tenant-apiserver/service.yaml", "tenant-apiserver/apiservice.yaml"},
		edits: []edit{
			{apiServices, own + apiServices + end, 1},
			{certificate, own + certificate + end, 1},
			annotated("hoststatus-tenant-apiserver", "tenantAPI"),
			{"groupPriorityMinimum: 1001", "groupPriorityMinimum: {{ .Values.tenantAPI.groupPriority }}", 1},
			{
				"  name: v1alpha1.tenant.hoststatus.dev\nspec:\n",
				"  name: v1alpha1.tenant.hoststatus.dev\n  {{- if .Values.certificates.certManager }}\n  annotations:\n    cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/hoststatus-tenant-apiserver\n  {{- end }}\nspec:\n", 1,
			},
		},
	}
	tenant.begin, tenant.end = when(".Values.tenantAPI.enabled")

	scraping := template{name: "metrics-service", files: []string{"prometheus/service.yaml", "prometheus/rbac.yaml"}}
	scraping.begin, scraping.end = when("or .Values.metrics.service.enabled .Values.metrics.serviceMonitor.enabled")

	const (
		labelled = "  labels:\n    app.kubernetes.io/name: hoststatus\n"
		monitor  = "apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata:\n  name: hoststatus-tenant-apiserver\n"
		rules    = "  - name: hoststatus.tenant-api\n"
	)
	found := func(value string) string {
		return "  labels:\n    {{- include \"hoststatus.found\" .Values.metrics." + value + ".labels | nindent 4 }}\n"
	}
	const withTenantAPI = "{{- if .Values.tenantAPI.enabled }}\n"
	// In both the tenant API's part is the last.
	monitors := template{
		name:  "servicemonitors",
		files: []string{"prometheus/servicemonitors.yaml"},
		edits: []edit{
			{labelled, found("serviceMonitor"), 2},
			{"interval: 15s", "interval: {{ .Values.metrics.serviceMonitor.interval }}", 2},
			{"name: hoststatus-tenant-apiserver-tls", `name: hoststatus-tenant-apiserver-{{ .Values.certificates.certManager | ternary "cert" "tls" }}`, 1},
			{"---\n" + monitor, withTenantAPI + "---\n" + monitor, 1},
		},
	}
	monitors.begin, monitors.end = when(".Values.metrics.serviceMonitor.enabled")
	monitors.end = end + monitors.end
	alerts := template{
		name:  "prometheusrule",
		files: []string{"prometheus/prometheusrule.yaml"},
		edits: []edit{
			{labelled, found("prometheusRule"), 1},
			{rules, "  " + withTenantAPI + rules, 1},
		},
	}
	alerts.begin, alerts.end = when(".Values.metrics.prometheusRule.enabled")
	alerts.end = end + alerts.end

	return []template{
		scraping, monitors, alerts,
		crds, people, more, mirror, flow, tenantFlow, webhook, webhookRBAC, tenant,
		{name: "manager-rbac", files: []string{"rbac/role.yaml", "rbac/manager.yaml"}, edits: []edit{annotated("hoststatus-manager", "manager")}},
		{name: "agent-rbac", files: []string{"rbac/agent.yaml"}, edits: []edit{annotated("hoststatus-agent", "agent")}},
		{name: "admission", files: []string{"admission/leases.yaml", "admission/reasons.yaml", "admission/reports.yaml", "admission/accounts.yaml"}},
	}
}

const generated = "{{- /* Generated from config/ by hack/generate.sh: change it there. */ -}}\n"

func run(root string) error {
	chart := filepath.Join(root, "charts", "hoststatus")
	folder, files := filepath.Join(chart, "templates", "generated"), filepath.Join(chart, "generated")
	for _, dir := range []string{folder, files} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing what was generated before: %w", err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
	}
	for _, t := range templates() {
		content, err := t.render(filepath.Join(root, "config"))
		if err != nil {
			return fmt.Errorf("template %s: %w", t.name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, t.name+".yaml"), []byte(content), 0o644); err != nil {
			return fmt.Errorf("writing template %s: %w", t.name, err)
		}
	}
	const board = "dashboard.json"
	content, err := os.ReadFile(filepath.Join(root, "config", "prometheus", board))
	if err != nil {
		return fmt.Errorf("reading the dashboard: %w", err)
	}
	if err := os.WriteFile(filepath.Join(files, board), content, 0o644); err != nil {
		return fmt.Errorf("writing the dashboard: %w", err)
	}
	return writeREADME(chart)
}

func (t template) render(config string) (string, error) {
	var parts []string
	for _, name := range t.files {
		content, err := os.ReadFile(filepath.Join(config, name))
		if err != nil {
			return "", err
		}
		parts = append(parts, strings.TrimPrefix(string(content), "---\n"))
	}
	text := strings.Join(parts, "---\n")
	// Alerts have templates of their own, which helm is not to fill in.
	text = strings.ReplaceAll(text, "{{", `{{ "{{" }}`)
	text = strings.ReplaceAll(text, "hoststatus-system", "{{ .Release.Namespace }}")
	for _, e := range t.edits {
		if n := strings.Count(text, e.old); n != e.times {
			return "", fmt.Errorf("has %d times, not %d times:\n%s", n, e.times, e.old)
		}
		text = strings.ReplaceAll(text, e.old, e.new)
	}
	return generated + t.begin + text + t.end, nil
}

const beginValues, endValues = "<!-- values: generated from values.yaml by hack/generate.sh -->\n", "<!-- end of values -->\n"

// writeREADME puts the values and their descriptions into the chart's README.
func writeREADME(chart string) error {
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return fmt.Errorf("values.yaml: %w", err)
	}
	var table strings.Builder
	table.WriteString("| value | default | what it does |\n|---|---|---|\n")
	if err := describe(&table, "", document.Content[0]); err != nil {
		return err
	}
	path := filepath.Join(chart, "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(readme), beginValues)
	_, after, found2 := strings.Cut(rest, endValues)
	if !found || !found2 {
		return fmt.Errorf("README.md has no place for the values: the lines %q and %q", beginValues, endValues)
	}
	return os.WriteFile(path, []byte(before+beginValues+table.String()+endValues+after), 0o644)
}

// describe writes a row for each value that has a description, in the comment that
// begins with "--". Every value must have one, itself or what it is in.
func describe(table *strings.Builder, prefix string, mapping *yaml.Node) error {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		_, description, described := strings.Cut(key.HeadComment, "# -- ")
		if !described {
			if value.Kind != yaml.MappingNode || len(value.Content) == 0 {
				return fmt.Errorf("values.yaml: %s has no description; write one above it: # -- What it does.", name)
			}
			if err := describe(table, name+".", value); err != nil {
				return err
			}
			continue
		}
		var decoded any
		if err := value.Decode(&decoded); err != nil {
			return fmt.Errorf("values.yaml: %s: %w", name, err)
		}
		encoded, err := json.Marshal(decoded)
		if err != nil {
			return fmt.Errorf("values.yaml: %s: %w", name, err)
		}
		description = strings.ReplaceAll(description, "\n# ", " ")
		fmt.Fprintf(table, "| `%s` | `%s` | %s |\n", name, encoded, strings.ReplaceAll(description, "|", `\|`))
	}
	return nil
}
