// SPDX-License-Identifier: Apache-2.0

// +k8s:openapi-model-package=dev.hoststatus.compute.v1alpha1

package v1alpha1
