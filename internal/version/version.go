// SPDX-License-Identifier: Apache-2.0

// Package version is the version of this build of hoststatus.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is the release of this code, or the one before it.
const Version = "0.2.0"

// revision is set by the linker where the sources are built outside of their
// repository, as for images: see hack/build-static.sh.
var revision string

// Of describes the program name for a person: its release, the Go that built it,
// and the revision of the sources if the build knows it.
func Of(name string) string {
	built := runtime.Version()
	if revision := Revision(); revision != "" {
		built += ", " + revision
	}
	return fmt.Sprintf("%s %s (%s)", name, Version, built)
}

// UserAgent is the user agent of the program name in requests to API servers.
func UserAgent(name string) string { return name + "/" + Version }

// Revision is the version control revision of the sources, with the suffix -dirty if they
// were changed since; "" if the build does not know it.
func Revision() string {
	if revision != "" {
		return revision
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return revisionIn(info.Settings)
}

func revisionIn(settings []debug.BuildSetting) (revision string) {
	var dirty bool
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if revision != "" && dirty {
		revision += "-dirty"
	}
	return revision
}
