// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// build is what tests compile while they run.
type build struct {
	// dir is the folder of the module, if it is not this one.
	dir      string
	packages []string
	flags    []string
	// env is in addition to the suite's.
	env []string
}

var (
	commands = build{packages: []string{"./cmd/..."}}
	// staticCommands are those of the images, as hack/build-static.sh builds them.
	staticCommands      = build{packages: []string{"./cmd/..."}, flags: []string{"-trimpath"}, env: []string{"CGO_ENABLED=0", "GOFLAGS="}}
	staticCommandsARM64 = build{packages: []string{"./cmd/..."}, flags: []string{"-trimpath"}, env: []string{"CGO_ENABLED=0", "GOFLAGS=", "GOARCH=arm64"}}
	images              = build{dir: "hack/image", packages: []string{"."}, env: []string{"GOFLAGS="}}
	helm                = build{dir: "hack/packaging", packages: []string{"helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kustomize/kustomize/v5"}, env: []string{"CGO_ENABLED=0", "GOFLAGS="}}
	krew                = build{dir: "hack/packaging", packages: []string{"sigs.k8s.io/krew/cmd/krew"}, env: []string{"CGO_ENABLED=0", "GOFLAGS="}}
	lua                 = build{dir: "hack/lua", packages: []string{"."}, env: []string{"GOFLAGS="}}
	controllerGen       = build{packages: []string{"sigs.k8s.io/controller-tools/cmd/controller-gen"}, flags: []string{"-modfile=hack/tools/go.mod"}, env: []string{"GOFLAGS="}}
)

// compile fills Go's build cache with what the suites compile, so that no test waits for a
// verdict of which a compiler takes the CPUs. On a machine that has it all it takes seconds.
func compile(ctx context.Context, chosen []suite) error {
	var all []build
	for _, s := range chosen {
		packages, err := s.list(ctx)
		if err != nil {
			return err
		}
		builds := append([]build{{dir: s.dir, packages: packages, flags: []string{"-test"}}}, s.builds...)
		if s.controlPlane {
			builds = append(builds, commands)
		}
		for _, b := range builds {
			b.env = append(s.env(), b.env...)
			all = append(all, b)
		}
	}
	for _, b := range together(all) {
		// It compiles what it lists, as `go build` and `go test` do, and links nothing.
		args := slices.Concat([]string{"list", "-export", "-deps", "-f="}, b.flags, b.packages)
		cmd := command(ctx, "go", args...)
		cmd.Dir, cmd.Env = b.dir, append(os.Environ(), b.env...)
		cmd.Stdout = nil
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("compiling what the tests need: go %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}

// together makes one build of those that differ in nothing but their packages: Go takes
// seconds to find that there is nothing to do, however many packages it is given.
func together(builds []build) []build {
	var out []build
	for _, b := range builds {
		i := slices.IndexFunc(out, func(o build) bool {
			return o.dir == b.dir && slices.Equal(o.flags, b.flags) && slices.Equal(o.env, b.env)
		})
		if i < 0 {
			b.packages = slices.Clone(b.packages)
			out = append(out, b)
			continue
		}
		for _, p := range b.packages {
			if !slices.Contains(out[i].packages, p) {
				out[i].packages = append(out[i].packages, p)
			}
		}
	}
	return out
}
