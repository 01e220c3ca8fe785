// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the custom resources of hoststatus: ComputeService, the
// compute service on one host, and Server, one VM. They are for the platform team
// and its tools; owners of servers are served from another API group, because a
// custom resource cannot hide a field from a user.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="applyconfiguration"
// +groupName=compute.hoststatus.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// SchemeGroupVersion identifies this API.
var SchemeGroupVersion = schema.GroupVersion{Group: "compute.hoststatus.dev", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(func(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion,
		&ComputeService{}, &ComputeServiceList{},
		&Server{}, &ServerList{},
	)
	metav1.AddToGroupVersion(scheme, SchemeGroupVersion)
	return nil
})

// AddToScheme registers the kinds of this package.
var AddToScheme = schemeBuilder.AddToScheme
