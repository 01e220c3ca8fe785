// SPDX-License-Identifier: Apache-2.0

// Command nova-api lets clients of OpenStack's compute API read servers and their host
// status, and set the state of compute services, with the rights of the token that they
// bring.
package main

import (
	"context"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/cli"
	"hoststatus.dev/hoststatus/internal/nova"
)

func main() {
	options := nova.NewOptions()
	os.Exit(cli.Main("nova-api", "nova-api lets clients of OpenStack's compute API read servers and their host status, and set the state of compute services, with the rights of the token that they bring.", options,
		func(ctx context.Context, config *rest.Config, log logr.Logger) error {
			return nova.Run(ctx, config, options, log)
		}))
}
