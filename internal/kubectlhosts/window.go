// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type windowOptions struct {
	start, end, length, reason string
	clear                      bool
}

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
unless --start is given. A window without an end stays open until it is removed.`,
		Example: `  kubectl hosts window compute-3 --start +2h --for 1h --reason "new memory"
  kubectl hosts window compute-3 --end +3h
  kubectl hosts window -l rack=r12 --start 2027-01-10T22:00:00Z --end 2027-01-10T23:00:00Z
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
	cmd.Flags().StringVar(&o.start, "start", "", "Start of the maintenance window.")
	cmd.Flags().StringVar(&o.end, "end", "", "End of the maintenance window, or the word never for a window without an end.")
	cmd.Flags().StringVar(&o.length, "for", "", "Length of the window, in place of --end; for example 90m, 1d or 1d12h.")
	cmd.Flags().StringVar(&o.reason, "reason", "", "Reason for the maintenance, at most 256 characters.")
	cmd.Flags().BoolVar(&o.clear, "clear", false, "Remove the window.")
	w.addFlags(cmd)
	return cmd
}

// change turns the flags into a change. given is true for flags that were given.
func (o *windowOptions) change(p *plugin, given func(string) bool) (*change, error) {
	w := &windowChange{clear: o.clear}
	switch {
	case o.clear && (given("start") || given("end") || given("for") || given("reason")):
		return nil, usageError("--clear: it removes the window, so it cannot be combined with --start, --end, --for or --reason")
	case !o.clear && !given("start") && !given("end") && !given("for") && !given("reason"):
		return nil, usageError("nothing to change; give --start, --end, --for or --reason, or --clear to remove the window")
	case given("for") && given("end"):
		return nil, usageError("--for: it cannot be combined with --end; use one or the other")
	}
	if given("for") {
		length, err := parseDuration(o.length)
		if err != nil {
			return nil, usageError("--for: %q is not a duration; use one such as 90m, 2h, 1d or 1d12h", o.length)
		}
		if length < time.Second {
			return nil, usageError("--for: %s is too short; use at least 1s", length)
		}
		w.length = length
	}
	if given("start") {
		start, err := parseMoment("--start", o.start)
		if err != nil {
			return nil, err
		}
		w.start = &start
	}
	if given("end") && o.end == "never" {
		w.endless = true
	} else if given("end") {
		end, err := parseMoment("--end", o.end)
		if err != nil {
			return nil, err
		}
		w.end = &end
	}
	if given("reason") {
		reason, err := p.fitReason(o.reason, false)
		if err != nil {
			return nil, err
		}
		w.reason = &reason
	}
	c := &change{question: "Set the maintenance window of", done: "window set", flag: "maintenanceWindow", apply: w.apply, already: w.already, detail: w.detail}
	if o.clear {
		c.question, c.done = "Remove the maintenance window of", "window removed"
	}
	return c, nil
}

// moment is a fixed time, or one relative to now.
type moment struct {
	at   time.Time
	from time.Duration
}

// time returns the moment in whole seconds, as the API stores it.
func (m moment) time(now time.Time) time.Time {
	if m.at.IsZero() {
		return now.Add(m.from).Truncate(time.Second)
	}
	return m.at.Truncate(time.Second)
}

func parseMoment(flag, text string) (moment, error) {
	if text == "now" {
		return moment{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return moment{at: t}, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return moment{}, usageError("%s: %q is not a time; use RFC 3339 with a zone, such as 2027-01-10T22:00:00Z, or a time from now, such as +2h, 30m or 1d", flag, text)
	}
	return moment{from: d}, nil
}

// day is always 24 hours, also when clocks are changed.
const day = 24 * time.Hour

// maxDays keeps days from overflowing.
const maxDays = 100_000

// parseDuration reads a duration that may begin with days: 1d, 1d12h, +2h.
func parseDuration(text string) (time.Duration, error) {
	rest := strings.TrimPrefix(text, "+")
	sign := time.Duration(1)
	if cut, ok := strings.CutPrefix(rest, "-"); ok {
		sign, rest = -1, cut
	}
	if strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
		return 0, fmt.Errorf("%q has two signs", text)
	}
	count, after, ok := strings.Cut(rest, "d")
	if !ok {
		d, err := time.ParseDuration(rest)
		return sign * d, err
	}
	days, err := strconv.ParseFloat(count, 64)
	if err != nil || !(days >= 0 && days <= maxDays) {
		return 0, fmt.Errorf("%q is not a number of days", count)
	}
	total := time.Duration(days * float64(day))
	if after != "" {
		d, err := time.ParseDuration(after)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("%q is not a duration", after)
		}
		total += d
	}
	return sign * total, nil
}
