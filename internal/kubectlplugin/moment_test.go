// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"testing"
	"time"
)

func TestDurationsMayHaveDays(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1d": Day, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour, "+2h": 2 * time.Hour, "-1d1h": -25 * time.Hour, "90m": 90 * time.Minute,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "1w", "1d-1h", "--1h", "nand", "1e9d", "1dd", "tomorrow"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
}
