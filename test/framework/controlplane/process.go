// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a process has to end by itself after SIGTERM.
const stopTimeout = 15 * time.Second

// Process is a program that was started here and ends with this process, even
// if this process is killed. It can be started again after it has ended.
type Process struct {
	name string
	path string
	args []string
	env  []string
	log  string

	// root and user confine the process: see Confine.
	root string
	user *syscall.Credential

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// NewProcess describes a program, whose output is appended to the file logPath.
// env is its whole environment.
func NewProcess(name, path, logPath string, env []string, args ...string) *Process {
	return &Process{name: name, path: path, args: args, env: env, log: logPath}
}

// Confine runs the program with dir as the root of all files, in which its path is, and as
// a user and group without rights. This process must be root, and the program not running.
func (p *Process) Confine(dir string, id uint32) {
	p.root, p.user = dir, &syscall.Credential{Uid: id, Gid: id}
}

// Start runs the program.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A log may hold what only this user may know, such as the name of a Secret.
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", p.name, err)
	}
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = p.env
	cmd.Stdout, cmd.Stderr = out, out
	// Its own process group shields it from a terminal's Ctrl-C: we stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Chroot: p.root, Credential: p.user}
	if p.root != "" {
		cmd.Dir = "/"
	}
	if err := spawn(cmd); err != nil {
		_ = out.Close()
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		err := cmd.Wait()
		_ = out.Close()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// Pid returns the process ID of the current run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Signal sends s to the process.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Signal(s)
}

// Done is closed when the current run has ended.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Err is how the last run ended: nil if by itself with exit code 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Kill ends the process at once, with SIGKILL, and waits for its end.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.Done()
}

// Stop asks the process to end, and kills it if it does not.
func (p *Process) Stop() {
	p.mu.Lock()
	started := p.cmd != nil
	p.mu.Unlock()
	if !started {
		return
	}
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-p.Done():
	case <-time.After(stopTimeout):
		p.Kill()
	}
}

// wait polls check until it is satisfied, and fails if the process ends or ctx
// does.
func (p *Process) wait(ctx context.Context, check func(context.Context) error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s has ended (%w); the end of its log %s:\n%s", p.name, p.err, p.log, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; the end of its log %s:\n%s", p.name, err, p.log, tail(p.log))
		case <-ticker.C:
		}
	}
}

func tail(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(content, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-15):], []byte("\n"))
}

// spawner starts processes from one thread that never ends, because the kernel sends
// the parent death signal when the thread that started the child ends.
var spawner = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func spawn(cmd *exec.Cmd) error {
	result := make(chan error)
	spawner() <- func() { result <- cmd.Start() }
	return <-result
}
