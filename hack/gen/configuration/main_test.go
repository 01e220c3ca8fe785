// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestEveryBinaryIsOnThePage(t *testing.T) {
	binaries, err := os.ReadDir("../../../cmd")
	if err != nil {
		t.Fatal(err)
	}
	for _, binary := range binaries {
		if !bytes.Contains(page(), []byte("\n## "+binary.Name()+"\n")) {
			t.Errorf("the page has no part about %s", binary.Name())
		}
	}
}

func TestEveryFlagIsDescribed(t *testing.T) {
	rows := 0
	for line := range strings.Lines(string(page())) {
		if !strings.HasPrefix(line, "| `-") {
			continue
		}
		rows++
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "| \n"), `\|`, ""), " | ")
		if len(cells) == 5 { // with the verbs
			cells = slices.Delete(cells, 1, 2)
		}
		if len(cells) != 4 || cells[1] == "" || cells[3] == "" {
			t.Errorf("this is not a flag, its type, its default and what it does: %s", line)
		}
	}
	if rows == 0 {
		t.Error("the page has no flags")
	}
}

// Who generates it on another machine must get the same.
func TestThePageDoesNotDependOnTheMachine(t *testing.T) {
	want := page()
	if !bytes.Contains(want, []byte("| `--host-name` | string |  |")) {
		t.Error("--host-name has the name of this machine for its default")
	}
	for _, variable := range []string{"HOME", "KUBECONFIG", "KUBECACHEDIR", "USER"} {
		t.Setenv(variable, "/elsewhere")
	}
	if got := page(); !bytes.Equal(got, want) {
		t.Errorf("it is another one in another environment:\n%s", got)
	}
}
