// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// atOnce is how many suites run at a time, beside one that stays behind. Most of the time
	// they wait: two use half of two cores, and three two thirds.
	atOnce = 4
	// hangs is after how long a suite has certainly come to a stop, also on a machine that does
	// much else.
	hangs = time.Hour
	// niceness is that of a suite that stays behind: it has a tenth of what one that works all
	// the time has. With nothing but what nobody wants, which SCHED_IDLE would be, it would never
	// end on a machine that others keep busy.
	niceness = 10
)

// prepare makes what the suites need and what is slow to make, before any of them runs: on a
// new machine it takes half an hour.
func prepare(ctx context.Context, chosen []suite) error {
	if slices.ContainsFunc(chosen, func(s suite) bool { return s.controlPlane }) {
		fmt.Println("== the local control plane")
		args := []string{"run", "./hack/ensure-controlplane"}
		if slices.ContainsFunc(chosen, func(s suite) bool { return s.releases }) {
			args = append(args, "--all-releases")
		}
		if slices.ContainsFunc(chosen, func(s suite) bool { return s.pods }) {
			args = append(args, "--nodes")
		}
		if err := command(ctx, "go", args...).Run(); err != nil {
			return fmt.Errorf("making the local control plane: %w", err)
		}
	}
	fmt.Println("== what the tests compile")
	if err := compile(ctx, chosen); err != nil {
		return err
	}
	for _, what := range []string{"browser", "nodes", "domains", "fencing", "openstack", "model"} {
		if slices.ContainsFunc(chosen, func(s suite) bool { return s.debian == what }) {
			fmt.Println("== Debian's packages for", what)
			if err := command(ctx, "hack/ensure-packages.sh", what).Run(); err != nil {
				return fmt.Errorf("installing what %s need: %w", what, err)
			}
		}
	}
	for _, program := range []struct {
		name, which, folder, without string
		needed                       func(suite) bool
	}{
		{"Prometheus", "prometheus", "PROMETHEUS_ASSETS", "neither the alerts nor the dashboard are tested", func(s suite) bool { return s.prometheus }},
		{"Alertmanager", "alertmanager", "ALERTMANAGER_ASSETS", "the notifier is not tested", func(s suite) bool { return s.alertmanager }},
	} {
		if !slices.ContainsFunc(chosen, program.needed) {
			continue
		}
		fmt.Println("==", program.name)
		ensure := command(ctx, "hack/ensure-prometheus.sh", program.which)
		ensure.Stdout = nil
		folder, err := ensure.Output()
		switch {
		case err == nil:
			err = os.Setenv(program.folder, strings.TrimSpace(string(folder)))
		case os.Getenv("CI") == "true":
			err = fmt.Errorf("without %s %s, which CI does not accept", program.name, program.without)
		default:
			err = nil
			fmt.Printf("!! SKIPPED: without %s %s\n", program.name, program.without)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// command is one that ends with ctx, and all that it has started with it: `go test` alone would
// leave the tests behind.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// result is what came of a suite.
type result struct {
	suite     suite
	tally     tally
	took, cpu time.Duration
	err       error
}

// runAll runs suites, atOnce at a time, and begins them in their order; then those that run
// alone, one by one; and beside all of these, one by one, those that stay behind, gently until
// only they are left. run is given what is closed then, or nil.
func runAll(ctx context.Context, chosen []suite, run func(ctx context.Context, s suite, gentlyUntil <-chan struct{}) result) []result {
	results := make([]result, len(chosen))
	over := make(chan struct{})
	oneByOne := func(which func(suite) bool) {
		for i, s := range chosen {
			if !which(s) || ctx.Err() != nil {
				continue
			}
			var gentlyUntil <-chan struct{}
			if s.behind {
				gentlyUntil = over
			}
			results[i] = run(ctx, s, gentlyUntil)
		}
	}
	var running, behind sync.WaitGroup
	behind.Go(func() { oneByOne(func(s suite) bool { return s.behind }) })
	places := make(chan struct{}, atOnce)
	for i, s := range chosen {
		if s.alone || s.behind {
			continue
		}
		places <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-places }()
			results[i] = run(ctx, s, nil)
		})
	}
	running.Wait()
	oneByOne(func(s suite) bool { return s.alone })
	close(over)
	behind.Wait()
	return results
}

// runSuite runs one, gently until a channel that is not nil is closed, and prints its packages as
// `go test` does, and what fails in full.
func runSuite(ctx context.Context, s suite, gentlyUntil <-chan struct{}) result {
	begin := time.Now()
	r := result{suite: s}
	packages, err := s.list(ctx)
	if err != nil {
		r.err = err
		return r
	}
	fmt.Printf("== %s\n", s.name)
	args := s.args(packages)
	cmd := command(ctx, args[0], args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), s.env()...)
	if s.race && !hasRaceDetector() {
		fmt.Println("   without the race detector: there is no C compiler")
	}
	out, in := io.Pipe()
	cmd.Stdout = in
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.tally = read(out, os.Stdout)
	}()
	r.err = runGently(cmd, gentlyUntil)
	_ = in.Close()
	<-done
	r.took = time.Since(begin)
	if cmd.ProcessState != nil {
		r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	return r
}

// runGently runs a command of command, which stays behind others until a channel is closed; as
// others if that is nil. Only root can take it back; with anyone else it stays behind to its end.
func runGently(cmd *exec.Cmd, until <-chan struct{}) error {
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	ended := make(chan struct{})
	defer close(ended)
	if until != nil {
		_ = syscall.Setpriority(syscall.PRIO_PGRP, cmd.Process.Pid, niceness)
		go func() {
			select {
			case <-until:
				_ = syscall.Setpriority(syscall.PRIO_PGRP, cmd.Process.Pid, 0)
			case <-ended:
			}
		}()
	}
	return cmd.Wait()
}

// args are the command that runs packages of s, and its arguments.
func (s suite) args(packages []string) []string {
	args := []string{"go", "test", "-json", "-timeout", hangs.String(), "-p", "2"}
	if s.controlPlane {
		// Go does not know of the binaries that these tests build or start, and would take a
		// result of before a change of them for one of now.
		args = append(args, "-count=1")
	}
	return append(append(args, s.flags...), packages...)
}

// env is what the environment of s has besides this one's.
func (s suite) env() []string {
	if !s.race || !hasRaceDetector() {
		return nil
	}
	// In GOFLAGS it is on in the binaries, too, that the tests build.
	return []string{"GOFLAGS=" + strings.TrimSpace(os.Getenv("GOFLAGS")+" -race")}
}

// list returns the packages of s.
func (s suite) list(ctx context.Context) ([]string, error) {
	if len(s.but) == 0 {
		return s.packages, nil
	}
	list := command(ctx, "go", append([]string{"list"}, s.packages...)...)
	list.Stdout = nil
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool {
		return slices.ContainsFunc(s.but, func(but string) bool { return strings.Contains(p, but) })
	}), nil
}

// hasRaceDetector reports whether this machine can build with it: it needs a C compiler.
var hasRaceDetector = sync.OnceValue(func() bool {
	out, err := exec.Command("go", "env", "CGO_ENABLED", "CC").Output()
	fields := strings.Fields(string(out))
	if err != nil || len(fields) < 2 || fields[0] != "1" {
		return false
	}
	_, err = exec.LookPath(fields[1])
	return err == nil
})
