// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// Whatever a fencing tool writes beside it, its flag holds.
func TestDOWNDoesNotFailForItsReason(t *testing.T) {
	// The API server takes a policy up a moment after it was installed.
	expect.Eventually(t, patience, func() error {
		probe := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "probe-of-reasons"}}
		probe.Spec.ForcedDownReason = ptr.To("a\nb")
		return system.Client.Create(t.Context(), probe, client.DryRunAll)
	})
	long := strings.Repeat("ü", 100_000)
	for name, c := range map[string]struct{ reason, want string }{
		"plain":      {"fenced by ipmi", "fenced by ipmi"},
		"longest":    {long[:512], long[:512]},
		"too-long":   {long, long[:510] + "…"},
		"lines":      {"fenced\nby ipmi\r\n", "fenced�by ipmi"},
		"escapes":    {"\u001b[31mfenced\u0000\u009b\u202e", "[31mfenced"},
		"both":       {strings.Repeat("x\n", 500), strings.Repeat("x�", 127) + "x…"},
		"strange":    {"\u0007\u0085\ufeff", ""},
		"everything": {"Wartung 東京 👩\u200d🔧", "Wartung 東京 👩\u200d🔧"},
	} {
		t.Run(name, func(t *testing.T) {
			service := newService(t, "reason-"+name)
			body, err := json.Marshal(map[string]any{"spec": map[string]any{"forcedDown": true, "forcedDownReason": c.reason}})
			expect.NoError(t, err)
			expect.NoError(t, system.Client.Patch(t.Context(), service, client.RawPatch(types.MergePatchType, body)))
			if got := ptr.Deref(service.Spec.ForcedDownReason, ""); got != c.want {
				t.Errorf("the reason is %.600q, want %.600q", got, c.want)
			}
			expect.Eventually(t, patience, hostIs(service.Name, v1alpha1.HostStatusDown))
			if out, err := kubectl(t, "get", "computeservices", service.Name, "-o", "yaml"); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// A text that was stored before it was refused stands in nobody's way: the flag beside it
// can be cleared, and all else changed.
func TestATextThatWasStoredBeforeItWasRefusedIsNoObstacle(t *testing.T) {
	const group = "earlier.example.org"
	content, err := os.ReadFile("../../config/crd/compute.hoststatus.dev_computeservices.yaml")
	expect.NoError(t, err)
	definition := func(content string) *unstructured.Unstructured {
		crd := &unstructured.Unstructured{}
		expect.NoError(t, yaml.Unmarshal([]byte(strings.ReplaceAll(content, "compute.hoststatus.dev", group)), &crd.Object))
		unstructured.RemoveNestedField(crd.Object, "spec", "names", "shortNames")
		unstructured.RemoveNestedField(crd.Object, "spec", "names", "categories")
		return crd
	}
	today, earlier := definition(string(content)), definition(strings.ReplaceAll(string(content), "!self.matches(", "true || !self.matches("))
	expect.NoError(t, system.Client.Create(t.Context(), earlier))
	t.Cleanup(func() { expect.NoError(t, system.Client.Delete(context.Background(), today)) })
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"disabled": true, "disabledReason": "a\u009bb", "forcedDown": true, "forcedDownReason": "a\u009bb",
	}}}
	object.SetAPIVersion(group + "/v1alpha1")
	object.SetKind("ComputeService")
	object.SetName("stored")
	expect.Eventually(t, patience, func() error { return system.Client.Create(t.Context(), object) })
	expect.Eventually(t, patience, func() error { // The API server writes the conditions of a definition meanwhile.
		if err := system.Client.Get(t.Context(), client.ObjectKeyFromObject(earlier), earlier); err != nil {
			return err
		}
		today.SetResourceVersion(earlier.GetResourceVersion())
		return system.Client.Update(t.Context(), today)
	})
	merge := func(body string) error {
		return system.Client.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(body)))
	}
	expect.Eventually(t, patience, func() error {
		if err := merge(`{"spec":{"maintenanceWindow":{"startTime":"2030-01-01T00:00:00Z","reason":"a\u009bb"}}}`); !apierrors.IsInvalid(err) {
			return fmt.Errorf("the schema of today does not hold yet: %w", errors.Join(err, merge(`{"spec":{"maintenanceWindow":null}}`)))
		}
		return nil
	})
	for _, body := range []string{
		`{"spec":{"disabled":false}}`, `{"spec":{"disabled":null}}`, `{"spec":{"forcedDown":null}}`, `{"spec":{"forcedDown":true}}`,
		`{"metadata":{"labels":{"rack":"r1"}}}`, `{"spec":{"disabledReason":""}}`, `{"spec":{"forcedDownReason":null}}`,
	} {
		if err := merge(body); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// Owners learn from the cluster what a status allows them to do, and so does everybody
// else.
func TestExplainTeachesEachValueAndEachReason(t *testing.T) {
	statuses := []string{"failing over is safe"}
	for _, label := range hoststatus.DerivedLabels() {
		statuses = append(statuses, label+": ")
	}
	for _, kind := range []struct{ resource, version string }{
		{"servers", "tenant.hoststatus.dev/v1alpha1"}, {"servers", "compute.hoststatus.dev/v1alpha1"}, {"computeservices", "compute.hoststatus.dev/v1alpha1"},
	} {
		for field, words := range map[string][]string{
			"hostStatus": slices.Clone(statuses),
			"hostStatusReason": {
				"ForcedDown (", "Disabled (", "WindowOpen (", "LeaseExpired (", "NeverReported (", "WaitingForHeartbeat (",
				"LeaseNotReadable (", "WindowAnnounced (", "Reporting (",
			},
		} {
			if kind.resource == "servers" {
				words = append(words, map[string][]string{"hostStatus": {`"": `}, "hostStatusReason": {"NoHost (", "HostNotFound ("}}[field]...)
			}
			out, err := kubectl(t, "explain", kind.resource+".status."+field, "--api-version="+kind.version)
			if err != nil {
				t.Errorf("%s of %s: %v: %s", kind.resource, kind.version, err, out)
				continue
			}
			for _, word := range words {
				if !strings.Contains(out, word) {
					t.Errorf("%s.status.%s of %s does not explain %q:\n%s", kind.resource, field, kind.version, word, out)
				}
			}
		}
	}
}
