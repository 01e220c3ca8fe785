// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the custom resource that owners of servers write:
// MaintenanceAnswer, their word on the maintenance window of a server's host. It has no
// status and is accepted whether or not there is a window or a server, since whoever may
// write one need not be allowed to know.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="applyconfiguration"
// +groupName=owner.hoststatus.dev
package v1alpha1
