// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodConfig = `
namespaces: [team-a]
sinks:
- name: bus
  cloudEvents:
    url: https://events.example.com/in
  bearerTokenFile: token
- name: pager
  alertmanager:
    url: https://alertmanager.example.com
    resendSeconds: 30
routes:
- name: all
  sink: bus
- name: page
  sink: pager
  hostStatuses: [DOWN, UNKNOWN]
  minSeconds: 2.5
  groupByHost: true
  selector: app=web
`

func load(t *testing.T, content string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(path, "own")
}

func TestAConfigurationHasItsDefaults(t *testing.T) {
	c, err := load(t, goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	bus, pager := c.Sinks[0], c.Sinks[1]
	if c.Source != "/hoststatus/notifier" || bus.TimeoutSeconds != 10 || bus.CloudEvents.Mode != ModeStructured || bus.CloudEvents.Parallel != 4 || pager.Alertmanager.ExpireSeconds != 120 {
		t.Errorf("%+v %+v %+v", c, bus.CloudEvents, pager.Alertmanager)
	}
	if !filepath.IsAbs(bus.BearerTokenFile) || c.Routes[1].min().Milliseconds() != 2500 {
		t.Errorf("%s, %s", bus.BearerTokenFile, c.Routes[1].min())
	}
	own, err := load(t, strings.Replace(goodConfig, "namespaces: [team-a]", "", 1))
	if err != nil || len(own.Namespaces) != 1 || own.Namespaces[0] != "own" {
		t.Errorf("%v, %v", own, err)
	}
}

// wrongConfigs are mistakes in goodConfig, and how they are refused.
var wrongConfigs = map[string]struct {
	old, new, want string
	// notInSchema is set if the schema does not find it.
	notInSchema bool
}{
	"not YAML":                  {"sinks:", "sinks: [", "yaml", true},
	"an unknown field":          {"sink: bus", "sinc: bus", `unknown field "sinc"`, false},
	"no sinks":                  {goodConfig, "routes: [{name: a, sink: b}]", "sinks: Required value", false},
	"no routes":                 {goodConfig, "sinks: [{name: a, cloudEvents: {url: 'http://x'}}]", "routes: Required value", false},
	"a namespace":               {"[team-a]", "[Team]", "namespaces[0]: Invalid value", false},
	"all and one":               {"[team-a]", `["*", team-a]`, "namespaces[0]: Invalid value: \"*\": must be the only one", true},
	"a sink of no kind":         {"  cloudEvents:\n    url: https://events.example.com/in\n", "", "sinks[0]: Invalid value: \"bus\": must have either", false},
	"two sinks of a name":       {"name: pager", "name: bus", "sinks[1].name: Duplicate value", true},
	"two routes of a name":      {"name: page\n  sink: pager", "name: all\n  sink: bus", "routes[1].name: Duplicate value", true},
	"no URL":                    {"https://events.example.com/in", "''", "sinks[0].cloudEvents.url: Required value", false},
	"a URL with a user":         {"https://events", "https://user:secret@events", "sinks[0].cloudEvents.url: Invalid value", false},
	"a token in clear":          {"https://events", "http://events", "sinks[0].bearerTokenFile: Invalid value", true},
	"a mode":                    {"url: https://events.example.com/in", "url: https://events.example.com/in\n    mode: binary", "sinks[0].cloudEvents.mode: Unsupported value", false},
	"an alert that is gone":     {"resendSeconds: 30", "resendSeconds: 30\n    expireSeconds: 59", "sinks[1].alertmanager.expireSeconds: Invalid value: 59: must be from 60", true},
	"half a client certificate": {"bearerTokenFile: token", "tls: {certFile: a}", "sinks[0].tls: Invalid value", false},
	"an unknown sink":           {"sink: pager", "sink: page", `routes[1].sink: Invalid value: "page"`, true},
	"a host status":             {"[DOWN, UNKNOWN]", "[Down]", "routes[1].hostStatuses[0]: Unsupported value", false},
	"an alert of UP":            {"[DOWN, UNKNOWN]", "[UP]", "routes[1].hostStatuses[0]: Unsupported value", true},
	"a selector":                {"app=web", "app in web", "routes[1].selector: Invalid value", true},
	"a negative duration":       {"minSeconds: 2.5", "minSeconds: -1", "routes[1].minSeconds: Invalid value", false},
	"a route not watched":       {"groupByHost: true", "namespaces: [team-b]", `routes[1].namespaces[0]: Invalid value: "team-b": is not watched`, true},
	"a severity of events":      {"sink: bus", "sink: bus\n  severity: page", "routes[0].severity: Invalid value", true},
	"a name":                    {"name: all", "name: All", "routes[0].name: Invalid value", false},
	"a link":                    {"namespaces: [team-a]", "generatorURL: 'console/{server}'", "generatorURL: Invalid value", false},
	"a route of all":            {"groupByHost: true", `namespaces: ["*"]`, `routes[1].namespaces[0]: Invalid value: "*"`, false},
	"a namespace twice":         {"[team-a]", "[team-a, team-a]", "namespaces[1]: Duplicate value", false},
	"a short resend":            {"resendSeconds: 30", "resendSeconds: 4", "sinks[1].alertmanager.resendSeconds: Invalid value: 4: must be from 5 to 3600", false},
	"a long expiry":             {"resendSeconds: 30", "expireSeconds: 86401", "sinks[1].alertmanager.expireSeconds: Invalid value: 86401", false},
	"a long timeout":            {"bearerTokenFile: token", "timeoutSeconds: 61", "sinks[0].timeoutSeconds: Invalid value: 61: must be from 1 to 60", false},
	"too much at once":          {"url: https://events.example.com/in", "url: https://events.example.com/in\n    parallel: 33", "sinks[0].cloudEvents.parallel: Invalid value: 33", false},
	"a long severity":           {"groupByHost: true", "severity: " + strings.Repeat("a", 64), "routes[1].severity: Too long", false},
	"a text for a number":       {"minSeconds: 2.5", "minSeconds: long", "cannot unmarshal string into Go struct field", false},
}

func TestAConfigurationThatIsWrongIsRefusedByTheNameOfTheField(t *testing.T) {
	for name, c := range wrongConfigs {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(goodConfig, c.old) {
				t.Fatalf("the configuration has no %q", c.old)
			}
			_, err := load(t, strings.Replace(goodConfig, c.old, c.new, 1))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestATokenGoesInClearToThisMachineAlone(t *testing.T) {
	if _, err := load(t, strings.Replace(goodConfig, "https://events.example.com", "http://127.0.0.1:8080", 1)); err != nil {
		t.Error(err)
	}
}
