// SPDX-License-Identifier: Apache-2.0

// Package install shows that what is shipped for a cluster, the Helm chart and the
// kustomizations, installs what the rest of the tests are about, and how that is
// upgraded and removed. There is no kubelet: pods are made, and run, by the tests.
package install

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// patience is how long something may take that is not timed.
const patience = time.Minute

// The release that the tests install.
const (
	release   = "hoststatus"
	namespace = "hoststatus-system"
)

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	var err error
	if scratch, err = os.MkdirTemp("", "hoststatus-install-"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// scratch is a folder for what several tests need. It is removed in the end.
var scratch string

// root is the root of the repository.
var root = sync.OnceValues(controlplane.RepositoryRoot)

// look looks at what helm and kustomize read: go test takes its last result for good
// where nothing has changed that the test itself has looked at.
var look = sync.OnceValue(func() error {
	root, err := root()
	if err != nil {
		return err
	}
	for _, folder := range []string{"charts", "config"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	return nil
})

// tools builds helm and kustomize, as hack/packaging pins them, into bin/. What is
// there already and up to date is left alone.
var tools = sync.OnceValues(func() (string, error) {
	root, err := root()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(root, "bin")+"/", "helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kustomize/kustomize/v5")
	cmd.Dir = filepath.Join(root, "hack", "packaging")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building helm and kustomize: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin"), nil
})

func sources(t *testing.T, elements ...string) string {
	t.Helper()
	dir, err := root()
	expect.NoError(t, err)
	return filepath.Join(append([]string{dir}, elements...)...)
}

// run runs a tool of bin/ and returns what it printed to its standard output. The
// error holds what it printed besides.
func run(ctx context.Context, kubeconfig, tool string, args ...string) (string, error) {
	bin, err := tools()
	if err != nil {
		return "", err
	}
	if err := look(); err != nil {
		return "", err
	}
	home, err := os.MkdirTemp("", "hoststatus-install-home-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(home) }()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, tool), args...)
	cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + kubeconfig, "PATH=" + os.Getenv("PATH")}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %v: %w\n%s", tool, args, err, complaint.String())
	}
	return out.String(), nil
}

// registry is where the manifests of config/ say that images are.
const registry = "--set=image.registry=registry.invalid/hoststatus"

// chart renders the chart as helm would install it.
func chart(t *testing.T, args ...string) []*unstructured.Unstructured {
	t.Helper()
	out, err := run(t.Context(), "", "helm", append([]string{"template", release, sources(t, "charts", "hoststatus"), "--namespace", namespace, registry}, args...)...)
	expect.NoError(t, err)
	return objects(t, out)
}

// kustomization renders folders of config/.
func kustomization(t *testing.T, folders ...string) (all []*unstructured.Unstructured) {
	t.Helper()
	for _, folder := range folders {
		out, err := run(t.Context(), "", "kustomize", "build", sources(t, "config", folder))
		expect.NoError(t, err)
		all = append(all, objects(t, out)...)
	}
	return all
}

func objects(t *testing.T, manifests string) (all []*unstructured.Unstructured) {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewBufferString(manifests), 4096)
	for {
		obj := &unstructured.Unstructured{}
		err := decoder.Decode(&obj.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		expect.NoError(t, err)
		if len(obj.Object) > 0 {
			all = append(all, obj)
		}
	}
}
