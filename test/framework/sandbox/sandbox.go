// SPDX-License-Identifier: Apache-2.0

// Package sandbox runs a program once more in namespaces of its own, where it may start
// daemons that would otherwise change this machine, and that all end with it.
//
// The program runs three times, each started by the one before it: outside; as the first
// process of the namespaces, where it only waits for processes that lost their parent; and
// inside. When the second ends, however that comes, the kernel ends all that was started
// inside, and with it all mounts and networks are gone.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

const (
	// stage says which of the three runs this is; outside it is not set.
	stage       = "HOSTSTATUS_SANDBOX"
	stageFirst  = "first"
	stageInside = "inside"
	// folder is that of Enter.
	folder = "HOSTSTATUS_SANDBOX_FOLDER"
)

// Namespaces are those that every Sandbox has: of processes, mounts and networks.
const Namespaces = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET

// Sandbox is what a program runs in.
type Sandbox struct {
	// More are the kernel's CLONE_NEW… flags of namespaces beside Namespaces.
	More uintptr
	// Setup is called by the first process in them, with the folder given to Enter, before
	// the program runs inside. Nil does nothing. The network has nothing that is up.
	Setup func(folder string) error
}

// Main runs what belongs to the present run of the program, and returns with which code it
// is to exit. outside decides whether to Enter.
func (s *Sandbox) Main(outside, inside func() int) int {
	switch os.Getenv(stage) {
	case stageFirst:
		return s.first()
	case stageInside:
		return inside()
	default:
		return outside()
	}
}

// Folder is the one that was given to Enter. Outside it is empty.
func Folder() string { return os.Getenv(folder) }

// Try runs a script of bash in such namespaces, and returns why that is not possible here.
func (s *Sandbox) Try(script string) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces take root")
	}
	try := exec.Command("bash", "-ec", script)
	try.SysProcAttr = &syscall.SysProcAttr{Cloneflags: Namespaces | s.More}
	if out, err := try.CombinedOutput(); err != nil {
		return fmt.Errorf("the kernel does not allow it: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Enter runs the program, with its arguments, inside, and returns with which code that
// ended. When ctx ends, so does it.
func (s *Sandbox) Enter(ctx context.Context, dir string) (code int, err error) {
	// The kernel ends the child with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stage+"="+stageFirst, folder+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: Namespaces | s.More, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

func (s *Sandbox) first() int {
	err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("proc", "/proc", "proc", 0, ""),
	)
	if err == nil && s.Setup != nil {
		err = s.Setup(Folder())
	}
	if err := errors.Join(err, os.Setenv(stage, stageInside)); err != nil {
		fmt.Println("making the namespaces:", err)
		return 1
	}
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Println("starting inside:", err)
		return 1
	}
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Println("waiting for what runs inside:", err)
			return 1
		case ended == pid && status.Exited():
			return status.ExitStatus()
		case ended == pid:
			fmt.Println("what ran inside was ended by", status.Signal())
			return 1
		}
	}
}
