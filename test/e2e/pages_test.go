// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

// What a person copies from a page works as it stands, on the sample fleet.
func TestTheCommandsOfThePagesWork(t *testing.T) {
	t.Cleanup(func() {
		ctx := context.Background()
		out, err := system.Kubectl(ctx, "label", "clusterrole", "hoststatus-host-status-viewer", "rbac.authorization.k8s.io/aggregate-to-admin-").CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		out, err = system.Kubectl(ctx, "patch", "computeservice", "compute-2", "--type=merge", `-p={"spec":{"forcedDown":null}}`).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	for _, page := range []struct {
		name string
		// skip are commands that another test runs, or that do not end.
		skip []string
		// want are parts of what commands print, by how these begin.
		want map[string]string
		// binds are the ClusterRoleBindings that it leaves behind.
		binds []string
	}{
		{
			name: "operate/policy.md",
			want: map[string]string{
				"kubectl auth can-i get servers.tenant.hoststatus.dev --subresource=status -n team-a --as=ana --as-group=team-a": "yes",
				"kubectl get servers -n team-a --as=ana": "HOST STATUS",
			},
			binds: []string{"support-servers", "support-host-status", "host-status-while-unknown", "vm-platform"},
		},
		{name: "operate/webhook.md", want: map[string]string{"kubectl patch computeservice compute-2": "patched"}},
		{
			name: "operate/troubleshooting.md",
			want: map[string]string{"kubectl get servers.compute -A -o custom-columns": "compute-1", "kubectl get apiservice": "True"},
		},
		{
			name: "use/servers.md",
			skip: []string{"kubectl get servers.tenant.hoststatus.dev -n team-a --watch"},
			want: map[string]string{"kubectl wait": "condition met"},
		},
		{
			name: "operate/faq.md",
			want: map[string]string{"kubectl hosts show compute-1": "UP"},
		},
		{name: "operate/kubectl-hosts.md", skip: []string{"kubectl hosts"}, binds: []string{"on-call"}},
	} {
		t.Run(page.name, func(t *testing.T) {
			t.Cleanup(func() {
				ctx := context.Background()
				for _, name := range page.binds {
					if err := kube.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
						t.Error(err)
					}
				}
				if err := client.IgnoreNotFound(kube.RbacV1().RoleBindings("team-a").Delete(ctx, "team-host-status", metav1.DeleteOptions{})); err != nil {
					t.Error(err)
				}
			})
			steps, err := system.RunPage(t.Context(), filepath.Join("docs", filepath.FromSlash(page.name)), page.skip...)
			expect.NoError(t, err)
			if len(steps) == 0 {
				t.Error("no command was run")
			}
			for begin, want := range page.want {
				found := false
				for _, step := range steps {
					if strings.HasPrefix(step.Command, begin) {
						found = true
						if !strings.Contains(step.Got, want) {
							t.Errorf("$ %s does not print %q:\n%s", step.Command, want, step.Got)
						}
					}
				}
				if !found {
					t.Errorf("the page has no command %s", begin)
				}
			}
		})
	}
}
