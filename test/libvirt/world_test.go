// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/agent/driver/libvirt"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

// limit is how long a test waits for what is a matter of a second or two on a machine that
// does nothing else.
const limit = 30 * time.Second

// host is a machine with a libvirtd: folders, a host name and mounts of its own.
type host struct {
	dir, name string
	daemon    *exec.Cmd
	ended     chan struct{}
}

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
		h.kill9()
		for _, pid := range h.qemus() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		h.logAfterFailure(t)
	})
	return h
}

func (h *host) logAfterFailure(t *testing.T) {
	if t.Failed() {
		log, _ := os.ReadFile(h.path("libvirtd.log"))
		lines := slices.DeleteFunc(strings.Split(string(log), "\n"), func(line string) bool { return strings.Contains(line, "virNetDevSendEthtoolIoctl") })
		t.Logf("libvirtd.log of %s:\n%s", h.name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
}

func newHost(t *testing.T) *host {
	t.Helper()
	if skipped != "" {
		t.Skip(skipped)
	}
	dir, err := os.MkdirTemp(os.Getenv(folder), "")
	expect.NoError(t, err)
	expect.NoError(t, os.Chmod(dir, 0o755))
	h := &host{dir: dir, name: "host-" + filepath.Base(dir)}
	for _, sub := range []string{"etc/qemu/autostart", "lib", "log", "cache", "run", "sock"} {
		expect.NoError(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	expect.NoError(t, err)
	h.write(t, "etc/libvirtd.conf", `
unix_sock_dir = "`+dir+`/sock"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:`+dir+`/libvirtd.log"
host_uuid = "`+strings.TrimSpace(string(id))+`"
`)
	h.write(t, "etc/qemu.conf", `
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
seccomp_sandbox = 0
stdio_handler = "file"
`)
	h.start(t)
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) write(t *testing.T, name, content string) {
	t.Helper()
	expect.NoError(t, os.WriteFile(h.path(name), []byte(content), 0o644))
}

// start starts libvirtd, and waits until it answers.
func (h *host) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command("bash", "-ec", `
		mount --make-rprivate /
		mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt
		mount --bind $1/etc /etc/libvirt; mount --bind $1/lib /var/lib/libvirt; mount --bind $1/log /var/log/libvirt
		mount --bind $1/cache /var/cache/libvirt; mount --bind $1/run /run/libvirt
		hostname $2
		exec libvirtd --config $1/etc/libvirtd.conf --pid-file $1/libvirtd.pid`, "_", h.dir, h.name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	out, err := os.OpenFile(h.path("out.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	expect.NoError(t, err)
	cmd.Stdout, cmd.Stderr = out, out
	expect.NoError(t, cmd.Start())
	_ = out.Close()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	h.daemon, h.ended = cmd, ended
	expect.Eventually(t, limit, func() error {
		_, err := h.tryVirsh("uri")
		return err
	})
}

// kill9 ends libvirtd as a crash does: domains go on.
func (h *host) kill9() {
	_ = h.daemon.Process.Kill()
	<-h.ended
}

func (h *host) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	expect.NoError(t, h.daemon.Process.Signal(s))
}

func (h *host) tryVirsh(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", "qemu+unix:///system?socket=" + h.path("sock/libvirt-sock")}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("virsh %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), err
}

func (h *host) virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.tryVirsh(args...)
	expect.NoError(t, err)
	return out
}

// qemus are the processes of the domains.
func (h *host) qemus() (pids []int) {
	files, _ := filepath.Glob(h.path("run/qemu/*.pid"))
	for _, file := range files {
		if pid := pidIn(file); pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

func pidIn(file string) int {
	content, _ := os.ReadFile(file)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(content)))
	return pid
}

// killQEMU ends a domain as the kernel does when memory runs out.
func (h *host) killQEMU(t *testing.T, name string) {
	t.Helper()
	pid := pidIn(h.path("run/qemu/" + name + ".pid"))
	if pid == 0 {
		t.Fatalf("%s has no QEMU", name)
	}
	expect.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

const hsNamespace = "https://hoststatus.dev/libvirt/1"

// metadataOf makes a domain the Server of this name in the namespace tenant.
func metadataOf(name string) string {
	return `<hs:server xmlns:hs='` + hsNamespace + `' namespace='tenant' name='` + name + `'/>`
}

// guest is a domain without a disk, whose firmware waits for ever, or with a boot sector.
type guest struct {
	name, metadata string
	boot           []byte
	// more is further XML, beside and within devices.
	more, devices string
}

// xml writes the definition of a guest to a file.
func (h *host) xml(t *testing.T, g guest) (path string) {
	t.Helper()
	if g.metadata == "" {
		g.metadata = metadataOf(g.name)
	}
	if g.boot != nil {
		image := make([]byte, 65536)
		copy(image, g.boot)
		image[510], image[511] = 0x55, 0xaa
		expect.NoError(t, os.WriteFile(h.path(g.name+".img"), image, 0o600))
		g.devices += `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='` + h.path(g.name+".img") + `'/><target dev='hda' bus='ide'/></disk>`
	}
	h.write(t, g.name+".xml", `<domain type='qemu'><name>`+g.name+`</name><metadata>`+g.metadata+`</metadata>
<memory unit='MiB'>16</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>`+g.more+`
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/><memballoon model='none'/>`+g.devices+`</devices></domain>`)
	return h.path(g.name + ".xml")
}

// defineAndStart makes a persistent domain that runs.
func (h *host) defineAndStart(t *testing.T, g guest) {
	t.Helper()
	h.virsh(t, "define", h.xml(t, g))
	h.virsh(t, "start", g.name)
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
	o.Socket = h.path("sock/libvirt-sock-ro")
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
