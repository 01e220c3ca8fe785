// SPDX-License-Identifier: Apache-2.0

// Command kubectl-hosts is a kubectl plugin for operators of hosts:
// kubectl hosts list, show, watch, page, check, force-down, up, disable, enable and window.
package main

import (
	"os"

	"hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

func main() { os.Exit(kubectlplugin.Main(kubectlhosts.Run)) }
