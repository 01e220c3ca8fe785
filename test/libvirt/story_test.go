// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
	"hoststatus.dev/hoststatus/test/framework/hypervisor"
	"hoststatus.dev/hoststatus/test/framework/sandbox"
)

// What `make demo-libvirt` shows holds: owners see what happens to their domains.
func TestTheStoryOfTheDemoHolds(t *testing.T) {
	t.Parallel()
	if skipped != nil {
		t.Skip(skipped)
	}
	ctrl.SetLogger(logr.Discard())
	f, err := hypervisor.StartFleet(t.Context(), sandbox.Folder(), fleet.Options{LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: t.Output()})
	expect.NoError(t, err)
	t.Cleanup(func() {
		f.Stop()
		if fleet.ReportCrashes(t.Output(), f.Dir) != 0 {
			t.Error("a process has crashed")
		}
	})
	expect.NoError(t, f.Story(t.Context(), t.Output()))
	took, err := f.Measure(t.Context(), 40)
	expect.NoError(t, err)
	t.Logf("a change arrives after %s (median), %s (the slowest)", hypervisor.Quantile(took, 0.5), hypervisor.Quantile(took, 1))
	// Half a second on a machine that does nothing else; here other tests run beside it.
	if median := hypervisor.Quantile(took, 0.5); median > 5*time.Second {
		t.Errorf("a change arrives after %s", median)
	}
}
