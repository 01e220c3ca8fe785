// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// completionTimeout is how long Tab may take.
const completionTimeout = 3 * time.Second

// completeServers offers the names of servers: at most limit of them (0 for any number),
// those for which wants is true (nil for all), and none twice.
func (p *plugin) completeServers(limit int, wants func(*tenantv1alpha1.Server) bool) cobra.CompletionFunc {
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
		found, err := c.all(ctx, p.namespace())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for i := range found {
			s := &found[i]
			if strings.HasPrefix(s.Name, typed) && !slices.Contains(args, s.Name) && (wants == nil || wants(s)) {
				names = append(names, cobra.CompletionWithDesc(s.Name, describe(s)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// describe is the state of a server, and the status of its host if it is shown.
func describe(s *tenantv1alpha1.Server) string {
	words := []string{kubectlplugin.Clean(string(s.Status.State))}
	if s.Status.HostStatus != nil && *s.Status.HostStatus != "" {
		words = append(words, "host "+kubectlplugin.Clean(string(*s.Status.HostStatus)))
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), ", ")
}

// mayAnswer leaves out the servers that are known to have no window to answer to.
func mayAnswer(s *tenantv1alpha1.Server) bool {
	return s.Status.HostStatus == nil || s.Status.MaintenanceWindow != nil
}
