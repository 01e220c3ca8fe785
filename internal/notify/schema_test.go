// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

// wholeConfig has every field.
const wholeConfig = `
namespaces: [team-a, team-b]
source: /cluster-1/notifier
generatorURL: https://console.example.com/{namespace}/{server}
sinks:
- name: bus
  cloudEvents: {url: "https://events.example.com:8443/in?key=a@b", mode: Binary, parallel: 32}
  tls: {caFile: ca.crt, certFile: tls.crt, keyFile: tls.key, serverName: events}
  bearerTokenFile: token
  timeoutSeconds: 60
- name: pager
  alertmanager: {url: "http://[::1]:9093", resendSeconds: 5, expireSeconds: 10}
  timeoutSeconds: 1
routes:
- name: all
  sink: bus
  hostStatuses: [UP, DOWN, UNKNOWN, MAINTENANCE, NEEDS_MAINTENANCE]
- name: page
  sink: pager
  namespaces: [team-b]
  selector: app in (web, db)
  hostStatuses: [DOWN]
  minSeconds: 0.5
  groupByHost: true
  severity: page
`

func TestTheSchemaRefusesWhatIsWrongWithoutALookAtOtherFields(t *testing.T) {
	content, err := json.Marshal(Schema())
	expect.NoError(t, err)
	schema := &spec.Schema{}
	expect.NoError(t, json.Unmarshal(content, schema))
	problems := func(content string) []error {
		var value any
		if err := yaml.Unmarshal([]byte(content), &value); err != nil {
			return nil // It is not for the schema.
		}
		return validate.NewSchemaValidator(schema, nil, "", strfmt.Default).Validate(value).Errors
	}
	for _, right := range []string{goodConfig, wholeConfig} {
		if _, err := load(t, right); err != nil {
			t.Error(err)
		}
		for _, problem := range problems(right) {
			t.Errorf("what is right is refused: %v", problem)
		}
	}
	for name, c := range wrongConfigs {
		t.Run(name, func(t *testing.T) {
			if found := problems(strings.Replace(goodConfig, c.old, c.new, 1)); (len(found) == 0) != c.notInSchema {
				t.Errorf("the schema finds %v", found)
			}
		})
	}
}
