// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the custom resource that a host writes: HostReport, its record
// of the servers on it. A host has no rights on Servers, since a right to write one would
// let it read any.
//
// +kubebuilder:object:generate=true
// +groupName=agent.hoststatus.dev
package v1alpha1
