// SPDX-License-Identifier: Apache-2.0

// Package nova lets clients of OpenStack's compute API read servers with their host
// status, and lets operators' tools read and set the state of compute services. It
// translates: the token that a client sends is the bearer token with which kube-apiserver
// is asked, so RBAC decides what each caller may see and do. The translator has no rights
// of its own, and keeps nothing between two requests.
package nova
