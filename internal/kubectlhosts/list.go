// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// statusNone is the value of --status for a host that has no status yet.
const statusNone = "NONE"

// hostStatuses are the values of --status, the most urgent first, and statusMeanings
// their descriptions.
var hostStatuses, statusMeanings = func() (values, meanings []string) {
	for row := range hoststatus.WorstFirst() {
		if row.OfHosts() {
			values = append(values, statusName(row.Status))
			meanings = append(meanings, row.Meaning)
		}
	}
	return values, meanings
}()

type listOptions struct {
	selector  string
	statuses  []string
	sort      string
	noHeaders bool
	exitCode  bool
	output    *kubectlplugin.Output
}

func (p *plugin) newList() *cobra.Command {
	o := &listOptions{output: kubectlplugin.NewOutput("wide")}
	cmd := &cobra.Command{
		Use:     "list [HOST...]",
		Aliases: []string{"ls"},
		Short:   "List hosts and their status",
		Long: `List hosts, their status, and the number of servers on each. A summary goes to
standard error, so that standard output has one line for each host. On a terminal,
long names and notes are shortened to fit; in a pipe nothing is shortened.`,
		Example: `  kubectl hosts list
  kubectl hosts list --status DOWN,UNKNOWN --sort since
  kubectl hosts list -l rack=r12 -o wide
  kubectl hosts list --exit-code >/dev/null || echo "not every host is UP"`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeHosts(0, nil),
		RunE:              func(cmd *cobra.Command, args []string) error { return p.list(cmd, args, o) },
	}
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "Only hosts with these labels, for example rack=r12.")
	cmd.Flags().StringSliceVar(&o.statuses, "status", nil, "Only hosts with one of these statuses: "+strings.Join(hostStatuses, ", ")+"; "+statusNone+" means that the manager has not set a status yet.")
	cmd.Flags().StringVar(&o.sort, "sort", "name", "Order of the hosts: name, status (the most urgent first) or since (the latest change first).")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Print neither column headers nor the summary.")
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "Exit with code 5 if a listed host is not UP or there are no hosts, and with 6 if all are UP but no manager is at work.")
	o.output.AddTo(cmd, "Output format, a table by default:", "wide", "json", "yaml", "name")
	completions := make([]string, len(hostStatuses))
	for i, status := range hostStatuses {
		completions[i] = cobra.CompletionWithDesc(status, statusMeanings[i])
	}
	kubectlplugin.Complete(cmd, "status", completions...)
	kubectlplugin.Complete(cmd, "sort", "name", "status", "since")
	return cmd
}

func (p *plugin) list(cmd *cobra.Command, names []string, o *listOptions) error {
	selector, printer, err := o.validate(names)
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	options := []client.ListOption{client.MatchingLabelsSelector{Selector: selector}}
	// The exit code depends on whether there are hosts of any status.
	if len(o.statuses) == 1 && o.statuses[0] != statusNone && !o.exitCode {
		options = append(options, client.MatchingFields{"status.hostStatus": o.statuses[0]})
	}
	services, err := c.all(ctx, names, options...)
	if err != nil {
		return err
	}
	empty := len(services) == 0
	if len(o.statuses) > 0 {
		services = slices.DeleteFunc(services, func(s v1alpha1.ComputeService) bool { return !slices.Contains(o.statuses, statusWord(&s)) })
	}
	if err := sortHosts(services, o.sort); err != nil {
		return err
	}
	manager := c.lookForManager(ctx, services)
	var servers *serverCount
	if printer == nil && len(services) > 0 {
		servers = c.countServers(ctx, services, len(names) > 0)
	}
	sign, now := manager(), c.now()
	p.warnOfManager(sign, now)
	if hint := c.ownersViewHint(ctx); hint != "" && printer == nil {
		p.Warn("%s", hint)
	}
	if err := p.printHosts(services, servers, o, printer, now); err != nil {
		return err
	}
	if !o.exitCode {
		return nil
	}
	notUp := func(s v1alpha1.ComputeService) bool { return statusWord(&s) != string(v1alpha1.HostStatusUp) }
	switch {
	case empty || slices.ContainsFunc(services, notUp):
		return kubectlplugin.WithCode(errors.New(""), ExitNotUp)
	case sign.gone():
		return kubectlplugin.WithCode(errors.New(""), ExitNoManager)
	}
	return nil
}

// validate returns the selector, and the printer unless the hosts are printed as a table.
func (o *listOptions) validate(names []string) (labels.Selector, printers.ResourcePrinter, error) {
	for i, status := range o.statuses {
		o.statuses[i] = strings.ToUpper(status)
		if !slices.Contains(hostStatuses, o.statuses[i]) {
			return nil, nil, kubectlplugin.UsageError("--status: %q is not a host status; use one of %s", status, strings.Join(hostStatuses, ", "))
		}
	}
	if err := sortHosts(nil, o.sort); err != nil {
		return nil, nil, err
	}
	printer, err := o.output.Printer()
	if err != nil {
		return nil, nil, err
	}
	selector, err := parseSelector(o.selector, names)
	return selector, printer, err
}

func parseSelector(selector string, names []string) (labels.Selector, error) {
	if selector != "" && len(names) > 0 {
		return nil, kubectlplugin.UsageError("--selector: it cannot be combined with names of hosts; use one or the other")
	}
	parsed, err := labels.Parse(selector)
	if err != nil {
		return nil, kubectlplugin.UsageError("--selector: %q is not a label selector (%w); write it as rack=r12", selector, err)
	}
	return parsed, nil
}

func (p *plugin) printHosts(services []v1alpha1.ComputeService, servers *serverCount, o *listOptions, printer printers.ResourcePrinter, now time.Time) error {
	if printer == nil {
		if len(services) == 0 {
			_, _ = fmt.Fprintln(p.ErrOut, "No hosts found.")
			return nil
		}
		p.hostTable(services, servers, o.output.Format() == "wide", now).Write(p.Out, !o.noHeaders)
		if !o.noHeaders {
			_, _ = fmt.Fprintf(p.ErrOut, "%s%s.\n", summary(services), servers.summary())
		}
		return nil
	}
	// The printer of names takes no list.
	if o.output.Format() == "name" {
		for i := range services {
			if err := printer.PrintObj(&services[i], p.Out); err != nil {
				return err
			}
		}
		return nil
	}
	return printer.PrintObj(listOf(services), p.Out)
}

// listOf is a list as it is printed.
func listOf(services []v1alpha1.ComputeService) *v1alpha1.ComputeServiceList {
	list := &v1alpha1.ComputeServiceList{Items: services}
	if services == nil {
		list.Items = []v1alpha1.ComputeService{}
	}
	list.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("ComputeServiceList"))
	return list
}

// hostTable is a row for each host.
func (p *plugin) hostTable(services []v1alpha1.ComputeService, servers *serverCount, wide bool, now time.Time) *kubectlplugin.Table {
	t := p.NewTable("NAME", "HOST STATUS", "REASON", "REPORTING", "SINCE")
	if wide {
		t.Add("LAST CHANGE", "LEASE", "LEASE DURATION", "WINDOW", "OPENS AT", "READY")
	}
	t.Add("SERVERS", "NOTE")
	t.Shorten("NAME", kubectlplugin.Middle)
	t.Shorten("LEASE", kubectlplugin.Middle)
	t.Shorten("NOTE", kubectlplugin.End)
	for i := range services {
		s := &services[i]
		reporting := kubectlplugin.None
		if r := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReporting); r != nil {
			reporting = string(r.Status)
		}
		row := []kubectlplugin.Cell{
			kubectlplugin.Plain(s.Name), kubectlplugin.StatusCell(s.Status.HostStatus), kubectlplugin.Plain(cmp.Or(string(s.Status.HostStatusReason), kubectlplugin.None)),
			kubectlplugin.Plain(reporting), kubectlplugin.Plain(kubectlplugin.Age(s.Status.HostStatusTransitionTime, now)),
		}
		if wide {
			changed, held := kubectlplugin.None, kubectlplugin.None
			if t := s.Status.HostStatusTransitionTime; !t.IsZero() {
				changed = kubectlplugin.Stamp(t.Time)
			}
			if s.Spec.LeaseDurationSeconds > 0 {
				held = (time.Duration(s.Spec.LeaseDurationSeconds) * time.Second).String()
			}
			row = append(row, kubectlplugin.Plain(changed), kubectlplugin.Plain(s.HeartbeatLease().String()), kubectlplugin.Plain(held), kubectlplugin.Plain(showWindow(s.Spec.MaintenanceWindow)),
				kubectlplugin.Plain(opensAt(s)), kubectlplugin.Plain(readyOf(s)))
		}
		t.Rows = append(t.Rows, append(row, kubectlplugin.Plain(servers.on(s.Name)), kubectlplugin.Plain(note(s, now))))
	}
	return t
}

// opensAt is when a window opens, or opened, given what owners have answered.
func opensAt(s *v1alpha1.ComputeService) string {
	if record := hoststatus.RecordOf(s); record != nil && record.OpensAt != nil {
		return kubectlplugin.Stamp(record.OpensAt.Time)
	}
	return kubectlplugin.None
}

// readyOf is for how many of the servers on a host the owners have answered that they are
// ready for its window.
func readyOf(s *v1alpha1.ComputeService) string {
	if record := hoststatus.RecordOf(s); record != nil {
		return fmt.Sprintf("%d/%d", number(record.Ready), number(record.Servers))
	}
	return kubectlplugin.None
}

// note has the reasons that people gave for the host's flags and window, if these apply now.
func note(s *v1alpha1.ComputeService, now time.Time) string {
	var notes []string
	if isTrue(s.Spec.ForcedDown) {
		notes = append(notes, text(s.Spec.ForcedDownReason))
	}
	if isTrue(s.Spec.Disabled) {
		notes = append(notes, text(s.Spec.DisabledReason))
	}
	if w := s.Spec.MaintenanceWindow; w != nil && phaseOf(s, now) != hoststatus.WindowClosed {
		notes = append(notes, text(w.Reason))
	}
	notes = slices.DeleteFunc(notes, func(n string) bool { return n == "" })
	return kubectlplugin.Clean(strings.Join(notes, "; "))
}

func showWindow(w *v1alpha1.MaintenanceWindow) string {
	switch {
	case w == nil:
		return kubectlplugin.None
	case w.StartTime == nil:
		return "planned"
	case w.EndTime == nil:
		return kubectlplugin.Stamp(w.StartTime.Time) + "/.."
	default:
		return kubectlplugin.Stamp(w.StartTime.Time) + "/" + kubectlplugin.Stamp(w.EndTime.Time)
	}
}

func statusWord(s *v1alpha1.ComputeService) string { return statusName(s.Status.HostStatus) }

// statusName is the value of --status for a host status.
func statusName(status *v1alpha1.HostStatus) string {
	if status == nil || *status == "" {
		return statusNone
	}
	return string(*status)
}

// sortHosts orders hosts, which come ordered by name.
func sortHosts(services []v1alpha1.ComputeService, by string) error {
	switch by {
	case "name":
		slices.SortStableFunc(services, func(a, b v1alpha1.ComputeService) int { return kubectlplugin.CompareNames(a.Name, b.Name) })
	case "status":
		rank := func(s v1alpha1.ComputeService) int { return hoststatus.Rank(s.Status.HostStatus) }
		slices.SortStableFunc(services, func(a, b v1alpha1.ComputeService) int { return cmp.Compare(rank(b), rank(a)) })
	case "since":
		at := func(s v1alpha1.ComputeService) time.Time {
			return ptrTime(s.Status.HostStatusTransitionTime)
		}
		slices.SortStableFunc(services, func(a, b v1alpha1.ComputeService) int { return at(b).Compare(at(a)) })
	default:
		return kubectlplugin.UsageError("--sort: %q is not supported; use name, status or since", by)
	}
	return nil
}

func number(n *int32) int { return int(ptr.Deref(n, 0)) }

func ptrTime(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
