// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

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

// KrewInstallsAndRemoves makes the archive and the manifest of a plugin, and lets krew
// install it, refuse another archive than the manifest's, and remove it.
func (w *World) KrewInstallsAndRemoves(t *testing.T, plugin string) {
	t.Helper()
	const release = "v" + version.Version
	command := "kubectl-" + plugin
	dir := t.TempDir()
	krew, dist, root := filepath.Join(dir, "krew"), filepath.Join(dir, "dist"), filepath.Join(dir, "root")
	bin, store := filepath.Join(root, "bin"), filepath.Join(root, "store", plugin)
	manifest := filepath.Join(dist, plugin+".yaml")
	website := httptest.NewServer(http.FileServer(http.Dir(dist)))
	defer website.Close()

	// go test takes its last result for good where nothing has changed that the test
	// itself has looked at.
	for _, path := range []string{"hack/krew.sh", "deploy/krew/" + plugin + ".yaml", "hack/packaging/go.mod"} {
		_, err := os.Stat(filepath.Join(w.Root, path))
		expect.NoError(t, err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", krew, "sigs.k8s.io/krew/cmd/krew")
	build.Dir = filepath.Join(w.Root, "hack", "packaging")
	pack := exec.CommandContext(t.Context(), filepath.Join(w.Root, "hack", "krew.sh"), release, website.URL, dist)
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

	archive, err := os.ReadFile(filepath.Join(dist, command+"-"+release+"-"+runtime.GOOS+"-"+runtime.GOARCH+".tar.gz"))
	expect.NoError(t, err)
	other := filepath.Join(dir, "other.tar.gz")
	expect.NoError(t, os.WriteFile(other, append(archive, 0), 0o644))
	if out, err := run(krew, "install", "--manifest="+manifest, "--archive="+other); err == nil || !strings.Contains(out, "checksum does not match") {
		t.Errorf("of another archive than the manifest's krew says %v\n%s", err, out)
	}
	if _, err := os.Lstat(filepath.Join(bin, command)); err == nil {
		t.Error("krew refused the archive, and installed it")
	}

	if out, err := run(krew, "install", "--manifest="+manifest); err != nil {
		t.Fatalf("krew does not install the plugin: %v\n%s", err, out)
	}
	for _, called := range [][]string{{filepath.Join(bin, command)}, {w.Cluster.KubectlPath(), plugin}} {
		out, err := run(called[0], append(called[1:], "--version")...)
		// The archive knows its revision, if there is one, and this test does not.
		want := strings.TrimSuffix(version.Of(command), ")")
		if err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%v --version says %q, %v; want %q and maybe a revision", called, out, err, want)
		}
	}
	for name, mode := range map[string]fs.FileMode{command: 0o755, "kubectl_complete-" + plugin: 0o755, "LICENSE": 0o644} {
		info, err := os.Stat(filepath.Join(store, release, name))
		expect.NoError(t, err)
		if info.Mode() != mode {
			t.Errorf("%s is installed as %v, not %v", name, info.Mode(), mode)
		}
	}

	// krew uninstalls only where there is an index, and looks for no more of it.
	expect.NoError(t, os.MkdirAll(filepath.Join(root, "index", "default", ".git"), 0o755))
	if out, err := run(krew, "uninstall", plugin); err != nil {
		t.Fatalf("krew does not uninstall the plugin: %v\n%s", err, out)
	}
	for _, path := range []string{filepath.Join(bin, command), store} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if out, err := run(w.Cluster.KubectlPath(), plugin, "--version"); err == nil {
		t.Errorf("without the plugin there still is kubectl %s: %s", plugin, out)
	}
}
