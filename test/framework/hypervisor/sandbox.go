// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"hoststatus.dev/hoststatus/test/framework/sandbox"
)

// Sandbox is what hosts run in: only its loopback interface is up.
var Sandbox = sandbox.Sandbox{More: syscall.CLONE_NEWUTS, Setup: setup}

// programs are those of Debian's packages that hack/ensure-packages.sh installs.
var programs = []string{"libvirtd", "virsh", "qemu-system-x86_64", "ip"}

// Possible returns why this machine cannot run a Host; nil if it can.
func Possible() error {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("there is no %s on this machine; hack/ensure-packages.sh installs it", program)
		}
	}
	if err := Sandbox.Try("true"); err != nil {
		return fmt.Errorf("a libvirtd of its own needs namespaces: %w", err)
	}
	return nil
}

// Enter runs the program inside Sandbox, with a folder that is removed afterwards.
func Enter(ctx context.Context) (code int, err error) {
	dir, err := os.MkdirTemp("/tmp", "hslv") // A short path, as Start requires.
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	return Sandbox.Enter(ctx, dir)
}

func setup(folder string) error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return namesOf(folder)
}

// namesOf gives the machine inside the users that libvirtd looks for, and none with the
// number that the images of hoststatus have otherwise.
func namesOf(dir string) error {
	for file, lines := range map[string][]string{
		"passwd": {"nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"},
		"group":  {"nogroup:x:65534:", "libvirt-qemu:x:64055:", "kvm:x:64056:"},
	} {
		content, err := os.ReadFile("/etc/" + file)
		if err != nil {
			return err
		}
		all := strings.Split(strings.TrimSpace(string(content)), "\n")
		known := map[string]bool{}
		kept := all[:0]
		for _, line := range all {
			fields := strings.Split(line, ":")
			if len(fields) < 3 || fields[2] == "65532" || fields[2] == "65534" {
				continue
			}
			known[fields[0]] = true
			kept = append(kept, line)
		}
		for _, line := range lines {
			if name, _, _ := strings.Cut(line, ":"); !known[name] {
				kept = append(kept, line)
			}
		}
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(strings.Join(kept, "\n")+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(path, "/etc/"+file, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}
