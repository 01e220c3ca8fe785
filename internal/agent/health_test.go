// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAnErrorOnTheLeaseIsShortAndPrintable(t *testing.T) {
	var health health
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("no\x1bfile"), "no\ufffdfile"},
		{errors.New("no folder"), "no folder"},
		{nil, ""},
	} {
		health.set(c.err)
		if got := health.error(); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
	}
	health.set(errors.New(strings.Repeat("ü", 1_000_000)))
	if n := utf8.RuneCountInString(health.error()); n != maxDriverError {
		t.Errorf("an error of %d characters", n)
	}
}
