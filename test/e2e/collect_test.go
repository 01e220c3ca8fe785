// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// ownLease lets the Lease of a host go with its ComputeService, as docs/operate/install.md has it.
func ownLease(t *testing.T, service *v1alpha1.ComputeService) {
	t.Helper()
	reference, err := json.Marshal(metav1.OwnerReference{
		APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "ComputeService", Name: service.Name, UID: service.UID,
	})
	expect.NoError(t, err)
	_, err = leases().Patch(t.Context(), service.Name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"ownerReferences":[%s]}}`, reference), metav1.PatchOptions{})
	expect.NoError(t, err)
}

// The garbage collector is Kubernetes' own, with the rights that it has in a cluster.
func TestALeaseThatItsComputeServiceOwnsGoesWithIt(t *testing.T) {
	t.Parallel()
	admitted(t)
	service := newService(t, "owned")
	beat := newHost(t, "owned", time.Minute, 50*time.Millisecond, 0)
	expect.Eventually(t, patience, hostIs("owned", v1alpha1.HostStatusUp))
	ownLease(t, service)
	// The agent renews it as it is.
	before, err := leases().Get(t.Context(), "owned", metav1.GetOptions{})
	expect.NoError(t, err)
	expect.Eventually(t, patience, func() error {
		now, err := leases().Get(t.Context(), "owned", metav1.GetOptions{})
		if err == nil && now.Spec.RenewTime.Equal(before.Spec.RenewTime) {
			err = fmt.Errorf("it is not renewed")
		}
		if err == nil && len(now.OwnerReferences) != 1 {
			t.Fatalf("a renewal leaves the owners %v", now.OwnerReferences)
		}
		return err
	})
	beat.stop()
	expect.NoError(t, system.Client.Delete(t.Context(), service))
	expect.Eventually(t, patience, func() error {
		_, err := leases().Get(t.Context(), "owned", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the Lease is still there: %v", err) //nolint:errorlint // nil too
	})
}

func TestAHostSetsNoOwnerOfItsLease(t *testing.T) {
	admitted(t)
	agent := hostByCertificate(t, "disowned").leases(v1alpha1.DefaultLeaseNamespace)
	owned := lease("disowned")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "disowned", UID: "1"}}
	if _, err := agent.Create(t.Context(), owned, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("creating a Lease with an owner: %v, want it forbidden", err)
	}
	service := newService(t, "disowned") // It cleans the Lease up.
	made, err := agent.Create(t.Context(), lease(service.Name), metav1.CreateOptions{})
	expect.NoError(t, err)
	withOwner, withFinalizer := made.DeepCopy(), made.DeepCopy()
	withOwner.OwnerReferences = owned.OwnerReferences
	if _, err := agent.Update(t.Context(), withOwner, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("adding an owner: %v, want it forbidden", err)
	}
	withFinalizer.Finalizers = []string{"example.com/stays"}
	if _, err := agent.Update(t.Context(), withFinalizer, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("adding a finalizer: %v, want it forbidden", err)
	}
}

// A migration of storage writes every object as it is, by an update or by applying
// nothing.
func TestStorageOfLeasesCanBeMigratedByWhoeverDoesThat(t *testing.T) {
	admitted(t)
	service := newService(t, "migrated")
	kept, err := leases().Create(t.Context(), lease(service.Name), metav1.CreateOptions{})
	expect.NoError(t, err)
	unforeseen(t)
	config, err := system.Cluster.ConfigFor("unforeseen")
	expect.NoError(t, err)
	clients, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	there := clients.CoordinationV1().Leases(v1alpha1.DefaultLeaseNamespace)
	if _, err := there.Update(t.Context(), kept, metav1.UpdateOptions{}); err != nil {
		t.Errorf("an update that changes nothing: %v", err)
	}
	nothing := fmt.Appendf(nil, `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"uid":%q,"resourceVersion":%q}}`, kept.UID, kept.ResourceVersion)
	if _, err := there.Patch(t.Context(), kept.Name, types.ApplyPatchType, nothing, metav1.PatchOptions{FieldManager: "storage-version-migrator-controller"}); err != nil {
		t.Errorf("applying nothing: %v", err)
	}
	changed := kept.DeepCopy()
	changed.Spec.RenewTime = ptr.To(metav1.NowMicro())
	if _, err := there.Update(t.Context(), changed, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a renewal: %v, want it forbidden", err)
	}
	labelled := kept.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	if _, err := there.Update(t.Context(), labelled, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a label: %v, want it forbidden", err)
	}
}
