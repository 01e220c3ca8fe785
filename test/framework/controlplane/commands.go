// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// BuildCommands puts commands of the repository, all if none is named, into the folder
// dir, built with the flags in $GOFLAGS. They are linked in a folder of the repository
// that is kept, since Go does not link again what is up to date there: each of them
// takes seconds of all cores, and a third more with what only a debugger reads.
func BuildCommands(ctx context.Context, dir string, names ...string) error {
	root, err := RepositoryRoot()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		folders, err := os.ReadDir(filepath.Join(root, "cmd"))
		if err != nil {
			return fmt.Errorf("listing the commands: %w", err)
		}
		for _, f := range folders {
			names = append(names, f.Name())
		}
	}
	flags := fnv.New32a()
	_, _ = io.WriteString(flags, os.Getenv("GOFLAGS"))
	kept := filepath.Join(root, "bin", fmt.Sprintf("kept-%08x", flags.Sum32()))
	for _, d := range []string{kept, dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("making a folder for commands: %w", err)
		}
	}
	unlock, err := lockFile(filepath.Join(kept, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	args := []string{"build", "-ldflags=-w", "-o", kept + string(filepath.Separator)}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	build := exec.CommandContext(ctx, "go", args...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building hoststatus: %w\n%s", err, out)
	}
	for _, name := range names {
		if err := linkOrCopy(filepath.Join(kept, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("installing %s: %w", name, err)
		}
	}
	return nil
}

// linkOrCopy makes target the same program as source. A program that runs stays what
// it is: Go replaces a file that it builds, and so does this.
func linkOrCopy(source, target string) error {
	if err := os.Remove(target); err != nil && !os.IsNotExist(err) {
		return err
	}
	if os.Link(source, target) == nil {
		return nil
	}
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close()
		return err
	}
	return to.Close()
}
