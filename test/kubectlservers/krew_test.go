// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/internal/version"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

func TestKrewInstallsAndRemovesThePlugin(t *testing.T) {
	const release = "v" + version.Version
	dir := t.TempDir()
	krew, dist, root := filepath.Join(dir, "krew"), filepath.Join(dir, "dist"), filepath.Join(dir, "root")
	bin, store := filepath.Join(root, "bin"), filepath.Join(root, "store", "servers")
	manifest := filepath.Join(dist, "servers.yaml")
	website := httptest.NewServer(http.FileServer(http.Dir(dist)))
	defer website.Close()

	// go test takes its last result for good where nothing has changed that the test
	// itself has looked at.
	for _, path := range []string{"hack/krew.sh", "deploy/krew/servers.yaml", "hack/packaging/go.mod"} {
		_, err := os.Stat(filepath.Join(env.root, path))
		expect.NoError(t, err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", krew, "sigs.k8s.io/krew/cmd/krew")
	build.Dir = filepath.Join(env.root, "hack", "packaging")
	pack := exec.CommandContext(t.Context(), filepath.Join(env.root, "hack", "krew.sh"), release, website.URL, dist)
	for _, cmd := range []*exec.Cmd{build, pack} {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "PLATFORMS="+runtime.GOOS+"/"+runtime.GOARCH)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}

	run := func(name string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "KREW_ROOT=" + root, "KREW_NO_UPGRADE_CHECK=1", "PATH=" + bin}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	if out, err := run(krew, "install", "--manifest="+manifest); err != nil {
		t.Fatalf("krew does not install the plugin: %v\n%s", err, out)
	}
	for _, called := range [][]string{{filepath.Join(bin, "kubectl-servers")}, {env.cluster.KubectlPath(), "servers"}} {
		out, err := run(called[0], append(called[1:], "--version")...)
		// The archive knows its revision, if there is one, and this test does not.
		want := strings.TrimSuffix(version.Of("kubectl-servers"), ")")
		if err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%v --version says %q, %v; want %q and maybe a revision", called, out, err, want)
		}
	}
	for name, mode := range map[string]fs.FileMode{"kubectl-servers": 0o755, "kubectl_complete-servers": 0o755, "LICENSE": 0o644} {
		info, err := os.Stat(filepath.Join(store, release, name))
		expect.NoError(t, err)
		if info.Mode() != mode {
			t.Errorf("%s is installed as %v, not %v", name, info.Mode(), mode)
		}
	}

	// krew uninstalls only where there is an index, and looks for no more of it.
	expect.NoError(t, os.MkdirAll(filepath.Join(root, "index", "default", ".git"), 0o755))
	if out, err := run(krew, "uninstall", "servers"); err != nil {
		t.Fatalf("krew does not uninstall the plugin: %v\n%s", err, out)
	}
	for _, path := range []string{filepath.Join(bin, "kubectl-servers"), store} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if out, err := run(env.cluster.KubectlPath(), "servers", "--version"); err == nil {
		t.Errorf("without the plugin there still is kubectl servers: %s", out)
	}
}
