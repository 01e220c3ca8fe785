// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"net/http"
	"unique"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/vmimirror"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// staticMapper knows the kinds that the controllers use. Without discovery the
// process starts even while the API server is down, and is warm when it is back.
func staticMapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.SchemeGroupVersion, agentv1alpha1.SchemeGroupVersion, ownerv1alpha1.SchemeGroupVersion, corev1.SchemeGroupVersion, vmimirror.GroupVersion})
	mapper.Add(v1alpha1.SchemeGroupVersion.WithKind("ComputeService"), meta.RESTScopeRoot)
	mapper.Add(v1alpha1.SchemeGroupVersion.WithKind("Server"), meta.RESTScopeNamespace)
	mapper.Add(agentv1alpha1.SchemeGroupVersion.WithKind("HostReport"), meta.RESTScopeRoot)
	mapper.Add(ownerv1alpha1.SchemeGroupVersion.WithKind("MaintenanceAnswer"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(vmimirror.GroupVersion.WithKind(vmimirror.Kind), meta.RESTScopeNamespace)
	return mapper, nil
}

// stripServer keeps what the controllers read of a Server: fleets have many. What many of them
// have in common is kept once.
func stripServer(obj any) (any, error) {
	s, ok := obj.(*v1alpha1.Server)
	if !ok {
		return obj, nil
	}
	s.TypeMeta = metav1.TypeMeta{}
	s.ObjectMeta = metav1.ObjectMeta{
		Name:              s.Name,
		Namespace:         shared(s.Namespace),
		UID:               s.UID, // Answers may name it.
		ResourceVersion:   s.ResourceVersion,
		Generation:        s.Generation,
		CreationTimestamp: s.CreationTimestamp,
		DeletionTimestamp: s.DeletionTimestamp,
	}
	s.Spec = v1alpha1.ServerSpec{Host: shared(s.Spec.Host)}
	s.Status.State, s.Status.TaskState, s.Status.PowerState = shared(s.Status.State), shared(s.Status.TaskState), shared(s.Status.PowerState)
	for i := range s.Status.Networks {
		s.Status.Networks[i].Name = shared(s.Status.Networks[i].Name)
	}
	if s.Status.HostStatus != nil {
		*s.Status.HostStatus = shared(*s.Status.HostStatus)
	}
	s.Status.HostStatusReason = shared(s.Status.HostStatusReason)
	s.Status.HostReporting = shared(s.Status.HostReporting)
	s.Status.HostHistory = sharedHistory(s.Status.HostHistory)
	s.Status.MaintenanceWindow = sharedWindow(s.Status.MaintenanceWindow)
	return s, nil
}

// statuses are what sharedStatus returns.
var statuses = func() map[v1alpha1.HostStatus]*v1alpha1.HostStatus {
	all := map[v1alpha1.HostStatus]*v1alpha1.HostStatus{}
	for row := range hoststatus.Rows() {
		if row.Status != nil {
			all[*row.Status] = row.Status
		}
	}
	return all
}()

// sharedStatus returns a host status that all callers share.
func sharedStatus(s v1alpha1.HostStatus) *v1alpha1.HostStatus {
	if p := statuses[s]; p != nil {
		return p
	}
	return &s
}

// shared returns an equal string that all callers share.
func shared[T ~string](s T) T { return unique.Make(s).Value() }
