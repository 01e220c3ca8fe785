// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/internal/hoststatus"
)

func TestTheFilesAreUpToDate(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "..", "..", filepath.FromSlash(path)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s; run make generate (-want +got):\n%s", path, diff)
		}
	}
}

func TestEachFileHasEachStatusOfAHost(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range files {
		for _, label := range hoststatus.DerivedLabels() {
			if !strings.Contains(string(content), label) {
				t.Errorf("%s lacks %s", path, label)
			}
		}
	}
}

// What waits for a fleet goes on, or fails: it never waits for ever because a status is
// in neither list.
func TestEachStatusOfAHostEndsTheWaitOfFlux(t *testing.T) {
	ends := map[string]int{}
	for _, row := range append(derived(hoststatus.HealthBad), derived(hoststatus.HealthGood, hoststatus.HealthPaused)...) {
		ends[row.Label()]++
	}
	for _, label := range hoststatus.DerivedLabels() {
		if ends[label] != 1 {
			t.Errorf("%s is in %d of the lists failed and current", label, ends[label])
		}
	}
}
