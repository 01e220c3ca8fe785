// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// completeServers offers the names of servers: at most limit of them (0 for any number),
// those for which wants is true (nil for all), and none twice.
func (p *plugin) completeServers(limit int, wants func(*tenantv1alpha1.Server) bool) cobra.CompletionFunc {
	list := func(ctx context.Context) ([]tenantv1alpha1.Server, error) {
		c, err := p.connect()
		if err != nil {
			return nil, err
		}
		return c.all(ctx, p.namespace())
	}
	return kubectlplugin.CompleteObjects(limit, list, func(o *tenantv1alpha1.Server) string { return o.Name }, describe, wants)
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
