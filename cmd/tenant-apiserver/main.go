// SPDX-License-Identifier: Apache-2.0

// Command tenant-apiserver serves the owners' view of servers, with host status for
// callers to whom RBAC grants it.
package main

import (
	"context"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/cli"
	"hoststatus.dev/hoststatus/internal/tenantapi"
)

func main() {
	options := tenantapi.NewOptions()
	os.Exit(cli.Main("tenant-apiserver", "tenant-apiserver serves the owners' view of servers, with host status for callers to whom RBAC grants it.", options,
		func(ctx context.Context, config *rest.Config, log logr.Logger) error {
			return tenantapi.Run(ctx, config, options, log)
		}))
}
