// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/test/chaos/judge"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// mutants are managers without one of the rules of package heartbeat, each with a fault
// under which that shows, and how.
var mutants = []struct {
	mutant
	// rule is what does not hold any more.
	rule  string
	fault func(context.Context, *world, *rand.Rand) error
	want  judge.Kind
	// short says that the observer has to notice it in the short form, too: one for each
	// kind of finding. The unit tests have to notice all.
	short bool
}{
	{
		mutant: mutant{
			name: "arrival",
			file: "internal/heartbeat/core.go",
			old:  "l.renewedAt, l.renewed = now, true",
			// The moment that the host's clock gives.
			new: "l.renewedAt, l.renewed = now-wall.Sub(seen.RenewTime), true",
		},
		rule:  "judge by arrival, not by the host's clock",
		fault: wrongClocks,
		want:  judge.FalseUnknown,
	},
	{
		mutant: mutant{
			name: "sight",
			file: "internal/heartbeat/sight.go",
			old:  "case gap > blindAfter:",
			new:  "case false:",
		},
		rule:  "only sighted time counts",
		fault: pauseEtcdThrice,
		want:  judge.FalseUnknown,
	},
	{
		mutant: mutant{
			name: "proof",
			file: "internal/heartbeat/sight.go",
			old:  "\t\tif now > w.checkAt {",
			// A deadline that passes is a verdict.
			new: "\t\tif w.synced {\n\t\t\tc.declare(w, now)\n\t\t}\n\t\tif now > w.checkAt {",
		},
		rule:  "prove before declaring",
		fault: stallWatches,
		want:  judge.FalseUnknown,
	},
	{
		mutant: mutant{
			name: "barrier",
			file: "internal/heartbeat/sight.go",
			old:  "w.pending[i].written = true",
			// The end of the canary's write counts as its echo, which overtakes the renewals
			// that the watch has yet to bring.
			new: "w.pending[i].written = true\n\t\t\tc.declare(w, w.pending[i].at)",
		},
		rule:  "the canary is a barrier",
		fault: holdHeartbeatsBack,
		want:  judge.FalseUnknown,
		short: true,
	},
	{
		mutant: mutant{
			name: "memory",
			file: "internal/heartbeat/subjects.go",
			old:  "s := c.subjects[in.Name]",
			new:  "in.Memory = NoVerdict\n\ts := c.subjects[in.Name]",
		},
		rule:  "a restart forgets nothing",
		fault: killBothTwice,
		want:  judge.FalseState,
		short: true,
	},
}

// joinMutants are tenant API servers without one of the rules of the join.
var joinMutants = []struct {
	mutant
	rule string
	// stalled is the watch of one replica whose stall shows it to owners who move, "" for none.
	stalled string
	// rare says that it takes thousands of runs to find it: part of the long form.
	rare bool
}{
	{
		mutant: mutant{
			name: "early",
			file: "internal/tenantapi/hosts.go",
			old:  "\t\ts.feed.await(news)",
			// A place in the history before the servers' watch has come so far.
			new: "\t\tif s.feed.take(news, news.Version) {\n\t\t\ts.feed.joinAgain([]hostNews{news}, news.Version)\n\t\t}\n\t\ts.feed.latest = max(s.feed.latest, news.Version)\n\t\ts.feed.broadcast()",
		},
		rule:    "a host is taken in when the servers' watch has passed it",
		stalled: watchOfServers,
	},
	{
		mutant: mutant{
			name: "owed",
			file: "internal/tenantapi/storage.go",
			old:  "w.rv, w.told, w.joined, w.owes = rv, rv, rv, true",
			new:  "w.rv, w.told, w.joined, w.owes = rv, rv, rv, false",
		},
		rule:    "who comes back is told again what another replica may not have known",
		stalled: watchOfHosts,
	},
	{
		mutant: mutant{
			name: "settled",
			file: "internal/tenantapi/feed.go",
			old:  "c.settles = old.moved && r.stored.Current || old.stored.Version != 0 && r.stored.Version == 0",
			new:  "c.settles = false",
		},
		rule: "a copy that ends a doubt is sent, even if it brings nothing new",
		rare: true,
	},
}

// mutant is an edit of the product, which a test builds and nobody ships.
type mutant struct {
	name string
	// file is relative to the root of the repository.
	file string
	// old is a text of the file, which new replaces.
	old, new string
}

// apply edits the content of m's file. It is an error if the text to replace does not
// occur exactly once: the product has changed, and the mutant may be no mutant any more.
func (m mutant) apply(content string) (string, error) {
	if m.old == m.new {
		return "", fmt.Errorf("mutant %q changes nothing in %s: it replaces %q with itself", m.name, m.file, m.old)
	}
	if n := strings.Count(content, m.old); n != 1 {
		return "", fmt.Errorf("mutant %q does not fit %s: the text %q occurs %d times and must occur once; adapt the mutant to the code", m.name, m.file, m.old, n)
	}
	return strings.Replace(content, m.old, m.new, 1), nil
}

// overlay is what go build -overlay reads: it makes go compile replacement in the place
// of file. Both paths are absolute, because go ignores a path that is none of its files,
// and builds the product.
func overlay(file, replacement string) ([]byte, error) {
	if !filepath.IsAbs(file) || !filepath.IsAbs(replacement) {
		return nil, fmt.Errorf("an overlay needs absolute paths, not %q and %q", file, replacement)
	}
	return json.Marshal(map[string]map[string]string{"Replace": {file: replacement}})
}

// buildCommand builds a command of the product with the edit, under dir, and returns its path.
func (m mutant) buildCommand(ctx context.Context, command, dir string) (string, error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return "", err
	}
	return m.build(ctx, root, command, filepath.Join(dir, "mutants", m.name))
}

// build builds a command of the module in root into the folder dir.
func (m mutant) build(ctx context.Context, root, command, dir string) (string, error) {
	list, err := m.write(root, dir)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, m.name)
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", list, "-o", binary, command)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building mutant %q of %s: %w\n%s", m.name, m.file, err, out)
	}
	return binary, nil
}

// write writes the edited file into the folder dir, and returns the path of what go's
// -overlay reads.
func (m mutant) write(root, dir string) (string, error) {
	file := filepath.Join(root, filepath.FromSlash(m.file))
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading what mutant %q edits: %w", m.name, err)
	}
	edited, err := m.apply(string(content))
	if err != nil {
		return "", err
	}
	replacement, list := filepath.Join(dir, filepath.Base(file)), filepath.Join(dir, "overlay.json")
	encoded, err := overlay(file, replacement)
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(replacement, []byte(edited), 0o644), os.WriteFile(list, encoded, 0o644)); err != nil {
		return "", fmt.Errorf("writing mutant %q: %w", m.name, err)
	}
	return list, nil
}

func TestEveryMutantFitsTheProduct(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	fits := func(m mutant) {
		content, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.apply(string(content)); err != nil {
			t.Error(err)
		}
	}
	for _, m := range mutants {
		fits(m.mutant)
	}
	for _, m := range joinMutants {
		fits(m.mutant)
	}
}

func TestTheUnitTestsOfTheRulesFindEveryMutant(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	find := func(m mutant, rule string, flags ...string) {
		list, err := m.write(root, filepath.Join(t.TempDir(), m.name))
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"test", "-overlay", list, "-run", testsOfRules, "./" + filepath.Dir(m.file)}
		cmd := exec.CommandContext(t.Context(), "go", append(args, flags...)...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOFLAGS=") // These tests do one thing at a time.
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "--- FAIL") {
			t.Errorf("no test of %s fails (%v) without the rule %q:\n%s", filepath.Dir(m.file), err, rule, out)
		}
	}
	for _, m := range mutants {
		find(m.mutant, m.rule)
	}
	for _, m := range joinMutants {
		if m.rare && *duration == 0 {
			continue
		}
		find(m.mutant, m.rule, "-rapid.checks=20000", "-rapid.shrinktime=0s", "-rapid.nofailfile")
	}
}

// testsOfRules are the tests that have to find the mutants.
const testsOfRules = "^(TestRule|TestEveryClientOfEitherReplicaEndsWithTheTruth)"

func TestAMutantIsOneEditOrAnError(t *testing.T) {
	const content = "a := 1\nb := 2\nc := 1\n"
	for name, c := range map[string]struct {
		old, new string
		want     string
		wantErr  []string
	}{
		"a text that occurs once":        {old: "b := 2", new: "b := 3", want: "a := 1\nb := 3\nc := 1\n"},
		"a text over two lines":          {old: "= 2\nc", new: "= 2\nd", want: "a := 1\nb := 2\nd := 1\n"},
		"a text that does not occur":     {old: "b := 4", new: "b := 3", wantErr: []string{`"some"`, "core.go", `"b := 4"`, "0 times"}},
		"a text that occurs twice":       {old: ":= 1", new: ":= 3", wantErr: []string{`"some"`, "core.go", `":= 1"`, "2 times"}},
		"no text":                        {new: "b := 3", wantErr: []string{`"some"`, "core.go"}},
		"a text that is what it becomes": {old: "b := 2", new: "b := 2", wantErr: []string{`"some"`, "core.go", `"b := 2"`, "nothing"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mutant{name: "some", file: "core.go", old: c.old, new: c.new}.apply(content)
			if got != c.want || (err != nil) != (c.wantErr != nil) {
				t.Errorf("%q and error %v, want %q", got, err, c.want)
			}
			for _, part := range c.wantErr {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not name %s", err, part)
				}
			}
		})
	}
}

func TestGoBuildsTheMutantOfAModule(t *testing.T) {
	root := t.TempDir()
	const source = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Print(\"the product\") }\n"
	for name, content := range map[string]string{"go.mod": "module example.com/product\n\ngo 1.26\n", "main.go": source} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := func(becomes string) (string, error) {
		return mutant{name: "some", file: "main.go", old: "the product", new: becomes}.build(t.Context(), root, ".", filepath.Join(t.TempDir(), "some"))
	}

	binary, err := build("a mutant")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), binary).CombinedOutput()
	if got := string(out); err != nil || got != "a mutant" {
		t.Errorf("the mutant prints %q, and ended with %v", got, err)
	}
	if content, err := os.ReadFile(filepath.Join(root, "main.go")); err != nil || string(content) != source {
		t.Errorf("the product was changed to %q (%v)", content, err)
	}

	const syntaxError = `"`
	if _, err := build(syntaxError); err == nil || !strings.Contains(err.Error(), `"some"`) || !strings.Contains(err.Error(), "main.go") {
		t.Errorf("a mutant that does not compile: error %v does not name it and its file", err)
	}
}

func TestTheOverlayOfAMutantHasAbsolutePaths(t *testing.T) {
	got, err := overlay("/product/core.go", "/mutants/core.go")
	if want := `{"Replace":{"/product/core.go":"/mutants/core.go"}}`; err != nil || string(got) != want {
		t.Errorf("%s and error %v, want %s", got, err, want)
	}
	for _, paths := range [][2]string{{"core.go", "/mutants/core.go"}, {"/product/core.go", "core.go"}} {
		if _, err := overlay(paths[0], paths[1]); err == nil {
			t.Errorf("%q was accepted", paths)
		}
	}
}
