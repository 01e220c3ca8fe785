// SPDX-License-Identifier: Apache-2.0

// Package libvirt runs the agent's libvirt driver on real libvirt daemons with real QEMUs,
// which need no KVM. Everything happens in namespaces of its own on this machine, without a
// network.
package libvirt

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"hoststatus.dev/hoststatus/test/framework/hypervisor"
)

// atOnce is how many tests run at a time, each with a libvirtd or two of its own.
const atOnce = 4

// skipped is why there is no libvirtd, or nil.
var skipped error

// Inside its sandbox, the program starts itself in a role, too: with another user, or with
// figures of its own.
func TestMain(m *testing.M) {
	if os.Getenv(roleName) != "" {
		os.Exit(role())
	}
	os.Exit(hypervisor.Sandbox.Main(func() int {
		if skipped = hypervisor.Possible(); skipped != nil {
			return m.Run()
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		code, err := hypervisor.Enter(ctx)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		return code
	}, func() int {
		flag.Parse()
		// They mostly wait.
		if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
			panic(err)
		}
		return m.Run()
	}))
}
