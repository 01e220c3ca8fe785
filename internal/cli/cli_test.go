// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

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

// Whoever collects a log in JSON reads every line of it, also those of a process that
// does not start, and of libraries that know nothing of our logger.
func TestNothingButJSONIsInAJSONLog(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		run  func()
		want string
	}{
		"a flag that does not exist":   {args: []string{"--no-such-flag"}, want: "unknown flag: --no-such-flag; see binary --help"},
		"an argument":                  {args: []string{"host-a"}, want: "unexpected argument"},
		"a bad level":                  {args: []string{"--log-level=loud"}, want: "--log-level"},
		"a kubeconfig that is missing": {args: []string{"--kubeconfig=" + filepath.Join(t.TempDir(), "missing")}, want: "--kubeconfig"},
		"Go's own log":                 {run: func() { stdlog.Print("http: TLS handshake error from 10.0.0.1:1: EOF") }, want: "http: TLS handshake error from 10.0.0.1:1: EOF"},
		"slog":                         {run: func() { slog.Info("from a library") }, want: "from a library"},
		"a library that writes to standard error": {run: func() {
			_, _ = fmt.Fprint(os.Stderr, "http2: server: error reading preface from client 10.0.0.1:1\n\nand the rest")
		}, want: "error reading preface"},
		"klog": {run: func() { klog.Warning("from client-go") }, want: "from client-go"},
	} {
		t.Run(name, func(t *testing.T) {
			printed := stderrOf(t, func() {
				if c.run == nil {
					os.Args = append([]string{"binary"}, c.args...)
					Main("binary", "Does nothing.", noOptions{}, nil)
					return
				}
				log, err := newLogger("json", "info")
				if err != nil {
					t.Fatal(err)
				}
				logAll(log)
				restore, err := logStderr(log)
				if err != nil {
					t.Fatal(err)
				}
				c.run()
				restore()
			})
			if !strings.Contains(printed, c.want) {
				t.Errorf("printed %q, want %q in it", printed, c.want)
			}
			for line := range strings.Lines(printed) {
				var entry struct{ Time, Level, Msg string }
				if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level == "" || entry.Msg == "" {
					t.Errorf("%q is no entry of the log: %v", line, err)
				}
			}
		})
	}
}

func TestWithALogOfTextWhatIsWrongIsAPlainLine(t *testing.T) {
	printed := stderrOf(t, func() {
		os.Args = []string{"binary", "--no-such-flag", "--log-format=text"}
		Main("binary", "Does nothing.", noOptions{}, nil)
	})
	if want := "binary: unknown flag: --no-such-flag; see binary --help\n"; printed != want {
		t.Errorf("printed %q, want %q", printed, want)
	}
}

// stderrOf returns what do prints to standard error.
func stderrOf(t *testing.T, do func()) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	args, stderr, logger, writer, flags := os.Args, os.Stderr, slog.Default(), stdlog.Writer(), stdlog.Flags()
	defer func() {
		os.Args, os.Stderr = args, stderr
		klog.ClearLogger()
		slog.SetDefault(logger)
		stdlog.SetOutput(writer)
		stdlog.SetFlags(flags)
	}()
	os.Stderr = out
	do()
	printed, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(printed)
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
