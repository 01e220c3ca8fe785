// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"slices"
	"strings"
)

// maxSimilar is how many similar names are told.
const maxSimilar = 5

// compareNames orders names as people count: compute-2 before compute-10.
func compareNames(a, b string) int {
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

// similar returns the names that somebody who typed name may have meant, the
// likeliest first.
func similar(name string, names []string) []string {
	limit := max(1, len(name)/4)
	far := map[string]int{}
	for _, n := range names {
		d := distance(name, n)
		// Part of a name, as a host's name without its domain.
		if strings.Contains(n, name) || strings.Contains(name, n) {
			d = min(d, limit)
		}
		if d <= limit {
			far[n] = d
		}
	}
	var like []string
	for n := range far {
		like = append(like, n)
	}
	slices.SortFunc(like, func(a, b string) int { return cmp.Or(cmp.Compare(far[a], far[b]), compareNames(a, b)) })
	return like[:min(len(like), maxSimilar)]
}

// distance counts the letters to put in, take out or change to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
