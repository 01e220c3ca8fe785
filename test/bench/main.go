// SPDX-License-Identifier: Apache-2.0

// Command bench measures hoststatus on a local control plane. Each figure stands
// beside a reference that was measured in the same run, in turn with it or at the
// same time, so that the ratio of the two holds on a machine whose speed drifts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// scenario is one thing that is measured.
type scenario struct {
	name, title string
	// sizes are the usual ones, of what sizesAre says.
	sizes    []int
	sizesAre string
	repeats  int
	run      func(context.Context, *trial) error
}

// scenarios, in the order in which they run.
var scenarios = []scenario{
	detection, notice, storm, fanOut, steady, growth, reports, answers, tenantAPI, large,
}

// options are the flags.
type options struct {
	scenarios []string
	sizes     []int
	repeats   int
	window    time.Duration
	fsync     bool
	out       string
	add       bool
	profiles  string
}

func main() { os.Exit(run()) }

func run() int {
	// Libraries say much about connections that are cut on purpose.
	klog.SetLogger(logr.Discard())
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var o options
	var names, sizes, role, page string
	var short bool
	flag.StringVar(&names, "scenarios", "", "Which to run, separated by commas; all by default: "+strings.Join(scenarioNames(), ", "))
	flag.StringVar(&sizes, "sizes", "", "Sizes to measure instead of a scenario's own, separated by commas")
	flag.IntVar(&o.repeats, "repeats", 0, "How often to measure, instead of a scenario's own number")
	flag.DurationVar(&o.window, "window", 5*time.Minute, "For how long to watch a steady state")
	flag.BoolVar(&o.fsync, "fsync", true, "Let etcd wait for the disk on each write, as in production")
	flag.StringVar(&o.out, "out", "", "Folder for the results as JSON; none by default")
	flag.BoolVar(&o.add, "add", false, "Add to the results that -out has already, for sizes that are measured one by one")
	flag.StringVar(&o.profiles, "profiles", "", "Folder for profiles of the manager; none by default")
	flag.StringVar(&page, "page", "", "Measure nothing: write the results, from the folder beside this Markdown page that has its name, into its section Figures")
	flag.BoolVar(&short, "short", false, "Measure for less than two minutes and fail where a ratio is far from what it should be")
	flag.StringVar(&role, "role", "", "For the benchmark's own processes")
	flag.Parse()
	o.scenarios = split(names)
	for _, s := range split(sizes) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fail(fmt.Errorf("-sizes: %q is not a size; give numbers from 1, separated by commas", s))
		}
		o.sizes = append(o.sizes, n)
	}
	for _, name := range o.scenarios {
		if !slices.Contains(scenarioNames(), name) {
			return fail(fmt.Errorf("-scenarios: there is no %q; there are %s", name, strings.Join(scenarioNames(), ", ")))
		}
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return fail(fmt.Errorf("-profiles: %w; name a folder that can be made", err))
		}
	}
	switch {
	case role != "":
		return fail(playRole(ctx, role, flag.Args()))
	case page != "":
		return fail(writePage(page))
	case short:
		return fail(runShort(ctx, o))
	}
	return fail(runAll(ctx, o))
}

func fail(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// runAll runs what was asked for, and says of the rest that it did not run.
func runAll(ctx context.Context, o options) error {
	var results []*result
	var failed []error
	for _, s := range scenarios {
		if len(o.scenarios) > 0 && !slices.Contains(o.scenarios, s.name) {
			results = append(results, &result{Scenario: s.name, Title: s.title, DidNotRun: "it was not asked for"})
			continue
		}
		r := measure(ctx, s, o)
		results = append(results, r)
		if r.DidNotRun != "" {
			failed = append(failed, fmt.Errorf("%s: %s", s.name, r.DidNotRun))
		}
		if o.out != "" {
			if err := r.save(o.out, o.add); err != nil {
				failed = append(failed, err)
			}
		}
	}
	for _, r := range results {
		r.print(os.Stdout)
	}
	return errors.Join(failed...)
}

// measure runs one scenario. What a scenario that failed had measured until then
// is not a result.
func measure(ctx context.Context, s scenario, o options) *result {
	t := &trial{options: o, scenario: s, result: newResult(s, o)}
	if len(o.sizes) > 0 {
		t.scenario.sizes = o.sizes
	}
	if o.repeats > 0 {
		t.scenario.repeats = o.repeats
	}
	t.result.Sizes, t.result.Repeats = t.scenario.sizes, t.scenario.repeats
	t.say("%s", s.title)
	begin := time.Now()
	err := s.run(ctx, t)
	t.result.Seconds = time.Since(begin).Round(time.Second).Seconds()
	t.close()
	if err != nil {
		failed := newResult(s, o)
		failed.DidNotRun = "it failed: " + err.Error()
		return failed
	}
	return t.result
}
