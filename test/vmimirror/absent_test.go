// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	"context"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// It is the first test of the package, by the name of its file, since the others need what
// is missing here.
func TestWithoutKubeVirtOnlyTheMirrorWaits(t *testing.T) {
	expect.Eventually(t, patience, func() error {
		if n := logged(t, "not mirrored yet", "no CustomResourceDefinition virtualmachineinstances.kubevirt.io", "Install KubeVirt"); n != 1 {
			return fmt.Errorf("%d lines tell what is missing", n)
		}
		return nil
	})
	// Hosts, Servers of people and the mirror of Nodes work.
	newHost(t, "without-kubevirt")
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "needs-no-kubevirt"}, Spec: v1alpha1.ComputeServiceSpec{Disabled: ptr.To(true)}}
	server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "needs-no-kubevirt"}, Spec: v1alpha1.ServerSpec{Host: "needs-no-kubevirt"}}
	expect.NoError(t, system.Client.Create(t.Context(), service))
	expect.NoError(t, system.Client.Create(t.Context(), server))
	t.Cleanup(func() {
		expect.NoError(t, system.Client.Delete(context.Background(), server))
		expect.NoError(t, system.Client.Delete(context.Background(), service))
	})
	expect.Eventually(t, patience, shows("team-a", "needs-no-kubevirt", "needs-no-kubevirt|||||MAINTENANCE"))

	namespace := newNamespace(t, "late-kubevirt")
	newVMI(t, namespace, "web-1", `{"phase":"Pending"}`, nil)
	expect.Eventually(t, patience, shows(namespace, "web-1", "|BUILD|NOSTATE|scheduling||"))
	if n := logged(t, "not mirrored yet"); n != 1 {
		t.Errorf("%d lines tell what is missing", n)
	}
	if n := logged(t, "can be listed now"); n != 1 {
		t.Errorf("%d lines tell that it works", n)
	}
	select {
	case <-system.Manager.Done():
		t.Error("the manager has ended")
	default:
	}
}
