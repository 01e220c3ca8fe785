// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Each reason has its sentence in what kubectl explain shows, the same in both kinds. The
// owners' view shares the fields with Server. The sentences of the host statuses are those
// of the table in internal/hoststatus, where they are tested.
func TestEachReasonIsExplained(t *testing.T) {
	type schema struct {
		Description string
		Properties  map[string]schema
		Enum        []string
	}
	sentences := map[string]string{}
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
		field := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties["hostStatusReason"]
		if len(field.Enum) < 6 {
			t.Fatalf("%s: values of hostStatusReason are %q", kind, field.Enum)
		}
		paragraphs := strings.Split(field.Description, "\n\n")
		for _, reason := range field.Enum {
			if kind == "computeservices" && slices.Contains([]string{"NoHost", "HostNotFound"}, reason) {
				continue // A host does not have these.
			}
			i := slices.IndexFunc(paragraphs, func(p string) bool { return strings.HasPrefix(p, reason+" (") })
			if i < 0 {
				t.Errorf("%s: hostStatusReason %s has no sentence", kind, reason)
				continue
			}
			sentence := strings.Join(strings.Fields(paragraphs[i]), " ")
			if other, ok := sentences[reason]; ok && other != sentence {
				t.Errorf("%s explains %s differently from the other kind:\n%s\n%s", kind, reason, sentence, other)
			}
			sentences[reason] = sentence
		}
	}
}
