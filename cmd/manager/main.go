// SPDX-License-Identifier: Apache-2.0

// Command manager runs the controllers that derive host status.
package main

import (
	"context"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/cli"
	"hoststatus.dev/hoststatus/internal/manager"
)

func main() {
	options := manager.NewOptions()
	os.Exit(cli.Main("manager", "manager derives the status of compute hosts and writes it to their servers.", options,
		func(ctx context.Context, config *rest.Config, log logr.Logger) error {
			return manager.Run(ctx, config, options, log)
		}))
}
