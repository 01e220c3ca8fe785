// SPDX-License-Identifier: Apache-2.0

package version

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestOfNamesTheReleaseAndTheGoThatBuiltIt(t *testing.T) {
	want := "hoststatus-manager " + Version + " (" + runtime.Version()
	if got := Of("hoststatus-manager"); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, ")") {
		t.Errorf("%q, want one that begins with %q", got, want)
	}
	if got, want := UserAgent("hoststatus-manager"), "hoststatus-manager/"+Version; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRevision(t *testing.T) {
	set := func(pairs ...string) (settings []debug.BuildSetting) {
		for i := 0; i < len(pairs); i += 2 {
			settings = append(settings, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return settings
	}
	for name, c := range map[string]struct {
		settings []debug.BuildSetting
		want     string
	}{
		"a build that knows nothing": {set("GOOS", "linux"), ""},
		"sources as committed":       {set("vcs.revision", "abc", "vcs.modified", "false"), "abc"},
		"sources that were changed":  {set("vcs.revision", "abc", "vcs.modified", "true"), "abc-dirty"},
		"changed, of what unknown":   {set("vcs.modified", "true"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := revisionIn(c.settings); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestTheRevisionOfTheLinkerGoesFirst(t *testing.T) {
	revision = "abc-dirty"
	defer func() { revision = "" }()
	if got := Of("hoststatus-manager"); !strings.HasSuffix(got, ", abc-dirty)") {
		t.Errorf("%q, want one that ends with the revision", got)
	}
}

// A release that the changelog does not tell of is none.
func TestTheChangelogTellsOfThisRelease(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	releases := regexp.MustCompile(`(?m)^## \[([0-9.]+)\] - \d{4}-\d{2}-\d{2}$`).FindStringSubmatch(string(content))
	if len(releases) == 0 || releases[1] != Version {
		t.Errorf("the newest release in CHANGELOG.md is %q, the version %s", releases, Version)
	}
}
