// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode"
)

func TestNothingThatDrivesATerminalReachesTheLog(t *testing.T) {
	const text = "a\u009b31m\u007f\u202eb\u2066\n\u001b[31m ü"
	options := &slog.HandlerOptions{ReplaceAttr: printableAttr}
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, options), slog.NewTextHandler(&out, options)} {
		out.Reset()
		slog.New(handler).Error("said "+text, "text", text, "error", errors.New(text), "number", 5)
		line := strings.TrimSuffix(out.String(), "\n")
		if i := strings.IndexFunc(line, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf) }); i >= 0 {
			t.Errorf("%q at %d", line, i)
		}
		if !strings.Contains(line, `\n`) || !strings.Contains(line, "ü") || !strings.Contains(line, "number") {
			t.Errorf("more is changed than has to be: %s", line)
		}
	}
}
