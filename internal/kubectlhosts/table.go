// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

const (
	// none is what kubectl prints where there is nothing.
	none = "<none>"
	// columnGap is the space between columns, as kubectl has it.
	columnGap = 3
)

// cell is one field of a table.
type cell struct {
	text string
	// colour is an SGR code; empty for none.
	colour string
}

func plain(text string) cell { return cell{text: clean(text)} }

// statusCell is a host status in its colour.
func statusCell(status *v1alpha1.HostStatus) cell {
	row, _ := hoststatus.RowOf(status)
	return cell{clean(showStatus(status)), row.Terminal}
}

func showStatus(status *v1alpha1.HostStatus) string {
	if status == nil || *status == "" {
		return none
	}
	return string(*status)
}

// table is rows under a header, aligned. kubectl's printer of tables has no colours and
// does not shorten columns to the width of a terminal.
type table struct {
	indent  string
	header  []string
	rows    [][]cell
	colours bool
	// width is how many characters a line may have; 0 for any number.
	width int
	// shorter has the functions that shorten columns to fit.
	shorter map[int]func(words []string, limit int) []string
}

// newTable makes a table for standard output.
func (p *plugin) newTable(header ...string) *table {
	t := &table{header: header, colours: p.colours()}
	if p.OutTerminal && p.Width != nil {
		t.width = p.Width()
	}
	return t
}

func (t *table) add(header ...string) { t.header = append(t.header, header...) }

// shorten allows the column of that header, if there is one, to be shortened.
func (t *table) shorten(header string, how func([]string, int) []string) {
	if i := slices.Index(t.header, header); i >= 0 {
		if t.shorter == nil {
			t.shorter = map[int]func([]string, int) []string{}
		}
		t.shorter[i] = how
	}
}

// write writes the table. Widths are counted without the colours.
func (t *table) write(w io.Writer, headers bool) {
	var all [][]cell
	if headers {
		first := make([]cell, len(t.header))
		for i, h := range t.header {
			first[i] = plain(h)
		}
		all = append(all, first)
	}
	all = append(all, t.rows...)
	widths := t.fit(all)
	for _, row := range all {
		var line strings.Builder
		line.WriteString(t.indent)
		gap := 0
		for i, c := range row {
			if c.text != "" {
				line.WriteString(strings.Repeat(" ", gap))
				line.WriteString(paint(c, t.colours))
				gap = 0
			}
			gap += widths[i] - letters(c.text) + columnGap
		}
		_, _ = fmt.Fprintln(w, line.String())
	}
}

// minColumn is how short a column may become.
const minColumn = 12

// fit returns the widths of the columns, after it has shortened what may be shortened,
// the widest column first.
func (t *table) fit(rows [][]cell) []int {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], letters(c.text))
		}
	}
	if t.width <= 0 {
		return widths
	}
	total := len(t.indent) - columnGap
	for _, width := range widths {
		total += width + columnGap
	}
	limits := slices.Clone(widths)
	for ; total > t.width; total-- {
		widest := -1
		for i := range t.shorter {
			if i < len(limits) && limits[i] > minColumn && (widest < 0 || limits[i] > limits[widest] || limits[i] == limits[widest] && i > widest) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		limits[widest]--
	}
	for i, limit := range limits {
		if limit == widths[i] {
			continue
		}
		column := make([]string, 0, len(rows))
		for _, row := range rows {
			text := ""
			if i < len(row) {
				text = row[i].text
			}
			column = append(column, text)
		}
		for at, text := range t.shorter[i](column, limit) {
			if i < len(rows[at]) {
				rows[at][i].text = text
			}
		}
	}
	return limits
}

const ellipsis = "…"

// end leaves out the end of what is longer than limit.
func end(words []string, limit int) []string {
	return cut(words, limit, limit-1)
}

// middle leaves out the middle of what is longer than limit: names of hosts mostly differ
// at the beginning and the end. If shortened names would be equal, it leaves out another
// part, in which the names are equal.
func middle(words []string, limit int) []string {
	keep := limit - 1
	want := len(distinct(words))
	best, most, longest := []string(nil), 0, 0
	for _, word := range words {
		longest = max(longest, letters(word))
	}
	for shift := range keep {
		for _, head := range []int{keep/2 + shift, keep/2 - shift} {
			if head < 0 || head > keep {
				continue
			}
			out := cut(words, limit, head)
			n := len(distinct(out))
			if n > most {
				best, most = out, n
			}
			if n == want {
				return out
			}
		}
	}
	// They differ only in between: leave out what is before and after that.
	head := limit / 4
	for from := head + 1; from < longest; from++ {
		out := make([]string, len(words))
		for i, word := range words {
			out[i] = amid([]rune(word), limit, head, from)
		}
		n := len(distinct(out))
		if n > most {
			best, most = out, n
		}
		if n == want {
			return out
		}
	}
	return best
}

// amid keeps head letters, and then those from a place on, as many as there is room for.
func amid(word []rune, limit, head, from int) string {
	if len(word) <= limit {
		return string(word)
	}
	room := limit - head - 2*letters(ellipsis)
	from = max(head, min(from, len(word)-room-1))
	if from+room+1 >= len(word) {
		return string(word[:head]) + ellipsis + string(word[from:])
	}
	return string(word[:head]) + ellipsis + string(word[from:from+room]) + ellipsis
}

// cut keeps head letters, and of the end as many as there is room for.
func cut(words []string, limit, head int) []string {
	out := make([]string, len(words))
	for i, word := range words {
		runes := []rune(word)
		if len(runes) <= limit {
			out[i] = word
			continue
		}
		tail := limit - 1 - head
		out[i] = string(runes[:head]) + ellipsis + string(runes[len(runes)-tail:])
	}
	return out
}

func distinct(words []string) map[string]struct{} {
	out := map[string]struct{}{}
	for _, word := range words {
		out[word] = struct{}{}
	}
	return out
}

func letters(text string) int { return utf8.RuneCountInString(text) }

func paint(c cell, colours bool) string {
	if !colours || c.colour == "" {
		return c.text
	}
	return "\x1b[" + c.colour + "m" + c.text + "\x1b[0m"
}

// age is how long ago t was, in kubectl's format.
func age(t *metav1.Time, now time.Time) string {
	if t.IsZero() {
		return none
	}
	return duration.HumanDuration(max(0, now.Sub(t.Time)))
}

// stamp writes a time.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func isTrue(flag *bool) bool { return flag != nil && *flag }
