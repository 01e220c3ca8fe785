// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// completeHosts offers the names of hosts: at most limit of them (0 for any
// number), those for which wants is true (nil for all), and none twice.
func (p *plugin) completeHosts(limit int, wants func(*v1alpha1.ComputeService) bool) cobra.CompletionFunc {
	list := func(ctx context.Context) ([]v1alpha1.ComputeService, error) {
		c, err := p.connect()
		if err != nil {
			return nil, err
		}
		return c.all(ctx, nil)
	}
	return kubectlplugin.CompleteObjects(limit, list, func(o *v1alpha1.ComputeService) string { return o.Name }, describe, wants)
}

// describe is the status of a host and its reason.
func describe(s *v1alpha1.ComputeService) string {
	return strings.TrimSpace(kubectlplugin.ShowStatus(s.Status.HostStatus) + " " + string(s.Status.HostStatusReason))
}
