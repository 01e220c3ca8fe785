// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes the software bill of materials of an image for one platform, as
// CycloneDX: the binary, and the modules that the linker has noted in it.
func (m *image) writeSBOM(w io.Writer, o options, p part) error {
	digest, err := p.image.Digest()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(p.binary)
	binary := cyclonedx.Component{
		BOMRef:     p.info.Path,
		Type:       cyclonedx.ComponentTypeApplication,
		Name:       p.info.Path,
		Version:    o.version,
		Hashes:     &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Licenses:   &cyclonedx.Licenses{{License: &cyclonedx.License{ID: licenses}}},
		PackageURL: moduleURL(p.info.Main.Path, "v"+o.version) + "#" + strings.TrimPrefix(strings.TrimPrefix(p.info.Path, p.info.Main.Path), "/"),
	}
	libraries := modules(p.info)
	refs := make([]string, 0, len(libraries))
	for _, library := range libraries {
		refs = append(refs, library.BOMRef)
	}
	container := cyclonedx.Component{
		BOMRef:  m.tag.String() + "@" + digest.String(),
		Type:    cyclonedx.ComponentTypeContainer,
		Name:    m.tag.Repository.String(),
		Version: m.tag.TagStr(),
		PackageURL: fmt.Sprintf("pkg:oci/%s@%s?arch=%s&os=%s&repository_url=%s&tag=%s", m.command, url.QueryEscape(digest.String()),
			p.platform.Architecture, p.platform.OS, url.QueryEscape(m.tag.Repository.String()), url.QueryEscape(m.tag.TagStr())),
	}
	bom := cyclonedx.NewBOM()
	// Without the usual random serial number: the same image has the same bill.
	bom.Metadata = &cyclonedx.Metadata{Timestamp: o.created.Format(time.RFC3339), Component: &container}
	components := append([]cyclonedx.Component{binary}, libraries...)
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{
		{Ref: container.BOMRef, Dependencies: &[]string{binary.BOMRef}},
		{Ref: binary.BOMRef, Dependencies: &refs},
	}
	// Version 1.6 is what scanners read so far.
	return cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cyclonedx.SpecVersion1_6)
}

// modules lists the modules that a program is made of, as they were compiled: what go.mod
// replaces stands under its replacement. The standard library is listed under the name
// that Go's database of vulnerabilities has for it.
func modules(info *debug.BuildInfo) []cyclonedx.Component {
	// "go1.26.1 X:experiment" is the standard library 1.26.1.
	version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	all := []cyclonedx.Component{library("stdlib", version)}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		all = append(all, library(module.Path, module.Version))
	}
	return all
}

func library(path, version string) cyclonedx.Component {
	purl := moduleURL(path, version)
	return cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl}
}

// moduleURL is the package URL of a Go module. A plus, as in +incompatible, would mean a
// space there.
func moduleURL(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}
