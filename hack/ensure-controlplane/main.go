// SPDX-License-Identifier: Apache-2.0

// Command ensure-controlplane builds the programs of the local control plane,
// unless they are there already, and links kubectl to the path it is given. With
// --all-releases it builds kube-apiserver of each release that is tested, too, and with
// --nodes what places and runs pods.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	allReleases := pflag.Bool("all-releases", false, "Build kube-apiserver of the oldest and the newest supported release, too.")
	nodes := pflag.Bool("nodes", false, "Build what places and runs pods, too.")
	pflag.Parse()
	err := run(ctx, pflag.Args(), *allReleases, *nodes)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, allReleases, nodes bool) error {
	binaries, err := controlplane.EnsureBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if allReleases {
		if err := controlplane.EnsureReleases(ctx, os.Stderr); err != nil {
			return err
		}
	}
	if nodes {
		if err := controlplane.EnsureNodeBinaries(ctx, os.Stderr); err != nil {
			return err
		}
	}
	if len(args) == 0 {
		return nil
	}
	if err := os.Remove(args[0]); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("replacing %s: %w", args[0], err)
	}
	return os.Symlink(binaries.Path("kubectl"), args[0])
}
