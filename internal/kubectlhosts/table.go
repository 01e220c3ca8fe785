// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"hoststatus.dev/hoststatus/api/v1alpha1"
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

func plain(text string) cell { return cell{text: text} }

// statusCell is a host status in its colour.
func statusCell(status *v1alpha1.HostStatus) cell {
	text := showStatus(status)
	return cell{text, map[string]string{
		"UP": "32", "DOWN": "31;1", "UNKNOWN": "33;1", "MAINTENANCE": "34", "NEEDS_MAINTENANCE": "36",
	}[text]}
}

func showStatus(status *v1alpha1.HostStatus) string {
	if status == nil || *status == "" {
		return none
	}
	return string(*status)
}

// writeTable aligns rows under header. Widths are counted without the colours.
func writeTable(w io.Writer, indent string, header []string, rows [][]cell, colours bool) {
	var all [][]cell
	if header != nil {
		first := make([]cell, len(header))
		for i, h := range header {
			first[i] = plain(h)
		}
		all = append(all, first)
	}
	all = append(all, rows...)
	var widths []int
	for _, row := range all {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range all {
		var line strings.Builder
		line.WriteString(indent)
		gap := 0
		for i, c := range row {
			if c.text != "" {
				line.WriteString(strings.Repeat(" ", gap))
				line.WriteString(paint(c, colours))
				gap = 0
			}
			gap += widths[i] - utf8.RuneCountInString(c.text) + columnGap
		}
		_, _ = fmt.Fprintln(w, line.String())
	}
}

func paint(c cell, colours bool) string {
	if !colours || c.colour == "" {
		return c.text
	}
	return "\x1b[" + c.colour + "m" + c.text + "\x1b[0m"
}

// printable makes what somebody wrote into an object safe for a terminal, and
// brings it on one line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		default:
			return r
		}
	}, text)
}

// age says how long ago t was, as kubectl does.
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
