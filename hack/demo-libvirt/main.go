// SPDX-License-Identifier: Apache-2.0

// Command demo-libvirt runs hoststatus with agents on real libvirt daemons and QEMUs, in
// namespaces of its own, goes through what may happen to them, and shows after each step
// what an owner sees. At the end it measures how long a change of a domain takes to arrive.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/fleet"
	"hoststatus.dev/hoststatus/test/framework/hypervisor"
	"hoststatus.dev/hoststatus/test/framework/sandbox"
)

var (
	changes       = pflag.Int("changes", 200, "How many changes of a domain are measured; 0 measures none.")
	wherePossible = pflag.Bool("where-possible", false, "Where this machine cannot run libvirt so, print why, and exit with 0.")
)

func main() {
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := hypervisor.Sandbox.Main(
		func() int { return exit(outside(ctx)) },
		func() int { return exit(0, inside(ctx)) },
	)
	stop()
	os.Exit(code)
}

func exit(code int, err error) int {
	if err == nil {
		return code
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	return 1
}

// outside makes what needs a network.
func outside(ctx context.Context) (code int, err error) {
	if err := hypervisor.Possible(); err != nil {
		if *wherePossible {
			fmt.Printf("\nReal libvirt domains are not shown: %v.\n", err)
			return 0, nil
		}
		return 0, err
	}
	if _, err := controlplane.EnsureBinaries(ctx, os.Stderr); err != nil {
		return 0, err
	}
	return hypervisor.Enter(ctx)
}

func inside(ctx context.Context) (err error) {
	// What the clients of this process would log is in what it prints.
	ctrl.SetLogger(logr.Discard())
	begin := time.Now()
	fmt.Fprintln(os.Stderr, "- Starting four libvirt daemons and, when hoststatus runs, ten domains")
	f, err := hypervisor.StartFleet(ctx, sandbox.Folder(), fleet.Options{LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: os.Stderr})
	if err != nil {
		return err
	}
	defer f.Stop()
	if err := f.Story(ctx, os.Stdout); err != nil {
		return err
	}
	took, err := f.Measure(ctx, *changes)
	if err != nil {
		return errors.Join(errors.New("measuring how long a change takes to arrive"), err)
	}
	if len(took) > 0 {
		fmt.Printf("\n%d times a domain was paused or resumed. Its Server showed it after %s (median), %s (99 of 100), %s (the slowest), counted from before virsh was started.\n",
			len(took), hypervisor.Quantile(took, 0.5), hypervisor.Quantile(took, 0.99), hypervisor.Quantile(took, 1))
	}
	fmt.Printf("\nEvery step was as it should be, in %s.\n", time.Since(begin).Round(time.Second))
	return nil
}
