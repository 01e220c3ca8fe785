// SPDX-License-Identifier: Apache-2.0

package serving

// values returns how many values the JSON in body can have at most, itself included. ok
// is false if it is no object, so that nothing is read as YAML. It checks no more than
// that takes: the decoder finds out whether it is JSON at all.
func values(body []byte) (n int, ok bool) {
	n = 1
	inString, escaped := false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{', c == '[':
			ok = ok || c == '{' && n == 1
			n++
		case c == ',':
			n++
		}
		if !ok && c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return n, false
		}
	}
	return n, ok
}
