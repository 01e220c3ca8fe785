// SPDX-License-Identifier: Apache-2.0

// Command suites runs the test suites whose names it is given, or all of them, and
// prints what each took. The name end-to-end stands for all that need a control plane.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// endToEnd stands for all suites that need a control plane.
const endToEnd = "end-to-end"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := prepare(ctx, chosen); err != nil {
		return err
	}
	results := runAll(ctx, chosen, runSuite)
	fmt.Print(table(results, time.Since(begin)))
	var failed []string
	for _, r := range results {
		if r.err != nil {
			failed = append(failed, r.suite.name)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("FAIL: %s", strings.Join(failed, ", "))
	}
	return ctx.Err()
}

// choose returns the suites of these names, in the order of the table; all if there are
// none.
func choose(names []string) ([]suite, error) {
	if len(names) == 0 {
		return suites, nil
	}
	known := []string{endToEnd}
	var chosen []suite
	for _, s := range suites {
		known = append(known, s.name)
		if slices.Contains(names, s.name) || s.controlPlane && slices.Contains(names, endToEnd) {
			chosen = append(chosen, s)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("no suite is called %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}
