// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// maxReason is how many characters a reason may have by the schema.
	maxReason = 256
	// maxAttempts is how often a write is decided again because the host has
	// changed meanwhile.
	maxAttempts = 5
)

// verb is a command that sets or clears a flag.
type verb struct {
	use, short, long, example string
	// others are names under which a user may look for the verb.
	others []string
	// reason is true if the verb needs one, and cuts if one that is too long is cut.
	reason, cuts bool
	// wants is true for hosts that completion offers.
	wants func(*v1alpha1.ComputeService) bool
	make  func(reason string) *change
}

var verbs = []verb{
	{
		use: "force-down HOST... --reason TEXT", short: "Set hosts DOWN that are off, so that their servers can be failed over",
		others: []string{"down", "off", "fence", "force", "kill"},
		long: `Set spec.forcedDown, which declares that hosts are off (fenced or powered down). Their
status becomes DOWN at once, and failover tools may start their servers elsewhere. Use
it only if the hosts are off. If a host still reports, you are asked to confirm;
without a terminal nothing is written unless --yes is given.`,
		example: `  kubectl hosts force-down compute-2 --reason "fenced by ipmi"
  kubectl hosts force-down -l rack=r12 --reason "rack r12 has no power" --yes`,
		reason: true, cuts: true,
		wants: func(s *v1alpha1.ComputeService) bool { return !isTrue(s.Spec.ForcedDown) },
		make: func(reason string) *change {
			return &change{
				question: "Force down", done: "forced down", deadly: true, flag: "forcedDown",
				apply: func(spec *v1alpha1.ComputeServiceSpec, _ time.Time) error {
					assert(&spec.ForcedDown, &spec.ForcedDownReason, reason)
					return nil
				},
				already: func(spec *v1alpha1.ComputeServiceSpec) string {
					return "it is forced down already" + quoted(spec.ForcedDownReason)
				},
			}
		},
	},
	{
		use: "up HOST...", short: "Remove force-down from hosts",
		others: []string{"unforce", "undown", "un-force-down", "on"},
		long: `Remove spec.forcedDown and its reason, whether force-down or a fencing tool has set
them. A host becomes UP once it reports, unless it is disabled or in maintenance.`,
		example: `  kubectl hosts up compute-2`,
		wants:   func(s *v1alpha1.ComputeService) bool { return isTrue(s.Spec.ForcedDown) },
		make: func(string) *change {
			return &change{
				question: "Remove force-down from", done: "no longer forced down", flag: "forcedDown",
				apply: func(spec *v1alpha1.ComputeServiceSpec, _ time.Time) error {
					withdraw(&spec.ForcedDown, &spec.ForcedDownReason)
					return nil
				},
				already: func(*v1alpha1.ComputeServiceSpec) string { return "it is not forced down" },
			}
		},
	},
	{
		use: "disable HOST... --reason TEXT", short: "Take hosts out of service (MAINTENANCE)",
		others:  []string{"cordon", "drain", "maintenance"},
		long:    `Take hosts out of service. Their status is MAINTENANCE until they are enabled.`,
		example: `  kubectl hosts disable compute-3 --reason "new memory"`,
		reason:  true,
		wants:   func(s *v1alpha1.ComputeService) bool { return !isTrue(s.Spec.Disabled) },
		make: func(reason string) *change {
			return &change{
				question: "Disable", done: "disabled", flag: "disabled",
				apply: func(spec *v1alpha1.ComputeServiceSpec, _ time.Time) error {
					assert(&spec.Disabled, &spec.DisabledReason, reason)
					return nil
				},
				already: func(spec *v1alpha1.ComputeServiceSpec) string {
					return "it is disabled already" + quoted(spec.DisabledReason)
				},
			}
		},
	},
	{
		use: "enable HOST...", short: "Take disabled hosts back into service",
		others: []string{"uncordon", "undrain"},
		long: `Remove spec.disabled and its reason, which takes hosts back into service. An open
maintenance window stays open; 'kubectl hosts window HOST --clear' ends it.`,
		example: `  kubectl hosts enable compute-3`,
		wants:   func(s *v1alpha1.ComputeService) bool { return isTrue(s.Spec.Disabled) },
		make: func(string) *change {
			return &change{
				question: "Enable", done: "enabled", flag: "disabled",
				apply: func(spec *v1alpha1.ComputeServiceSpec, _ time.Time) error {
					withdraw(&spec.Disabled, &spec.DisabledReason)
					return nil
				},
				already: func(*v1alpha1.ComputeServiceSpec) string { return "it is not disabled" },
			}
		},
	},
}

func (p *plugin) newVerb(v verb) *cobra.Command {
	w := &writer{plugin: p}
	var reason string
	cmd := &cobra.Command{
		SuggestFor: v.others,
		Use:        v.use, Short: v.short, Long: v.long, Example: v.example,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeHosts(0, v.wants),
		RunE: func(cmd *cobra.Command, args []string) error {
			if v.reason && strings.TrimSpace(reason) == "" {
				return kubectlplugin.UsageError("--reason: it is required; give the reason to show with the host's status")
			}
			reason, err := p.fitReason(reason, v.cuts)
			if err != nil {
				return err
			}
			return w.run(cmd, args, v.make(reason))
		},
	}
	if v.reason {
		usage := "Reason to show with the host's status, at most 256 characters."
		if v.cuts {
			usage = "Reason to show with the host's status. It is cut to 256 characters."
		}
		cmd.Flags().StringVar(&reason, "reason", "", usage)
	}
	w.addFlags(cmd)
	return cmd
}

// fitReason makes a reason acceptable to the API server. One that is too long is refused,
// or cut if the verb must not fail because of its text.
func (p *plugin) fitReason(reason string, cuts bool) (string, error) {
	// The schema accepts visible characters only.
	fitting := kubectlplugin.Clean(reason)
	if n := kubectlplugin.Letters(fitting); n > maxReason && !cuts {
		return "", kubectlplugin.UsageError("--reason: it has %d characters; use at most %d", n, maxReason)
	} else if n > maxReason {
		p.Warn("--reason: it has %d characters and is cut to %d", n, maxReason)
		fitting = string([]rune(fitting)[:maxReason-1]) + kubectlplugin.Ellipsis
	}
	return fitting, nil
}

// writer carries out changes.
type writer struct {
	*plugin
	selector string
	dryRun   string
	yes      bool
	output   *kubectlplugin.Output
	in       *bufio.Reader
	// manager waits for the answer to whether a manager is at work.
	manager func() managerSign
	// rollout is what was decided about all hosts together; nil if each is changed by itself.
	rollout *rollout
}

func (w *writer) addFlags(cmd *cobra.Command) {
	w.output = kubectlplugin.NewOutput()
	cmd.Flags().StringVarP(&w.selector, "selector", "l", "", "Select hosts by their labels, for example rack=r12. You are asked to confirm before anything is written.")
	cmd.Flags().StringVar(&w.dryRun, "dry-run", "none", "none, client (only print what would change) or server (let the API server check the change without storing it).")
	cmd.Flags().BoolVarP(&w.yes, "yes", "y", false, "Answer every question with yes.")
	w.output.AddTo(cmd, "Print the changed hosts in this format instead:", "json", "yaml", "name")
	kubectlplugin.Complete(cmd, "dry-run", "none", "client", "server")
}

// run changes the hosts. Nothing is written before all are known to exist and all
// questions are answered.
func (w *writer) run(cmd *cobra.Command, names []string, c *change) error {
	w.in = bufio.NewReader(w.In)
	printer, err := w.validate(names)
	if err != nil {
		return err
	}
	cluster, err := w.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	plans, err := w.plan(ctx, cluster, names, c)
	if err != nil {
		return err
	}
	if len(plans) == 0 {
		_, _ = fmt.Fprintln(w.ErrOut, "No hosts found.")
		return nil
	}
	if w.rollout != nil {
		w.printRollout(w.rollout)
	}
	if err := w.confirm(ctx, plans, c); err != nil {
		return err
	}
	var failed []error
	var done []*plan
	written := false
	// To print may take longer than to write, and failover tools wait for the write.
	for _, plan := range plans {
		carried, err := w.carryOut(ctx, cluster, plan, c)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		written = written || carried.needed && w.dryRun == "none"
		done = append(done, carried)
	}
	var unprinted error
	if len(done) > 0 {
		unprinted = w.printAll(done, c, printer, len(plans) > 1, cluster.now)
	}
	err = kubectlplugin.Joined(failed)
	switch {
	case err != nil && written:
		// The other codes promise that nothing was.
		return kubectlplugin.WithCode(fmt.Errorf("%s: %w", w.partly(done, plans), err), ExitError)
	case err == nil && unprinted != nil && written:
		return fmt.Errorf("the hosts were changed, but not all was printed: %w", unprinted)
	case err == nil:
		return unprinted
	}
	return err
}

func (w *writer) validate(names []string) (printers.ResourcePrinter, error) {
	if len(names) == 0 && w.selector == "" {
		return nil, kubectlplugin.UsageError("no hosts given; name them, or select them with --selector")
	}
	if _, err := parseSelector(w.selector, names); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"none", "client", "server"}, w.dryRun) {
		return nil, kubectlplugin.UsageError("--dry-run: %q is not supported; use none, client or server", w.dryRun)
	}
	return w.output.Printer()
}

func (w *writer) plan(ctx context.Context, cluster *cluster, names []string, c *change) ([]*plan, error) {
	selector, err := parseSelector(w.selector, names)
	if err != nil {
		return nil, err
	}
	services, err := cluster.all(ctx, names, client.MatchingLabelsSelector{Selector: selector})
	if err != nil {
		return nil, err
	}
	if c.together != nil && len(services) > 0 {
		if w.rollout, err = c.together(services, cluster.now()); err != nil {
			return nil, err
		}
	}
	w.manager = cluster.lookForManager(ctx, services)
	var plans []*plan
	for i := range services {
		plan, err := w.planFor(ctx, cluster, &services[i], c)
		if err != nil {
			return nil, err
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

func (w *writer) planFor(ctx context.Context, cluster *cluster, service *v1alpha1.ComputeService, c *change) (*plan, error) {
	if w.rollout != nil {
		c = w.rollout.changes[service.Name]
	}
	if !c.deadly {
		return newPlan(c, service, nil, w.manager, cluster.now())
	}
	// Without the right to read Leases, the manager's record has to do.
	lease, _ := cluster.lease(ctx, service.HeartbeatLease())
	return newPlan(c, service, lease, w.manager, cluster.now())
}

// confirm asks for confirmation if it is needed, once for all hosts.
func (w *writer) confirm(ctx context.Context, plans []*plan, c *change) error {
	if w.dryRun != "none" {
		return nil
	}
	var changing, reporting []string
	for _, p := range plans {
		if !p.needed {
			continue
		}
		changing = append(changing, p.before.Name)
		if p.stillReports != "" {
			reporting = append(reporting, p.before.Name)
			_, _ = fmt.Fprintf(w.ErrOut, "%s still reports: %s.\n", p.before.Name, p.stillReports)
		}
	}
	switch {
	case len(reporting) > 0:
		_, _ = fmt.Fprintln(w.ErrOut, "DOWN means that a host is off: its servers may be started elsewhere while they still run on it.")
		return w.ask(ctx, fmt.Sprintf("%s %s anyway?", c.question, listed(changing)),
			fmt.Sprintf("%s still reporting; make sure that it is off, then add --yes", isOrAre(reporting)))
	case w.rollout != nil && len(changing) > 0:
		return w.ask(ctx, fmt.Sprintf("%s %s?", c.question, listed(changing)),
			fmt.Sprintf("the plan is for %s; add --yes to set the windows", listed(changing)))
	case w.selector != "" && len(changing) > 0:
		return w.ask(ctx, fmt.Sprintf("%s %s?", c.question, listed(changing)),
			fmt.Sprintf("--selector selects %s; add --yes to change them", listed(changing)))
	default:
		return nil
	}
}

func isOrAre(names []string) string {
	if len(names) == 1 {
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}

func listed(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%d hosts (%s)", len(names), strings.Join(names, ", "))
}

// unconfirmed is about the hosts of the question: all of them, before anything is written.
const unconfirmed = "not confirmed, nothing was changed"

// ask asks for confirmation. Without a terminal it refuses, with the given reason.
func (w *writer) ask(ctx context.Context, question, refusal string) error {
	if w.yes {
		return nil
	}
	if !w.InTerminal {
		return kubectlplugin.WithCode(errors.New(unconfirmed+": "+refusal), ExitNotConfirmed)
	}
	_, _ = fmt.Fprintf(w.ErrOut, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := w.in.ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
	case <-ctx.Done():
		_, _ = fmt.Fprintln(w.ErrOut)
	}
	return kubectlplugin.WithCode(errors.New(unconfirmed), ExitNotConfirmed)
}

// carryOut writes one change, on condition that the host is still as it was when
// the change was decided and confirmed. If it is not, both are done again.
func (w *writer) carryOut(ctx context.Context, cluster *cluster, p *plan, c *change) (*plan, error) {
	for attempt := 1; ; attempt++ {
		if !p.needed {
			return p, nil
		}
		if w.dryRun == "client" {
			return p, nil
		}
		options := []client.PatchOption{client.FieldOwner(fieldManager)}
		if w.dryRun == "server" {
			options = append(options, client.DryRunAll)
		}
		written := p.after.DeepCopy()
		err := cluster.Patch(ctx, written, client.MergeFromWithOptions(p.before, client.MergeFromWithOptimisticLock{}), options...)
		if err == nil {
			typed(written)
			p.after = written
			return p, nil
		}
		if c.deadly && !isTrue(p.before.Spec.ForcedDown) && p.after.Spec.ForcedDownReason != nil && refusesOnly(err, "spec.forcedDownReason") {
			w.Warn("%s: --reason: the API server refused it, so it is left out: %v", p.before.Name, err)
			p.after.Spec.ForcedDownReason = nil
			continue
		}
		// A reason that was refused has taken tries, too.
		if !apierrors.IsConflict(err) || attempt >= maxAttempts {
			return nil, fmt.Errorf("%s: %w", p.before.Name, cluster.explain(err, "patch", "computeservices", ""))
		}
		service, err := cluster.get(ctx, p.before.Name)
		if err != nil {
			return nil, err
		}
		if service.UID != p.before.UID {
			return nil, fmt.Errorf("%s: the host was deleted and created again meanwhile, and the new one was not changed; run the command again to change it", service.Name)
		}
		again, err := w.planFor(ctx, cluster, service, c)
		if err != nil {
			return nil, err
		}
		if again.stillReports != "" && p.stillReports == "" {
			if err := w.confirm(ctx, []*plan{again}, c); err != nil {
				return nil, fmt.Errorf("%s: %w", service.Name, err)
			}
		}
		p = again
	}
}

// refusesOnly is true if the API server refuses an object because of this field alone.
func refusesOnly(err error, field string) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	causes := status.Status().Details.Causes
	for _, cause := range causes {
		if cause.Field != field {
			return false
		}
	}
	return len(causes) > 0
}

// printAll prints the warnings, and what was done to each host.
func (w *writer) printAll(done []*plan, c *change, printer printers.ResourcePrinter, several bool, now func() time.Time) error {
	manager := w.manager()
	if warnings := manager.warnings(now()); len(warnings) > 0 && manager.gone() {
		w.Warn("%s, so the change has no effect yet; check that a manager runs", manager.noManager(now()))
	} else {
		w.warnOfManager(manager, now())
	}
	for _, p := range done {
		for _, warning := range p.warnings {
			w.Warn("%s", warning)
		}
	}
	if w.output.Format() == "json" && several {
		var after []v1alpha1.ComputeService
		for _, p := range done {
			after = append(after, *p.after)
		}
		return printer.PrintObj(listOf(after), w.Out)
	}
	for _, p := range done {
		if err := w.print(p, c, printer, manager); err != nil {
			return err
		}
	}
	return nil
}

// print prints what was done to one host.
func (w *writer) print(p *plan, c *change, printer printers.ResourcePrinter, manager managerSign) error {
	if printer != nil {
		return printer.PrintObj(p.after, w.Out)
	}
	suffix := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[w.dryRun]
	did := c.done
	if !p.needed {
		did = "unchanged"
	}
	_, err := fmt.Fprintf(w.Out, "%s %s%s: %s\n", p.after.Name, did, suffix, kubectlplugin.Clean(p.outcome(manager)))
	return err
}
