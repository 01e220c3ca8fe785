// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"strings"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// labelWidth is where the text begins that follows a label.
const labelWidth = 15

// narrowest is how few characters a line of text may have before it is no longer wrapped.
const narrowest = 30

// labelled writes a label, which may be empty, and its text, in lines of at most width
// characters; 0 is any number. Lines end at spaces, and a word is never cut.
func labelled(label, text string, width int) string {
	var out strings.Builder
	room := width - labelWidth
	if label != "" {
		label += ":"
	}
	begin := label + strings.Repeat(" ", max(1, labelWidth-kubectlplugin.Letters(label)))
	for _, line := range wrap(text, room) {
		out.WriteString(begin + line + "\n")
		begin = strings.Repeat(" ", labelWidth)
	}
	return out.String()
}

func wrap(text string, room int) []string {
	if room < narrowest {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case kubectlplugin.Letters(line)+1+kubectlplugin.Letters(word) <= room:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
