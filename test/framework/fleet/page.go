// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// Step is a command of a page, with the output that the page shows and what it really
// prints to standard output. Trailing space does not count.
type Step struct {
	Command, Want, Got string
}

// RunPage runs the commands of a page of the repository as its reader would, in its
// folder: the lines after "$ " in blocks of kind console, each with its here-document.
// The folder .run of make stands for that of f, and pids for those of f. Commands that
// begin with one of skip are not run.
func (f *Fleet) RunPage(ctx context.Context, page string, skip ...string) (steps []Step, err error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		return nil, fmt.Errorf("reading a page: %w", err)
	}
	for block := range strings.SplitSeq(string(content), "```") {
		block, isConsole := strings.CutPrefix(block, "console\n$ ")
		if !isConsole {
			continue
		}
		for part := range strings.SplitSeq(block, "\n$ ") {
			command, want := cutCommand(part)
			if slices.ContainsFunc(skip, func(s string) bool { return strings.HasPrefix(command, s) }) {
				continue
			}
			real := f.withPid(strings.ReplaceAll(command, ".run/", f.Dir+"/"))
			shell := exec.CommandContext(ctx, "bash", "-c", real)
			shell.Dir = root
			shell.Env = f.Kubectl(ctx).Env
			shell.Env = append(shell.Env, "PATH="+filepath.Dir(f.Cluster.KubectlPath())+":"+f.path("bin")+":"+os.Getenv("PATH"))
			var complaints strings.Builder
			shell.Stderr = &complaints
			out, err := shell.Output()
			isAnswer := strings.HasPrefix(command, "kubectl auth can-i ") && string(out) == "no\n"
			if err != nil && !isAnswer {
				return steps, fmt.Errorf("$ %s: %w\n%s%s", command, err, out, complaints.String())
			}
			steps = append(steps, Step{command, trimLines(want), trimLines(string(out))})
		}
	}
	return steps, nil
}

// withPid replaces PID, in a command whose comment names a host, by the pid of its agent,
// which make run prints.
func (f *Fleet) withPid(command string) string {
	_, comment, _ := strings.Cut(command, " # ")
	for host, agent := range f.Agents {
		if strings.HasSuffix(comment, "the agent of "+host) {
			return strings.ReplaceAll(command, " PID ", fmt.Sprintf(" %d ", agent.Pid()))
		}
	}
	return command
}

// cutCommand separates a command, with its here-document, from its output.
func cutCommand(part string) (command, prints string) {
	command, prints, _ = strings.Cut(part, "\n")
	if _, mark, ok := strings.Cut(command, "<<"); ok {
		document, rest, _ := strings.Cut(prints, "\n"+mark)
		command, prints = command+"\n"+document+"\n"+mark, strings.TrimPrefix(rest, "\n")
	}
	return command, prints
}

func trimLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
