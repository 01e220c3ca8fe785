// SPDX-License-Identifier: Apache-2.0

// Command ensure-controlplane builds the programs of the local control plane,
// unless they are there already, and links kubectl to the path it is given.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	binaries, err := controlplane.EnsureBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return nil
	}
	if err := os.Remove(args[0]); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("replacing %s: %w", args[0], err)
	}
	return os.Symlink(binaries.Path("kubectl"), args[0])
}
