// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	binEtcd              = "etcd"
	binAPIServer         = "kube-apiserver"
	binControllerManager = "kube-controller-manager"
	binKubectl           = "kubectl"
	binScheduler         = "kube-scheduler"
	binKubelet           = "kubelet"
	binKubeProxy         = "kube-proxy"
)

// packages are the main packages of the control plane, in hack/deps/controlplane.
var packages = map[string]string{
	binEtcd:              "go.etcd.io/etcd/server/v3",
	binAPIServer:         "k8s.io/kubernetes/cmd/kube-apiserver",
	binControllerManager: "k8s.io/kubernetes/cmd/kube-controller-manager",
	binKubectl:           "k8s.io/kubernetes/cmd/kubectl",
	binScheduler:         "k8s.io/kubernetes/cmd/kube-scheduler",
	binKubelet:           "k8s.io/kubernetes/cmd/kubelet",
	binKubeProxy:         "k8s.io/kubernetes/cmd/kube-proxy",
}

// buildOrder is from the fastest to the slowest, so that progress shows early. What places
// and runs pods is built only where it is needed.
var buildOrder = []string{binEtcd, binKubectl, binControllerManager, binAPIServer}

// nodePrograms are what a cluster with nodes has besides those of buildOrder.
var nodePrograms = []string{binScheduler, binKubeProxy, binKubelet}

// Release is a release of Kubernetes, by the module in hack/deps that pins it.
type Release string

// The releases that hoststatus supports. Of Oldest and Newest only kube-apiserver is
// used, with Main's other programs: it is what accepts what is installed, and serves it.
const (
	// Main is the release that everything is tested on.
	Main   Release = "controlplane"
	Oldest Release = "controlplane-oldest"
	Newest Release = "controlplane-newest"
)

// Binaries finds the programs of the control plane: in the folder that
// KUBEBUILDER_ASSETS names, else in a folder per version of the user's cache
// directory, where it builds those that are missing and writes its progress to log.
type Binaries struct{ dirs []string }

// EnsureBinaries makes all programs of the control plane available.
func EnsureBinaries(ctx context.Context, log io.Writer) (*Binaries, error) {
	var prefer []string
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		prefer = []string{assets}
	}
	return ensure(ctx, Main, prefer, buildOrder, log)
}

// EnsureNodeBinaries makes what runs pods on nodes available, too.
func EnsureNodeBinaries(ctx context.Context, log io.Writer) error {
	b, err := EnsureBinaries(ctx, log)
	if err != nil {
		return err
	}
	return b.add(ctx, log, nodePrograms...)
}

// EnsureReleases makes kube-apiserver of the oldest and the newest release available.
func EnsureReleases(ctx context.Context, log io.Writer) error {
	for _, release := range []Release{Oldest, Newest} {
		if _, err := ensure(ctx, release, nil, []string{binAPIServer}, log); err != nil {
			return err
		}
	}
	return nil
}

// with returns b with the kube-apiserver of a release in place of b's, or b if release is
// empty. Which release b or KUBEBUILDER_ASSETS has is unknown.
func (b *Binaries) with(ctx context.Context, release Release, log io.Writer) (*Binaries, error) {
	if release == "" {
		return b, nil
	}
	other, err := ensure(ctx, release, nil, []string{binAPIServer}, log)
	if err != nil {
		return nil, err
	}
	other.dirs = append(other.dirs, b.dirs...)
	return other, nil
}

// add makes more programs of Main available.
func (b *Binaries) add(ctx context.Context, log io.Writer, names ...string) error {
	_, err := ensure(ctx, Main, b.dirs, names, log)
	return err
}

// ensure builds those of the programs called names that are neither in the folders of
// prefer nor in the cache.
func ensure(ctx context.Context, release Release, prefer, names []string, log io.Writer) (*Binaries, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return nil, err
	}
	module := filepath.Join(root, "hack", "deps", string(release))
	versions, err := pinnedVersions(filepath.Join(module, "go.mod"))
	if err != nil {
		return nil, err
	}
	cacheDir, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("finding the cache directory (set HOME or XDG_CACHE_HOME): %w", err)
	}
	dir := filepath.Join(cacheDir, "hoststatus", fmt.Sprintf("%s-%s-%s-%s", release, versions, runtime.GOOS, runtime.GOARCH))
	b := &Binaries{dirs: append(prefer, dir)}
	if len(b.missing(names)) == 0 {
		return b, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for the control plane: %w", err)
	}
	unlock, err := lockFile(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another process may have built them while we waited for the lock.
	return b, build(ctx, module, dir, b.missing(names), versions, log)
}

// Path returns where the program name is.
func (b *Binaries) Path(name string) string {
	for _, dir := range b.dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

func (b *Binaries) missing(names []string) []string {
	var missing []string
	for _, name := range names {
		if b.Path(name) == "" {
			missing = append(missing, name)
		}
	}
	return missing
}

// build compiles the programs into dir, each under a temporary name first, so
// that an interrupted build leaves nothing that looks whole.
func build(ctx context.Context, module, dir string, names []string, v versions, log io.Writer) error {
	if len(names) == 0 {
		return nil
	}
	_, _ = fmt.Fprintf(log, "Building %s of the local control plane (%s) once for this machine, into %s.\n"+
		"With an empty build cache this takes up to ten minutes on two cores.\n", strings.Join(names, ", "), v, dir)
	for i, name := range names {
		begin := time.Now()
		_, _ = fmt.Fprintf(log, "  [%d/%d] %s ...", i+1, len(names), name)
		temporary := filepath.Join(dir, "."+name+".partial")
		cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", v.linkerFlags(), "-o", temporary, packages[name])
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		done := make(chan struct{})
		go progress(log, done)
		out, err := cmd.CombinedOutput()
		close(done)
		if err != nil {
			_, _ = fmt.Fprintln(log)
			return fmt.Errorf("building %s in %s: %w\n%s", packages[name], module, err, out)
		}
		if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("installing %s: %w", name, err)
		}
		_, _ = fmt.Fprintf(log, " %s\n", time.Since(begin).Round(time.Second))
	}
	return nil
}

// progress prints a dot every few seconds.
func progress(log io.Writer, done <-chan struct{}) {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			_, _ = fmt.Fprint(log, ".")
		}
	}
}

// versions are the versions of the control plane that its go.mod pins. etcd is
// empty where that has none.
type versions struct{ kubernetes, etcd string }

// String names both, as a part of a folder's name.
func (v versions) String() string {
	if v.etcd == "" {
		return v.kubernetes
	}
	return v.kubernetes + "-etcd-" + v.etcd
}

var (
	kubernetesVersion = regexp.MustCompile(`(?m)^\tk8s\.io/kubernetes (v\S+)`)
	etcdVersion       = regexp.MustCompile(`(?m)^\tgo\.etcd\.io/etcd/server/v3 (v\S+)`)
)

// Versions returns which kube-apiserver and etcd are pinned, or nothing where the
// repository cannot be read.
func Versions() (kubernetes, etcd string) {
	root, err := RepositoryRoot()
	if err != nil {
		return "", ""
	}
	v, err := pinnedVersions(filepath.Join(root, "hack", "deps", string(Main), "go.mod"))
	if err != nil {
		return "", ""
	}
	return v.kubernetes, v.etcd
}

func pinnedVersions(goMod string) (versions, error) {
	content, err := os.ReadFile(goMod)
	if err != nil {
		return versions{}, fmt.Errorf("reading which control plane to build: %w", err)
	}
	k, e := kubernetesVersion.FindSubmatch(content), etcdVersion.FindSubmatch(content)
	if k == nil {
		return versions{}, fmt.Errorf("%s names no version of k8s.io/kubernetes", goMod)
	}
	v := versions{kubernetes: string(k[1])}
	if e != nil {
		v.etcd = string(e[1])
	}
	return v, nil
}

// linkerFlags set the version: without them, the programs report v0.0.0-master and every
// check of a version breaks.
func (v versions) linkerFlags() string {
	parts := strings.SplitN(strings.TrimPrefix(v.kubernetes, "v"), ".", 3)
	const pkg = "k8s.io/component-base/version."
	flags := []string{
		"-s", "-w",
		"-X", pkg + "gitVersion=" + v.kubernetes,
		"-X", pkg + "gitMajor=" + parts[0],
		"-X", pkg + "gitMinor=" + parts[1],
		"-X", pkg + "gitTreeState=clean",
	}
	return strings.Join(flags, " ")
}

// RepositoryRoot finds the root of this repository, from the working directory
// upwards.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the working directory: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "hack", "deps", "controlplane", "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("hack/deps/controlplane/go.mod is in no folder above the working directory; run this inside the repository")
		}
		dir = parent
	}
}

// lockFile waits for the lock on path. The lock ends with the process.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
