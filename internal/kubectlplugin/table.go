// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

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
	// None is what kubectl prints where there is nothing.
	None = "<none>"
	// columnGap is the space between columns, as kubectl has it.
	columnGap = 3
)

// Cell is one field of a table.
type Cell struct {
	Text string
	// Colour is an SGR code; empty for none.
	Colour string
}

// Plain is text without a colour.
func Plain(text string) Cell { return Cell{Text: Clean(text)} }

// StatusCell is a host status in its colour.
func StatusCell(status *v1alpha1.HostStatus) Cell {
	row, _ := hoststatus.RowOf(status)
	return Cell{Clean(ShowStatus(status)), row.Terminal}
}

// ShowStatus is a host status as tables show it.
func ShowStatus(status *v1alpha1.HostStatus) string {
	if status == nil || *status == "" {
		return None
	}
	return string(*status)
}

// Table is rows under a header, aligned. kubectl's printer of tables has no colours and
// does not shorten columns to the width of a terminal.
type Table struct {
	Indent  string
	Header  []string
	Rows    [][]Cell
	Colours bool
	// Width is how many characters a line may have; 0 for any number.
	Width int
	// shorter has the functions that shorten columns to fit.
	shorter map[int]func(words []string, limit int) []string
}

// NewTable makes a table for standard output.
func (p *Plugin) NewTable(header ...string) *Table {
	t := &Table{Header: header, Colours: p.Colours()}
	t.Width = p.LineWidth()
	return t
}

// Add adds columns.
func (t *Table) Add(header ...string) { t.Header = append(t.Header, header...) }

// Shorten allows the column of that header, if there is one, to be shortened.
func (t *Table) Shorten(header string, how func([]string, int) []string) {
	if i := slices.Index(t.Header, header); i >= 0 {
		if t.shorter == nil {
			t.shorter = map[int]func([]string, int) []string{}
		}
		t.shorter[i] = how
	}
}

// Write writes the table. Widths are counted without the colours.
func (t *Table) Write(w io.Writer, headers bool) {
	var all [][]Cell
	if headers {
		first := make([]Cell, len(t.Header))
		for i, h := range t.Header {
			first[i] = Plain(h)
		}
		all = append(all, first)
	}
	all = append(all, t.Rows...)
	widths := t.fit(all)
	for _, row := range all {
		var line strings.Builder
		line.WriteString(t.Indent)
		gap := 0
		for i, c := range row {
			if c.Text != "" {
				line.WriteString(strings.Repeat(" ", gap))
				line.WriteString(Paint(c, t.Colours))
				gap = 0
			}
			gap += widths[i] - Letters(c.Text) + columnGap
		}
		_, _ = fmt.Fprintln(w, line.String())
	}
}

// minColumn is how short a column may become.
const minColumn = 12

// fit returns the widths of the columns, after it has shortened what may be shortened,
// the widest column first.
func (t *Table) fit(rows [][]Cell) []int {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Letters(c.Text))
		}
	}
	if t.Width <= 0 {
		return widths
	}
	total := len(t.Indent) - columnGap
	for _, width := range widths {
		total += width + columnGap
	}
	limits := slices.Clone(widths)
	for ; total > t.Width; total-- {
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
				text = row[i].Text
			}
			column = append(column, text)
		}
		for at, text := range t.shorter[i](column, limit) {
			if i < len(rows[at]) {
				rows[at][i].Text = text
			}
		}
	}
	return limits
}

// Narrowest is how few characters a line can have, with all columns shortened that may be.
func (t *Table) Narrowest() int {
	total := Letters(t.Indent) - columnGap
	for i := range t.Header {
		widest := Letters(t.Header[i])
		for _, row := range t.Rows {
			if i < len(row) {
				widest = max(widest, Letters(row[i].Text))
			}
		}
		if _, shortens := t.shorter[i]; shortens {
			widest = min(widest, minColumn)
		}
		total += widest + columnGap
	}
	return total
}

// Ellipsis is in place of what is left out.
const Ellipsis = "…"

// End leaves out the end of what is longer than limit.
func End(words []string, limit int) []string {
	return cut(words, limit, limit-1)
}

// Middle leaves out the middle of what is longer than limit: names of hosts mostly differ
// at the beginning and the end. If shortened names would be equal, it leaves out another
// part, in which the names are equal.
func Middle(words []string, limit int) []string {
	keep := limit - 1
	want := len(distinct(words))
	best, most, longest := []string(nil), 0, 0
	for _, word := range words {
		longest = max(longest, Letters(word))
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
	room := limit - head - 2*Letters(Ellipsis)
	from = max(head, min(from, len(word)-room-1))
	if from+room+1 >= len(word) {
		return string(word[:head]) + Ellipsis + string(word[from:])
	}
	return string(word[:head]) + Ellipsis + string(word[from:from+room]) + Ellipsis
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
		out[i] = string(runes[:head]) + Ellipsis + string(runes[len(runes)-tail:])
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

// Letters is how wide a text is.
func Letters(text string) int { return utf8.RuneCountInString(text) }

// Paint is the text of a cell, in its colour if colours are wanted.
func Paint(c Cell, colours bool) string {
	if !colours || c.Colour == "" {
		return c.Text
	}
	return "\x1b[" + c.Colour + "m" + c.Text + "\x1b[0m"
}

// Age is how long ago t was, in kubectl's format.
func Age(t *metav1.Time, now time.Time) string {
	if t.IsZero() {
		return None
	}
	return duration.HumanDuration(max(0, now.Sub(t.Time)))
}

// Stamp writes a time.
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Human is a duration in kubectl's format; a negative one counts as none.
func Human(d time.Duration) string { return duration.HumanDuration(max(0, d)) }

// Counted is a number with its noun: 1 host, 2 hosts.
func Counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
