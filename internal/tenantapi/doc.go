// SPDX-License-Identifier: Apache-2.0

// Package tenantapi is the aggregated API server of tenant.hoststatus.dev: a read-only
// view of the Servers of compute.hoststatus.dev that shows host status only to callers
// that RBAC grants it to.
//
// Every verb returns what one projection makes of a Server, from an allow-list.
// Access is asked of the server's authorizer, never read out of role bindings.
package tenantapi
