// SPDX-License-Identifier: Apache-2.0

// Package libvirt runs the agent's libvirt driver on real libvirt daemons with real QEMUs,
// which need no KVM. Everything happens in namespaces of its own on this machine, without a
// network.
package libvirt

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The test program runs three times, each started by the one before it: outside; as the
// first process of namespaces of its own, where it only waits for processes that lost their
// parent, as each QEMU does; and inside, where it tests. When the second ends, however that
// comes, the kernel ends all daemons and QEMUs. Inside, it starts itself in a role, too: as a
// program with another user, or with figures of its own.
const (
	stage       = "HOSTSTATUS_LIBVIRT_STAGE"
	stageFirst  = "first"
	stageInside = "inside"
	stageRole   = "role"
	// folder is where everything is. Its path is short, since those of sockets have to be.
	folder = "HOSTSTATUS_LIBVIRT_FOLDER"
)

// atOnce is how many tests run at a time, each with a libvirtd or two of its own.
const atOnce = 4

const namespaces = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS

// programs are those of Debian's packages that hack/ensure-libvirt.sh installs.
var programs = []string{"libvirtd", "virsh", "qemu-system-x86_64", "ip"}

// skipped is why there is no libvirtd, or empty.
var skipped string

func TestMain(m *testing.M) {
	switch os.Getenv(stage) {
	case stageFirst:
		os.Exit(first())
	case stageInside:
		flag.Parse()
		// They mostly wait.
		if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	case stageRole:
		os.Exit(role())
	}
	if skipped = forbidden(); skipped != "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := enter(ctx)
	stop()
	if err != nil {
		fmt.Println(err)
		code = 1
	}
	os.Exit(code)
}

// forbidden returns why this machine cannot run domains, or nothing.
func forbidden() string {
	if os.Geteuid() != 0 {
		return "a libvirtd of its own needs namespaces, which take root"
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return "there is no " + program + " on this machine; hack/ensure-libvirt.sh installs it"
		}
	}
	try := exec.Command("true")
	try.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := try.Run(); err != nil {
		return "the kernel does not allow namespaces: " + err.Error()
	}
	return ""
}

// enter runs the tests inside.
func enter(ctx context.Context) (code int, err error) {
	dir, err := os.MkdirTemp("/tmp", "hslv")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Other users go through it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	// The kernel ends the child with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stage+"="+stageFirst, folder+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// first is the first process of the namespaces.
func first() int {
	loopback := func() error {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("proc", "/proc", "proc", 0, ""),
		loopback(),
		namesOf(os.Getenv(folder)),
		os.Setenv(stage, stageInside),
	)
	if err != nil {
		fmt.Println("making the namespaces:", err)
		return 1
	}
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Println("starting the tests:", err)
		return 1
	}
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Println("waiting for the tests:", err)
			return 1
		case ended == pid && status.Exited():
			return status.ExitStatus()
		case ended == pid:
			fmt.Println("the tests were ended by", status.Signal())
			return 1
		}
	}
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
