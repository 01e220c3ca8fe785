// SPDX-License-Identifier: Apache-2.0

package devfleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"hoststatus.dev/hoststatus/internal/devcluster"
)

// Step is a command of a page in docs, with what the page shows and what it really
// prints to standard output. Trailing space at the end of lines does not count.
type Step struct {
	Command, Want, Got string
}

// RunPage runs the commands of a page in docs as its reader would, in the folder of the
// repository: the lines after "$ " in blocks of kind console.
func (f *Fleet) RunPage(ctx context.Context, page string) (steps []Step, err error) {
	root, err := devcluster.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(root, "docs", page))
	if err != nil {
		return nil, fmt.Errorf("reading a page: %w", err)
	}
	for block := range strings.SplitSeq(string(content), "```") {
		block, isConsole := strings.CutPrefix(block, "console\n$ ")
		if !isConsole {
			continue
		}
		for part := range strings.SplitSeq(block, "\n$ ") {
			command, want, _ := strings.Cut(part, "\n")
			shell := exec.CommandContext(ctx, "bash", "-c", command)
			shell.Dir = root
			shell.Env = f.Kubectl(ctx).Env
			shell.Env = append(shell.Env, "PATH="+filepath.Dir(f.Cluster.Kubectl())+":"+os.Getenv("PATH"))
			var complaints strings.Builder
			shell.Stderr = &complaints
			out, err := shell.Output()
			if err != nil {
				return steps, fmt.Errorf("$ %s: %w\n%s", command, err, complaints.String())
			}
			steps = append(steps, Step{command, trimLines(want), trimLines(string(out))})
		}
	}
	return steps, nil
}

func trimLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
