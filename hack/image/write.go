// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// write writes the files of the image.
func (m *image) write(o options) error {
	if err := create(filepath.Join(o.out, m.command+".oci.tar"), func(w io.Writer) error { return m.writeOCI(w, o) }); err != nil {
		return err
	}
	for _, p := range m.parts {
		prefix := fmt.Sprintf("%s.%s-%s", m.command, p.platform.OS, p.platform.Architecture)
		if err := create(filepath.Join(o.out, prefix+".docker.tar"), func(w io.Writer) error { return tarball.Write(m.tag, p.image, w) }); err != nil {
			return err
		}
		if err := create(filepath.Join(o.out, prefix+".cdx.json"), func(w io.Writer) error { return m.writeSBOM(w, o, p) }); err != nil {
			return err
		}
	}
	return nil
}

// writeOCI writes an archive of an OCI layout, as containerd, podman and skopeo read it.
func (m *image) writeOCI(w io.Writer, o options) (err error) {
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); err == nil {
			err = removeErr
		}
	}()
	files, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// The first annotation is the name under which containerd and podman import the
	// image; the second one is by which a layout is searched for a tag.
	if err := files.AppendIndex(m.index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          m.tag.String(),
		"org.opencontainers.image.ref.name": m.tag.TagStr(),
	})); err != nil {
		return err
	}
	return pack(w, os.DirFS(dir), o.created)
}

// pack writes the files of a folder as a tar archive that depends on their names and
// contents only.
func pack(w io.Writer, dir fs.FS, modified time.Time) error {
	archive := tar.NewWriter(w)
	err := fs.WalkDir(dir, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if entry.IsDir() {
			return archive.WriteHeader(&tar.Header{Name: path + "/", Mode: 0o755, ModTime: modified, Typeflag: tar.TypeDir, Format: tar.FormatUSTAR})
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: info.Size(), ModTime: modified, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		file, err := dir.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		_, err = io.Copy(archive, file)
		return err
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

// create creates a file, or replaces it, whole: one that is cut off would be taken for
// an image.
func create(path string, write func(io.Writer) error) (err error) {
	partial := path + ".partial"
	file, err := os.Create(partial)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(partial)
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if err := write(file); err != nil {
		_ = file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(partial, path)
}
