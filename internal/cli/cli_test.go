// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/version"
)

func TestNewLogger(t *testing.T) {
	for name, c := range map[string]struct{ format, level, names string }{
		"JSON with all that there is":  {"json", "debug", ""},
		"text with errors only":        {"text", "error", ""},
		"a level that does not exist":  {"json", "warn", "--log-level"},
		"no level":                     {"json", "", "--log-level"},
		"a format that does not exist": {"xml", "info", "--log-format"},
		"no format":                    {"", "info", "--log-format"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newLogger(c.format, c.level)
			if (err != nil) != (c.names != "") || err != nil && !strings.HasPrefix(err.Error(), c.names+": ") {
				t.Errorf("error %v, want one that begins with %q", err, c.names)
			}
		})
	}
}

type noOptions struct{}

func (noOptions) AddFlags(*pflag.FlagSet) {}

func TestMainEndsBeforeItRunsWithTheCodeThatSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"asked for help":               {[]string{"--help"}, 0},
		"asked for the version":        {[]string{"--version"}, 0},
		"a flag that does not exist":   {[]string{"--no-such-flag"}, 2},
		"an argument":                  {[]string{"host-a"}, 2},
		"a bad level":                  {[]string{"--log-level=loud"}, 2},
		"a kubeconfig that is missing": {[]string{"--kubeconfig=" + filepath.Join(t.TempDir(), "missing")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			before := os.Args
			defer func() { os.Args = before }()
			os.Args = append([]string{"binary"}, c.args...)
			code := Main("binary", "Does nothing.", noOptions{}, func(context.Context, *rest.Config, logr.Logger) error {
				t.Error("runs")
				return nil
			})
			if code != c.want {
				t.Errorf("code %d, want %d", code, c.want)
			}
		})
	}
}

// Scripts read it, so it is the only thing on standard output.
func TestMainPrintsTheVersion(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	args, stdout := os.Args, os.Stdout
	defer func() { os.Args, os.Stdout = args, stdout }()
	os.Args, os.Stdout = []string{"binary", "--version"}, out
	Main("binary", "Does nothing.", noOptions{}, nil)
	printed, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := version.Of("hoststatus-binary") + "\n"; string(printed) != want {
		t.Errorf("printed %q, want %q", printed, want)
	}
}
