// SPDX-License-Identifier: Apache-2.0

// Package driver is what a driver of the agent provides: the VMs on its host.
package driver

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/internal/reported"
)

// VM is what a driver knows about one server on its host.
type VM struct {
	// Server is the namespace and name of the Server, which the driver has from
	// the VM itself: the agent may not read Servers.
	Server types.NamespacedName
	// Empty fields are not reported.
	reported.Fields
}

// Driver knows the VMs on this host.
type Driver interface {
	// Run calls report with all VMs on the host, at first and after each change,
	// until ctx ends. It returns an error only if it cannot go on. The slice is the
	// receiver's from then on.
	Run(ctx context.Context, report func([]VM)) error
}
