// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the owners' view of servers: the API that the aggregated
// API server serves. It is read-only and stored nowhere; each object is made from
// the Server of compute.hoststatus.dev, with host status only for callers whom
// RBAC grants it.
//
// +kubebuilder:object:generate=true
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=dev.hoststatus.tenant.v1alpha1
// +groupName=tenant.hoststatus.dev
package v1alpha1
