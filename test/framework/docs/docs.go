// SPDX-License-Identifier: Apache-2.0

// Package docs reads from the pages of docs/operate the commands and scripts that tests run, so
// that what readers copy is what was tested.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// Helm returns the arguments of the first helm command of a page that begins with begin,
// for example "install", with the folder of the chart in place of its path in the
// repository.
func Helm(page, begin, chart string) ([]string, error) {
	content, err := read(page)
	if err != nil {
		return nil, err
	}
	_, rest, found := strings.Cut(strings.ReplaceAll(content, "\n$ ", "\n"), "\nhelm "+begin+" ")
	if !found {
		return nil, fmt.Errorf("docs/operate/%s has no helm %s", page, begin)
	}
	line, _, _ := strings.Cut(strings.ReplaceAll(rest, "\\\n", " "), "\n")
	args := strings.Fields(begin + " " + line)
	for i := range args {
		if args[i] == "charts/hoststatus" {
			args[i] = chart
		}
	}
	return args, nil
}

// Kubectl returns the commands of a block of a page that begins with begin, as a script for
// a shell. Those of helm are left out.
func Kubectl(page, begin string) (script string, err error) {
	content, err := read(page)
	if err != nil {
		return "", err
	}
	_, block, found := strings.Cut(content, "```console\n"+begin)
	if !found {
		return "", fmt.Errorf("docs/operate/%s has no block of commands that begins with %q", page, begin)
	}
	block, _, _ = strings.Cut(begin+block, "```")
	var commands strings.Builder
	for line := range strings.Lines(block) {
		if command, is := strings.CutPrefix(line, "$ "); is && !strings.HasPrefix(command, "helm ") {
			commands.WriteString(command)
		}
	}
	return commands.String(), nil
}

// Script returns a script of a page as its reader would save it: the block of kind bash whose
// second line says "# NAME ".
func Script(page, name string) (script string, err error) {
	content, err := read(page)
	if err != nil {
		return "", err
	}
	begin := "#!/usr/bin/env bash\n# " + name + " "
	_, block, found := strings.Cut(content, "```bash\n"+begin)
	if !found {
		return "", fmt.Errorf("docs/operate/%s has no script %s", page, name)
	}
	block, _, _ = strings.Cut(block, "```")
	return begin + block, nil
}

func read(page string) (string, error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(filepath.Join(root, "docs", "operate", page))
	return string(content), err
}
