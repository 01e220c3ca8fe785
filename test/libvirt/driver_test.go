// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver/libvirt"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/hypervisor"
)

const (
	active    = "ACTIVE/RUNNING"
	paused    = "PAUSED/PAUSED"
	off       = "SHUTOFF/SHUTDOWN"
	saving    = "ACTIVE/PAUSED/suspending"
	ending    = "ACTIVE/SHUTDOWN/powering-off"
	saved     = "SUSPENDED/SHUTDOWN"
	asleep    = "SUSPENDED/SUSPENDED"
	crashed   = "ERROR/CRASHED"
	migrating = "MIGRATING/PAUSED/migrating"
)

// often has the driver read everything every second, for what it would notice within a
// minute otherwise.
func often(o *libvirt.Options) { o.Resync = time.Second }

func TestEachStateOfADomainIsReportedSoonAfterItsEvent(t *testing.T) {
	t.Parallel()
	h := sharedHost(t)
	w := watch(t, h, nil)
	w.await("a", "")
	h.virsh(t, "define", h.xml(t, guest{Name: "a"}))
	w.await("a", off)
	var slowest time.Duration
	for _, step := range []struct{ command, want string }{
		{"start", active}, {"suspend", paused}, {"resume", active}, {"managedsave", saved}, {"start", active}, {"reset", active},
		{"undefine", active}, // It runs until it is destroyed.
		{"destroy", off},
	} {
		h.virsh(t, step.command, "a")
		done := time.Now()
		w.await("a", step.want)
		took := time.Since(done)
		t.Logf("%s: %s %d ms after virsh returned", step.command, step.want, took.Milliseconds())
		slowest = max(slowest, took)
	}
	if slowest > 5*time.Second {
		t.Errorf("the slowest took %s", slowest)
	}
	// In between there was nothing that it never was. That it was being saved, or shut down, may
	// be seen, and that it came back from its file, which is an incoming migration to libvirt.
	want := []string{"", off, active, paused, active, saved, active, off}
	got := slices.DeleteFunc(w.states("a"), func(state string) bool { return state == saving || state == ending || state == migrating })
	// Nor does it matter that it has gone from the list before libvirtd tells that it stopped.
	if at := len(got) - 2; got[at] == "" {
		got = slices.Delete(got, at, at+1)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

func TestWhatAGuestDoesByItselfIsReported(t *testing.T) {
	t.Parallel()
	h := sharedHost(t)
	w := watch(t, h, nil)
	h.defineAndStart(t, guest{Name: "ends", Boot: poweringOff})
	h.defineAndStart(t, guest{Name: "sleeps", Boot: sleeping, More: "<pm><suspend-to-mem enabled='yes'/></pm>"})
	h.defineAndStart(t, guest{Name: "panics", Boot: panicking, More: "<on_crash>preserve</on_crash>", Devices: "<panic model='isa'/>"})
	h.defineAndStart(t, guest{Name: "reboots", Boot: rebooting})
	w.await("ends", off)
	w.await("sleeps", asleep)
	w.await("panics", crashed)
	w.await("reboots", active)
	h.virsh(t, "dompmwakeup", "sleeps")
	expect.Eventually(t, limit, func() error {
		if states := w.states("sleeps"); !slices.Equal(states[max(0, len(states)-2):], []string{asleep, active}) && len(states) < 4 {
			return fmt.Errorf("%q", states)
		}
		return nil
	})
	for _, state := range w.states("reboots") {
		if state != "" && state != active && state != off { // off before it was started
			t.Errorf("a reboot is reported as %s", state)
		}
	}
}

func TestAQEMUThatIsKilledIsOff(t *testing.T) {
	t.Parallel()
	h := sharedHost(t)
	w := watch(t, h, nil)
	h.defineAndStart(t, guest{Name: "killed"})
	h.virsh(t, "create", h.xml(t, guest{Name: "transient"}))
	w.await("killed", active)
	w.await("transient", active)
	h.killQEMU(t, "killed")
	h.killQEMU(t, "transient")
	w.await("killed", off)
	w.await("transient", off) // It is listed no more.
}

// A call about a domain that waits for its QEMU would silence all others.
func TestAQEMUThatHangsDelaysNoOtherDomain(t *testing.T) {
	t.Parallel()
	h := sharedHost(t)
	for _, name := range []string{"hangs", "other"} {
		h.defineAndStart(t, guest{Name: name})
	}
	w := watch(t, h, often)
	w.await("hangs", active)
	w.await("other", active)
	qemu := h.QEMU("hangs")
	expect.NoError(t, syscall.Kill(qemu, syscall.SIGSTOP))
	suspended := make(chan error, 1)
	go func() {
		_, err := h.Virsh("suspend", "hangs")
		suspended <- err
	}()
	h.virsh(t, "suspend", "other")
	w.await("other", paused)
	// In the time of two resyncs all is read again, of the one that hangs, too.
	time.Sleep(2 * time.Second)
	h.virsh(t, "resume", "other")
	w.await("other", active)
	expect.NoError(t, syscall.Kill(qemu, syscall.SIGCONT))
	expect.NoError(t, <-suspended)
	w.await("hangs", paused)
	w.log.Want(t, "Connected to libvirt")
}

func TestMetadataAndInterfacesAreReadWhenTheyChange(t *testing.T) {
	t.Parallel()
	h := sharedHost(t)
	w := watch(t, h, func(o *libvirt.Options) {
		o.Identity, o.NovaNamespace = []string{libvirt.IdentityMetadata, libvirt.IdentityNova}, "cloud"
	})
	h.defineAndStart(t, guest{Name: "named", Metadata: "<x:y xmlns:x='urn:x'/>"})
	h.virsh(t, "metadata", "named", hypervisor.MetadataNamespace, "--key", "hs", "--live", "--config", "--set",
		`<server namespace='tenant' name='later'><network name='xnet'><address>10.0.0.4</address></network></server>`)
	w.await("later", active)
	if diff := cmp.Diff([]v1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}}, w.networks("later")); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	h.virsh(t, "metadata", "named", hypervisor.MetadataNamespace, "--live", "--config", "--remove")
	w.await("later", "")

	nova := "http://openstack.org/xmlns/libvirt/nova/1.1"
	h.virsh(t, "metadata", "named", nova, "--key", "nova", "--live", "--set", `<instance><name>later</name><owner><project uuid='p'>demo</project></owner></instance>`)
	w.await(h.virsh(t, "domuuid", "named"), active)
	w.await("later", "")
}

func TestADaemonThatIsKilledAndRestartedForgetsNothing(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	w := watch(t, h, nil)
	for _, name := range []string{"a", "b", "c"} {
		h.defineAndStart(t, guest{Name: name})
		w.await(name, active)
	}
	_, before := w.last()
	h.KillDaemon()
	h.killQEMU(t, "b") // of which there will be no event
	w.isAway("nothing listens")
	if report, count := w.last(); count != before || report["b"] != active {
		t.Errorf("without a daemon %v is reported", report)
	}
	h.start(t)
	w.isBack()
	w.await("b", off)
	w.await("a", active)
	w.await("c", active)
	w.log.Want(t, "Connected to libvirt", "nothing listens on the socket: start libvirtd", "Connected to libvirt")
	if states := w.states("a"); slices.Contains(states, off) && states[len(states)-1] != active {
		t.Errorf("a was reported as %q", states)
	}
}

func TestADaemonThatHangsIsNoticedAndItsDomainsStayAsTheyWere(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	h.defineAndStart(t, guest{Name: "a"})
	w := watch(t, h, often)
	w.await("a", active)
	_, before := w.last()
	expect.NoError(t, h.SignalDaemon(syscall.SIGSTOP))
	w.isAway("libvirtd hangs")
	h.killQEMU(t, "a")
	if report, count := w.last(); count != before {
		t.Errorf("while libvirtd hangs %v is reported", report)
	}
	expect.NoError(t, h.SignalDaemon(syscall.SIGCONT))
	w.isBack()
	w.await("a", off)
	w.log.Want(t, "Connected to libvirt", "libvirtd hangs: restart it", "Connected to libvirt")
}

func TestASocketFolderThatIsReplacedIsFoundAgain(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	h.defineAndStart(t, guest{Name: "a"})
	w := watch(t, h, nil)
	w.await("a", active)
	h.KillDaemon()
	expect.NoError(t, os.RemoveAll(h.Path("sock")))
	w.isAway("there is no " + h.Socket())
	expect.NoError(t, os.Mkdir(h.Path("sock"), 0o755))
	h.start(t)
	w.isBack()
	h.virsh(t, "suspend", "a")
	w.await("a", paused)
}

func TestADomainThatMigratesIsReportedByTheHostItRunsOn(t *testing.T) {
	t.Parallel()
	source, target := startHost(t), startHost(t)
	source.defineAndStart(t, guest{Name: "a"})
	from, to := watch(t, source, often), watch(t, target, often)
	from.await("a", active)
	to.await("a", "")
	expect.NoError(t, source.Migrate("a", target.Host, "--persistent"))
	to.await("a", active)
	from.await("a", "")
	// The daemon forgets why the domain is off, the driver does not.
	source.KillDaemon()
	from.isAway("nothing listens")
	source.start(t)
	from.isBack()
	if out := source.virsh(t, "domstate", "--reason", "a"); !strings.HasPrefix(out, "shut off") {
		t.Errorf("the definition that stayed behind is %q", out)
	}
	target.virsh(t, "suspend", "a")
	to.await("a", paused)
	// Its CPUs stand still at the end, which may be seen at either host.
	if states := slices.DeleteFunc(from.states("a"), func(state string) bool { return state == migrating }); !slices.Equal(states, []string{active, ""}) {
		t.Errorf("the source reported %q", states)
	}
	for _, state := range to.states("a") {
		if state != "" && state != active && state != migrating && state != paused {
			t.Errorf("the target reported %q", to.states("a"))
		}
	}
	// And back.
	target.virsh(t, "resume", "a")
	expect.NoError(t, target.Migrate("a", source.Host))
	from.await("a", active)
	to.await("a", "")
}
