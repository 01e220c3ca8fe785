// SPDX-License-Identifier: Apache-2.0

// Package printable makes text that somebody else wrote safe to show.
package printable

import (
	"strings"
	"unicode"
)

// Clean returns s with U+FFFD in place of each character that does something else than
// stand for itself: control characters (which drive terminals, and which YAML refuses),
// line and paragraph separators, and invisible formatting, the bidirectional marks and
// isolates above all, which make a line read otherwise than it is. What is printable
// comes back as it is.
func Clean(s string) string {
	if strings.IndexFunc(s, strange) < 0 {
		// A broken encoding has no strange rune of its own: it is one already.
		return strings.ToValidUTF8(s, string(unicode.ReplacementChar))
	}
	return strings.Map(func(r rune) rune {
		if strange(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// strange tells whether r is none that a line of text is made of. The joiners are,
// because Persian and emoji need them, and so are the Arabic number signs, which are
// seen although they are of the category of the invisible.
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
	}
	return !unicode.Is(unicode.Prepended_Concatenation_Mark, r) && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}
