// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"testing"
)

func TestTextFromObjectsIsPrintedWithoutControlCharacters(t *testing.T) {
	if got := Clean("a\x1b[2J\nb\tc\u202e\x00é"); got != "a\ufffd[2J b c\ufffd\ufffdé" {
		t.Errorf("it prints %q", got)
	}
}
