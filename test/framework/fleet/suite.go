// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// RunTests runs the tests of a package that share one fleet, and returns the exit code: it
// is what TestMain needs. begin starts the fleet, in a folder within dir, which is removed at
// the end; a fleet that it returns beside an error is stopped. Where a test has failed, the end
// of the manager's log is printed. Each of checks may find that something else went wrong, and
// returns an exit code.
func RunTests(m *testing.M, name string, begin func(ctx context.Context, dir string) (*Fleet, error), checks ...func() int) int {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	if testing.Short() {
		fmt.Println("skipped: -short leaves out what needs a control plane")
		return 0
	}
	dir, err := os.MkdirTemp("", "hoststatus-"+name+"-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f, err := begin(context.Background(), dir)
	if f != nil {
		defer f.Stop()
	}
	if err != nil {
		fmt.Println("starting the fleet:", err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		printEnd(os.Stdout, f.LogFile("manager"))
	}
	for _, check := range checks {
		code = max(code, check())
	}
	return max(code, ReportCrashes(os.Stdout, f.Dir))
}

// printEnd prints the last 20 kB of a file.
func printEnd(out io.Writer, path string) {
	const length = 20_000
	content, err := os.ReadFile(path)
	if err != nil {
		_, _ = fmt.Fprintln(out, err)
		return
	}
	_, _ = fmt.Fprintf(out, "--- the end of %s\n%s\n", path, content[max(0, len(content)-length):])
}
