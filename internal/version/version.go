// SPDX-License-Identifier: Apache-2.0

// Package version says which release of hoststatus this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is the release that this code is, or comes after.
const Version = "0.1.0"

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

// UserAgent is how the program name calls itself to API servers.
func UserAgent(name string) string { return name + "/" + Version }

// Revision is that of the sources in version control, with -dirty behind it if they
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
