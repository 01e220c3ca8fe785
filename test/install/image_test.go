// SPDX-License-Identifier: Apache-2.0

package install

import (
	"debug/elf"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

var (
	target  = regexp.MustCompile(`(?m)^FROM scratch AS (\S+)\nCOPY --from=build /out/(\S+) /(\S+)\nUSER 65532:65532\nENTRYPOINT \["/(\S+)"\]$`)
	copied  = regexp.MustCompile(`(?m)^COPY (\S+) (\S+)$`)
	builder = regexp.MustCompile(`(?m)^FROM --platform=\$BUILDPLATFORM docker\.io/library/golang:(\S+) AS build$`)
)

// There is no container engine where tests run, so they read the Dockerfile, and run
// what it puts into the images: see runPod.
func TestTheDockerfileHasAnImageForEveryContainer(t *testing.T) {
	dockerfile := read(t, "Dockerfile")
	var targets []string
	for _, match := range target.FindAllStringSubmatch(dockerfile, -1) {
		if match[1] != match[2] || match[1] != match[3] || match[1] != match[4] {
			t.Errorf("target %s holds /out/%s as /%s and runs /%s; all should have one name", match[1], match[2], match[3], match[4])
		}
		targets = append(targets, match[1])
		if _, err := os.Stat(sources(t, "cmd", match[1])); err != nil {
			t.Errorf("target %s has no command: %v", match[1], err)
		}
	}
	for _, obj := range chart(t, "--set=agent.enabled=true") {
		for _, container := range containers(obj) {
			image, _ := container["image"].(string)
			if name := strings.Split(path.Base(image), ":")[0]; !slices.Contains(targets, name) {
				t.Errorf("%s runs image %s, for which the Dockerfile has no target among %v", obj.GetName(), image, targets)
			}
			if container["command"] != nil {
				t.Errorf("%s has a command of its own; an image's entrypoint is its binary", obj.GetName())
			}
		}
	}
}

func TestTheDockerfileCopiesAllThatIsBuilt(t *testing.T) {
	dockerfile := read(t, "Dockerfile")
	ignored := strings.Split(read(t, ".dockerignore"), "\n")
	var folders []string
	for _, match := range copied.FindAllStringSubmatch(dockerfile, -1) {
		if match[1] != match[2] {
			t.Errorf("the Dockerfile copies %s to %s", match[1], match[2])
		}
		if !slices.Contains(ignored, "!"+match[1]) {
			t.Errorf(".dockerignore does not let %s pass, which the Dockerfile copies", match[1])
		}
		folders = append(folders, match[1])
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.Dir}}{{end}}{{end}}", "./cmd/...")
	cmd.Dir = sources(t)
	out, err := cmd.Output()
	expect.NoError(t, err)
	for dir := range strings.Lines(string(out)) {
		dir, err := filepath.Rel(cmd.Dir, strings.TrimSpace(dir))
		expect.NoError(t, err)
		if first, _, _ := strings.Cut(dir, "/"); !slices.Contains(folders, first) {
			t.Errorf("the binaries are built from %s, which the Dockerfile does not copy", dir)
		}
	}
}

func TestTheDockerfileBuildsWithTheGoOfTheModule(t *testing.T) {
	match := builder.FindStringSubmatch(read(t, "Dockerfile"))
	if match == nil {
		t.Fatal("the Dockerfile has no builder that looks like " + builder.String())
	}
	_, rest, _ := strings.Cut(read(t, "go.mod"), "\ngo ")
	wants, _, _ := strings.Cut(rest, "\n")
	if minor := strings.Join(strings.Split(wants, ".")[:2], "."); !strings.HasPrefix(match[1], minor+".") {
		t.Errorf("the Dockerfile builds with Go %s, and go.mod wants %s", match[1], wants)
	}
}

// podman asks no registry for a short name where nobody can be asked which one is meant.
func TestEveryBaseOfAnImageNamesItsRegistry(t *testing.T) {
	bases := regexp.MustCompile(`(?m)^FROM (?:--\S+ )?(\S+)`).FindAllStringSubmatch(read(t, "Dockerfile"), -1)
	if len(bases) < 5 {
		t.Fatalf("the Dockerfile has %d stages, fewer than there are images", len(bases))
	}
	for _, base := range bases {
		if host, _, _ := strings.Cut(base[1], "/"); base[1] != "scratch" && !strings.Contains(host, ".") {
			t.Errorf("the Dockerfile begins a stage with %s; write its registry before it", base[1])
		}
	}
}

// Images are built from sources without their repository, so the revision has to be
// handed on: by hack/image.sh, the Dockerfile and hack/build-static.sh.
func TestTheBinariesOfTheImagesKnowTheirRevision(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what takes a build")
	}
	// An engine that says what it was asked to build.
	engine, revision := t.TempDir(), "0123456789abcdef-dirty"
	expect.NoError(t, os.WriteFile(filepath.Join(engine, "engine"), []byte("#!/bin/sh\necho \"$@\"\n"), 0o755))
	cmd := exec.CommandContext(t.Context(), sources(t, "hack", "image.sh"))
	cmd.Env = append(os.Environ(), "PATH="+engine+":"+os.Getenv("PATH"), "CONTAINER_ENGINE=engine", "REVISION="+revision)
	out, err := cmd.CombinedOutput()
	expect.NoError(t, err)
	if asked := strings.Count(string(out), " --build-arg=REVISION="+revision+" "); asked != 4 {
		t.Errorf("hack/image.sh hands the revision to %d of 4 images:\n%s", asked, out)
	}
	dockerfile := read(t, "Dockerfile")
	if !strings.Contains(dockerfile, "\nARG REVISION\n") || !strings.Contains(dockerfile, " REVISION=$REVISION hack/build-static.sh ") {
		t.Error("the Dockerfile does not hand REVISION on to hack/build-static.sh")
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), sources(t, "hack", "build-static.sh"), bin)
	build.Env = append(os.Environ(), "REVISION="+revision)
	out, err = build.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"manager", "tenant-apiserver", "agent", "kubectl-hosts"} {
		said, err := exec.CommandContext(t.Context(), filepath.Join(bin, name), "--version").Output()
		expect.NoError(t, err)
		if !strings.HasSuffix(string(said), ", "+revision+")\n") {
			t.Errorf("%s --version says %q, without the revision %s", name, said, revision)
		}
	}
}

func TestTheBinariesOfTheImagesNeedNothing(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("-short leaves out what takes a build")
	}
	bin, err := binaries()
	expect.NoError(t, err)
	repository := sources(t)
	for _, name := range []string{"manager", "tenant-apiserver", "agent", "kubectl-hosts"} {
		program, err := elf.Open(filepath.Join(bin, name))
		expect.NoError(t, err)
		if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 || slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("%s needs a loader or the libraries %v (%v); scratch has none", name, libraries, err)
		}
		expect.NoError(t, program.Close())
		content, err := os.ReadFile(filepath.Join(bin, name))
		expect.NoError(t, err)
		if strings.Contains(string(content), repository+"/internal") {
			t.Errorf("%s tells in which folder it was built", name)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(sources(t, name))
	expect.NoError(t, err)
	return string(content)
}
