// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func (p *plugin) newShow() *cobra.Command {
	o := newOutput()
	// A report is not an object of the API: it has JSON, and neither a kind nor a name.
	o.NamePrintFlags, o.TemplatePrinterFlags = nil, nil
	cmd := &cobra.Command{
		Use:   "show HOST",
		Short: "Show why a host has its status, its heartbeats, and the servers on it",
		Long: `Show why a host has its status, its heartbeats, and the servers on it.

Show reads the host's Lease from the API server, so the age is that of the last
heartbeat. With --namespace, only the servers of that tenant are shown.`,
		Example: `  kubectl hosts show compute-2
  kubectl hosts show compute-2 -o json`,
		Args:              hostArgs(cobra.ExactArgs(1), "show takes exactly one host: kubectl hosts show HOST"),
		ValidArgsFunction: p.completeHosts(1, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.show(cmd, args[0], o)
		},
	}
	o.addFlags(cmd, "Output format, text by default:", "json", "yaml")
	cmd.Flag("show-managed-fields").Hidden = true
	return cmd
}

func (p *plugin) show(cmd *cobra.Command, name string, o *output) error {
	printer, err := o.printer()
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	e := evidence{}
	if e.service, err = c.get(ctx, name); err != nil {
		return err
	}
	services := []v1alpha1.ComputeService{*e.service}
	manager := c.lookForManager(ctx, services)
	e.lease, e.leaseErr = c.lease(ctx, e.service.HeartbeatLease())
	e.namespace = *p.config.Namespace
	e.servers, e.serversErr = c.serversOn(ctx, name, e.namespace)
	e.ownersView = c.ownersViewHint(ctx)
	// A stale canary is watched for a while; meanwhile the host may have renewed its Lease.
	if e.manager = manager(); e.manager.gone() && e.leaseErr == nil {
		e.lease, e.leaseErr = c.lease(ctx, e.service.HeartbeatLease())
	}
	now := c.now()
	p.warnOfManager(e.manager, now)
	report := newReport(e, now)
	if printer == nil {
		p.writeReport(report, now)
		return nil
	}
	encoded, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	return printer.PrintObj(&runtime.Unknown{Raw: encoded}, p.Out)
}

// writeReport writes a report for people.
func (p *plugin) writeReport(r *Report, now time.Time) {
	line := func(label, format string, args ...any) {
		_, _ = fmt.Fprintf(p.Out, "%-15s%s\n", label+":", clean(fmt.Sprintf(format, args...)))
	}
	status := v1alpha1.HostStatus(r.HostStatus)
	line("Host", "%s", r.Host)
	_, _ = fmt.Fprintf(p.Out, "%-15s%s (%s)%s\n", "Host status:", paint(statusCell(&status), p.colours()), clean(cmp.Or(string(r.Reason), none)), since(r.Since, now))
	line("Why", "%s", r.Why)
	line("Reporting", "%s%s", cmp.Or(string(r.Reporting), none), since(r.ReportingSince, now))
	line("Lease", "%s", showLease(&r.Lease))
	line("Last renewal", "%s", showRenewal(r, now))
	line("Expires after", "%s", showDuration(&r.Lease))
	line("Forced down", "%s", showFlag(r.ForcedDown))
	line("Disabled", "%s", showFlag(r.Disabled))
	line("Window", "%s", showWindowReport(r.Window, now))
	line("Servers", "%s", countServers(r))
	t := p.newTable("TENANT/SERVER", "STATUS", "TASK STATE", "POWER STATE", "HOST STATUS")
	t.indent = "  "
	t.shorten("TENANT/SERVER", middle)
	for _, tenant := range r.Tenants {
		t.rows = append(t.rows, []cell{plain(tenant.Namespace)})
		for _, s := range tenant.Servers {
			status := v1alpha1.HostStatus(s.HostStatus)
			t.rows = append(t.rows, []cell{
				plain("  " + s.Name), plain(cmp.Or(string(s.State), none)), plain(cmp.Or(s.TaskState, none)),
				plain(cmp.Or(string(s.PowerState), none)), statusCell(&status),
			})
		}
	}
	if len(t.rows) > 0 {
		t.write(p.Out, true)
	}
	for _, hint := range r.Hints {
		line("Hint", "%s", hint)
	}
}

func since(t *metav1.Time, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf(" for %s, since %s", age(t, now), stamp(t.Time))
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
		return human(l.duration()) + ", set by spec.leaseDurationSeconds of the ComputeService"
	case DurationFromLease:
		return human(l.duration()) + ", set in the Lease"
	case DurationFromManager:
		return human(l.duration()) + ", the default; the manager's --default-lease-duration may set another"
	default:
		return "unknown: the Lease could not be read"
	}
}

func showRenewal(r *Report, now time.Time) string {
	if age, ok := r.Lease.age(); ok {
		at := r.Lease.RenewTime.UTC().Format("2006-01-02T15:04:05.000Z")
		if age < -time.Second {
			return fmt.Sprintf("%s in the future (%s)", human(-age), at)
		}
		return fmt.Sprintf("%s ago (%s)", human(age), at)
	}
	unknown := none
	if r.Lease.State == LeaseNotReadable {
		unknown = "unknown: the Lease could not be read"
	}
	if r.LastSeenUp.IsZero() {
		return unknown
	}
	// The manager stores that time when something else changes, not at each renewal.
	return fmt.Sprintf("%s; the last one on record was at %s (%s ago), and there may have been later ones", unknown, stamp(r.LastSeenUp.Time), age(r.LastSeenUp, now))
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
		return none
	}
	out := strings.ToLower(w.Phase)
	if w.StartTime == nil {
		out += ", at a time that is not known yet"
	} else {
		out += ", from " + stamp(w.StartTime.Time)
		if left := w.StartTime.Sub(now); left > 0 {
			out += " (in " + human(left) + ")"
		}
	}
	switch {
	case w.StartTime == nil:
	case w.EndTime == nil:
		out += " until it is removed"
	default:
		out += " to " + stamp(w.EndTime.Time)
		if left := w.EndTime.Sub(now); left > 0 {
			out += " (in " + human(left) + ")"
		}
	}
	if w.Reason != "" {
		out += fmt.Sprintf(", %q", w.Reason)
	}
	return out
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
		return none
	case r.Namespace != "":
		return fmt.Sprintf("%s in namespace %s; other namespaces are not shown (--namespace)", counted(n, "server"), r.Namespace)
	default:
		return fmt.Sprintf("%s of %s", counted(n, "server"), counted(len(r.Tenants), "tenant"))
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
