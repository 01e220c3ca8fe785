// SPDX-License-Identifier: Apache-2.0

package install

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// revision is the one that the images of the tests are labelled with.
const revision = "0123456789abcdef-dirty"

// image is the image of a command for this platform.
type image struct {
	Config struct {
		User       string
		Entrypoint []string
		Labels     map[string]string
	} `json:"config"`
	// files says where on this machine the content of each file of the image is.
	files map[string]string
	// written is what hack/image.sh has written about it.
	written []string
}

// images builds the images once, as `make image` does, for this platform, and reads them
// from their archives: what the tests run is what a kubelet would run.
var images = sync.OnceValues(func() (map[string]image, error) {
	root, err := root()
	if err != nil {
		return nil, err
	}
	// go test takes its last result for good where nothing has changed that the test
	// itself has looked at.
	for _, folder := range []string{"hack/image", "hack/image.sh", "hack/build-static.sh", "cmd", "internal/version"} {
		if err := filepath.WalkDir(filepath.Join(root, folder), func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			return nil, err
		}
	}
	out := filepath.Join(scratch, "images")
	cmd := exec.Command(filepath.Join(root, "hack", "image.sh"))
	cmd.Env = append(os.Environ(), "CONTAINER_ENGINE=", "IMAGE_OUT="+out, "IMAGE_REGISTRY=registry.invalid/hoststatus", "IMAGE_TAG=", "PLATFORMS=linux/"+runtime.GOARCH, "REVISION="+revision)
	if message, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the images: %w\n%s", err, message)
	}
	archives, err := filepath.Glob(filepath.Join(out, "*.oci.tar"))
	if err != nil {
		return nil, err
	}
	all := map[string]image{}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".oci.tar")
		one, err := readOCI(archive, filepath.Join(out, "unpacked", name))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", archive, err)
		}
		if one.written, err = filepath.Glob(filepath.Join(out, name+".*")); err != nil {
			return nil, err
		}
		all[name] = one
	}
	return all, nil
})

// readOCI reads the image for this platform from an OCI archive, and unpacks its files
// into a folder.
func readOCI(archive, dir string) (one image, err error) {
	blobs, err := untar(archive)
	if err != nil {
		return one, err
	}
	type descriptor struct {
		Digest   string
		Platform *struct{ OS, Architecture string }
	}
	var outer, index struct{ Manifests []descriptor }
	if err := json.Unmarshal(blobs["index.json"], &outer); err != nil {
		return one, fmt.Errorf("index.json: %w", err)
	}
	if len(outer.Manifests) != 1 {
		return one, fmt.Errorf("index.json lists %v, want one image", outer.Manifests)
	}
	blob := func(d descriptor, into any) error {
		return json.Unmarshal(blobs["blobs/"+strings.Replace(d.Digest, ":", "/", 1)], into)
	}
	if err := blob(outer.Manifests[0], &index); err != nil {
		return one, fmt.Errorf("the image's index: %w", err)
	}
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS != runtime.GOOS || d.Platform.Architecture != runtime.GOARCH {
			continue
		}
		var manifest struct {
			Config descriptor
			Layers []descriptor
		}
		if err := blob(d, &manifest); err != nil {
			return one, fmt.Errorf("the image's manifest: %w", err)
		}
		if err := blob(manifest.Config, &one); err != nil {
			return one, fmt.Errorf("the image's configuration: %w", err)
		}
		one.files = map[string]string{}
		for _, layer := range manifest.Layers {
			if err := one.unpack(blobs["blobs/"+strings.Replace(layer.Digest, ":", "/", 1)], dir); err != nil {
				return one, fmt.Errorf("layer %s: %w", layer.Digest, err)
			}
		}
		return one, nil
	}
	return one, fmt.Errorf("there is no image for %s/%s among %v", runtime.GOOS, runtime.GOARCH, index.Manifests)
}

// untar reads a whole archive.
func untar(archive string) (map[string][]byte, error) {
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	all := map[string][]byte{}
	for r := tar.NewReader(file); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if all[header.Name], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
}

// unpack unpacks a layer into a folder.
func (i *image) unpack(layer []byte, dir string) error {
	plain, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		return err
	}
	for r := tar.NewReader(plain); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		name := path.Join("/", header.Name)
		if err := write(dir, name, content, header.FileInfo().Mode().Perm()); err != nil {
			return err
		}
		i.files[name] = filepath.Join(dir, name)
	}
}
