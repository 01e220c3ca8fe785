// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
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

// etcd has every Secret of the cluster, without asking Kubernetes who may read it, and
// it listens on loopback, where any user of this machine may call.
func TestNoOtherUserOfTheMachineReadsWhatTheControlPlaneKeeps(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what needs a control plane")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "cluster")
	must(os.Mkdir(dir, 0o755)) // As an earlier release made it.
	binaries, err := EnsureBinaries(t.Context(), t.Output())
	must(err)
	c := &Cluster{Dir: dir, binaries: binaries}
	must(c.writePKI())
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	must(c.startEtcd(ctx, false))
	t.Cleanup(c.Etcd.Stop)

	ask := func(url string, config *tls.Config) error {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}
	stranger, err := newAuthority("stranger")
	must(err)
	other, err := stranger.client("kube-apiserver")
	must(err)
	pair, err := tls.X509KeyPair(other.cert, other.key)
	must(err)
	for _, path := range []string{"/health", "/version"} {
		must(ask(c.etcdURL+path, c.etcdClient))
		for name, err := range map[string]error{
			"without TLS":           ask(strings.Replace(c.etcdURL, "https", "http", 1)+path, nil),
			"without a certificate": ask(c.etcdURL+path, &tls.Config{InsecureSkipVerify: true}),
			"with one of their own": ask(c.etcdURL+path, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}),
		} {
			if err == nil {
				t.Errorf("etcd answers %s %s", path, name)
			}
		}
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "etcd.log": 0o600, "etcd.key": 0o600, "apiserver-etcd-client.key": 0o600, "service-accounts.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q has mode %o, want %o", name, got, want)
		}
	}
}
