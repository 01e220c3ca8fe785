// SPDX-License-Identifier: Apache-2.0

// Package printable makes untrusted text safe to show.
package printable

import (
	"strings"
	"unicode"
)

// Clean returns s with U+FFFD in place of each character that is not plain text: control
// characters (which control terminals, and which YAML refuses), line and paragraph
// separators, and invisible formatting, above all bidirectional marks and isolates, which
// make a line look different from what it is. Printable text comes back unchanged.
func Clean(s string) string {
	if strings.IndexFunc(s, strange) < 0 {
		// Invalid UTF-8 decodes to U+FFFD, which is not strange, so it is still in s.
		return strings.ToValidUTF8(s, string(unicode.ReplacementChar))
	}
	return strings.Map(func(r rune) rune {
		if strange(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// CleanUpTo returns Clean(s), cut to most characters, of which the last then is "…".
func CleanUpTo(most int, s string) string {
	s = Clean(s)
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}

// strange reports whether r does not belong in a line of text. The joiners do, because
// Persian and emoji need them, and so do the Arabic number signs, which are visible
// although their category is invisible formatting.
func strange(r rune) bool {
	const zeroWidthNonJoiner, zeroWidthJoiner = '\u200c', '\u200d'
	if r < unicode.MaxASCII {
		return r < ' '
	}
	switch {
	case r == zeroWidthNonJoiner, r == zeroWidthJoiner:
		return false
	case r&0xfffe == 0xfffe: // never a character, and YAML refuses it
		return true
	case r == 0x2065, r >= 0xe0000 && r <= 0xe007f: // reserved among the marks and the tags, and our schemas refuse it
		return true
	}
	return !unicode.Is(unicode.Prepended_Concatenation_Mark, r) && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}
