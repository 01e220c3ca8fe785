// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// created is the time of the images, in seconds since 1970.
const created = 1750000000

// scratch holds the binaries: small ones, in place of those of cmd/.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "image-test-"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// build builds two commands for two platforms as hack/build-static.sh does, in and from
// folders of the given name, and returns where they are.
func build(t *testing.T, folder string) string {
	t.Helper()
	source, out := filepath.Join(scratch, folder, "source"), filepath.Join(scratch, folder, "static")
	if _, err := os.Stat(out); err == nil {
		return out
	}
	for path, content := range map[string]string{
		"go.mod":          "module example.com/hosts\n\ngo 1.26.0\n",
		"cmd/one/main.go": "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"one \" + os.Args[1] + \"\\n\") }\n",
		"cmd/two/main.go": "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"two \" + os.Args[1] + \"\\n\") }\n",
	} {
		path = filepath.Join(source, path)
		noError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		noError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	for _, architecture := range []string{"amd64", "arm64"} {
		dir := filepath.Join(out, "linux_"+architecture)
		noError(t, os.MkdirAll(dir, 0o755))
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s", "-o", dir+"/", "./cmd/...")
		cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH="+architecture)
		if message, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, message)
		}
	}
	return out
}

// arguments are those with which hack/image.sh calls the program, and more.
func arguments(binaries, out string, more ...string) []string {
	return append([]string{
		"--binaries=" + binaries, "--out=" + out, "--platforms=linux/amd64,linux/arm64", "--registry=registry.example.com/hoststatus",
		"--version=1.2.3", "--revision=abc", fmt.Sprintf("--created=%d", created),
	}, more...)
}

func TestTheSameSourcesGiveTheSameBytes(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	noError(t, run(t.Context(), arguments(build(t, "here"), first, "one", "two"), io.Discard, t.Output()))
	noError(t, run(t.Context(), arguments(build(t, "elsewhere"), second, "one", "two"), io.Discard, t.Output()))
	files := []string{}
	for _, command := range []string{"one", "two"} {
		files = append(files, command+".linux-amd64.cdx.json", command+".linux-amd64.docker.tar", command+".linux-arm64.cdx.json", command+".linux-arm64.docker.tar", command+".oci.tar")
	}
	for _, dir := range []string{first, second} {
		entries, err := os.ReadDir(dir)
		noError(t, err)
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		if !slices.Equal(names, files) {
			t.Fatalf("%v was written, want %v", names, files)
		}
	}
	for _, file := range files {
		a, err := os.ReadFile(filepath.Join(first, file))
		noError(t, err)
		b, err := os.ReadFile(filepath.Join(second, file))
		noError(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two builds of the same sources", file)
		}
	}
}

func TestAnOCIArchiveHasWhatAKubeletNeeds(t *testing.T) {
	out := t.TempDir()
	var printed bytes.Buffer
	noError(t, run(t.Context(), arguments(build(t, "here"), out, "one", "two"), &printed, t.Output()))
	for _, command := range []string{"one", "two"} {
		t.Run(command, func(t *testing.T) {
			index := openOCI(t, filepath.Join(out, command+".oci.tar"), map[string]string{
				"io.containerd.image.name":          "registry.example.com/hoststatus/" + command + ":1.2.3",
				"org.opencontainers.image.ref.name": "1.2.3",
			})
			digest, err := index.Digest()
			noError(t, err)
			if line := fmt.Sprintf("registry.example.com/hoststatus/%s:1.2.3@%s\n", command, digest); !strings.Contains(printed.String(), line) {
				t.Errorf("printed\n%swant the line\n%s", &printed, line)
			}
			checkIndex(t, index, command)
		})
	}
}

// openOCI unpacks an OCI archive, and returns the one image that is in it, under
// these annotations.
func openOCI(t *testing.T, archive string, annotations map[string]string) v1.ImageIndex {
	t.Helper()
	dir := t.TempDir()
	if message, err := exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, message)
	}
	outer, err := layout.ImageIndexFromPath(dir)
	noError(t, err)
	manifest, err := outer.IndexManifest()
	noError(t, err)
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].MediaType != types.OCIImageIndex || !maps.Equal(manifest.Manifests[0].Annotations, annotations) {
		t.Fatalf("index.json lists %+v, want one index with the annotations %v", manifest.Manifests, annotations)
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	noError(t, err)
	return index
}

// checkIndex checks the image of a command, and what it does on this platform.
func checkIndex(t *testing.T, index v1.ImageIndex, command string) {
	t.Helper()
	noError(t, validate.Index(index))
	manifest, err := index.IndexManifest()
	noError(t, err)
	labels := map[string]string{
		"org.opencontainers.image.title": "hoststatus " + command, "org.opencontainers.image.source": "https://hoststatus.dev/hoststatus",
		"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.version": "1.2.3", "org.opencontainers.image.revision": "abc",
	}
	if !maps.Equal(manifest.Annotations, labels) {
		t.Errorf("the index has the annotations %v, want %v", manifest.Annotations, labels)
	}
	var platforms []string
	for _, descriptor := range manifest.Manifests {
		platforms = append(platforms, descriptor.Platform.String())
		image, err := index.Image(descriptor.Digest)
		noError(t, err)
		checkImage(t, image, command, *descriptor.Platform, labels)
		own, err := image.Manifest()
		noError(t, err)
		if descriptor.MediaType != types.OCIManifestSchema1 || own.MediaType != types.OCIManifestSchema1 || own.Config.MediaType != types.OCIConfigJSON || own.Layers[0].MediaType != types.OCILayer {
			t.Errorf("%s mixes Docker's media types into an OCI layout: %+v", descriptor.Platform, own)
		}
		if !maps.Equal(own.Annotations, labels) {
			t.Errorf("the manifest for %s has the annotations %v, want %v", descriptor.Platform, own.Annotations, labels)
		}
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(platforms, want) {
		t.Errorf("the platforms are %v, want %v", platforms, want)
	}
}

// checkImage checks the configuration and the files of an image for one platform.
func checkImage(t *testing.T, image v1.Image, command string, platform v1.Platform, labels map[string]string) {
	t.Helper()
	config, err := image.ConfigFile()
	noError(t, err)
	if config.OS != platform.OS || config.Architecture != platform.Architecture || config.Created.Unix() != created {
		t.Errorf("the image for %s is for %s/%s, of %v", platform, config.OS, config.Architecture, config.Created)
	}
	if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/" + command}) || !maps.Equal(config.Config.Labels, labels) {
		t.Errorf("the configuration for %s is %+v", platform, config.Config)
	}
	files := mutate.Extract(image)
	defer func() { _ = files.Close() }()
	archive := tar.NewReader(files)
	header, err := archive.Next()
	noError(t, err)
	if header.Name != command || header.Mode != 0o755 || header.Uid != 0 || header.Gid != 0 || header.ModTime.Unix() != created {
		t.Errorf("the first file for %s is %+v", platform, header)
	}
	program, err := io.ReadAll(archive)
	noError(t, err)
	if header, err := archive.Next(); err != io.EOF {
		t.Errorf("there is more than the binary: %+v, %v", header, err)
	}
	if platform.String() != runtime.GOOS+"/"+runtime.GOARCH {
		return
	}
	path := filepath.Join(t.TempDir(), command)
	noError(t, os.WriteFile(path, program, os.FileMode(header.Mode)))
	said, err := exec.CommandContext(t.Context(), path, "runs").Output()
	if want := command + " runs\n"; err != nil || string(said) != want {
		t.Errorf("the binary of the image writes %q (%v), want %q", said, err, want)
	}
}

func TestADockerArchiveHasTheImageOfOnePlatform(t *testing.T) {
	out := t.TempDir()
	noError(t, run(t.Context(), arguments(build(t, "here"), out, "--tag=mine", "one"), io.Discard, t.Output()))
	tag, err := name.NewTag("registry.example.com/hoststatus/one:mine")
	noError(t, err)
	index := openOCI(t, filepath.Join(out, "one.oci.tar"), map[string]string{"io.containerd.image.name": tag.String(), "org.opencontainers.image.ref.name": "mine"})
	manifest, err := index.IndexManifest()
	noError(t, err)
	for i, architecture := range []string{"amd64", "arm64"} {
		image, err := tarball.ImageFromPath(filepath.Join(out, "one.linux-"+architecture+".docker.tar"), &tag)
		noError(t, err)
		noError(t, validate.Image(image))
		// It is the id under which docker lists an image.
		id, err := image.ConfigName()
		noError(t, err)
		same, err := index.Image(manifest.Manifests[i].Digest)
		noError(t, err)
		if want, err := same.ConfigName(); err != nil || id != want {
			t.Errorf("the Docker archive for %s has the image %s, the OCI archive %s (%v)", architecture, id, want, err)
		}
	}
}

func TestAPushedImageIsTheOneThatWasWritten(t *testing.T) {
	// The credentials of the one that runs the test are not read.
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(t.TempDir(), "auth.json"))
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host, out := strings.TrimPrefix(server.URL, "http://"), t.TempDir()
	for range 2 {
		// A second push of the same image changes nothing.
		noError(t, run(t.Context(), arguments(build(t, "here"), out, "--registry="+host+"/some/path", "--push", "one", "two"), io.Discard, t.Output()))
	}
	for _, command := range []string{"one", "two"} {
		tag, err := name.NewTag(host + "/some/path/" + command + ":1.2.3")
		noError(t, err)
		pushed, err := remote.Index(tag, remote.WithContext(t.Context()))
		noError(t, err)
		checkIndex(t, pushed, command)
		written := openOCI(t, filepath.Join(out, command+".oci.tar"), map[string]string{"io.containerd.image.name": tag.String(), "org.opencontainers.image.ref.name": "1.2.3"})
		got, err := pushed.Digest()
		noError(t, err)
		if want, err := written.Digest(); err != nil || got != want {
			t.Errorf("%s was pushed as %s, and written as %s (%v)", command, got, want, err)
		}
	}

	server.Close()
	err := run(t.Context(), arguments(build(t, "here"), out, "--registry="+host, "--push", "one"), io.Discard, t.Output())
	if err == nil || !strings.Contains(err.Error(), "pushing "+host+"/one:1.2.3: ") {
		t.Errorf("without the registry a push ends with %v", err)
	}
}

func TestTheBillOfMaterialsNamesImageBinaryAndModules(t *testing.T) {
	out := t.TempDir()
	noError(t, run(t.Context(), arguments(build(t, "here"), out, "one"), io.Discard, t.Output()))
	for _, architecture := range []string{"amd64", "arm64"} {
		content, err := os.ReadFile(filepath.Join(out, "one.linux-"+architecture+".cdx.json"))
		noError(t, err)
		var bom cyclonedx.BOM
		noError(t, cyclonedx.NewBOMDecoder(bytes.NewReader(content), cyclonedx.BOMFileFormatJSON).Decode(&bom))
		image := bom.Metadata.Component
		if image.Name != "registry.example.com/hoststatus/one" || !strings.Contains(image.PackageURL, "arch="+architecture+"&") || !strings.HasPrefix(image.PackageURL, "pkg:oci/one@sha256%3A") {
			t.Errorf("the bill is of %+v", image)
		}
		if bom.BOMFormat != "CycloneDX" || bom.SpecVersion != cyclonedx.SpecVersion1_6 || bom.SerialNumber != "" || bom.Metadata.Timestamp != "2025-06-15T15:06:40Z" {
			t.Errorf("the bill is of version %s, has number %q and time %s", bom.SpecVersion, bom.SerialNumber, bom.Metadata.Timestamp)
		}
		var listed []string
		for _, component := range *bom.Components {
			listed = append(listed, component.PackageURL)
		}
		if want := []string{"pkg:golang/example.com/hosts@v1.2.3#cmd/one", "pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go")}; !slices.Equal(listed, want) {
			t.Errorf("the bill lists %v, want %v", listed, want)
		}
		// What a tool follows from the image to its modules.
		refs := map[string]bool{image.BOMRef: true}
		for _, component := range *bom.Components {
			refs[component.BOMRef] = true
		}
		reached := map[string]bool{image.BOMRef: true}
		for _, dependency := range *bom.Dependencies {
			for _, ref := range *dependency.Dependencies {
				reached[ref] = true
			}
		}
		if !maps.Equal(refs, reached) {
			t.Errorf("the bill describes %v, and the dependencies reach %v", refs, reached)
		}
	}
}

func TestModulesAreListedAsTheyWereCompiled(t *testing.T) {
	got := modules(&debug.BuildInfo{GoVersion: "go1.26.1 X:something", Deps: []*debug.Module{
		{Path: "example.com/a", Version: "v1.0.0"},
		{Path: "example.com/b", Version: "v2.0.0+incompatible"},
		{Path: "example.com/c", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1"}},
	}})
	var listed []string
	for _, component := range got {
		listed = append(listed, component.PackageURL)
	}
	want := []string{"pkg:golang/stdlib@1.26.1", "pkg:golang/example.com/a@v1.0.0", "pkg:golang/example.com/b@v2.0.0%2Bincompatible", "pkg:golang/example.com/fork@v1.0.1"}
	if !slices.Equal(listed, want) {
		t.Errorf("%v, want %v", listed, want)
	}
}

func TestAnImageWithoutARevisionHasNoSuchLabel(t *testing.T) {
	if l := (options{version: "1.2.3"}).labels("one"); len(l) != 4 || l["org.opencontainers.image.revision"] != "" {
		t.Errorf("the labels are %v", l)
	}
}

func TestWhatCannotBecomeAnImageIsRefused(t *testing.T) {
	binaries := build(t, "here")
	swapped := t.TempDir()
	noError(t, os.Symlink(filepath.Join(binaries, "linux_amd64"), filepath.Join(swapped, "linux_arm64")))
	noError(t, os.Symlink(filepath.Join(binaries, "linux_amd64"), filepath.Join(swapped, "linux_amd64")))
	script := t.TempDir()
	noError(t, os.MkdirAll(filepath.Join(script, "linux_amd64"), 0o755))
	noError(t, os.WriteFile(filepath.Join(script, "linux_amd64", "one"), []byte("#!/bin/sh\n"), 0o755))
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"nothing given":                    {nil, []string{"--binaries is required", "--out is required", "--platforms is required", "--registry is required", "--version is required", "name the commands"}},
		"a command that is not there":      {arguments(binaries, "", "three"), []string{"image three: reading the binary:", "no such file"}},
		"a binary for another platform":    {arguments(swapped, "", "one"), []string{"is built for linux/amd64, not for linux/arm64"}},
		"a binary that is no Go program":   {arguments(script, "", "one"), []string{"is not a Go program; build it with hack/build-static.sh"}},
		"a platform that is not Linux":     {arguments(binaries, "", "--platforms=windows/amd64", "one"), []string{`--platforms (PLATFORMS): "windows/amd64" is not linux/ARCHITECTURE`}},
		"a variant of a platform":          {arguments(binaries, "", "--platforms=linux/arm/v7", "one"), []string{`"linux/arm/v7" is not linux/ARCHITECTURE`}},
		"a platform that is listed twice":  {arguments(binaries, "", "--platforms=linux/amd64,linux/amd64", "one"), []string{"linux/amd64 is listed twice"}},
		"a registry without a host":        {arguments(binaries, "", "--registry=hoststatus", "one"), []string{`"hoststatus/one:1.2.3" is not the full name of an image`, "IMAGE_REGISTRY"}},
		"a registry with a scheme":         {arguments(binaries, "", "--registry=https://registry.example.com", "one"), []string{"is not the full name of an image", "IMAGE_REGISTRY"}},
		"a registry with a slash behind":   {arguments(binaries, "", "--registry=registry.example.com/a/", "one"), []string{"is not the full name of an image", "IMAGE_REGISTRY"}},
		"a tag that is none":               {arguments(binaries, "", "--tag=a b", "one"), []string{"is not the full name of an image", "IMAGE_TAG"}},
		"a push without a registry":        {arguments(binaries, "", "--registry=localhost/hoststatus", "--push", "one"), []string{"--push: localhost/hoststatus/one:1.2.3 is not in a registry; set IMAGE_REGISTRY"}},
		"a time that is none":              {arguments(binaries, "", "--created=today", "one"), []string{`--created (SOURCE_DATE_EPOCH): "today" is not a number of seconds since 1970`}},
		"a time before the archives' time": {arguments(binaries, "", "--created=-1", "one"), []string{`"-1" is not a number of seconds`}},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			for i, arg := range c.args {
				if arg == "--out=" {
					c.args[i] += out
				}
			}
			err := run(t.Context(), c.args, io.Discard, io.Discard)
			if err == nil {
				t.Fatal("it is accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is\n%v\nwant in it\n%s", err, want)
				}
			}
			entries, err := os.ReadDir(out)
			noError(t, err)
			if len(entries) > 0 {
				t.Errorf("%v was written", entries)
			}
		})
	}
}

func TestAnArchiveIsReplacedAsAWholeOrNotAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "one.oci.tar")
	noError(t, create(path, func(w io.Writer) error { _, err := io.WriteString(w, "whole"); return err }))
	failure := errors.New("no space left")
	err := create(path, func(w io.Writer) error { _, _ = io.WriteString(w, "ha"); return failure })
	if !errors.Is(err, failure) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want %v with the path", err, failure)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "whole" {
		t.Errorf("the archive is %q (%v)", content, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("a part is left behind: %v (%v)", entries, err)
	}
}

func TestAPushEndsWithItsContext(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(t.TempDir(), "auth.json"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, arguments(build(t, "here"), t.TempDir(), "--registry=localhost:1/hoststatus", "--push", "one"), io.Discard, t.Output())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a push that was interrupted ends with %v", err)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
