// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestThePackageOfEachTestIsInASuite(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		path := "." + strings.TrimPrefix(p, "hoststatus.dev/hoststatus")
		if !slices.ContainsFunc(suites, func(s suite) bool {
			if s.dir != "" || slices.ContainsFunc(s.but, func(but string) bool { return strings.Contains(p, but) }) {
				return false
			}
			return slices.ContainsFunc(s.packages, func(pattern string) bool {
				prefix, all := strings.CutSuffix(pattern, "/...")
				return pattern == path || all && (path == prefix || strings.HasPrefix(path, prefix+"/"))
			})
		}) {
			t.Errorf("%s is in no suite", path)
		}
	}
}

func TestSuitesAreChosenByName(t *testing.T) {
	for given, want := range map[string]int{"": len(suites), "unit": 1, "leaks unit": 2, endToEnd: len(suites) - 7} {
		chosen, err := choose(strings.Fields(given))
		if err != nil || len(chosen) != want {
			t.Errorf("%q: %d suites, %v, want %d", given, len(chosen), err, want)
		}
	}
	if _, err := choose([]string{"unti"}); err == nil || !strings.Contains(err.Error(), `"unti"`) || !strings.Contains(err.Error(), "unit") {
		t.Errorf("a name that does not exist: %v", err)
	}
}

func TestWhatDiffersInItsPackagesAloneIsCompiledTogether(t *testing.T) {
	raced := []string{"GOFLAGS=-race"}
	got := together([]build{
		{packages: []string{"./a"}, flags: []string{"-test"}},
		{packages: []string{"./a", "./b"}, flags: []string{"-test"}, env: raced},
		{packages: []string{"./b", "./a"}, flags: []string{"-test"}},
		{packages: []string{"./a"}},
		{dir: "elsewhere", packages: []string{"./a"}},
		{packages: []string{"./c"}, flags: []string{"-test"}, env: raced},
	})
	want := []build{
		{packages: []string{"./a", "./b"}, flags: []string{"-test"}},
		{packages: []string{"./a", "./b", "./c"}, flags: []string{"-test"}, env: raced},
		{packages: []string{"./a"}},
		{dir: "elsewhere", packages: []string{"./a"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}

func TestSuitesRunBesideEachOtherAndBeginInTheirOrder(t *testing.T) {
	var mu sync.Mutex
	var begun, running, beside []string
	isBehind := func(name string) bool {
		return slices.ContainsFunc(suites, func(s suite) bool { return s.name == name && s.behind })
	}
	most, mostBehind := 0, 0
	results := runAll(t.Context(), suites, func(_ context.Context, s suite, gentlyUntil <-chan struct{}) result {
		if gentlyUntil != nil && !s.behind {
			t.Errorf("%s, which stays behind nobody, runs gently", s.name)
		}
		mu.Lock()
		begun = append(begun, s.name)
		running = append(running, s.name)
		behind := 0
		for _, name := range running {
			if isBehind(name) {
				behind++
			}
		}
		most, mostBehind = max(most, len(running)-behind), max(mostBehind, behind)
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		for _, name := range running {
			if s.alone && name != s.name && !isBehind(name) {
				beside = append(beside, name)
			}
		}
		running = slices.DeleteFunc(running, func(name string) bool { return name == s.name })
		mu.Unlock()
		return result{suite: s}
	})
	if most > atOnce || mostBehind > 1 {
		t.Errorf("%d ran at once, and %d of those that stay behind", most, mostBehind)
	}
	if len(beside) > 0 {
		t.Errorf("one that runs alone ran beside others: %q", beside)
	}
	var behind, others, alone []string
	for i, r := range results {
		if r.suite.name != suites[i].name {
			t.Errorf("result %d is of %q, want %q", i, r.suite.name, suites[i].name)
		}
		switch {
		case r.suite.alone:
			alone = append(alone, r.suite.name)
		case r.suite.behind:
			behind = append(behind, r.suite.name)
		default:
			others = append(others, r.suite.name)
		}
	}
	if got := slices.DeleteFunc(slices.Clone(begun), func(name string) bool { return !isBehind(name) }); !slices.Equal(got, behind) {
		t.Errorf("those that stay behind have begun in the order %q, want %q", got, behind)
	}
	begun = slices.DeleteFunc(begun, isBehind)
	if last := begun[len(begun)-len(alone):]; !slices.Equal(last, alone) {
		t.Errorf("the last to begin were %q, want %q", last, alone)
	}
	for i, name := range others {
		// All before it have a place, or have ended.
		if at := slices.Index(begun, name); at < 0 || at <= i-atOnce {
			t.Errorf("suite %d, %s, has begun as number %d", i, name, at)
		}
	}
}

func TestWhatStaysBehindDoesSoOnlyWhileOthersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		takes := map[string]time.Duration{"first": time.Minute, "other": time.Second, "alone": 2 * time.Second}
		gentle := map[string]time.Duration{}
		var mu sync.Mutex
		runAll(t.Context(), []suite{{name: "first", behind: true}, {name: "other"}, {name: "alone", alone: true}, {name: "last", behind: true}},
			func(_ context.Context, s suite, gentlyUntil <-chan struct{}) result {
				started := time.Now()
				if gentlyUntil != nil {
					<-gentlyUntil
				}
				mu.Lock()
				gentle[s.name] = time.Since(started)
				mu.Unlock()
				time.Sleep(takes[s.name] - time.Since(started))
				return result{suite: s}
			})
		if want := map[string]time.Duration{"first": 3 * time.Second, "other": 0, "alone": 0, "last": 0}; !maps.Equal(gentle, want) {
			t.Errorf("run gently for %v, want %v", gentle, want)
		}
	})
}

func TestWhatStaysBehindHasThePriorityOfOthersOnceNobodyElseRuns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can take back that a process stays behind")
	}
	// These tests may run at a low priority themselves.
	printed, err := exec.Command("nice").Output()
	if err != nil {
		t.Fatal(err)
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(printed)))
	if err != nil {
		t.Fatal(err)
	}
	// A child has the priority of its parent, and nice prints it.
	const script = "while read _; do nice; sh -c nice; done"
	for name, until := range map[string]chan struct{}{"behind": make(chan struct{}), "as others": nil} {
		t.Run(name, func(t *testing.T) {
			cmd := command(t.Context(), "sh", "-c", script)
			cmd.Stdout = nil
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() { ended <- runGently(cmd, until) }()
			want := func(what int) {
				t.Helper()
				for deadline := time.Now().Add(time.Minute); ; {
					var parent, child int
					if _, err := fmt.Fprintln(in); err != nil {
						t.Fatal(err)
					}
					if _, err := fmt.Fscan(out, &parent, &child); err != nil {
						t.Fatal(err)
					}
					if parent == what && child == what {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("priorities %d and %d, want %d", parent, child, what)
					}
				}
			}
			if until == nil {
				want(own)
			} else {
				want(niceness)
				close(until)
				want(0)
			}
			_ = in.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheCommandOfASuite(t *testing.T) {
	for want, got := range map[string][]string{
		"go test -json -timeout 1h0m0s -p 2 ./a ./b":             suite{}.args([]string{"./a", "./b"}),
		"go test -json -timeout 1h0m0s -p 2 -count=1 -run=X ./a": suite{controlPlane: true, flags: []string{"-run=X"}}.args([]string{"./a"}),
		"go test -json -timeout 1h0m0s -p 2 -short ./a":          suite{flags: []string{"-short"}}.args([]string{"./a"}),
	} {
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestWhatASuiteHasStartedEndsWithIt(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cmd := command(ctx, "sh", "-c", "sh -c 'echo $$; exec sleep 1000' & wait")
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int // It runs.
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	stop()
	// The pipe ends with the last process that has it.
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it has not been ended")
	}
}

func TestWhatFailsIsPrintedAndTheRestCounted(t *testing.T) {
	events, err := os.ReadFile("testdata/events.json")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	got := read(strings.NewReader(string(events)), &out)
	if got.passed != 1 || got.failed != 1 || got.skipped != 1 || got.slow[0].name != "TestFails" {
		t.Errorf("tally: %+v", got)
	}
	for _, want := range []string{"for this reason", "of a subtest", "no terminal here", "ok  \tgood", "FAIL\tbad", "a compiler's complaint"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not printed:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "nobody needs this") {
		t.Errorf("what passes is printed:\n%s", out.String())
	}
	results := table([]result{{suite: suite{name: "unit"}, tally: got, took: time.Minute, err: errors.New("exit status 1")}}, time.Minute)
	for _, want := range []string{"unit", "FAIL: exit status 1", "TestFails 2", "1 passed, 1 failed, 1 skipped\n"} {
		if !strings.Contains(results, want) {
			t.Errorf("%q is not in the table:\n%s", want, results)
		}
	}
}
