// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"hoststatus.dev/hoststatus/internal/version"
)

// warningCode is that of the warnings of Kubernetes.
const warningCode = 299

// Environment is what a plugin takes from the process around it.
type Environment struct {
	genericiooptions.IOStreams
	// InTerminal is true if a person can answer questions, and OutTerminal if one reads
	// the output.
	InTerminal, OutTerminal bool
	// Getenv reads a variable of the environment.
	Getenv func(string) string
	// Now is the clock. Nil means this machine's.
	Now func() time.Time
	// Width is how many characters a line of the terminal has. Nil or 0 means any number.
	Width func() int
	// ManagerPatience is how long a stale canary is watched for a renewal, by
	// kubectl-hosts. Zero means the default.
	ManagerPatience time.Duration
}

// Main runs a plugin with the arguments and the terminal of this process until it is done or
// interrupted, and returns its exit code.
func Main(run func(context.Context, Environment, []string) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, Environment{
		IOStreams:   genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		InTerminal:  term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd())),
		OutTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		Getenv:      os.Getenv,
		Width: func() int {
			width, _, err := term.GetSize(int(os.Stdout.Fd()))
			if err != nil {
				return 0
			}
			return width
		},
	}, os.Args[1:])
}

// Plugin has what every verb of a plugin needs.
type Plugin struct {
	Environment
	// Config has the flags of the connection, which are kubectl's own.
	Config *genericclioptions.ConfigFlags
	name   string
	colour string
	// coloured is standard error without a filter: only clean text may go there.
	coloured io.Writer
	// printed is standard output.
	printed *printedTo
}

// printedTo remembers the first error of writing, such as that of a full disk. Verbs print a
// table line by line, and whether all of it has arrived decides the exit code.
type printedTo struct {
	io.Writer
	mu  sync.Mutex
	err error
}

// Write implements io.Writer.
func (w *printedTo) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = cmp.Or(w.err, err)
	return n, err
}

// failed is the first error of writing.
func (w *printedTo) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// New makes a plugin of that name, such as hosts.
func New(name string, env Environment) *Plugin {
	// Errors and warnings contain text from objects.
	p := &Plugin{Environment: env, Config: genericclioptions.NewConfigFlags(true), name: name, coloured: env.ErrOut, printed: &printedTo{Writer: env.Out}}
	p.Out, p.ErrOut = p.printed, cleanWriter{env.ErrOut}
	// Nothing is looked up by discovery, so nothing is cached.
	p.Config.CacheDir = nil
	return p
}

// Binary is the name of the plugin's file, and its field manager and user agent.
func (p *Plugin) Binary() string { return "kubectl-" + p.name }

// Prepare makes root, which has descriptions and examples, the command of the plugin. Its
// verbs are added afterwards.
func (p *Plugin) Prepare(root *cobra.Command) {
	root.Use = p.Binary()
	root.Version = version.Of(p.Binary())
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl " + p.name}
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.CompletionOptions = cobra.CompletionOptions{HiddenDefaultCmd: true}
	root.SuggestionsMinimumDistance = 2
	root.Args = cobra.ArbitraryArgs
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		message := fmt.Sprintf("%q is not a verb of kubectl %s", args[0], p.name)
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			message += "; did you mean " + strings.Join(like, " or ") + "?"
		}
		return UsageError("%s", message)
	}
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch p.colour {
		case "auto", "always", "never":
			return nil
		}
		return UsageError("--color: %q is not supported; use auto, always or never", p.colour)
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return WithCode(err, ExitUsage) })
	p.Config.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&p.colour, "color", "auto", "Colours in tables: auto (on a terminal, unless $NO_COLOR is set), always or never.")
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "Print the version and exit.")
	Complete(root, "color", "auto", "always", "never")
}

// Execute runs root with the arguments after the plugin's name, and returns the exit code.
func (p *Plugin) Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.ErrOut)
	command, err := root.ExecuteContextC(ctx)
	if failed := p.printed.failed(); err == nil && failed != nil {
		err = fmt.Errorf("not all was printed: %w", failed)
	}
	if err == nil {
		return ExitOK
	}
	code := CodeOf(err)
	// Some verbs return a code and no message.
	if message := err.Error(); message != "" {
		_, _ = fmt.Fprintf(p.ErrOut, "error: %s\n", message)
	}
	if code == ExitUsage {
		_, _ = fmt.Fprintf(p.ErrOut, "See '%s --help'.\n", command.CommandPath())
	}
	return code
}

// Into is the plugin with all that it prints going to w, as into a file: without colours, and
// in lines of any length.
func (p *Plugin) Into(w io.Writer) *Plugin {
	into := *p
	into.Out, into.ErrOut, into.coloured = w, cleanWriter{w}, w
	into.InTerminal, into.OutTerminal, into.colour = false, false, "never"
	return &into
}

// Clock is the present time: that of the environment, or of this machine.
func (p *Plugin) Clock() func() time.Time {
	if p.Now == nil {
		return time.Now
	}
	return p.Now
}

// LineWidth is how many characters a line of standard output may have; 0 for any number.
func (p *Plugin) LineWidth() int {
	if !p.OutTerminal || p.Width == nil {
		return 0
	}
	return p.Width()
}

// Colours is true if tables are coloured.
func (p *Plugin) Colours() bool {
	if p.colour != "auto" {
		return p.colour == "always"
	}
	return p.OutTerminal && p.Getenv("NO_COLOR") == "" && p.Getenv("TERM") != "dumb"
}

// Warn prints a warning to standard error.
func (p *Plugin) Warn(format string, args ...any) {
	prefix := Cell{"Warning:", "33;1"}
	_, _ = fmt.Fprintf(p.coloured, "%s %s\n", Paint(prefix, p.InTerminal && p.Colours()), Clean(fmt.Sprintf(format, args...)))
}

// serverWarnings prints the warnings of the API server, each once.
type serverWarnings struct {
	*Plugin
	mu   sync.Mutex
	seen map[string]bool
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *serverWarnings) HandleWarningHeader(code int, _, message string) {
	if code != warningCode || message == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[message] {
		return
	}
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[message] = true
	w.Warn("%s", message)
}

// Args turns cobra's error about arguments into a usage error.
func Args(check cobra.PositionalArgs, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return UsageError("%s", want)
		}
		return nil
	}
}

// Complete sets the values that shell completion offers for a flag.
func Complete(cmd *cobra.Command, flag string, values ...string) {
	function := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, function); err != nil {
		panic(err) // the flag is not there: a mistake in the plugin
	}
}
