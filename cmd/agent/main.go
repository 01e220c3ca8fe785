// SPDX-License-Identifier: Apache-2.0

// Command agent runs on each host: it renews the host's Lease and reports the
// state of its servers.
package main

import (
	"context"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/agent"
	"hoststatus.dev/hoststatus/internal/cli"
)

func main() {
	options := agent.NewOptions()
	os.Exit(cli.Main("agent", "agent renews the Lease of its host and reports the state of the servers on it.", options,
		func(ctx context.Context, config *rest.Config, log logr.Logger) error {
			return agent.Run(ctx, config, options, log)
		}))
}
