// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// What a newcomer types with `make run` works, in the order of the page.
func TestTheCommandsOfTheREADMEWork(t *testing.T) {
	// The sample fleet is for the next test as it was for this one.
	defer func() {
		ctx := t.Context()
		_ = system.Agents["compute-1"].Signal(syscall.SIGCONT)
		node := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
		if err := client.IgnoreNotFound(system.Client.Delete(ctx, node)); err != nil {
			t.Error(err)
		}
		if err := client.IgnoreNotFound(kube.RbacV1().RoleBindings("team-a").Delete(ctx, "team-host-status", metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"compute-2", "compute-3"} {
			service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
			if err := system.Client.Patch(ctx, service, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"forcedDown":null,"forcedDownReason":null,"disabled":null,"disabledReason":null,"maintenanceWindow":null}}`))); err != nil {
				t.Error(err)
			}
		}
		for i := range 4 {
			expect.Eventually(t, patience, hostIs(fmt.Sprintf("compute-%d", i+1), v1alpha1.HostStatusUp))
		}
	}()
	steps, err := system.RunPage(t.Context(), "README.md",
		"make ", "export ", "bin/kubectl ", // What the test does in their place.
		"helm ", "kubectl apply -k config/prometheus", // Of a real cluster, as the page says.
		"kubectl hosts watch") // Stays until Ctrl-C; test/kubectlhosts has it.
	expect.NoError(t, err)
	for command, want := range map[string]string{
		"kubectl get servers.compute -A --field-selector status.hostStatus=UNKNOWN": "compute-1",
		"kubectl hosts show compute-1":                                              "UNKNOWN",
		"kubectl hosts show compute-2":                                              "DOWN",
		"kubectl auth can-i get servers.tenant.hoststatus.dev --subresource=status -n team-a --as=ana --as-group=team-a": "yes",
	} {
		found := false
		for _, step := range steps {
			if step.Command == command {
				found = true
				if !strings.Contains(step.Got, want) {
					t.Errorf("$ %s does not print %q:\n%s", command, want, step.Got)
				}
			}
		}
		if !found {
			t.Errorf("the page has no command %s", command)
		}
	}
	if len(steps) < 20 {
		t.Errorf("only %d commands were run", len(steps))
	}
}
