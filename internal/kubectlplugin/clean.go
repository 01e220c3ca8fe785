// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/runtime"

	"hoststatus.dev/hoststatus/internal/printable"
)

// Clean makes text from an object safe for a terminal, and puts it on one line.
func Clean(text string) string {
	return printable.Clean(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, text))
}

// CleanLines makes text safe that has line breaks and tabs of our own.
func CleanLines(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || isPlain(r) {
			return r
		}
		safe, _ := utf8.DecodeRuneInString(printable.Clean(string(r)))
		return safe
	}, text)
}

// isPlain is true for printable ASCII, which nearly all text is.
func isPlain(r rune) bool { return r >= ' ' && r < 0x7f }

// cleanWriter removes what drives a terminal. Each Write has to end with a whole character.
type cleanWriter struct{ io.Writer }

// Write implements io.Writer.
func (w cleanWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, CleanLines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// escapeJSON writes what drives a terminal as \uXXXX, which means the same: in JSON it
// occurs in strings only. encoding/json leaves DEL, C1 and bidirectional marks as they are.
func escapeJSON(encoded string) string {
	var out strings.Builder
	for _, r := range encoded {
		switch {
		case r == '\n' || isPlain(r) || r == utf8.RuneError || printable.Clean(string(r)) == string(r):
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			_, _ = fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			_, _ = fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// cleanValue makes each string in a decoded JSON value safe, keeping its lines.
func cleanValue(value any) any {
	switch v := value.(type) {
	case string:
		return CleanLines(v)
	case []any:
		for i := range v {
			v[i] = cleanValue(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = cleanValue(v[key])
		}
	}
	return value
}

// cleanObject returns a copy with safe strings. Encoders of YAML refuse some others
// altogether, so that one reason could keep all hosts from being printed.
func cleanObject(obj runtime.Object) (runtime.Object, error) {
	if document, ok := obj.(*runtime.Unknown); ok {
		safe, err := cleanJSON(document.Raw)
		return &runtime.Unknown{Raw: safe}, err
	}
	encoded, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	safe, err := cleanJSON(encoded)
	if err != nil {
		return nil, err
	}
	obj = obj.DeepCopyObject()
	return obj, json.Unmarshal(safe, obj)
}

// cleanJSON makes each string in a JSON document safe.
func cleanJSON(encoded []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	var decoded any
	if err := decoder.Decode(&decoded); err != nil {
		return nil, err
	}
	return json.Marshal(cleanValue(decoded))
}

// isJSON is true for formats that are JSON, which can escape every character.
func isJSON(format string) bool {
	return format == "json" || strings.HasPrefix(format, "jsonpath-as-json")
}

// Safely prints in a format for scripts, which may still end up on a terminal. JSON
// keeps every character; other formats get U+FFFD for what drives a terminal.
func Safely(w io.Writer, format string, print func(io.Writer) error) error {
	var raw bytes.Buffer
	if err := print(&raw); err != nil {
		return err
	}
	safe := CleanLines
	if isJSON(format) {
		safe = escapeJSON
	}
	_, err := io.WriteString(w, safe(raw.String()))
	return err
}
