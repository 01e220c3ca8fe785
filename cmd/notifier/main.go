// SPDX-License-Identifier: Apache-2.0

// Command notifier tells receivers of CloudEvents and Alertmanagers what becomes of the hosts
// of servers, with the rights that its account has in the owners' view.
package main

import (
	"context"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/cli"
	"hoststatus.dev/hoststatus/internal/notify"
)

func main() {
	options := notify.NewOptions()
	os.Exit(cli.Main("notifier", "notifier tells receivers of CloudEvents and Alertmanagers what becomes of the hosts of servers, with the rights that its account has in the owners' view.", options,
		func(ctx context.Context, config *rest.Config, log logr.Logger) error {
			return notify.Run(ctx, config, options, log)
		}))
}
