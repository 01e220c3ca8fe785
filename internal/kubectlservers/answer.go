// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// maxAttempts is how often a write is decided again because the answer has changed
// meanwhile.
const maxAttempts = 5

// writer carries out answers.
type writer struct {
	*plugin
	dryRun string
	window string
	output *kubectlplugin.Output
}

func (w *writer) addFlags(cmd *cobra.Command) {
	w.output = kubectlplugin.NewOutput()
	cmd.Flags().StringVar(&w.dryRun, "dry-run", "none", "none, client (only print what would be written) or server (let the API server check it without storing it).")
	w.output.AddTo(cmd, "Print the answers in this format instead:", "json", "yaml", "name")
	kubectlplugin.Complete(cmd, "dry-run", "none", "client", "server")
}

func (w *writer) addWindow(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.window, "window", "", "Start of the maintenance window that is answered, in RFC 3339, if you may not see it.")
}

const answerNotes = `

It is a request and no veto: the window opens at its latest start time at the latest, and
silence means that it opens as announced. You can change or withdraw your answer until the
window opens. 'kubectl servers show NAME' shows whether it counts.`

func (p *plugin) newReady() *cobra.Command {
	w := &writer{plugin: p}
	cmd := &cobra.Command{
		Use:        "ready NAME...",
		SuggestFor: []string{"ok", "accept", "ack", "yes"},
		Short:      "Answer that maintenance of the host may begin",
		Long: `Answer that maintenance of the host may begin, as far as these servers are concerned: at
any time from now on, where the platform team offers that, else as announced.` + answerNotes,
		Example: `  kubectl servers ready web-1 web-2
  kubectl servers ready web-1 --window 2027-01-10T22:00:00Z`,
		Args:              kubectlplugin.Args(cobra.MinimumNArgs(1), "no servers given; name those that are ready: kubectl servers ready NAME..."),
		ValidArgsFunction: p.completeServers(0, mayAnswer),
		RunE: func(cmd *cobra.Command, args []string) error {
			return w.answer(cmd.Context(), args, wish{answer: ownerv1alpha1.AnswerReady})
		},
	}
	w.addFlags(cmd)
	w.addWindow(cmd)
	return cmd
}

func (p *plugin) newNotBefore() *cobra.Command {
	w := &writer{plugin: p}
	cmd := &cobra.Command{
		Use:        "not-before NAME TIME",
		SuggestFor: []string{"later", "defer", "postpone", "delay", "notbefore"},
		Short:      "Ask that maintenance of the host begins no earlier than a time",
		Long: `Ask that maintenance of the host begins no earlier than a time.

TIME is RFC 3339 with a zone (2027-01-10T22:00:00Z), relative to now (+2h, 30m, 1d; a day is
24 hours), or a time of the day by the clock of this machine (18:00, tomorrow 06:00).` + answerNotes,
		Example: `  kubectl servers not-before web-1 2027-01-11T02:00:00Z
  kubectl servers not-before web-1 +2h
  kubectl servers not-before web-1 tomorrow 06:00`,
		Args: kubectlplugin.Args(cobra.RangeArgs(2, 3), "not-before takes a server and a time: kubectl servers not-before NAME TIME"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []cobra.Completion{"today", "tomorrow"}, cobra.ShellCompDirectiveNoFileComp
			}
			return p.completeServers(1, mayAnswer)(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := parseTime(args[1:], p.Clock()())
			if err != nil {
				return err
			}
			return w.answer(cmd.Context(), args[:1], wish{answer: ownerv1alpha1.AnswerNotBefore, notBefore: &metav1.Time{Time: at.UTC()}})
		},
	}
	w.addFlags(cmd)
	w.addWindow(cmd)
	return cmd
}

func (p *plugin) newWithdraw() *cobra.Command {
	w := &writer{plugin: p}
	cmd := &cobra.Command{
		Use:        "withdraw NAME...",
		SuggestFor: []string{"delete", "remove", "clear", "unready"},
		Short:      "Remove the answers for servers",
		Long: `Remove the answers for servers. Without an answer the window opens as announced, as far as
these servers are concerned.`,
		Example:           `  kubectl servers withdraw web-1`,
		Args:              kubectlplugin.Args(cobra.MinimumNArgs(1), "no servers given; name those whose answers are to be removed: kubectl servers withdraw NAME..."),
		ValidArgsFunction: p.completeServers(0, mayAnswer),
		RunE:              func(cmd *cobra.Command, args []string) error { return w.withdraw(cmd.Context(), args) },
	}
	w.addFlags(cmd)
	return cmd
}

// validate checks the flags, and returns the printer if one was asked for.
func (w *writer) validate() (printers.ResourcePrinter, *metav1.Time, error) {
	if !slices.Contains([]string{"none", "client", "server"}, w.dryRun) {
		return nil, nil, kubectlplugin.UsageError("--dry-run: %q is not supported; use none, client or server", w.dryRun)
	}
	printer, err := w.output.Printer()
	if err != nil || w.window == "" {
		return printer, nil, err
	}
	start, err := time.Parse(time.RFC3339, w.window)
	if err != nil {
		return nil, nil, kubectlplugin.UsageError("--window: %q is not a time; use RFC 3339 with a zone, such as 2027-01-10T22:00:00Z", w.window)
	}
	return printer, &metav1.Time{Time: start.UTC()}, nil
}

// answer writes an answer for each server. Nothing is written before all are decided.
func (w *writer) answer(ctx context.Context, names []string, wanted wish) error {
	printer, window, err := w.validate()
	if err != nil {
		return err
	}
	wanted.window = window
	c, err := w.connect()
	if err != nil {
		return err
	}
	var plans []*plan
	for _, name := range kubectlplugin.Unique(names) {
		plan, err := c.plan(ctx, client.ObjectKey{Namespace: w.namespace(), Name: name}, wanted)
		if err != nil {
			return err
		}
		plans = append(plans, plan)
	}
	return w.eachOf(plans, printer, "answered", func(p *plan) (*plan, error) { return w.write(ctx, c, p, wanted) })
}

// eachOf carries out the plans, and prints what was done.
func (w *writer) eachOf(plans []*plan, printer printers.ResourcePrinter, done string, carryOut func(*plan) (*plan, error)) error {
	var failed []error
	var carried []*plan
	written := false
	for _, p := range plans {
		p, err := carryOut(p)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		written = written || p.needed && w.dryRun == "none"
		carried = append(carried, p)
	}
	unprinted := w.printAll(carried, printer, done, len(plans) > 1)
	err := kubectlplugin.Joined(failed)
	switch {
	case err != nil && written:
		// The other codes promise that nothing was.
		return kubectlplugin.WithCode(fmt.Errorf("some answers were written and others were not: %w", err), ExitError)
	case err == nil && unprinted != nil && written:
		return fmt.Errorf("the answers were written, but not all was printed: %w", unprinted)
	case err == nil:
		return unprinted
	}
	return err
}

// printAll prints the warnings, and what was done for each server. Several answers in JSON
// are one list.
func (w *writer) printAll(carried []*plan, printer printers.ResourcePrinter, done string, several bool) error {
	list := &ownerv1alpha1.MaintenanceAnswerList{Items: []ownerv1alpha1.MaintenanceAnswer{}}
	list.SetGroupVersionKind(ownerv1alpha1.SchemeGroupVersion.WithKind("MaintenanceAnswerList"))
	for _, p := range carried {
		list.Items = append(list.Items, *p.object)
		for _, warning := range p.warnings {
			w.Warn("%s", warning)
		}
	}
	if printer != nil && several && w.output.Format() == "json" {
		return printer.PrintObj(list, w.Out)
	}
	for _, p := range carried {
		if err := w.print(p, printer, done); err != nil {
			return err
		}
	}
	return nil
}

// print prints what was done for one server.
func (w *writer) print(p *plan, printer printers.ResourcePrinter, done string) error {
	if printer != nil {
		return printer.PrintObj(p.object, w.Out)
	}
	if !p.needed {
		done = "unchanged"
	}
	suffix := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[w.dryRun]
	_, err := fmt.Fprintf(w.Out, "%s %s%s: %s\n", p.name, done, suffix, kubectlplugin.Clean(p.says))
	return err
}

// plan reads what an answer depends on, and decides it.
func (c *cluster) plan(ctx context.Context, key client.ObjectKey, wanted wish) (*plan, error) {
	t := target{namespace: key.Namespace, name: key.Name, namespaceFlag: c.namespaceFlag}
	var err error
	t.server, err = c.get(ctx, key)
	switch {
	case err != nil && !apierrors.IsForbidden(err):
		return nil, err
	case err == nil:
		t.grant = c.grant(ctx, key)
	}
	if t.present, err = c.answer(ctx, key); err != nil {
		return nil, err
	}
	return decide(wanted, t, c.now())
}

// write writes one answer, on condition that the present one is still as it was when this one
// was decided. If it is not, it is decided again.
func (w *writer) write(ctx context.Context, c *cluster, p *plan, wanted wish) (*plan, error) {
	for attempt := 1; ; attempt++ {
		if !p.needed || w.dryRun == "client" {
			return p, nil
		}
		verb := "update"
		var err error
		object := p.object.DeepCopy()
		if object.ResourceVersion == "" {
			verb = "create"
			options := []client.CreateOption{client.FieldOwner(fieldManager)}
			if w.dryRun == "server" {
				options = append(options, client.DryRunAll)
			}
			err = c.Create(ctx, object, options...)
		} else {
			options := []client.UpdateOption{client.FieldOwner(fieldManager)}
			if w.dryRun == "server" {
				options = append(options, client.DryRunAll)
			}
			err = c.Update(ctx, object, options...)
		}
		if err == nil {
			object.SetGroupVersionKind(p.object.GroupVersionKind())
			p.object = object
			return p, nil
		}
		// Another write, or a withdrawal, came in between.
		other := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || verb == "update" && kubectlplugin.IsNoSuchObject(err)
		if !other || attempt == maxAttempts {
			return nil, fmt.Errorf("%s: %w", p.name, c.explain(err, verb, answers, p.object.Namespace))
		}
		again, err := c.plan(ctx, client.ObjectKeyFromObject(p.object), wanted)
		if err == nil {
			err = stillMeant(p, again)
		}
		if err != nil {
			return nil, err
		}
		p = again
	}
}

// stillMeant is an error if an answer that was decided again is to something that its owner has
// not seen when the command was given.
func stillMeant(before, after *plan) error {
	was, is := &before.object.Spec, &after.object.Spec
	switch {
	case was.ServerUID != "" && is.ServerUID != "" && was.ServerUID != is.ServerUID:
		return fmt.Errorf("%s: the server was deleted and created again meanwhile, and nothing was answered for the new one; give the command again to answer for it", after.name)
	case !hoststatus.SameSecond(was.WindowStartTime, is.WindowStartTime):
		return fmt.Errorf("%s: its maintenance window was moved meanwhile, from %s to %s, and nothing was answered to that; give the command again to answer to it",
			after.name, kubectlplugin.Stamp(was.WindowStartTime.Time), kubectlplugin.Stamp(is.WindowStartTime.Time))
	default:
		return nil
	}
}

// withdraw removes the answers. Nothing is removed before all are known.
func (w *writer) withdraw(ctx context.Context, names []string) error {
	printer, _, err := w.validate()
	if err != nil {
		return err
	}
	c, err := w.connect()
	if err != nil {
		return err
	}
	var plans []*plan
	for _, name := range kubectlplugin.Unique(names) {
		key := client.ObjectKey{Namespace: w.namespace(), Name: name}
		present, err := c.answer(ctx, key)
		if err != nil {
			return err
		}
		p := &plan{name: name, needed: present != nil, object: present, says: "there is no answer"}
		if present == nil {
			// An answer needs no server, but a name without either is a mistake.
			if _, err := c.get(ctx, key); err != nil && !apierrors.IsForbidden(err) {
				return err
			}
			p.object = &ownerv1alpha1.MaintenanceAnswer{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name}}
		} else {
			p.says = "it was " + answerWords(present, c.now())
		}
		p.object.SetGroupVersionKind(ownerv1alpha1.SchemeGroupVersion.WithKind("MaintenanceAnswer"))
		plans = append(plans, p)
	}
	return w.eachOf(plans, printer, "withdrawn", func(p *plan) (*plan, error) {
		if !p.needed || w.dryRun == "client" {
			return p, nil
		}
		// An answer that was given meanwhile is another one.
		options := []client.DeleteOption{client.Preconditions{UID: ptr.To(p.object.UID), ResourceVersion: ptr.To(p.object.ResourceVersion)}}
		if w.dryRun == "server" {
			options = append(options, client.DryRunAll)
		}
		err := c.Delete(ctx, p.object.DeepCopy(), options...)
		switch {
		case apierrors.IsConflict(err):
			return nil, fmt.Errorf("%s: the answer has changed meanwhile and was kept; run the command again to withdraw it", p.name)
		case err != nil && !kubectlplugin.IsNoSuchObject(err):
			return nil, fmt.Errorf("%s: %w", p.name, c.explain(err, "delete", answers, p.object.Namespace))
		}
		return p, nil
	})
}
