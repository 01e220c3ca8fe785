// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What follows is the same in the Dockerfile; a test compares the two.
const (
	// user is the user and the group of the process, as numbers: the image has no
	// /etc/passwd, and a kubelet can check runAsNonRoot of a number only.
	user = "65532:65532"

	source   = "https://hoststatus.dev/hoststatus"
	licenses = "Apache-2.0"
)

// labels describe the image of a command, in its configuration and as annotations of
// its manifests.
func (o options) labels(command string) map[string]string {
	l := map[string]string{
		"org.opencontainers.image.title":    "hoststatus " + command,
		"org.opencontainers.image.source":   source,
		"org.opencontainers.image.licenses": licenses,
		"org.opencontainers.image.version":  o.version,
	}
	if o.revision != "" {
		l["org.opencontainers.image.revision"] = o.revision
	}
	return l
}

// image is the image of a command.
type image struct {
	command string
	tag     name.Tag
	index   v1.ImageIndex
	parts   []part
}

// part is an image for one platform.
type part struct {
	platform v1.Platform
	image    v1.Image
	// binary and info are what the image holds.
	binary []byte
	info   *debug.BuildInfo
}

func assemble(o options, command string) (*image, error) {
	tag, err := o.reference(command)
	if err != nil {
		return nil, err
	}
	labels := o.labels(command)
	made := &image{command: command, tag: tag}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range o.platforms {
		binary, info, err := read(o.binary(command, platform), platform)
		if err != nil {
			return nil, err
		}
		one, err := onPlatform(platform, command, binary, o.created, labels)
		if err != nil {
			return nil, fmt.Errorf("for %s: %w", platform, err)
		}
		made.parts = append(made.parts, part{platform: platform, image: one, binary: binary, info: info})
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	annotated, ok := mutate.Annotations(index, labels).(v1.ImageIndex)
	if !ok {
		return nil, errors.New("an index with annotations is no index")
	}
	made.index = annotated
	return made, nil
}

// read reads a binary, and refuses one that an image of the platform could not run.
func read(path string, platform v1.Platform) ([]byte, *debug.BuildInfo, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the binary: %w", err)
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, nil, fmt.Errorf("%s is not a Go program; build it with hack/build-static.sh: %w", path, err)
	}
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	if built := settings["GOOS"] + "/" + settings["GOARCH"]; built != platform.String() {
		return nil, nil, fmt.Errorf("%s is built for %s, not for %s", path, built, platform)
	}
	// With cgo it would need a loader and libraries, of which the image has none.
	if settings["CGO_ENABLED"] != "0" {
		return nil, nil, fmt.Errorf("%s is built with cgo; build it with hack/build-static.sh", path)
	}
	return content, info, nil
}

// onPlatform makes the image for one platform: the binary and nothing else.
func onPlatform(platform v1.Platform, command string, binary []byte, created time.Time, labels map[string]string) (v1.Image, error) {
	layer, err := layerOf(command, binary, created)
	if err != nil {
		return nil, fmt.Errorf("making the layer: %w", err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	appended, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "hack/image.sh"}})
	if err != nil {
		return nil, fmt.Errorf("adding the layer: %w", err)
	}
	config, err := appended.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("making the configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	config.Created = v1.Time{Time: created}
	config.Config = v1.Config{User: user, Entrypoint: []string{"/" + command}, Labels: labels}
	configured, err := mutate.ConfigFile(appended, config)
	if err != nil {
		return nil, fmt.Errorf("setting the configuration: %w", err)
	}
	annotated, ok := mutate.Annotations(configured, labels).(v1.Image)
	if !ok {
		return nil, errors.New("an image with annotations is no image")
	}
	return annotated, nil
}

// layerOf makes the layer that holds the binary at its root, owned by root: the process
// runs as another user, and cannot change it.
func layerOf(command string, binary []byte, created time.Time) (v1.Layer, error) {
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := w.WriteHeader(&tar.Header{Name: command, Mode: 0o755, Size: int64(len(binary)), ModTime: created, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}); err != nil {
		return nil, err
	}
	if _, err := w.Write(binary); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	// It is read for the digest, for two archives and for the push, and compressed once.
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.DefaultCompression), tarball.WithCompressedCaching)
}
