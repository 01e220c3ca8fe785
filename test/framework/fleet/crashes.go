// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// ReportCrashes searches the logs that our processes have written in dir for panics and data
// races that no test may have noticed, prints them to out, and returns an exit code. Races
// are found if the binaries were built with the race detector, as with GOFLAGS=-race.
func ReportCrashes(out io.Writer, dir string) (code int) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err == nil && len(logs) == 0 {
		err = fmt.Errorf("no logs in %s", dir)
	}
	if err != nil {
		_, _ = fmt.Fprintln(out, err)
		return 1
	}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil {
			_, _ = fmt.Fprintln(out, err)
			return 1
		}
		content = withoutKnownRaces(content)
		for _, sign := range []string{raceSign, "panic: ", "fatal error: "} {
			if at := bytes.Index(content, []byte(sign)); at >= 0 {
				_, _ = fmt.Fprintf(out, "%s has %s\n%s\n", path, sign, content[at:min(len(content), at+4000)])
				code = 1
			}
		}
	}
	return code
}

// The race detector reports a race between two lines of raceLimit.
const (
	raceSign  = "WARNING: DATA RACE"
	raceLimit = "==================\n"
)

// withoutKnownRaces leaves out reports of the one race that is not ours:
// k8s.io/apiserver starts to follow its certificates before it has finished the TLS
// configuration that it copies for each. It does so before it serves.
func withoutKnownRaces(content []byte) []byte {
	known := [][]byte{
		[]byte("dynamiccertificates.(*DynamicServingCertificateController).syncCerts()"),
		[]byte("server.(*SecureServingInfo).Serve()"),
	}
	parts := bytes.Split(content, []byte(raceLimit))
	parts = slices.DeleteFunc(parts, func(part []byte) bool {
		return bytes.HasPrefix(part, []byte(raceSign)) && bytes.Contains(part, known[0]) && bytes.Contains(part, known[1])
	})
	return bytes.Join(parts, []byte(raceLimit))
}
