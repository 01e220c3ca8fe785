// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"

	"github.com/spf13/cobra"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// The exit codes, for scripts.
const (
	// ExitOK: everything is done, or was so already.
	ExitOK = kubectlplugin.ExitOK
	// ExitError: the API server could not be reached, or refused a request.
	ExitError = kubectlplugin.ExitError
	// ExitUsage: the command line is wrong. Nothing was written.
	ExitUsage = kubectlplugin.ExitUsage
	// ExitNotFound: a named host does not exist. Nothing was written.
	ExitNotFound = kubectlplugin.ExitNotFound
	// ExitNotConfirmed: the change was not confirmed. Nothing was written.
	ExitNotConfirmed = kubectlplugin.ExitNotConfirmed
	// ExitNotUp, of list --exit-code: a listed host is not UP, or there are no hosts.
	ExitNotUp = 5
	// ExitNoManager, of list --exit-code: every listed host was UP when a manager was
	// last at work, and none is now.
	ExitNoManager = 6
)

// Environment is what the plugin takes from the process around it.
type Environment = kubectlplugin.Environment

// plugin has what every verb needs.
type plugin struct{ *kubectlplugin.Plugin }

func newPlugin(env Environment) *plugin { return &plugin{kubectlplugin.New("hosts", env)} }

// Run runs the plugin with the arguments after its name, and returns its exit code.
func Run(ctx context.Context, env Environment, args []string) int {
	p := newPlugin(env)
	return p.Execute(ctx, newRoot(p), args)
}

// Command returns the plugin's command, with those of its verbs.
func Command() *cobra.Command { return newRoot(newPlugin(Environment{})) }

func newRoot(p *plugin) *cobra.Command {
	root := &cobra.Command{
		Short: "Show and set the status of compute hosts",
		Long: `Show and set the status of compute hosts: which are up, why one is not, and what is on it.

The hosts are the ComputeServices of hoststatus (computeservices.compute.hoststatus.dev).

Exit codes: 0 done, 1 error, 2 wrong usage, 3 no such host, 4 not confirmed.
list --exit-code also uses 5 (a listed host is not UP, or there are no hosts) and 6
(every listed host was UP when a manager was last at work, and none is now).`,
		Example: `  kubectl hosts list --status DOWN,UNKNOWN
  kubectl hosts show compute-2
  kubectl hosts force-down compute-2 --reason "fenced by ipmi"
  kubectl hosts up compute-2`,
	}
	p.Prepare(root)
	root.AddCommand(p.newList(), p.newShow(), p.newWatch(), p.newPage())
	for _, v := range verbs {
		root.AddCommand(p.newVerb(v))
	}
	root.AddCommand(p.newWindow(), p.newCheck())
	return root
}
