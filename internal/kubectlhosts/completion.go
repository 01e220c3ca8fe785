// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// completionTimeout is how long Tab may take.
const completionTimeout = 3 * time.Second

// completeHosts offers the names of hosts: at most limit of them (0 for any
// number), those for which wants is true (nil for all), and none twice.
func (p *plugin) completeHosts(limit int, wants func(*v1alpha1.ComputeService) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := p.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		services, err := c.all(ctx, nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for i := range services {
			s := &services[i]
			if strings.HasPrefix(s.Name, typed) && !slices.Contains(args, s.Name) && (wants == nil || wants(s)) {
				names = append(names, cobra.CompletionWithDesc(s.Name, describe(s)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// describe is the status of a host and its reason.
func describe(s *v1alpha1.ComputeService) string {
	return strings.TrimSpace(kubectlplugin.ShowStatus(s.Status.HostStatus) + " " + string(s.Status.HostStatusReason))
}
