// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"strconv"
)

// encoder writes JSON. Which fields an object has depends on the microversion and on what
// the caller may see, and a page has a thousand objects, so they are written one field
// after the other and not collected in maps first. Of each method the key is the field's;
// within a list it is empty.
type encoder struct {
	b []byte
	// next is set if what comes next needs a comma before it.
	next bool
}

// bytesPerServer is about how long a server is.
const bytesPerServer = 1536

// newEncoder returns one with room for servers.
func newEncoder(servers int) *encoder {
	return &encoder{b: make([]byte, 0, (servers+1)*bytesPerServer)}
}

// key begins a field that this package names; no such name needs to be escaped.
func (e *encoder) key(key string) {
	e.comma()
	if key != "" {
		e.b = append(e.b, '"')
		e.b = append(e.b, key...)
		e.b = append(e.b, '"', ':')
	}
}

// dataKey begins a field that others have named.
func (e *encoder) dataKey(key string) {
	e.comma()
	e.b = appendText(e.b, key)
	e.b = append(e.b, ':')
}

func (e *encoder) comma() {
	if e.next {
		e.b = append(e.b, ',')
	}
	e.next = true
}

func (e *encoder) text(key, value string) {
	e.key(key)
	e.b = appendText(e.b, value)
}

// textOrNull writes null for an empty text.
func (e *encoder) textOrNull(key, value string) {
	if value == "" {
		e.null(key)
		return
	}
	e.text(key, value)
}

func (e *encoder) number(key string, value int64) {
	e.key(key)
	e.b = strconv.AppendInt(e.b, value, 10)
}

func (e *encoder) boolean(key string, value bool) {
	e.key(key)
	e.b = strconv.AppendBool(e.b, value)
}

func (e *encoder) null(key string) {
	e.key(key)
	e.b = append(e.b, "null"...)
}

// begin opens an object or a list; bracket is { or [.
func (e *encoder) begin(key string, bracket byte) {
	e.key(key)
	e.b = append(e.b, bracket)
	e.next = false
}

// end closes what begin has opened; bracket is } or ].
func (e *encoder) end(bracket byte) {
	e.b = append(e.b, bracket)
	e.next = true
}

// appendText appends a JSON string.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(text)
			if err != nil {
				panic(err) // A text can always be encoded.
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}
