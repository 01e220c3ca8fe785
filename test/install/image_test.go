// SPDX-License-Identifier: Apache-2.0

package install

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/internal/version"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

var (
	copied  = regexp.MustCompile(`(?m)^COPY (\S+) (\S+)$`)
	builder = regexp.MustCompile(`(?m)^FROM --platform=\$BUILDPLATFORM docker\.io/library/golang:(\S+) AS build$`)
)

// commands are those of cmd/, each of which has an image.
func commands(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(sources(t, "cmd"))
	expect.NoError(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// stage is a stage of the Dockerfile, with what it has of the stage that it begins with.
type stage struct {
	base, user string
	entrypoint []string
	labels     map[string]string
	// files says which file of the builder becomes which file.
	files map[string]string
}

// stages reads the stages of the Dockerfile, as far as these tests compare them.
func stages(t *testing.T) map[string]stage {
	t.Helper()
	all, name := map[string]stage{}, ""
	for line := range strings.Lines(strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " ")) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		s := all[name]
		switch fields[0] {
		case "FROM":
			name = fields[len(fields)-1]
			base := fields[len(fields)-3]
			s = all[base]
			s.base, s.labels, s.files = base, maps.Clone(s.labels), maps.Clone(s.files)
			if s.labels == nil {
				s.labels, s.files = map[string]string{}, map[string]string{}
			}
		case "USER":
			s.user = fields[1]
		case "ENTRYPOINT":
			expect.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(line, "ENTRYPOINT ")), &s.entrypoint))
		case "LABEL":
			for _, match := range regexp.MustCompile(`(\S+)="([^"]*)"`).FindAllStringSubmatch(line, -1) {
				s.labels[match[1]] = match[2]
			}
		case "COPY":
			if fields[1] == "--from=build" {
				s.files[fields[3]] = fields[2]
			}
		}
		all[name] = s
	}
	delete(all, "") // What stands before the first stage.
	if len(all) <= len(commands(t)) {
		t.Fatalf("the Dockerfile has %d stages, no more than there are images", len(all))
	}
	return all
}

func TestThereIsAnImageForEveryContainer(t *testing.T) {
	names := commands(t)
	for _, obj := range chart(t, "--set=agent.enabled=true") {
		for _, container := range containers(obj) {
			image, _ := container["image"].(string)
			if name := strings.Split(path.Base(image), ":")[0]; !slices.Contains(names, name) {
				t.Errorf("%s runs image %s, and there are commands for the images %v only", obj.GetName(), image, names)
			}
			if container["command"] != nil {
				t.Errorf("%s has a command of its own; an image's entrypoint is its binary", obj.GetName())
			}
		}
	}
}

// There is no container engine where tests run, so they read the Dockerfile, and run
// what hack/image.sh makes without it: see runPod. An engine that only prints what it is
// asked for shows what hack/image.sh adds to the Dockerfile.
func TestTheImagesAreThoseOfTheDockerfile(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what takes a build")
	}
	built, err := images()
	expect.NoError(t, err)
	fake := t.TempDir()
	expect.NoError(t, os.WriteFile(filepath.Join(fake, "engine"), []byte("#!/bin/sh\necho \"$@\"\n"), 0o755))
	cmd := exec.CommandContext(t.Context(), sources(t, "hack", "image.sh"), "--more")
	cmd.Env = append(os.Environ(), "PATH="+fake+":"+os.Getenv("PATH"), "CONTAINER_ENGINE=engine", "REVISION="+revision, "IMAGE_REGISTRY=registry.example.com/a", "IMAGE_TAG=mine", "PLATFORMS=linux/amd64,linux/arm64")
	out, err := cmd.Output()
	expect.NoError(t, err)
	asked := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if match := regexp.MustCompile(`^build --platform=linux/amd64,linux/arm64 --target (\S+) --tag registry\.example\.com/a/(\S+):mine (.*) --more \.\n$`).FindStringSubmatch(line); match != nil && match[1] == match[2] {
			asked[match[1]] = match[3]
		}
	}
	if got, want := slices.Sorted(maps.Keys(asked)), commands(t); !slices.Equal(got, want) {
		t.Errorf("the engine is asked for the images %v, want %v:\n%s", got, want, out)
	}
	if got, want := slices.Sorted(maps.Keys(built)), commands(t); !slices.Equal(got, want) {
		t.Errorf("the images %v are made without an engine, want %v", got, want)
	}
	dockerfile := stages(t)
	for _, name := range commands(t) {
		s, image := dockerfile[name], built[name]
		if dockerfile[s.base].base != "scratch" {
			t.Errorf("stage %s of the Dockerfile begins with %q, want one that begins with scratch", name, s.base)
		}
		if want := map[string]string{"/" + name: "/out/" + name}; !maps.Equal(s.files, want) {
			t.Errorf("stage %s of the Dockerfile copies %v, want %v", name, s.files, want)
		}
		if got, want := slices.Sorted(maps.Keys(image.files)), slices.Sorted(maps.Keys(s.files)); !slices.Equal(got, want) {
			t.Errorf("image %s has the files %v, by the Dockerfile %v", name, got, want)
		}
		if image.Config.User != s.user || s.user != fmt.Sprintf("%d:%d", nobody, nobody) {
			t.Errorf("image %s runs as %q, by the Dockerfile as %q, want %d", name, image.Config.User, s.user, nobody)
		}
		if !slices.Equal(image.Config.Entrypoint, s.entrypoint) || !slices.Equal(s.entrypoint, []string{"/" + name}) {
			t.Errorf("image %s begins with %q, by the Dockerfile with %q", name, image.Config.Entrypoint, s.entrypoint)
		}
		for _, match := range regexp.MustCompile(`--label=(\S+?)=(\S+)`).FindAllStringSubmatch(asked[name], -1) {
			s.labels[match[1]] = match[2]
		}
		if diff := cmp.Diff(s.labels, image.Config.Labels); diff != "" {
			t.Errorf("labels of image %s by the Dockerfile (-) and without an engine (+):\n%s", name, diff)
		}
		if image.Config.Labels["org.opencontainers.image.version"] != version.Version || image.Config.Labels["org.opencontainers.image.revision"] != revision {
			t.Errorf("image %s has the labels %v, want the release %s and the revision %s in them", name, image.Config.Labels, version.Version, revision)
		}
		if asked := asked[name]; !strings.Contains(asked, "--build-arg=REVISION="+revision+" ") {
			t.Errorf("the engine builds %s without the revision: %s", name, asked)
		}
	}
}

func TestAnImageIsWrittenForEnginesOfEveryKind(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what takes a build")
	}
	built, err := images()
	expect.NoError(t, err)
	for name, image := range built {
		var files []string
		for _, file := range image.written {
			files = append(files, filepath.Base(file))
		}
		platform := name + ".linux-" + runtime.GOARCH
		if want := []string{platform + ".cdx.json", platform + ".docker.tar", name + ".oci.tar"}; !slices.Equal(files, want) {
			t.Errorf("of %s there are %v, want %v", name, files, want)
		}
	}
}

func TestImagesAreNotBuiltWithSettingsThatAreWrong(t *testing.T) {
	out := t.TempDir()
	for name, c := range map[string]struct {
		env  string
		args []string
		want string
	}{
		"an engine that is not there":   {"CONTAINER_ENGINE=no-such-engine", nil, "CONTAINER_ENGINE=no-such-engine: it is not installed"},
		"an engine that does not run":   {"CONTAINER_ENGINE=false", nil, "'false info' fails. Start it, or unset CONTAINER_ENGINE"},
		"a platform that is not Linux":  {"PLATFORMS=linux/amd64,windows/amd64", nil, "PLATFORMS: 'windows/amd64' is not linux/ARCHITECTURE"},
		"an engine's flag without one":  {"CONTAINER_ENGINE=", []string{"--no-cache"}, "other arguments are for the build command of an engine"},
		"a push with a flag of its own": {"CONTAINER_ENGINE=", []string{"--push", "--no-cache"}, "usage: "},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), sources(t, "hack", "image.sh"), c.args...)
			cmd.Env = append(os.Environ(), "IMAGE_OUT="+out, c.env)
			message, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(message), c.want) {
				t.Errorf("it ends with %v and\n%swant in it\n%s", err, message, c.want)
			}
		})
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) > 0 {
		t.Errorf("it has written %v (%v)", entries, err)
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
	all := stages(t)
	for name, stage := range all {
		_, earlier := all[stage.base]
		if host, _, _ := strings.Cut(stage.base, "/"); !earlier && stage.base != "scratch" && !strings.Contains(host, ".") {
			t.Errorf("the Dockerfile begins stage %s with %s; write its registry before it", name, stage.base)
		}
	}
}

// Images are built from sources without their repository, so the revision has to be
// passed on by hack/image.sh, the Dockerfile and hack/build-static.sh.
func TestTheBinariesOfTheImagesKnowTheirRevision(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what takes a build")
	}
	dockerfile := read(t, "Dockerfile")
	if !strings.Contains(dockerfile, "\nARG REVISION\n") || !strings.Contains(dockerfile, " REVISION=$REVISION hack/build-static.sh ") {
		t.Error("the Dockerfile does not hand REVISION on to hack/build-static.sh")
	}
	bin, err := binaries()
	expect.NoError(t, err)
	for _, name := range commands(t) {
		said, err := exec.CommandContext(t.Context(), filepath.Join(bin, name), "--version").Output()
		expect.NoError(t, err)
		if want := " " + version.Version + " ("; !strings.Contains(string(said), want) || !strings.HasSuffix(string(said), ", "+revision+")\n") {
			t.Errorf("%s --version writes %q, without the release %s or the revision %s", name, said, version.Version, revision)
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
	for _, name := range commands(t) {
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
