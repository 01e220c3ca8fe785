// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Each value and each reason has its sentence in what kubectl explain shows, in both
// kinds, and the words are the same for owners, operators and the platform's people.
func TestEachValueOfTheEnumerationsIsExplained(t *testing.T) {
	type schema struct {
		Description string
		Properties  map[string]schema
		Enum        []string
	}
	tenant, err := os.ReadFile("../tenant/v1alpha1/server_types.go")
	if err != nil {
		t.Fatal(err)
	}
	owners := strings.Join(strings.Fields(strings.ReplaceAll(string(tenant), "//", " ")), " ")
	for _, kind := range []string{"servers", "computeservices"} {
		content, err := os.ReadFile("../../config/crd/compute.hoststatus.dev_" + kind + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Versions []struct {
					Schema struct{ OpenAPIV3Schema schema }
				}
			}
		}
		if err := yaml.Unmarshal(content, &crd); err != nil {
			t.Fatal(err)
		}
		status := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties
		for field, onServersOnly := range map[string][]string{"hostStatus": {""}, "hostStatusReason": {"NoHost", "HostNotFound"}} {
			if len(status[field].Enum) < 6 {
				t.Fatalf("%s: values of %s are %q", kind, field, status[field].Enum)
			}
			paragraphs := strings.Split(status[field].Description, "\n\n")
			for _, value := range status[field].Enum {
				if kind == "computeservices" && slices.Contains(onServersOnly, value) {
					continue
				}
				if value == "" {
					value = `""`
				}
				i := slices.IndexFunc(paragraphs, func(p string) bool {
					return strings.HasPrefix(p, value+": ") || strings.HasPrefix(p, value+" (")
				})
				if i < 0 {
					t.Errorf("%s: %s %s has no sentence", kind, field, value)
				} else if sentence := strings.Join(strings.Fields(paragraphs[i]), " "); kind == "servers" && !strings.Contains(owners, sentence) {
					t.Errorf("owners are told something else than %q", sentence)
				}
			}
		}
	}
}
