// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// event is a line of `go test -json` (`go doc test2json`).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
}

// tally counts the tests of a suite, subtests not.
type tally struct {
	passed, failed, skipped int
	// slow are the tests that took the longest.
	slow []timed
}

type timed struct {
	name string
	took time.Duration
}

// slowest is how many tests are named in the table.
const slowest = 3

// read copies to w what `go test` would print of the events in r: the line of each
// package, and all output of tests and builds that fail.
func read(r io.Reader, w io.Writer) tally {
	var t tally
	output := map[string]*strings.Builder{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				_, _ = w.Write(line) // Not of a test: what go itself reports.
			} else {
				t.take(&e, output, w)
			}
		}
		if err != nil {
			return t
		}
	}
}

func (t *tally) take(e *event, output map[string]*strings.Builder, w io.Writer) {
	// A subtest is part of its test.
	top, _, isSub := strings.Cut(e.Test, "/")
	key := e.Package + " " + top
	switch e.Action {
	case "build-output":
		_, _ = io.WriteString(w, e.Output)
	case "output":
		if output[key] == nil {
			output[key] = &strings.Builder{}
		}
		output[key].WriteString(e.Output)
	case "pass", "fail", "skip":
		if isSub {
			return
		}
		kept := output[key]
		delete(output, key)
		if e.Test == "" {
			printPackage(e, kept, output, w)
			return
		}
		took := time.Duration(e.Elapsed * float64(time.Second))
		t.slow = slowestOf(append(t.slow, timed{e.Test, took}))
		switch e.Action {
		case "pass":
			t.passed++
		case "fail":
			t.failed++
			printTest(kept, w)
		case "skip":
			t.skipped++
			printTest(kept, w)
		}
	}
}

// printTest prints the output of a test, without what tells only that it ran.
func printTest(kept *strings.Builder, w io.Writer) {
	if kept == nil {
		return
	}
	for line := range strings.Lines(kept.String()) {
		trimmed := strings.TrimSpace(line)
		if !strings.HasPrefix(trimmed, "=== ") && !strings.HasPrefix(trimmed, "--- PASS") {
			_, _ = io.WriteString(w, line)
		}
	}
}

// printPackage prints the line of a package that has ended, and what is left of its tests
// if it ended in the middle of them.
func printPackage(e *event, kept *strings.Builder, output map[string]*strings.Builder, w io.Writer) {
	if e.Action == "fail" {
		for key, left := range output {
			if strings.HasPrefix(key, e.Package+" ") {
				printTest(left, w)
			}
		}
	}
	if kept == nil || e.Action == "skip" {
		return // It has no tests.
	}
	for line := range strings.Lines(kept.String()) {
		if e.Action == "fail" || strings.HasPrefix(line, "ok") {
			_, _ = io.WriteString(w, line)
		}
	}
}

func slowestOf(tests []timed) []timed {
	slices.SortStableFunc(tests, func(a, b timed) int { return int(b.took - a.took) })
	return tests[:min(len(tests), slowest)]
}

// table is what the suites took.
func table(results []result, took time.Duration) string {
	var out strings.Builder
	_, _ = fmt.Fprintf(&out, "\n%-14s %6s %7s %7s %8s %8s   %s\n", "suite", "passed", "failed", "skipped", "seconds", "CPU", "slowest tests, seconds")
	var all tally
	var cpu time.Duration
	for _, r := range results {
		var slow []string
		for _, s := range r.tally.slow {
			slow = append(slow, fmt.Sprintf("%s %.0f", s.name, s.took.Seconds()))
		}
		all.passed, all.failed, all.skipped = all.passed+r.tally.passed, all.failed+r.tally.failed, all.skipped+r.tally.skipped
		cpu += r.cpu
		note := ""
		if r.err != nil {
			note = "   FAIL: " + r.err.Error()
		}
		_, _ = fmt.Fprintf(&out, "%-14s %6d %7d %7d %8.0f %8.0f   %s%s\n", r.suite.name, r.tally.passed, r.tally.failed, r.tally.skipped, r.took.Seconds(), r.cpu.Seconds(), strings.Join(slow, ", "), note)
	}
	_, _ = fmt.Fprintf(&out, "%-14s %6d %7d %7d %8.0f %8.0f\n", "all", all.passed, all.failed, all.skipped, took.Seconds(), cpu.Seconds())
	_, _ = fmt.Fprintf(&out, "%d passed, %d failed, %d skipped\n", all.passed, all.failed, all.skipped)
	return out.String()
}
