// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

func TestTheCommandsOfTheGitOpsPageGiveWhatItShows(t *testing.T) {
	_, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "argocd"}}, metav1.CreateOptions{})
	expect.NoError(t, err)
	t.Cleanup(func() {
		expect.NoError(t, kube.CoreV1().Namespaces().Delete(context.Background(), "argocd", metav1.DeleteOptions{}))
	})
	_, err = kube.CoreV1().ConfigMaps("argocd").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "argocd-cm"}, Data: map[string]string{"url": "https://argo"},
	}, metav1.CreateOptions{})
	expect.NoError(t, err)

	steps, err := system.RunPage(t.Context(), "docs/operate/gitops.md")
	expect.NoError(t, err)
	for _, step := range steps {
		if diff := cmp.Diff(step.Want, step.Got); diff != "" {
			t.Errorf("$ %s (-page +real)\n%s", step.Command, diff)
		}
	}
	if len(steps) != 9 {
		t.Errorf("%d commands were run", len(steps))
	}
	config, err := kube.CoreV1().ConfigMaps("argocd").Get(t.Context(), "argocd-cm", metav1.GetOptions{})
	expect.NoError(t, err)
	if len(config.Data) != 3 || config.Data["url"] == "" {
		t.Errorf("Argo CD's ConfigMap has %d keys", len(config.Data))
	}
}

// gitVersions returns the resourceVersions of the fleet that is in git, for as long as
// nothing but git writes to it.
func gitVersions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{"compute-11", "compute-12"} {
		service := &v1alpha1.ComputeService{}
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Name: name}, service))
		out[name] = service.ResourceVersion
	}
	server := &v1alpha1.Server{}
	expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "shop-1"}, server))
	out["shop-1"] = server.ResourceVersion
	return out
}

func TestWhatIsAppliedAgainChangesNothing(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	dir := filepath.Join(root, "config", "gitops", "fleet")
	for name, flags := range map[string][]string{
		"server-side": {"--server-side", "--field-manager=fleet"},
		"client-side": nil,
	} {
		t.Run(name, func(t *testing.T) {
			apply := func() {
				t.Helper()
				out, err := kubectl(t, append([]string{"apply", "-k", dir}, flags...)...)
				if err != nil {
					t.Fatal(out)
				}
			}
			apply()
			defer func() {
				if out, err := kubectl(t, "delete", "-k", dir); err != nil {
					t.Error(out)
				}
			}()
			tool := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "compute-11"}}
			patch(t, tool, `{"spec":{"forcedDown":true,"forcedDownReason":"fenced by ipmi"}}`)
			patch(t, &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "compute-12"}}, `{"spec":{"disabled":true}}`)
			expect.Eventually(t, patience, serverIs("team-a", "shop-1", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown))
			expect.Eventually(t, patience, hostIs("compute-12", v1alpha1.HostStatusMaintenance))
			before := gitVersions(t)
			for range 2 {
				apply()
				if diff := cmp.Diff(before, gitVersions(t)); diff != "" {
					t.Errorf("resourceVersions (-before +after):\n%s", diff)
				}
			}
			expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(tool), tool))
			if !ptr.Deref(tool.Spec.ForcedDown, false) {
				t.Error("what the fencing tool said is gone")
			}
		})
	}
}

func TestTheStatusOfNeitherKindIsInDispute(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	// The sample fleet, whose agents run: applied by two tools, one after the other.
	for _, flags := range [][]string{{"--server-side"}, {"--server-side", "--field-manager=another", "--force-conflicts"}} {
		out, err := kubectl(t, append([]string{"apply", "-k", filepath.Join(root, "config", "samples")}, flags...)...)
		if err != nil {
			t.Fatal(out)
		}
	}
	check := func(object client.Object, allowed ...string) {
		t.Helper()
		seen := false
		for _, entry := range object.GetManagedFields() {
			hasStatus := entry.FieldsV1 != nil && strings.Contains(string(entry.FieldsV1.GetRawBytes()), `"f:status"`)
			if !hasStatus {
				continue
			}
			seen = true
			if entry.Subresource != "status" || !slices.Contains(allowed, entry.Manager) {
				t.Errorf("the status of %s has fields of %s (%s)", object.GetName(), entry.Manager, entry.Operation)
			}
		}
		if !seen {
			t.Errorf("nobody owns the status of %s", object.GetName())
		}
	}
	var services v1alpha1.ComputeServiceList
	expect.NoError(t, system.Client.List(t.Context(), &services))
	sample := 0
	for i := range services.Items {
		if strings.HasPrefix(services.Items[i].Name, "compute-") {
			sample++
			check(&services.Items[i], "hoststatus-manager")
		}
	}
	var servers v1alpha1.ServerList
	expect.NoError(t, system.Client.List(t.Context(), &servers, client.InNamespace("team-a")))
	for _, name := range []string{"web-1", "web-2", "db-1"} {
		for i := range servers.Items {
			if servers.Items[i].Name == name {
				sample++
				check(&servers.Items[i], "hoststatus-manager", "hoststatus-agent")
			}
		}
	}
	if sample < 7 {
		t.Errorf("%d objects were looked at", sample)
	}
}
