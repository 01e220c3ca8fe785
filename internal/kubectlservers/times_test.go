// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"strings"
	"testing"
	"time"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

func TestTimesAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]string{
		"2026-10-01T13:00:00Z":        "2026-10-01T13:00:00Z",
		"2026-10-01T15:00:00+02:00":   "2026-10-01T13:00:00Z",
		"2026-10-01T13:00:00.999Z":    "2026-10-01T13:00:00Z",
		"+2h":                         "2026-10-01T14:00:00Z",
		"90m":                         "2026-10-01T13:30:00Z",
		"1d12h":                       "2026-10-03T00:00:00Z",
		"18:00":                       "2026-10-01T16:00:00Z",
		"today 18:00":                 "2026-10-01T16:00:00Z",
		"tomorrow 06:00":              "2026-10-02T04:00:00Z",
		"tomorrow 6:00":               "2026-10-02T04:00:00Z",
		"  tomorrow   06:00 ":         "2026-10-02T04:00:00Z",
		"now":                         "is not in the future",
		"2026-10-01T11:59:59Z":        "TIME: 2026-10-01T11:59:59Z is not in the future (it is 2026-10-01T12:00:00Z now); give a later time",
		"-1h":                         "is not in the future",
		"08:00":                       "TIME: 08:00 has passed today; write tomorrow 08:00, or a later time",
		"today 13:59":                 "write tomorrow 13:59",
		"2026-10-01 13:00":            "TIME: \"2026-10-01 13:00\" is not a time; use RFC 3339 with a zone",
		"2026-10-01T13:00:00":         "is not a time",
		"tomorrow":                    "is not a time",
		"friday 06:00":                "is not a time",
		"25:00":                       "is not a time",
		"":                            "is not a time",
		"\x1b[2J":                     "is not a time",
		"99999999999999999999h":       "is not a time",
		"18:00 tomorrow":              "is not a time",
		"2026-13-01T13:00:00Z":        "is not a time",
		"tomorrow 2026-10-01T13:00Z ": "is not a time",
	} {
		got, err := parseTime(strings.Split(text, " "), now)
		printed := kubectlplugin.Stamp(got)
		if err != nil {
			printed = err.Error()
			if kubectlplugin.CodeOf(err) != ExitUsage {
				t.Errorf("%q ends with %d", text, kubectlplugin.CodeOf(err))
			}
		}
		if !strings.Contains(printed, want) {
			t.Errorf("%q is %s, want %s", text, printed, want)
		}
	}
}

func TestTimesAreWrittenForAnswersAndForPeople(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"2026-10-01T14:00:00Z (16:00 CEST, in 120m)":           2 * time.Hour,
		"2026-10-01T22:30:00Z (Fri 2 Oct 00:30 CEST, in 10h)":  10*time.Hour + 30*time.Minute,
		"2026-10-01T11:55:00Z (13:55 CEST, 5m ago)":            -5 * time.Minute,
		"2027-10-01T12:00:00Z (Fri 1 Oct 14:00 CEST, in 365d)": 365 * 24 * time.Hour,
		"2026-10-01T12:00:00Z (14:00 CEST, now)":               0,
	} {
		if got := when(at(d), now); got != want {
			t.Errorf("it is %q, want %q", got, want)
		}
	}
	if got, want := when(at(time.Hour), now.UTC()), "2026-10-01T13:00:00Z (in 60m)"; got != want {
		t.Errorf("where clocks show UTC it is %q, want %q", got, want)
	}
}

func TestTextIsWrappedAtSpacesOnly(t *testing.T) {
	text := strings.Repeat("a-word-of-some-length ", 12) + strings.Repeat("x", 100)
	for _, width := range []int{0, 20, 45, 80, 200} {
		printed := labelled("Meaning", text, width)
		words := strings.Fields(printed)
		if got := strings.Join(words[1:], " "); got != text {
			t.Errorf("at %d characters it is changed to %q", width, got)
		}
		for line := range strings.Lines(printed) {
			if n := kubectlplugin.Letters(strings.TrimSuffix(line, "\n")); width >= labelWidth+narrowest && n > width && !strings.Contains(line, "xxx") {
				t.Errorf("at %d characters a line has %d: %q", width, n, line)
			}
		}
	}
}
