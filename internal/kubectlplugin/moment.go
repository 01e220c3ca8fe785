// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Moment is a fixed time, or one relative to now.
type Moment struct {
	At   time.Time
	From time.Duration
}

// Time returns the moment in whole seconds, as the API stores it.
func (m Moment) Time(now time.Time) time.Time {
	if m.At.IsZero() {
		return now.Add(m.From).Truncate(time.Second)
	}
	return m.At.Truncate(time.Second)
}

// ParseMoment reads a time; flag names it in the error.
func ParseMoment(flag, text string) (Moment, error) {
	if text == "now" {
		return Moment{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return Moment{At: t}, nil
	}
	d, err := ParseDuration(text)
	if err != nil {
		return Moment{}, UsageError("%s: %q is not a time; use RFC 3339 with a zone, such as 2027-01-10T22:00:00Z, or a time from now, such as +2h, 30m or 1d", flag, text)
	}
	return Moment{From: d}, nil
}

// Day is always 24 hours, also when clocks are changed.
const Day = 24 * time.Hour

// maxDays keeps days from overflowing.
const maxDays = 100_000

// ParseDuration reads a duration that may begin with days: 1d, 1d12h, +2h.
func ParseDuration(text string) (time.Duration, error) {
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
	total := time.Duration(days * float64(Day))
	if after != "" {
		d, err := time.ParseDuration(after)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("%q is not a duration", after)
		}
		total += d
	}
	return sign * total, nil
}
