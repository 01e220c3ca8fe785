// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var (
	apiVersion = GroupVersion.String()
	isTrue     = ptr.To(true)
)

// Mirrored reports whether a Server, as KeepMirrored keeps it, mirrors a
// VirtualMachineInstance.
func Mirrored(server *v1alpha1.Server) bool { return ownerOf(server) != "" }

// KeepMirrored returns the transform of a cache of Servers that strips them by strip, and
// keeps what the mirror compares of those that mirror a VirtualMachineInstance: its UID,
// and in place of the provider id a fingerprint of that and of the mirrored labels. With
// strip keeping the reported fields, this takes about 150 bytes more.
func KeepMirrored(strip cache.TransformFunc) cache.TransformFunc {
	return func(obj any) (any, error) {
		server, ok := obj.(*v1alpha1.Server)
		if !ok {
			return strip(obj)
		}
		owner := ownerOf(server)
		if owner == "" {
			return strip(obj)
		}
		mark := fingerprint(server.Spec.ProviderID, server.Annotations[AnnotationLabels], server.Labels)
		out, err := strip(server)
		if kept, ok := out.(*v1alpha1.Server); ok {
			kept.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: Kind, Name: kept.Name, UID: owner, Controller: isTrue}}
			kept.Spec.ProviderID = mark
		}
		return out, err
	}
}
