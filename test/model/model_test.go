// SPDX-License-Identifier: Apache-2.0

// Package model checks, in all orders in which things can happen within bounds, the protocol
// by which a host's silence is decided, and the one by which the owners' view joins:
// docs/design/model.md says what that covers. It needs Spin and a C compiler.
package model

import (
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

var (
	faults = flag.Int("faults", 1, "heartbeat.pml: how many outages, pauses and stalls may begin")
	writes = flag.Int("writes", 3, "join.pml: how many writes there may be, of the host and of the copy")
)

// models are what is checked, each with its bound and with the rules that can be taken away.
var models = []struct {
	name    string
	bound   func() string
	mutants []string
}{
	// The rules of package heartbeat.
	{"heartbeat", func() string { return fmt.Sprintf("-DFAULTS=%d", *faults) }, []string{"ARRIVAL", "SIGHT", "PROOF", "BARRIER", "MEMORY"}},
	// Those of hosts.go in package tenantapi.
	{"join", func() string { return fmt.Sprintf("-DR=%d", *writes) }, []string{"EARLY", "OWED", "LIST"}},
}

func TestNoOrderOfEventsBreaksTheProtocol(t *testing.T) {
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			if explore(t, m.name, m.bound()) {
				t.Error("there is a counterexample; spin -t -p shows it")
			}
		})
	}
}

func TestEachRuleIsNeeded(t *testing.T) {
	for _, m := range models {
		for _, mutant := range m.mutants {
			t.Run(mutant, func(t *testing.T) {
				if !explore(t, m.name, m.bound(), "-D"+mutant) {
					t.Error("nothing shows that the rule is missing")
				}
			})
		}
	}
}

var (
	errorsIn   = regexp.MustCompile(`(?m)errors: (\d+)`)
	statesIn   = regexp.MustCompile(`(?m)^ *(\S+) states, stored`)
	incomplete = regexp.MustCompile(`max search depth too small|out of memory|Search not completed|invalid array index`)
)

// explore explores a model, and returns whether an assertion can fail.
func explore(t *testing.T, model string, defines ...string) (found bool) {
	t.Helper()
	for _, program := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT TESTED: the model. There is no %s on this machine; hack/ensure-packages.sh installs it", program)
		}
	}
	source, err := filepath.Abs(model + ".pml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var out []byte
	for _, args := range [][]string{
		append(append([]string{"spin"}, defines...), "-a", source),
		// To compile with optimisation takes longer than to explore without.
		{"gcc", "-O0", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=8000", "-o", "pan", "pan.c"},
		{"./pan", "-m1000000"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		if args[0] == "./pan" {
			cmd.Path = filepath.Join(dir, "pan")
		}
		if out, err = cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	errors, states := errorsIn.FindSubmatch(out), statesIn.FindSubmatch(out)
	if errors == nil || states == nil {
		t.Fatalf("it was not explored:\n%s", out)
	}
	n, err := strconv.Atoi(string(errors[1]))
	if err != nil {
		t.Fatal(err)
	}
	if why := incomplete.Find(out); why != nil && (n == 0 || string(why) == "invalid array index") {
		t.Fatalf("it was not explored whole (%s):\n%s", why, out)
	}
	t.Logf("%s states", states[1])
	return n > 0
}
