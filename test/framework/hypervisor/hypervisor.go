// SPDX-License-Identifier: Apache-2.0

// Package hypervisor runs real libvirt daemons with real QEMUs, which need no KVM, as if
// each were another machine. It does so only inside Sandbox.
package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long a daemon may take to answer: on a machine that does nothing else it
// is a second.
const patience = 30 * time.Second

// Host is a machine with a libvirtd: folders, a host name and mounts of its own.
type Host struct {
	// Name is the host name that its libvirtd has.
	Name   string
	dir    string
	daemon *exec.Cmd
	ended  chan struct{}
}

// Start makes a host in a new folder of parent, whose path must be short, since those of
// sockets have to be. It starts its libvirtd, and waits until that answers.
func Start(parent string) (*Host, error) {
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return nil, err
	}
	h := &Host{dir: dir, Name: "host-" + filepath.Base(dir)}
	// Other users go through it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for _, sub := range []string{"etc/qemu/autostart", "lib", "log", "cache", "run", "sock"} {
		if err := os.MkdirAll(h.Path(sub), 0o755); err != nil {
			return nil, err
		}
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		h.write("etc/libvirtd.conf", `
unix_sock_dir = "`+dir+`/sock"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:`+dir+`/libvirtd.log"
host_uuid = "`+strings.TrimSpace(string(id))+`"
`),
		h.write("etc/qemu.conf", `
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
seccomp_sandbox = 0
stdio_handler = "file"
`)); err != nil {
		return nil, err
	}
	return h, h.StartDaemon()
}

// Path is where a file of the host is.
func (h *Host) Path(name string) string { return filepath.Join(h.dir, name) }

// Socket is libvirt's read-only socket.
func (h *Host) Socket() string { return h.Path("sock/libvirt-sock-ro") }

// URI is how a client, and another libvirtd, may change what is on the host.
func (h *Host) URI() string { return "qemu+unix:///system?socket=" + h.Path("sock/libvirt-sock") }

func (h *Host) write(name, content string) error {
	return os.WriteFile(h.Path(name), []byte(content), 0o644)
}

// StartDaemon starts libvirtd, which does not run, and waits until it answers.
func (h *Host) StartDaemon() error {
	cmd := exec.Command("bash", "-ec", `
		mount --make-rprivate /
		mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt
		mount --bind $1/etc /etc/libvirt; mount --bind $1/lib /var/lib/libvirt; mount --bind $1/log /var/log/libvirt
		mount --bind $1/cache /var/cache/libvirt; mount --bind $1/run /run/libvirt
		hostname $2
		exec libvirtd --config $1/etc/libvirtd.conf --pid-file $1/libvirtd.pid`, "_", h.dir, h.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	out, err := os.OpenFile(h.Path("out.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting libvirtd: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	h.daemon, h.ended = cmd, ended
	until := time.Now().Add(patience)
	for {
		_, err := h.Virsh("uri")
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("libvirtd has ended:\n%s", h.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(until) {
			return fmt.Errorf("libvirtd does not answer: %w:\n%s", err, h.Log())
		}
	}
}

// KillDaemon ends libvirtd as a crash does: domains go on.
func (h *Host) KillDaemon() {
	_ = h.daemon.Process.Kill()
	<-h.ended
}

// SignalDaemon sends libvirtd a signal.
func (h *Host) SignalDaemon(s syscall.Signal) error { return h.daemon.Process.Signal(s) }

// Stop ends libvirtd and all QEMUs.
func (h *Host) Stop() {
	h.KillDaemon()
	files, _ := filepath.Glob(h.Path("run/qemu/*.pid"))
	for _, file := range files {
		if pid := pidIn(file); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// Log returns the end of what libvirtd has logged.
func (h *Host) Log() string {
	log, _ := os.ReadFile(h.Path("libvirtd.log"))
	lines := slices.DeleteFunc(strings.Split(string(log), "\n"), func(line string) bool { return strings.Contains(line, "virNetDevSendEthtoolIoctl") })
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// Virsh runs a command, and returns what it prints.
func (h *Host) Virsh(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", h.URI()}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("virsh %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), err
}

// QEMU returns the process of a domain; 0 if it does not run.
func (h *Host) QEMU(domain string) (pid int) { return pidIn(h.Path("run/qemu/" + domain + ".pid")) }

func pidIn(file string) int {
	content, _ := os.ReadFile(file)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(content)))
	return pid
}

// KillQEMU ends a domain as the kernel does when memory runs out.
func (h *Host) KillQEMU(domain string) error {
	pid := h.QEMU(domain)
	if pid == 0 {
		return fmt.Errorf("%s has no QEMU", domain)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
