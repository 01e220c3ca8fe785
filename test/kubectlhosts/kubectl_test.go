// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

// asPlugin runs the real binary through kubectl and returns its exit code.
func asPlugin(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := kubectl(t.Context(), append([]string{"hosts"}, args...)...)
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func TestKubectlFindsThePluginAndPassesItsExitCodeOn(t *testing.T) {
	fleet(t)
	expect.NoError(t, sign(t.Context(), time.Now(), time.Hour))
	defer func() { expect.NoError(t, sign(t.Context(), now, time.Hour)) }()
	for _, step := range []struct {
		args []string
		code int
	}{
		{[]string{"list"}, 0},
		{[]string{"list", "--exit-code"}, 5},
		{[]string{"frobnicate"}, 2},
		{[]string{"show", "compute-7"}, 3},
		{[]string{"force-down", "compute-1", "--reason", "no power"}, 4},
		{[]string{"list", "--server", "https://127.0.0.1:1"}, 1},
		{[]string{"force-down", "compute-1", "--reason", "no power", "--yes"}, 0},
	} {
		out, errOut, code := asPlugin(t, step.args...)
		if code != step.code {
			t.Errorf("kubectl hosts %s ends with %d, not %d\n%s%s", strings.Join(step.args, " "), code, step.code, out, errOut)
		}
		if strings.Contains(out+errOut, "\x1b") {
			t.Errorf("kubectl hosts %s colours what no terminal shows: %q", strings.Join(step.args, " "), out+errOut)
		}
	}
}

func TestKubectlCompletesHosts(t *testing.T) {
	fleet(t)
	env.InstallCompletion(t, "hosts")
	for _, step := range []struct {
		typed []string
		want  []string
	}{
		{[]string{"show", ""}, []string{"compute-1", "compute-2", "compute-3", "compute-4", "compute-5", "compute-10"}},
		{[]string{"show", "compute-1"}, []string{"compute-1", "compute-10"}},
		{[]string{"show", "compute-1", ""}, nil},
		{[]string{"up", ""}, []string{"compute-2"}},
		{[]string{"enable", ""}, []string{"compute-4"}},
		{[]string{"force-down", "compute-1", "compute-3", "compute-"}, []string{"compute-4", "compute-5", "compute-10"}},
		{[]string{"list", "--sort", ""}, []string{"name", "status", "since"}},
		{[]string{"list", "-o", ""}, []string{"wide", "json", "yaml", "name"}},
		{[]string{"up", "--dry-run", ""}, []string{"none", "client", "server"}},
		{[]string{"fo"}, []string{"force-down"}},
	} {
		out, err := kubectl(t.Context(), append([]string{"__complete", "hosts"}, step.typed...)...).Output()
		expect.NoError(t, err)
		var got []string
		for line := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if !strings.HasPrefix(word, ":") {
				got = append(got, word)
			}
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("kubectl hosts %s<Tab> (-want +got):\n%s", strings.Join(step.typed, " "), diff)
		}
	}
}

// terminal opens a pseudo terminal.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	expect.NoError(t, err)
	expect.NoError(t, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	expect.NoError(t, err)
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	expect.NoError(t, err)
	t.Cleanup(func() { _ = person.Close() })
	return person, program
}

func TestAtATerminalThePluginAsksAndColours(t *testing.T) {
	up("compute-1").make(t)
	expect.NoError(t, sign(t.Context(), time.Now(), time.Hour))
	defer func() { expect.NoError(t, sign(t.Context(), now, time.Hour)) }()
	person, program := terminal(t)
	cmd := kubectl(t.Context(), "hosts", "force-down", "compute-1", "--reason", "no power")
	// The Lease's time is the tests' own; by the real clock it is old, and the
	// manager's word is left.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=")
	expect.NoError(t, cmd.Start())
	seen := readUntil(t, person, "[y/N] ")
	_, err := person.WriteString("y\n")
	expect.NoError(t, err)
	seen += readUntil(t, person, "DOWN (ForcedDown)")
	expect.NoError(t, cmd.Wait())
	list := kubectl(t.Context(), "hosts", "list")
	list.Env = cmd.Env
	list.Stdout = program
	expect.NoError(t, list.Run())
	seen += readUntil(t, person, "NOTE")
	seen += readUntil(t, person, "no power")
	_ = program.Close()
	if !strings.Contains(seen, "the manager sees that it renews Lease") || !strings.Contains(seen, "\x1b[32mUP\x1b[0m") {
		t.Errorf("at the terminal there was\n%q", seen)
	}
}

func readUntil(t *testing.T, r io.Reader, end string) string {
	t.Helper()
	var seen []byte
	buffer := make([]byte, 1)
	for !bytes.HasSuffix(seen, []byte(end)) {
		if _, err := r.Read(buffer); err != nil {
			t.Fatalf("%v; until then there was %q", err, seen)
		}
		seen = append(seen, buffer...)
	}
	return string(seen)
}
