// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout is how long Tab may take.
const completionTimeout = 3 * time.Second

// CompleteObjects offers the names of what list returns, each with its description: at most
// limit of them (0 for any number), those for which wants is true (nil for all), and none twice.
func CompleteObjects[T any](limit int, list func(context.Context) ([]T, error), name, describe func(*T) string, wants func(*T) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		found, err := list(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for i := range found {
			o := &found[i]
			if n := name(o); strings.HasPrefix(n, typed) && !slices.Contains(args, n) && (wants == nil || wants(o)) {
				names = append(names, cobra.CompletionWithDesc(n, describe(o)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}
