// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/agent/driver/libvirt"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/hypervisor"
	"hoststatus.dev/hoststatus/test/framework/logbook"
	"hoststatus.dev/hoststatus/test/framework/sandbox"
)

// limit is how long a test waits for what is a matter of a second or two on a machine that
// does nothing else.
const limit = 30 * time.Second

// host is a hypervisor, of which whatever goes wrong fails the test.
type host struct{ *hypervisor.Host }

// shared is the host of all tests that do no harm to its libvirtd. It ends with the program.
var shared struct {
	sync.Mutex
	*host
}

// sharedHost returns it. The domains on it have names that no other test uses.
func sharedHost(t *testing.T) *host {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.host == nil {
		shared.host = newHost(t)
	}
	h := shared.host
	t.Cleanup(func() { h.logAfterFailure(t) })
	return h
}

// startHost starts a libvirtd, which ends with the test.
func startHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	t.Cleanup(func() {
		h.Stop()
		h.logAfterFailure(t)
	})
	return h
}

func newHost(t *testing.T) *host {
	t.Helper()
	if skipped != nil {
		t.Skip(skipped)
	}
	h, err := hypervisor.Start(sandbox.Folder())
	expect.NoError(t, err)
	return &host{h}
}

func (h *host) logAfterFailure(t *testing.T) {
	if t.Failed() {
		t.Logf("libvirtd.log of %s:\n%s", h.Name, h.Log())
	}
}

// start starts the libvirtd again.
func (h *host) start(t *testing.T) {
	t.Helper()
	expect.NoError(t, h.StartDaemon())
}

func (h *host) virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.Virsh(args...)
	expect.NoError(t, err)
	return out
}

func (h *host) killQEMU(t *testing.T, name string) {
	t.Helper()
	expect.NoError(t, h.KillQEMU(name))
}

// metadataOf makes a domain the Server of this name in the namespace tenant.
func metadataOf(name string) string { return hypervisor.Metadata("tenant", name, "") }

// guest is a domain that is the Server of its name, unless it has other metadata.
type guest hypervisor.Guest

func (g guest) named() hypervisor.Guest {
	if g.Metadata == "" {
		g.Metadata = metadataOf(g.Name)
	}
	return hypervisor.Guest(g)
}

// xml writes the definition of a guest to a file.
func (h *host) xml(t *testing.T, g guest) string {
	t.Helper()
	path, err := h.XML(g.named())
	expect.NoError(t, err)
	return path
}

func (h *host) defineAndStart(t *testing.T, g guest) {
	t.Helper()
	expect.NoError(t, h.DefineAndStart(g.named()))
}

// bootSector is code that does something about a second after its machine has started.
func bootSector(then ...byte) []byte {
	wait := []byte{0xb4, 0x86, 0xb9, 0x0f, 0x00, 0xba, 0x40, 0x42, 0xcd, 0x15} // int 15h, ah=86h
	halt := []byte{0xfb, 0xf4, 0xeb, 0xfd}
	return append(append(wait, then...), halt...)
}

var (
	poweringOff = bootSector(0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef) // ACPI S5
	sleeping    = bootSector(0xba, 0x04, 0x06, 0xb8, 0x00, 0x24, 0xef) // ACPI S3
	panicking   = bootSector(0xba, 0x05, 0x05, 0xb0, 0x01, 0xee)       // the port of pvpanic
	rebooting   = bootSector(0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee)       // port 0xcf9, again and again
)

// watched is a driver that runs, and what it has reported.
type watched struct {
	*testing.T
	log *logbook.Book

	mu      sync.Mutex
	reports []map[string]string // states by name
	all     [][]driver.VM
	health  []error
}

// watch runs the driver on h until the test ends.
func watch(t *testing.T, h *host, change func(*libvirt.Options)) *watched {
	t.Helper()
	w := &watched{T: t, log: logbook.New()}
	o := libvirt.NewOptions()
	o.Socket = h.Socket()
	if change != nil {
		change(&o)
	}
	if errs := o.Validate(); len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	d := &libvirt.Driver{Options: o, Logger: w.log.Logger, OnHealth: func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.health = append(w.health, err)
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, w.take) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the driver ended with %v", err)
		}
	})
	w.isBack()
	return w
}

func (w *watched) take(vms []driver.VM) {
	w.mu.Lock()
	defer w.mu.Unlock()
	report := map[string]string{}
	for _, vm := range vms {
		report[vm.Server.Name] = strings.TrimSuffix(string(vm.State)+"/"+string(vm.PowerState)+"/"+vm.TaskState, "/")
	}
	w.reports, w.all = append(w.reports, report), append(w.all, vms)
}

// last returns the last report, and how many there were.
func (w *watched) last() (report map[string]string, count int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) == 0 {
		return nil, 0
	}
	return w.reports[len(w.reports)-1], len(w.reports)
}

// await waits until a server is reported like this; "" is that it is not.
func (w *watched) await(name, want string) {
	w.Helper()
	expect.Eventually(w.T, limit, func() error {
		if report, count := w.last(); count == 0 || report[name] != want {
			return fmt.Errorf("%s is reported as %q, want %q; the whole report: %v", name, report[name], want, report)
		}
		return nil
	})
}

// networks returns the networks of a server in the last report.
func (w *watched) networks(name string) []v1alpha1.ServerNetwork {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, vm := range w.all[len(w.all)-1] {
		if vm.Server.Name == name {
			return vm.Networks
		}
	}
	return nil
}

// states returns all states that were reported of a server, one after the other.
func (w *watched) states(name string) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, report := range w.reports {
		if len(all) == 0 || all[len(all)-1] != report[name] {
			all = append(all, report[name])
		}
	}
	return all
}

// isBack waits until libvirt can be asked.
func (w *watched) isBack() {
	w.Helper()
	w.awaitHealth("nothing", func(why error) bool { return why == nil })
}

// isAway waits until it cannot, for this reason.
func (w *watched) isAway(because string) {
	w.Helper()
	w.awaitHealth(because, func(why error) bool { return why != nil && strings.Contains(why.Error(), because) })
}

func (w *watched) awaitHealth(want string, is func(error) bool) {
	w.Helper()
	expect.Eventually(w.T, limit, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.health) == 0 || !is(w.health[len(w.health)-1]) {
			return fmt.Errorf("what is wrong with libvirt: %v; want %s at the end", w.health, want)
		}
		return nil
	})
}
