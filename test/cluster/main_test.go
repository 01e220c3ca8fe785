// SPDX-License-Identifier: Apache-2.0

// Package cluster runs hoststatus as its users do: a whole Kubernetes cluster of two nodes,
// with kubelets, containerd and kube-proxy, the images of `make image` and the documented
// commands of Helm. `make test-cluster` runs it. Everything happens in namespaces of its
// own on this machine, without a network.
package cluster

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// The images, under two tags: an upgrade has to go to a tag that no node has.
const (
	registry   = "registry.example.com/hoststatus"
	tag        = "first"
	nextTag    = "next"
	pauseImage = registry + "/pause:" + tag
)

// all is for `make test-cluster`; without it what takes minutes is left out.
var all = flag.Bool("cluster.all", false, "run the whole story: a silent kubelet, a node that is cut off, an upgrade and a rollback, and a namespace that was deleted first, too")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(box.Main(func() int {
		if skipped = forbidden(); skipped != "" {
			return m.Run()
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		code, err := enter(ctx)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		return code
	}, func() int {
		ctrl.SetLogger(logr.Discard())
		return m.Run()
	}))
}

// prepare makes all that takes a network or Go's caches: inside there are none.
func prepare(ctx context.Context, dir string) error {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	if err := controlplane.EnsureNodeBinaries(ctx, os.Stderr); err != nil {
		return err
	}
	image := func(tag, revision string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(root, "hack", "image.sh"))
		cmd.Env = append(os.Environ(), "CONTAINER_ENGINE=", "IMAGE_OUT="+filepath.Join(dir, "images", tag), "IMAGE_REGISTRY="+registry, "IMAGE_TAG="+tag,
			"PLATFORMS=linux/"+runtime.GOARCH, "REVISION="+revision, "SOURCE_DATE_EPOCH=0")
		return cmd
	}
	platform := "linux_" + runtime.GOARCH
	pause := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(dir, "pause", platform, "pause"), "./test/cluster/pause")
	pause.Dir, pause.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	pauseImage := exec.CommandContext(ctx, "go", "run", ".", "--binaries="+filepath.Join(dir, "pause"), "--out="+filepath.Join(dir, "images", "pause"),
		"--platforms=linux/"+runtime.GOARCH, "--registry="+registry, "--tag="+tag, "--version=1", "pause")
	pauseImage.Dir, pauseImage.Env = filepath.Join(root, "hack", "image"), append(os.Environ(), "GOFLAGS=-buildvcs=false")
	helm := exec.CommandContext(ctx, "make", "--no-print-directory", "bin/helm")
	helm.Dir = root
	for _, step := range []struct {
		what string
		cmd  *exec.Cmd
	}{{"images", image(tag, "1111111")}, {"images of the next version", image(nextTag, "2222222")}, {"pause", pause}, {"pause's image", pauseImage}, {"helm", helm}} {
		begin := time.Now()
		if out, err := step.cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", step.what, err, out)
		}
		fmt.Printf("built %s in %.1f s\n", step.what, time.Since(begin).Seconds())
	}
	return nil
}
