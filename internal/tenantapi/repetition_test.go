// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	testingclock "k8s.io/utils/clock/testing"
)

func TestAnErrorThatStaysIsLoggedOnceInAWhile(t *testing.T) {
	fake := testingclock.NewFakeClock(instant)
	var lines []string
	log := withoutRepetition(funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}), fake)
	forbidden, gone := errors.New("leases are forbidden"), errors.New("connection refused")
	expect := func(when string, n int) {
		t.Helper()
		if len(lines) != n {
			t.Errorf("%s: %d lines: %q", when, len(lines), lines)
		}
		lines = slices.Delete(lines, 0, len(lines))
	}
	for range 100 {
		log.WithName("canary").WithValues("a", "b").WithCallDepth(1).Error(forbidden, "Failed to watch")
		fake.Step(500 * time.Millisecond)
	}
	expect("one error for less than a minute", 1)
	log.Error(gone, "Failed to watch")
	log.Error(forbidden, "Failed to watch")
	expect("another error, and the first again", 2)
	fake.Step(repetitionInterval)
	log.Error(forbidden, "Failed to watch")
	expect("after a while", 1)
	log.Info("Something else")
	expect("no error", 1)
}
