// SPDX-License-Identifier: Apache-2.0

// Command kubectl-servers is a kubectl plugin for owners of servers:
// kubectl servers list, show, watch, page, ready, not-before and withdraw.
package main

import (
	"os"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
	"hoststatus.dev/hoststatus/internal/kubectlservers"
)

func main() { os.Exit(kubectlplugin.Main(kubectlservers.Run)) }
