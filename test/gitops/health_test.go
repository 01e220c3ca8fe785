// SPDX-License-Identifier: Apache-2.0

// Package gitops runs the health checks of config/gitops as Argo CD and Flux do: the
// former by a Lua interpreter, the latter by CEL.
package gitops

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// health is what both tools say of an object; Flux has no word for Suspended.
type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// subject is an object, and how it should be judged.
type subject struct {
	name, kind string
	object     string
	argo       health
	flux       string
}

// word is how a status of the manager's looks.
func word(status, reason string) string {
	return fmt.Sprintf(`status: {observedGeneration: 2, hostStatus: %q, hostStatusReason: %s, conditions: [{type: Reporting, status: "True", message: m}]}`, status, reason)
}

const (
	silent  = `conditions: [{type: Reporting, status: "False", message: Lease a/b was not renewed for 40s}]`
	changed = "The manager has not processed this yet"
	waiting = "It has no host status yet"
)

var subjects = []subject{
	{"a host that was just made", "ComputeService", `spec: {}`, health{"Progressing", changed}, "error"},
	{"a host whose status is empty", "ComputeService", `status: {}`, health{"Progressing", changed}, "InProgress"},
	{"a host that was just changed", "ComputeService", `status: {observedGeneration: 1, hostStatus: UP, hostStatusReason: Reporting}`, health{"Progressing", changed}, "InProgress"},
	{"a host before its first heartbeat", "ComputeService", `status: {observedGeneration: 2, hostStatusReason: WaitingForHeartbeat}`, health{"Progressing", "No host status yet (WaitingForHeartbeat)"}, "InProgress"},
	{"a host that is UP", "ComputeService", word("UP", "Reporting"), health{"Healthy", "UP (Reporting)"}, "Current"},
	{"a host that goes into maintenance", "ComputeService", "spec: {maintenanceWindow: {reason: new memory}}\n" + word("NEEDS_MAINTENANCE", "WindowAnnounced"), health{"Healthy", "NEEDS_MAINTENANCE (WindowAnnounced): new memory"}, "Current"},
	{"a host in its window", "ComputeService", "spec: {maintenanceWindow: {}}\n" + word("MAINTENANCE", "WindowOpen"), health{"Suspended", "MAINTENANCE (WindowOpen)"}, "Current"},
	{"a disabled host", "ComputeService", "spec: {disabled: true, disabledReason: new memory}\n" + word("MAINTENANCE", "Disabled"), health{"Suspended", "MAINTENANCE (Disabled): new memory"}, "Current"},
	{"a disabled host without a reason", "ComputeService", word("MAINTENANCE", "Disabled"), health{"Suspended", "MAINTENANCE (Disabled)"}, "Current"},
	{"a disabled host that is silent", "ComputeService", "status: {observedGeneration: 2, hostStatus: MAINTENANCE, hostStatusReason: Disabled, " + silent + "}", health{"Suspended", "MAINTENANCE (Disabled). Lease a/b was not renewed for 40s"}, "Current"},
	{"a fenced host", "ComputeService", "spec: {forcedDown: true, forcedDownReason: ipmi}\n" + word("DOWN", "ForcedDown"), health{"Degraded", "DOWN (ForcedDown): ipmi"}, "Failed"},
	{"a silent host", "ComputeService", "status: {observedGeneration: 2, hostStatus: UNKNOWN, hostStatusReason: LeaseExpired, " + silent + "}", health{"Degraded", "UNKNOWN (LeaseExpired). Lease a/b was not renewed for 40s"}, "Failed"},
	{"a host in a word of a later release", "ComputeService", word("ELSEWHERE", "New"), health{"Unknown", "ELSEWHERE (New)"}, "InProgress"},

	{"a server that was just made", "Server", `spec: {host: h}`, health{"Progressing", waiting}, "error"},
	{"a server that was only reported on", "Server", `status: {state: ACTIVE}`, health{"Progressing", waiting}, "InProgress"},
	{"a server that has just moved", "Server", `status: {observedGeneration: 1, hostStatus: UP}`, health{"Progressing", waiting}, "InProgress"},
	{"a server on a host before its first heartbeat", "Server", `status: {observedGeneration: 2, hostStatusReason: WaitingForHeartbeat}`, health{"Progressing", waiting}, "InProgress"},
	{"a server on a host that is not there", "Server", "spec: {host: h}\n" + word("", "HostNotFound"), health{"Progressing", "There is no ComputeService h"}, "InProgress"},
	{"a server on no host", "Server", word("", "NoHost"), health{"Healthy", "On no host"}, "Current"},
	{"a server on an UP host", "Server", word("UP", "Reporting"), health{"Healthy", "Its host is UP (Reporting)"}, "Current"},
	{"a server on a silent host", "Server", word("UNKNOWN", "LeaseExpired"), health{"Healthy", "Its host is UNKNOWN (LeaseExpired)"}, "Current"},
	{"a server on a fenced host", "Server", word("DOWN", "ForcedDown"), health{"Healthy", "Its host is DOWN (ForcedDown)"}, "Current"},
	{"a server on a host in maintenance", "Server", word("MAINTENANCE", "Disabled"), health{"Healthy", "Its host is MAINTENANCE (Disabled)"}, "Current"},
	{"a server in trouble of its own", "Server", `status: {observedGeneration: 2, hostStatus: UP, hostStatusReason: Reporting, state: ERROR}`, health{"Degraded", "The server itself is in state ERROR"}, "Failed"},
}

// Each host status of the table is judged as the table says, and never stops a Server.
func init() {
	flux := map[hoststatus.Health]string{hoststatus.HealthGood: "Current", hoststatus.HealthPaused: "Current", hoststatus.HealthBad: "Failed"}
	for row := range hoststatus.Rows() {
		if !row.Derived() {
			continue
		}
		status := row.Label()
		subjects = append(subjects,
			subject{"any host that is " + status, "ComputeService", word(status, "Any"), health{string(row.Health), status + " (Any)"}, flux[row.Health]},
			subject{"any server on a host that is " + status, "Server", word(status, "Any"), health{"Healthy", "Its host is " + status + " (Any)"}, "Current"})
	}
}

// parsed returns the object of s, in generation 2.
func (s subject) parsed(t *testing.T) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(fmt.Sprintf("apiVersion: compute.hoststatus.dev/v1alpha1\nkind: %s\nmetadata: {name: x, generation: 2}\n%s", s.kind, s.object)))
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(raw); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return object.Object
}

// read decodes a file of config/gitops.
func read(t *testing.T, name string, into any) {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "config", "gitops", name))
	if err == nil {
		err = yaml.Unmarshal(content, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheHealthChecksOfArgoCD(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	// Of a module of its own, so that nothing that is shipped depends on Lua.
	lua := filepath.Join(t.TempDir(), "lua")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", lua, ".")
	build.Dir, build.Env = filepath.Join(root, "hack", "lua"), append(os.Environ(), "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var config struct {
		Data map[string]string `json:"data"`
	}
	read(t, "argocd-cm.yaml", &config)
	for _, kind := range []string{"ComputeService", "Server"} {
		script := filepath.Join(t.TempDir(), "health.lua")
		if err := os.WriteFile(script, []byte(config.Data["resource.customizations.health.compute.hoststatus.dev_"+kind]), 0o600); err != nil {
			t.Fatal(err)
		}
		var asked []subject
		objects := []any{}
		for _, s := range subjects {
			if s.kind == kind {
				asked, objects = append(asked, s), append(objects, s.parsed(t))
			}
		}
		input, err := json.Marshal(objects)
		if err != nil {
			t.Fatal(err)
		}
		command := exec.CommandContext(t.Context(), lua, script)
		command.Stdin = bytes.NewReader(input)
		var complaints strings.Builder
		command.Stderr = &complaints
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", kind, err, complaints.String())
		}
		var answers []health
		if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(asked) {
			t.Fatalf("%d answers to %d objects (%v)", len(answers), len(asked), err)
		}
		for i, s := range asked {
			if answers[i] != s.argo {
				t.Errorf("%s is %q, want %q", s.name, answers[i], s.argo)
			}
		}
	}
}

// An object of the owners' view, which Argo CD would find beside the Server in git, is excluded
// by what the page and the file say, and what is judged here is not.
func TestTheExclusionsOfArgoCD(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "operate", "gitops.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "```yaml\ndata:\n")
	block, _, ended := strings.Cut(block, "```")
	if !found || !ended {
		t.Fatal("docs/operate/gitops.md has no block of argocd-cm")
	}
	var config struct {
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal([]byte("data:\n"+block), &config); err != nil {
		t.Fatal(err)
	}
	var exclusions []struct {
		APIGroups, Kinds, Clusters []string
	}
	if err := yaml.UnmarshalStrict([]byte(config.Data["resource.exclusions"]), &exclusions); err != nil {
		t.Fatal(err)
	}
	if len(exclusions) != 1 || len(exclusions[0].APIGroups) != 1 || exclusions[0].APIGroups[0] != tenantv1alpha1.SchemeGroupVersion.Group ||
		exclusions[0].Kinds[0] != "*" || exclusions[0].Clusters[0] != "*" {
		t.Errorf("excluded is %v", exclusions)
	}
	file, err := os.ReadFile(filepath.Join(root, "config", "gitops", "argocd-cm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if commented := "#   " + strings.ReplaceAll(strings.TrimSpace(config.Data["resource.exclusions"]), "\n", "\n#   "); !strings.Contains(string(file), commented) {
		t.Errorf("argocd-cm.yaml does not say\n%s", commented)
	}
	var own struct {
		Data map[string]string `json:"data"`
	}
	if read(t, "argocd-cm.yaml", &own); own.Data["resource.exclusions"] != "" {
		t.Error("argocd-cm.yaml takes the list of exclusions from whoever has one")
	}
}

// expressions are health checks of a Flux Kustomization.
type expressions struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	InProgress string `json:"inProgress"`
	Failed     string `json:"failed"`
	Current    string `json:"current"`
}

// judge evaluates in the order that Flux documents: whether it is in progress, has
// failed, is current; what is none of these is in progress. Flux goes on asking after
// an error.
func (e expressions) judge(t *testing.T, object map[string]any) string {
	t.Helper()
	env, err := cel.NewEnv(cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true), ext.Strings())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ expression, verdict string }{
		{e.InProgress, "InProgress"}, {e.Failed, "Failed"}, {e.Current, "Current"},
	} {
		// Flux parses without types: the object's own fields are the variables.
		parsed, issues := env.Parse(step.expression)
		if issues.Err() != nil {
			t.Fatal(issues.Err())
		}
		program, err := env.Program(parsed)
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := program.ContextEval(context.Background(), object)
		if err != nil {
			return "error"
		}
		if out.Value() == true {
			return step.verdict
		}
	}
	return "InProgress"
}

func TestTheHealthChecksOfFlux(t *testing.T) {
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []expressions `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	read(t, "flux-kustomization.yaml", &kustomization)
	checks := map[string]expressions{}
	for _, e := range kustomization.Spec.HealthCheckExprs {
		if e.APIVersion != "compute.hoststatus.dev/v1alpha1" {
			t.Errorf("a check for %s", e.APIVersion)
		}
		checks[e.Kind] = e
	}
	for _, s := range subjects {
		if got := checks[s.kind].judge(t, s.parsed(t)); got != s.flux {
			t.Errorf("%s is %s, want %s", s.name, got, s.flux)
		}
	}
}
