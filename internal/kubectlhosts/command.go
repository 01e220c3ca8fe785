// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"hoststatus.dev/hoststatus/internal/version"
)

// The exit codes, for scripts.
const (
	// ExitOK: everything is done, or was so already.
	ExitOK = 0
	// ExitError: the API server could not be reached, or refused a request.
	ExitError = 1
	// ExitUsage: the command line is wrong. Nothing was written.
	ExitUsage = 2
	// ExitNotFound: a named host does not exist. Nothing was written.
	ExitNotFound = 3
	// ExitNotConfirmed: the change was not confirmed. Nothing was written.
	ExitNotConfirmed = 4
	// ExitNotUp, of list --exit-code: a listed host is not UP, or there are no hosts.
	ExitNotUp = 5
	// ExitNoManager, of list --exit-code: every listed host was UP when a manager was
	// last at work, and none is now.
	ExitNoManager = 6
)

// warningCode is that of the warnings of Kubernetes.
const warningCode = 299

// Environment is what the plugin takes from the process around it.
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
	// ManagerPatience is how long a stale canary is watched for a renewal. Zero means
	// the default.
	ManagerPatience time.Duration
}

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

func usageError(format string, args ...any) error {
	return exitError{fmt.Errorf(format, args...), ExitUsage}
}

// plugin has what every verb needs.
type plugin struct {
	Environment
	config *genericclioptions.ConfigFlags
	colour string
	// coloured is standard error without a filter: only clean text may go there.
	coloured io.Writer
}

// Run runs the plugin with the arguments after its name, and returns its exit code.
func Run(ctx context.Context, env Environment, args []string) int {
	// Errors and warnings contain text from objects.
	coloured := env.ErrOut
	env.ErrOut = cleanWriter{coloured}
	root := newRoot(&plugin{Environment: env, coloured: coloured})
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.ErrOut)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	code := ExitError
	var coded exitError
	if errors.As(err, &coded) {
		code = coded.code
	}
	// list --exit-code returns a code and no message.
	if message := err.Error(); message != "" {
		_, _ = fmt.Fprintf(env.ErrOut, "error: %s\n", message)
	}
	if code == ExitUsage {
		_, _ = fmt.Fprintf(env.ErrOut, "See '%s --help'.\n", command.CommandPath())
	}
	return code
}

// Command returns the plugin's command, with those of its verbs.
func Command() *cobra.Command { return newRoot(&plugin{}) }

func newRoot(p *plugin) *cobra.Command {
	p.config = genericclioptions.NewConfigFlags(true)
	// Nothing is looked up by discovery, so nothing is cached.
	p.config.CacheDir = nil
	root := &cobra.Command{
		Use:   "kubectl-hosts",
		Short: "Show and set the status of compute hosts",
		Long: `Show and set the status of compute hosts: which are up, why one is not, and what is on it.

The hosts are the ComputeServices of hoststatus (computeservices.compute.hoststatus.dev).

Exit codes: 0 done, 1 error, 2 wrong usage, 3 no such host, 4 not confirmed.
list --exit-code also uses 5 (a listed host is not UP, or there are no hosts) and 6
(every listed host was UP when a manager was last at work, and none is now).`,
		Example: `  kubectl hosts list --status DOWN,UNKNOWN
  kubectl hosts show compute-2
  kubectl hosts force-down compute-2 --reason "fenced by ipmi"
  kubectl hosts up compute-2`,
		Version:                    version.Of("kubectl-hosts"),
		Annotations:                map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl hosts"},
		SilenceErrors:              true,
		SilenceUsage:               true,
		CompletionOptions:          cobra.CompletionOptions{HiddenDefaultCmd: true},
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			message := fmt.Sprintf("%q is not a verb of kubectl hosts", args[0])
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				message += "; did you mean " + strings.Join(like, " or ") + "?"
			}
			return usageError("%s", message)
		},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			switch p.colour {
			case "auto", "always", "never":
				return nil
			}
			return usageError("--color: %q is not supported; use auto, always or never", p.colour)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{err, ExitUsage} })
	p.config.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&p.colour, "color", "auto", "Colours in tables: auto (on a terminal, unless $NO_COLOR is set), always or never.")
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "Print the version and exit.")
	complete(root, "color", "auto", "always", "never")
	root.AddCommand(p.newList(), p.newShow(), p.newWatch())
	for _, v := range verbs {
		root.AddCommand(p.newVerb(v))
	}
	root.AddCommand(p.newWindow(), p.newCheck())
	return root
}

// colours is true if tables are coloured.
func (p *plugin) colours() bool {
	if p.colour != "auto" {
		return p.colour == "always"
	}
	return p.OutTerminal && p.Getenv("NO_COLOR") == "" && p.Getenv("TERM") != "dumb"
}

// warn prints a warning to standard error.
func (p *plugin) warn(format string, args ...any) {
	prefix := cell{"Warning:", "33;1"}
	_, _ = fmt.Fprintf(p.coloured, "%s %s\n", paint(prefix, p.InTerminal && p.colours()), clean(fmt.Sprintf(format, args...)))
}

// serverWarnings prints the warnings of the API server, each once.
type serverWarnings struct {
	*plugin
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
	w.warn("%s", message)
}

// hostArgs turns cobra's error about arguments into a usage error.
func hostArgs(check cobra.PositionalArgs, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError("%s", want)
		}
		return nil
	}
}

// complete sets the values that shell completion offers for a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	function := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, function); err != nil {
		panic(err) // the flag is not there: a mistake in this package
	}
}
