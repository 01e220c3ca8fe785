// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

type windowOptions struct {
	start, latest, putOff, end, length string
	openWhenReady                      bool
	category, impact, reason           string
	clear                              bool
	maxUnavailable                     int
}

// windowSettings are the flags that set something of a window, in the order of the help.
var windowSettings = []string{"start", "latest", "put-off", "end", "for", "open-when-ready", "category", "impact", "reason"}

// The closed lists of what owners are told of a window.
var (
	categories = []v1alpha1.MaintenanceCategory{
		v1alpha1.CategoryHardware, v1alpha1.CategorySoftware, v1alpha1.CategoryNetwork, v1alpha1.CategoryRelocation, v1alpha1.CategoryOther,
	}
	impacts = []v1alpha1.MaintenanceImpact{
		v1alpha1.ImpactNone, v1alpha1.ImpactPause, v1alpha1.ImpactMigrate, v1alpha1.ImpactReboot, v1alpha1.ImpactStop,
	}
)

func (p *plugin) newWindow() *cobra.Command {
	w := &writer{plugin: p}
	o := &windowOptions{}
	cmd := &cobra.Command{
		Use:   "window HOST... (--start TIME --end TIME | --clear)",
		Short: "Announce, change or remove maintenance windows of hosts",
		Long: `Announce, change or remove maintenance windows of hosts. Until the window opens the
host status is NEEDS_MAINTENANCE, then MAINTENANCE until it closes.

A time is RFC 3339 with a zone (2027-01-10T22:00:00Z), or relative to now (2h or +2h,
30m, 1d, now); a day is 24 hours. Without a flag, the host's window keeps its value. A
host without a window, or with one that is over, gets a new one, which starts now
unless --start is given. A window without an end stays open until it is removed.

The owners of the servers on a host may put the opening off until --latest, or by
--put-off, and with --open-when-ready bring it forward once all of them are ready.

With --max-unavailable, the hosts get their windows one after the other, so that no more
than that many of them are in maintenance at once, whatever owners answer: the time of a
host is --put-off and --for, one after the other. Hosts that have a window keep it. They
count, and so do hosts that are disabled or forced down. The plan is printed, and you are
asked to confirm it.`,
		Example: `  kubectl hosts window compute-3 --start +2h --for 1h --reason "new memory"
  kubectl hosts window compute-3 --start +2d --latest +3d --for 4h --category Hardware --impact Reboot
  kubectl hosts window compute-3 --end +3h
  kubectl hosts window -l rack=r12 --start 2027-01-10T22:00:00Z --end 2027-01-10T23:00:00Z
  kubectl hosts window -l rack=r12 --max-unavailable 2 --start 2027-01-10T22:00:00Z --for 1h
  kubectl hosts window compute-3 --clear`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeHosts(0, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.change(p, cmd.Flags().Changed)
			if err != nil {
				return err
			}
			return w.run(cmd, args, c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.start, "start", "", "Start of the maintenance window.")
	flags.StringVar(&o.latest, "latest", "", "Time until when owners may put the opening off.")
	flags.StringVar(&o.putOff, "put-off", "", "By how long after the start owners may put the opening off, in place of --latest; for example 4h, or 0 for not at all.")
	flags.StringVar(&o.end, "end", "", "End of the maintenance window, or the word never for a window without an end.")
	flags.StringVar(&o.length, "for", "", "Length of the window, in place of --end; for example 90m, 1d or 1d12h. It counts from the latest time at which the window can open.")
	flags.BoolVar(&o.openWhenReady, "open-when-ready", false, "Open before the start, as soon as the owner of each server on the host is ready; =false takes that back.")
	flags.StringVar(&o.category, "category", "", "What is worked on, for owners: "+words(categories)+`, or "" for nothing.`)
	flags.StringVar(&o.impact, "impact", "", "What it does to servers at the worst, for owners: "+words(impacts)+`, or "" for nothing.`)
	flags.StringVar(&o.reason, "reason", "", "Reason for the maintenance, at most 256 characters. Owners do not see it.")
	flags.BoolVar(&o.clear, "clear", false, "Remove the window.")
	flags.IntVar(&o.maxUnavailable, "max-unavailable", 0, "Plan the windows so that at most this many of the hosts are in maintenance at once. Needs --start, for the first window, and --for.")
	kubectlplugin.Complete(cmd, "category", strings.Split(words(categories), ", ")...)
	kubectlplugin.Complete(cmd, "impact", strings.Split(words(impacts), ", ")...)
	w.addFlags(cmd)
	return cmd
}

// change turns the flags into a change. given is true for flags that were given.
func (o *windowOptions) change(p *plugin, given func(string) bool) (*change, error) {
	if err := o.fit(given); err != nil {
		return nil, err
	}
	w := &windowChange{clear: o.clear}
	if err := o.times(w, given); err != nil {
		return nil, err
	}
	if err := o.terms(p, w, given); err != nil {
		return nil, err
	}
	if given("max-unavailable") {
		return (&windowPlan{limit: o.maxUnavailable, flags: w}).change(), nil
	}
	c := &change{question: "Set the maintenance window of", done: "window set", flag: "maintenanceWindow", apply: w.apply, already: w.already, detail: w.detail}
	if o.clear {
		c.question, c.done = "Remove the maintenance window of", "window removed"
	}
	return c, nil
}

// fit checks that the flags go together.
func (o *windowOptions) fit(given func(string) bool) error {
	first := func(flags ...string) string {
		if i := slices.IndexFunc(flags, given); i >= 0 {
			return flags[i]
		}
		return ""
	}
	switch setting := first(windowSettings...); {
	case o.clear && setting != "":
		return kubectlplugin.UsageError("--clear: it removes the window, so it cannot be combined with --%s", setting)
	case o.clear && given("max-unavailable"):
		return kubectlplugin.UsageError("--clear: it removes the window, so it cannot be combined with --max-unavailable")
	case !o.clear && setting == "" && !given("max-unavailable"):
		return kubectlplugin.UsageError("nothing to change; give --%s or --%s, or --clear to remove the window",
			strings.Join(windowSettings[:len(windowSettings)-1], ", --"), windowSettings[len(windowSettings)-1])
	case given("for") && given("end"):
		return kubectlplugin.UsageError("--for: it cannot be combined with --end; use one or the other")
	case given("put-off") && given("latest"):
		return kubectlplugin.UsageError("--put-off: it cannot be combined with --latest; use one or the other")
	case !given("max-unavailable"):
		return nil
	case o.maxUnavailable < 1:
		return kubectlplugin.UsageError("--max-unavailable: %d is too few; use 1 or more", o.maxUnavailable)
	case given("end"):
		return kubectlplugin.UsageError("--end: with --max-unavailable each window has an end of its own; give the length of each with --for")
	case given("latest"):
		return kubectlplugin.UsageError("--latest: with --max-unavailable each window has a start of its own; give --put-off, by how long owners may put each off")
	case o.openWhenReady:
		return kubectlplugin.UsageError("--open-when-ready: it cannot be combined with --max-unavailable, because a window that opens early can be open together with any other")
	case !given("start"):
		return kubectlplugin.UsageError("--max-unavailable: it needs --start, when the first window opens")
	case !given("for"):
		return kubectlplugin.UsageError("--max-unavailable: it needs --for, the length of each window")
	}
	return nil
}

// times reads the flags that are times and durations.
func (o *windowOptions) times(w *windowChange, given func(string) bool) error {
	if given("for") {
		length, err := kubectlplugin.ParseDuration(o.length)
		if err != nil {
			return kubectlplugin.UsageError("--for: %q is not a duration; use one such as 90m, 2h, 1d or 1d12h", o.length)
		}
		if length < time.Second {
			return kubectlplugin.UsageError("--for: %s is too short; use at least 1s", length)
		}
		w.length = length
	}
	if given("put-off") {
		putOff, err := kubectlplugin.ParseDuration(o.putOff)
		if err != nil {
			return kubectlplugin.UsageError("--put-off: %q is not a duration; use one such as 90m, 2h or 1d, or 0 for not at all", o.putOff)
		}
		if putOff < 0 || putOff > 0 && putOff < time.Second {
			return kubectlplugin.UsageError("--put-off: %s is too short; use at least 1s, or 0 for not at all", putOff)
		}
		w.putOff = &putOff
	}
	if given("end") && o.end == "never" {
		w.endless = true
	}
	for _, flag := range []struct {
		name, text string
		to         **kubectlplugin.Moment
	}{{"start", o.start, &w.start}, {"latest", o.latest, &w.latest}, {"end", o.end, &w.end}} {
		if !given(flag.name) || flag.name == "end" && w.endless {
			continue
		}
		m, err := kubectlplugin.ParseMoment("--"+flag.name, flag.text)
		if err != nil {
			return err
		}
		*flag.to = &m
	}
	return nil
}

// terms reads the other flags of the window.
func (o *windowOptions) terms(p *plugin, w *windowChange, given func(string) bool) (err error) {
	if given("open-when-ready") {
		w.openWhenReady = &o.openWhenReady
	}
	if given("category") {
		if w.category, err = oneOf("--category", o.category, categories); err != nil {
			return err
		}
	}
	if given("impact") {
		if w.impact, err = oneOf("--impact", o.impact, impacts); err != nil {
			return err
		}
	}
	if given("reason") {
		reason, err := p.fitReason(o.reason, false)
		if err != nil {
			return err
		}
		w.reason = &reason
	}
	return nil
}

// oneOf returns the value that a flag names, in letters of either case, or "" for none.
func oneOf[T ~string](flag, text string, values []T) (*T, error) {
	if text == "" {
		return new(T), nil
	}
	for _, value := range values {
		if strings.EqualFold(string(value), text) {
			return &value, nil
		}
	}
	return nil, kubectlplugin.UsageError("%s: %q is not supported; use one of %s", flag, text, words(values))
}

// words lists values.
func words[T ~string](values []T) string {
	out := make([]string, len(values))
	for i, value := range values {
		out[i] = string(value)
	}
	return strings.Join(out, ", ")
}
