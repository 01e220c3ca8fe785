// SPDX-License-Identifier: Apache-2.0

// Package model checks the protocol by which a host's silence is decided in all orders in which
// things can happen, within bounds: docs/design/model.md says which. It needs Spin and a C
// compiler.
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

// faults multiplies the states by thirty or more with each.
var faults = flag.Int("faults", 1, "how many outages, pauses and stalls may begin")

var (
	errorsIn = regexp.MustCompile(`(?m)errors: (\d+)`)
	statesIn = regexp.MustCompile(`(?m)^ *(\S+) states, stored`)
)

// check explores heartbeat.pml, without the rule called mutant if that is not empty, and
// returns whether an assertion can fail.
func check(t *testing.T, mutant string, faults int) (found bool) {
	t.Helper()
	for _, program := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT TESTED: the model. There is no %s on this machine; hack/ensure-packages.sh installs it", program)
		}
	}
	source, err := filepath.Abs("heartbeat.pml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	spin := []string{fmt.Sprintf("-DFAULTS=%d", faults)}
	if mutant != "" {
		spin = append(spin, "-D"+mutant)
	}
	var out []byte
	for _, args := range [][]string{
		append(append([]string{"spin"}, spin...), "-a", source),
		{"gcc", "-O2", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=8000", "-o", "pan", "pan.c"},
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
	if errors == nil || states == nil || regexp.MustCompile(`max search depth too small|out of memory|Search not completed`).Match(out) && string(errors[1]) == "0" {
		t.Fatalf("it was not explored:\n%s", out)
	}
	t.Logf("%s states", states[1])
	n, _ := strconv.Atoi(string(errors[1]))
	return n > 0
}

func TestNoOrderOfEventsMakesAVerdictFalseOrMissing(t *testing.T) {
	if check(t, "", *faults) {
		t.Error("there is a counterexample; spin -t -p shows it")
	}
}

// The rules of package heartbeat, each taken away.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, mutant := range []string{"ARRIVAL", "SIGHT", "PROOF", "BARRIER", "MEMORY"} {
		t.Run(mutant, func(t *testing.T) {
			if !check(t, mutant, 1) {
				t.Error("nothing shows that the rule is missing")
			}
		})
	}
}
