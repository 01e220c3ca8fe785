// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"go/build"
	"slices"
	"strings"
	"testing"
)

// What a test wants to see broken it breaks in a copy of the source.
func TestNoBuildAndNoEnvironmentSwitchesARuleOff(t *testing.T) {
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pkg.IgnoredGoFiles {
		if !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s is only part of some builds", name)
		}
	}
	for _, name := range []string{"os", "syscall", "flag"} {
		if slices.Contains(pkg.Imports, name) {
			t.Errorf("the package imports %s: what it decides may depend on how its process was started", name)
		}
	}
}
