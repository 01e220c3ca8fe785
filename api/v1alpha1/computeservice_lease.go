// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import "k8s.io/apimachinery/pkg/types"

// AnnotationDeletionProtection is the annotation of a ComputeService that must not
// be deleted while Servers name it in spec.host: "true" protects it, any other value
// does not.
const AnnotationDeletionProtection = "compute.hoststatus.dev/deletion-protection"

// HeartbeatLease returns which Lease carries the host's heartbeats: that of
// spec.leaseRef, with defaults for what is not set.
func (s *ComputeService) HeartbeatLease() types.NamespacedName {
	lease := types.NamespacedName{Namespace: DefaultLeaseNamespace, Name: s.Name}
	if ref := s.Spec.LeaseRef; ref != nil {
		if ref.Namespace != "" {
			lease.Namespace = ref.Namespace
		}
		if ref.Name != "" {
			lease.Name = ref.Name
		}
	}
	return lease
}
