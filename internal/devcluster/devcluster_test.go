// SPDX-License-Identifier: Apache-2.0

package devcluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheControlPlaneIsStampedWithItsRealVersion(t *testing.T) {
	goMod := filepath.Join(t.TempDir(), "go.mod")
	content := "module m\n\nrequire (\n\tgo.etcd.io/etcd/server/v3 v3.6.8\n\tk8s.io/kubernetes v1.36.3\n)\n\nreplace k8s.io/api => k8s.io/api v0.36.3\n"
	if err := os.WriteFile(goMod, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := pinnedVersions(goMod)
	if err != nil || got != (versions{kubernetes: "v1.36.3", etcd: "v3.6.8"}) {
		t.Fatalf("versions %+v, %v", got, err)
	}
	for _, want := range []string{"version.gitVersion=v1.36.3", "version.gitMajor=1", "version.gitMinor=36"} {
		if flags := got.linkerFlags(); !strings.Contains(flags, want) {
			t.Errorf("%s is not in %s", want, flags)
		}
	}
	if err := os.WriteFile(goMod, []byte("module m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pinnedVersions(goMod); err == nil || !strings.Contains(err.Error(), "k8s.io/kubernetes") {
		t.Errorf("without a version: %v", err)
	}
}

func TestBinariesAreTakenFromTheFirstFolderThatHasThem(t *testing.T) {
	assets, cache := t.TempDir(), t.TempDir()
	program := func(dir, name string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	program(assets, binEtcd, 0o755)
	program(assets, binKubectl, 0o644) // Not a program.
	program(cache, binKubectl, 0o755)
	program(cache, binEtcd, 0o755)
	b := &Binaries{dirs: []string{assets, cache}}
	if got := b.Path(binEtcd); got != filepath.Join(assets, binEtcd) {
		t.Errorf("etcd is taken from %q", got)
	}
	if got := b.Path(binKubectl); got != filepath.Join(cache, binKubectl) {
		t.Errorf("kubectl is taken from %q", got)
	}
	if got := strings.Join(b.missing(buildOrder), " "); got != binControllerManager+" "+binAPIServer {
		t.Errorf("missing: %s", got)
	}
}

func TestAProcessEndsWhenItIsStoppedAndCanBeStartedAgain(t *testing.T) {
	p := NewProcess("sleep", "/bin/sleep", filepath.Join(t.TempDir(), "log"), nil, "1000")
	p.Stop() // Not started: nothing to do.
	for _, end := range []func(){p.Stop, p.Kill} {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		pid := p.Pid()
		end()
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d: %v", pid, err)
		}
	}
}

func TestWaitingForAProcessThatEndsSaysSoWithTheEndOfItsLog(t *testing.T) {
	p := NewProcess("broken", "/bin/sh", filepath.Join(t.TempDir(), "log"), nil, "-c", "echo no such port; exit 3")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := p.wait(ctx, func(context.Context) error { return os.ErrNotExist })
	if err == nil || !strings.Contains(err.Error(), "broken has ended (exit status 3)") || !strings.Contains(err.Error(), "no such port") {
		t.Errorf("the error is %v", err)
	}
}
