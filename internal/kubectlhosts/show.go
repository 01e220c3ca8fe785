// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

func (p *plugin) newShow() *cobra.Command {
	o := kubectlplugin.NewOutput("wide")
	// A report is not an object of the API: it has JSON, and neither a kind nor a name.
	o.NamePrintFlags, o.TemplatePrinterFlags = nil, nil
	cmd := &cobra.Command{
		Use:   "show HOST",
		Short: "Show why a host has its status, its heartbeats, and the servers on it",
		Long: `Show why a host has its status, its heartbeats, and the servers on it.

Show reads the host's Lease from the API server, so the age is that of the last
heartbeat. With --namespace, only the servers of that tenant are shown.

While maintenance is announced, or in progress, show counts what owners have answered to
it, by tenant, and explains when the window opens. With -o wide, each server has its
owner's answer.`,
		Example: `  kubectl hosts show compute-2
  kubectl hosts show compute-3 -o wide
  kubectl hosts show compute-2 -o json`,
		Args:              kubectlplugin.Args(cobra.ExactArgs(1), "show takes exactly one host: kubectl hosts show HOST"),
		ValidArgsFunction: p.completeHosts(1, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.show(cmd, args[0], o)
		},
	}
	o.AddTo(cmd, "Output format, text by default:", "wide", "json", "yaml")
	cmd.Flag("show-managed-fields").Hidden = true
	return cmd
}

func (p *plugin) show(cmd *cobra.Command, name string, o *kubectlplugin.Output) error {
	printer, err := o.Printer()
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	report, now, err := p.report(cmd.Context(), c, name)
	if err != nil {
		return err
	}
	if printer == nil {
		p.writeReport(report, o.Format() == "wide", now)
		return nil
	}
	encoded, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	return printer.PrintObj(&runtime.Unknown{Raw: encoded}, p.Out)
}

// report reads all that show prints about a host, and warns if no manager is at work. It is of
// the time that is returned.
func (p *plugin) report(ctx context.Context, c *cluster, name string) (*Report, time.Time, error) {
	e := evidence{}
	var err error
	if e.service, err = c.get(ctx, name); err != nil {
		return nil, time.Time{}, err
	}
	services := []v1alpha1.ComputeService{*e.service}
	manager := c.lookForManager(ctx, services)
	e.lease, e.leaseErr = c.lease(ctx, e.service.HeartbeatLease())
	e.namespace = *p.Config.Namespace
	e.servers, e.serversErr = c.serversOn(ctx, name, e.namespace)
	e.answers, e.answersErr = c.answersThatPutOff(ctx, e.servers)
	e.ownersView = c.ownersViewHint(ctx)
	// A stale canary is watched for a while; meanwhile the host may have renewed its Lease.
	if e.manager = manager(); e.manager.gone() && e.leaseErr == nil {
		e.lease, e.leaseErr = c.lease(ctx, e.service.HeartbeatLease())
	}
	now := c.now()
	p.warnOfManager(e.manager, now)
	return newReport(e, now), now, nil
}

// writeReport writes a report for people.
func (p *plugin) writeReport(r *Report, wide bool, now time.Time) {
	line := func(label, format string, args ...any) {
		_, _ = fmt.Fprintf(p.Out, "%-15s%s\n", label+":", kubectlplugin.Clean(fmt.Sprintf(format, args...)))
	}
	status := v1alpha1.HostStatus(r.HostStatus)
	line("Host", "%s", r.Host)
	_, _ = fmt.Fprintf(p.Out, "%-15s%s (%s)%s\n", "Host status:", kubectlplugin.Paint(kubectlplugin.StatusCell(&status), p.Colours()), kubectlplugin.Clean(cmp.Or(string(r.Reason), kubectlplugin.None)), since(r.Since, now))
	line("Why", "%s", r.Why)
	line("Reporting", "%s%s", cmp.Or(string(r.Reporting), kubectlplugin.None), since(r.ReportingSince, now))
	line("Lease", "%s", showLease(&r.Lease))
	line("Last renewal", "%s", showRenewal(r, now))
	line("Expires after", "%s", showDuration(&r.Lease))
	line("Forced down", "%s", showFlag(r.ForcedDown))
	line("Disabled", "%s", showFlag(r.Disabled))
	line("Window", "%s", showWindowReport(r.Window, now))
	if w := r.Window; w != nil && w.OpensAt != nil {
		line(opens(w), "%s%s: %s", kubectlplugin.Stamp(w.OpensAt.Time), in(w.OpensAt, now), w.OpensBecause)
	}
	if answers := p.answersTable(r); len(answers.Rows) > 0 {
		line("Answers", "%s", countAnswers(r))
		answers.Write(p.Out, true)
	}
	line("Servers", "%s", countServers(r))
	t := p.NewTable("TENANT/SERVER", "STATUS", "TASK STATE", "POWER STATE", "HOST STATUS")
	if wide {
		t.Add("ANSWER")
	}
	t.Indent = "  "
	t.Shorten("TENANT/SERVER", kubectlplugin.Middle)
	for _, tenant := range r.Tenants {
		t.Rows = append(t.Rows, []kubectlplugin.Cell{kubectlplugin.Plain(tenant.Namespace)})
		for _, s := range tenant.Servers {
			status := v1alpha1.HostStatus(s.HostStatus)
			row := []kubectlplugin.Cell{
				kubectlplugin.Plain("  " + s.Name), kubectlplugin.Plain(cmp.Or(string(s.State), kubectlplugin.None)), kubectlplugin.Plain(cmp.Or(s.TaskState, kubectlplugin.None)),
				kubectlplugin.Plain(cmp.Or(string(s.PowerState), kubectlplugin.None)), kubectlplugin.StatusCell(&status),
			}
			if wide {
				row = append(row, kubectlplugin.Plain(showAnswer(s)))
			}
			t.Rows = append(t.Rows, row)
		}
	}
	if len(t.Rows) > 0 {
		t.Write(p.Out, true)
	}
	for _, hint := range r.Hints {
		line("Hint", "%s", hint)
	}
}

func since(t *metav1.Time, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf(" for %s, since %s", kubectlplugin.Age(t, now), kubectlplugin.Stamp(t.Time))
}

func showLease(l *LeaseReport) string {
	name := l.Namespace + "/" + l.Name
	switch {
	case l.State == LeaseMissing:
		return name + " does not exist"
	case l.State == LeaseNotReadable:
		return name + " could not be read"
	case l.Holder != "":
		return name + ", held by " + l.Holder
	default:
		return name
	}
}

func showDuration(l *LeaseReport) string {
	switch l.DurationFrom {
	case DurationFromHost:
		return kubectlplugin.Human(l.duration()) + ", set by spec.leaseDurationSeconds of the ComputeService"
	case DurationFromLease:
		return kubectlplugin.Human(l.duration()) + ", set in the Lease"
	case DurationFromManager:
		return kubectlplugin.Human(l.duration()) + ", the default; the manager's --default-lease-duration may set another"
	default:
		return "unknown: the Lease could not be read"
	}
}

func showRenewal(r *Report, now time.Time) string {
	if age, ok := r.Lease.age(); ok {
		at := r.Lease.RenewTime.UTC().Format("2006-01-02T15:04:05.000Z")
		if age < -time.Second {
			return fmt.Sprintf("%s in the future (%s)", kubectlplugin.Human(-age), at)
		}
		return fmt.Sprintf("%s ago (%s)", kubectlplugin.Human(age), at)
	}
	unknown := kubectlplugin.None
	if r.Lease.State == LeaseNotReadable {
		unknown = "unknown: the Lease could not be read"
	}
	if r.LastSeenUp.IsZero() {
		return unknown
	}
	// The manager stores that time when something else changes, not at each renewal.
	return fmt.Sprintf("%s; the last one on record was at %s (%s ago), and there may have been later ones", unknown, kubectlplugin.Stamp(r.LastSeenUp.Time), kubectlplugin.Age(r.LastSeenUp, now))
}

func showFlag(f *Flag) string {
	if f == nil {
		return "no"
	}
	out := "yes"
	if f.Reason != "" {
		out += fmt.Sprintf(", %q", f.Reason)
	}
	if f.SetBy != "" {
		out += ", set by " + f.SetBy
	}
	return out
}

func showWindowReport(w *WindowReport, now time.Time) string {
	if w == nil {
		return kubectlplugin.None
	}
	out := strings.ToLower(w.Phase)
	if w.StartTime == nil {
		out += ", at a time that is not known yet"
	} else {
		out += ", from " + kubectlplugin.Stamp(w.StartTime.Time) + in(w.StartTime, now)
	}
	switch {
	case w.StartTime == nil:
	case w.EndTime == nil:
		out += " until it is removed"
	default:
		out += " to " + kubectlplugin.Stamp(w.EndTime.Time) + in(w.EndTime, now)
	}
	out += terms(&v1alpha1.MaintenanceWindow{LatestStartTime: w.LatestStartTime, OpenWhenReady: &w.OpenWhenReady, Category: w.Category, Impact: w.Impact})
	if w.Reason != "" {
		out += fmt.Sprintf(", %q", w.Reason)
	}
	return out
}

// in is how long it is until t, in parentheses; "" if that is over.
func in(t *metav1.Time, now time.Time) string {
	if left := t.Sub(now); left > 0 {
		return " (in " + kubectlplugin.Human(left) + ")"
	}
	return ""
}

func countServers(r *Report) string {
	n := 0
	for _, tenant := range r.Tenants {
		n += len(tenant.Servers)
	}
	switch {
	case r.Tenants == nil:
		return "could not be read"
	case n == 0 && r.Namespace != "":
		return fmt.Sprintf("none in namespace %s; other namespaces are not shown (--namespace)", r.Namespace)
	case n == 0:
		return kubectlplugin.None
	case r.Namespace != "":
		return fmt.Sprintf("%s in namespace %s; other namespaces are not shown (--namespace)", kubectlplugin.Counted(n, "server"), r.Namespace)
	default:
		return fmt.Sprintf("%s of %s", kubectlplugin.Counted(n, "server"), kubectlplugin.Counted(len(r.Tenants), "tenant"))
	}
}
