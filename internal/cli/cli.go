// SPDX-License-Identifier: Apache-2.0

// Package cli is what the binaries have in common: flags for the connection, for
// logging and for the version, the validation of flags, signals, and exit codes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"hoststatus.dev/hoststatus/internal/printable"
	"hoststatus.dev/hoststatus/internal/version"
)

// memoryRatio is how much of its container's memory Go may take. The rest is for stacks of
// threads, the binary itself and what the kernel keeps of files.
const memoryRatio = 0.9

// Options are the flags of a binary.
type Options interface {
	AddFlags(*pflag.FlagSet)
}

// commonFlags are those that every binary has, besides its options.
type commonFlags struct {
	kubeconfig, logFormat, logLevel string
	version                         bool
}

func (c *commonFlags) flagSet(name string, options Options) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.StringVar(&c.kubeconfig, "kubeconfig", "", "Kubeconfig file with the address and credentials of the API server. By default $KUBECONFIG, or in a pod its service account.")
	fs.StringVar(&c.logFormat, "log-format", "json", "Format of the log: json or text.")
	fs.StringVar(&c.logLevel, "log-level", "info", "Log level: debug, info or error.")
	fs.BoolVar(&c.version, "version", false, "Print the version and exit.")
	options.AddFlags(fs)
	return fs
}

// FlagSet returns the flags that Main parses for the binary name.
func FlagSet(name string, options Options) *pflag.FlagSet {
	return new(commonFlags).flagSet(name, options)
}

// Main parses the flags of the binary name, runs it until it is asked to stop, and
// returns its exit code: 0, 1 after an error, or 2 for wrong flags.
func Main(name, purpose string, options Options, run func(context.Context, *rest.Config, logr.Logger) error) int {
	var common commonFlags
	fs := common.flagSet(name, options)
	fs.Usage = func() {
		fmt.Fprintf(os.Stderr, "%s\n\nUsage:\n  %s [flags]\n\nFlags:\n%s", purpose, name, fs.FlagUsages())
	}
	if err := fs.Parse(os.Args[1:]); errors.Is(err, pflag.ErrHelp) {
		return 0
	} else if err != nil {
		common.complain(name, fmt.Errorf("%w; see %s --help", err, name))
		return 2
	}
	program := "hoststatus-" + name
	if common.version {
		fmt.Println(version.Of(program))
		return 0
	}
	if fs.NArg() > 0 {
		common.complain(name, fmt.Errorf("unexpected argument %q; it takes flags only, see %s --help", fs.Arg(0), name))
		return 2
	}
	log, err := newLogger(common.logFormat, common.logLevel)
	if err != nil {
		common.complain(name, err)
		return 2
	}
	logAll(log)
	config, err := restConfig(common.kubeconfig)
	if err != nil {
		common.complain(name, err)
		return 1
	}
	config.UserAgent = version.UserAgent(program)
	if common.logFormat == "json" {
		restore, err := logStderr(log)
		if err != nil {
			common.complain(name, err)
			return 1
		}
		defer restore()
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	running := []any{"program", program, "version", version.Version, "revision", version.Revision(), "go", runtime.Version()}
	// Near the limit of its container a process collects garbage more often, in place of being
	// killed. $GOMEMLIMIT comes first.
	if limit, err := memlimit.Set(memlimit.WithRatio(memoryRatio)); err != nil {
		log.Info("The memory limit of the container cannot be read; garbage is collected as if there were none", "reason", err.Error())
	} else if limit < math.MaxInt64 {
		running = append(running, "memoryLimit", limit)
	}
	log.Info("Running", running...)
	if err := run(ctx, config, log); err != nil {
		log.Error(err, "Stopped")
		return 1
	}
	log.Info("Stopped")
	return 0
}

// logAll sends to log what libraries log elsewhere: client-go and apiserver with klog, and
// net/http, about failed handshakes and panics, with Go's own log.
func logAll(log logr.Logger) {
	klog.SetLogger(log)
	slog.SetDefault(slog.New(logr.ToSlogHandler(log)))
}

// complain reports why the binary name does not start: on a terminal in a plain line, else
// in the format of its log, so that collected logs contain no other format.
func (c *commonFlags) complain(name string, err error) {
	// If parsing failed, this flag may come after the wrong one.
	text := c.logFormat != "json" || slices.Contains(os.Args, "--log-format=text")
	log, failed := newLogger("json", "error")
	if text || failed != nil || term.IsTerminal(int(os.Stderr.Fd())) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return
	}
	log.Error(err, "Not started", "program", "hoststatus-"+name, "version", version.Version)
}

func newLogger(format, level string) (logr.Logger, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "error": slog.LevelError}
	l, ok := levels[level]
	if !ok {
		return logr.Logger{}, fmt.Errorf("--log-level: %q is not supported; use debug, info or error", level)
	}
	options := &slog.HandlerOptions{Level: l, ReplaceAttr: printableAttr}
	switch format {
	case "json":
		return logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, options)), nil
	case "text":
		return logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, options)), nil
	default:
		return logr.Logger{}, fmt.Errorf("--log-format: %q is not supported; use json or text", format)
	}
}

// printableAttr removes from a log line the characters that control a terminal or reverse
// text, since answers of the API server quote what anybody wrote. Encoders escape those of
// ASCII, but not the others.
func printableAttr(_ []string, a slog.Attr) slog.Attr {
	var text string
	switch value := a.Value.Any().(type) {
	case string:
		text = value
	case error:
		text = value.Error()
	default:
		return a
	}
	if clean := cleanBeyondASCII(text); clean != text {
		a.Value = slog.StringValue(clean)
	}
	return a
}

func cleanBeyondASCII(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return r >= 0x7f }) < 0 {
		return text
	}
	var clean strings.Builder
	for _, r := range text {
		if r < 0x7f {
			clean.WriteRune(r)
		} else {
			clean.WriteString(printable.Clean(string(r)))
		}
	}
	return clean.String()
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err == nil {
			return config, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("using the pod's service account: %w", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("--kubeconfig: no API server is configured; set the flag or $KUBECONFIG")
	}
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}
