// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// The exit codes, for scripts. They are those of kubectl-hosts.
const (
	// ExitOK: everything is done, or was so already.
	ExitOK = kubectlplugin.ExitOK
	// ExitError: the API server could not be reached, or refused a request.
	ExitError = kubectlplugin.ExitError
	// ExitUsage: the command line is wrong, or there is nothing to answer to. Nothing was
	// written.
	ExitUsage = kubectlplugin.ExitUsage
	// ExitNotFound: a named server does not exist. Nothing was written.
	ExitNotFound = kubectlplugin.ExitNotFound
)

// Environment is what the plugin takes from the process around it.
type Environment = kubectlplugin.Environment

// plugin has what every verb needs.
type plugin struct{ *kubectlplugin.Plugin }

func newPlugin(env Environment) *plugin { return &plugin{kubectlplugin.New("servers", env)} }

// Run runs the plugin with the arguments after its name, and returns its exit code.
func Run(ctx context.Context, env Environment, args []string) int {
	p := newPlugin(env)
	return p.Execute(ctx, newRoot(p), args)
}

// Command returns the plugin's command, with those of its verbs.
func Command() *cobra.Command { return newRoot(newPlugin(Environment{})) }

func newRoot(p *plugin) *cobra.Command {
	root := &cobra.Command{
		Short: "Show your servers and their hosts, and answer to maintenance",
		Long: `Show your servers and what the status of their hosts means for you, and answer to the
maintenance of a host.

The servers are those of the owners' view of hoststatus (servers.tenant.hoststatus.dev).
You see the status of their hosts if it is granted to you, and never which hosts they are.

Exit codes: 0 done, 1 error, 2 wrong usage or nothing to answer to, 3 no such server.`,
		Example: `  kubectl servers list
  kubectl servers show web-1
  kubectl servers ready web-1 web-2
  kubectl servers not-before web-1 tomorrow 06:00
  kubectl servers watch`,
	}
	p.Prepare(root)
	notAVerb := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		err := notAVerb(cmd, args)
		if err == nil || strings.HasSuffix(err.Error(), "?") { // It knows better what was meant.
			return err
		}
		return kubectlplugin.UsageError("%w; if it is a server: kubectl servers show %s%s", err, args[0], p.namespaceFlag())
	}
	root.AddCommand(p.newList(), p.newShow(), p.newWatch(), p.newPage(), p.newReady(), p.newNotBefore(), p.newWithdraw())
	return root
}

// namespaceFlag is the flag of the command line that names the namespace, as a command that is
// suggested has to have it; empty if there was none.
func (p *plugin) namespaceFlag() string {
	if given := p.Config.Namespace; given != nil && *given != "" {
		return " -n " + *given
	}
	return ""
}

// namespace is the one of --namespace or of the kubeconfig.
func (p *plugin) namespace() string {
	// kubectl's own, if neither names one.
	const fallback = "default"
	namespace, _, err := p.Config.ToRawKubeConfigLoader().Namespace()
	if err != nil || namespace == "" {
		return fallback
	}
	return namespace
}
