// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// maxSimilar is how many similar names an error lists.
const maxSimilar = 5

// CompareNames orders names as people count: compute-2 before compute-10.
func CompareNames(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		n, m := digits(x), digits(y)
		if n > 0 && m > 0 {
			i, j := strings.TrimLeft(x[:n], "0"), strings.TrimLeft(y[:m], "0")
			if c := cmp.Or(cmp.Compare(len(i), len(j)), cmp.Compare(i, j)); c != 0 {
				return c
			}
			x, y = x[n:], y[m:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}

// digits returns how many digits s begins with.
func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}

// Similar returns the names that are most like a name that does not exist: those that
// begin with it, then those that differ in the fewest letters. cobra compares them, as it
// does with commands that do not exist.
func Similar(name string, names []string) []string {
	like := &cobra.Command{}
	for _, n := range names {
		like.AddCommand(&cobra.Command{Use: n, Run: func(*cobra.Command, []string) {}})
	}
	// A host may go by its name without the domain.
	short, _, _ := strings.Cut(name, ".")
	var found []string
	for far := range max(1, len(short)/4) + 1 {
		like.SuggestionsMinimumDistance = far
		for _, n := range append(like.SuggestionsFor(name), like.SuggestionsFor(short)...) {
			if len(found) == maxSimilar {
				return found
			}
			if !slices.Contains(found, n) {
				found = append(found, n)
			}
		}
	}
	return found
}

// Unique returns the names without repetitions.
func Unique(names []string) []string {
	var out []string
	for _, name := range names {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}
