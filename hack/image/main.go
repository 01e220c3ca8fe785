// SPDX-License-Identifier: Apache-2.0

// Command image assembles container images from static binaries, without a container
// engine: for each command one image for several platforms, as an OCI archive, beside it
// a Docker archive and a software bill of materials for each platform. The same
// binaries give the same bytes. hack/image.sh builds the binaries and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// pushTimeout bounds the push of one image, so that a registry that stops answering
// ends the command.
const pushTimeout = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		os.Exit(1)
	}
}

// options are what the flags and arguments say.
type options struct {
	binaries, out string
	registry, tag string
	version       string
	revision      string
	created       time.Time
	platforms     []v1.Platform
	push          bool
	commands      []string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, command := range o.commands {
		made, err := assemble(o, command)
		if err != nil {
			return fmt.Errorf("image %s: %w", command, err)
		}
		if err := made.write(o); err != nil {
			return fmt.Errorf("image %s: %w", command, err)
		}
		if o.push {
			if err := made.push(ctx); err != nil {
				return fmt.Errorf("pushing %s: %w", made.tag, err)
			}
		}
		digest, err := made.index.Digest()
		if err != nil {
			return fmt.Errorf("image %s: %w", command, err)
		}
		_, _ = fmt.Fprintf(stdout, "%s@%s\n", made.tag, digest)
	}
	return nil
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(stderr, "usage: image [flags] COMMAND...\n\nAssembles a container image for each command.")
		flags.PrintDefaults()
	}
	var platforms, created string
	flags.StringVar(&o.binaries, "binaries", "", "folder with the static binaries: linux_amd64/COMMAND and so on")
	flags.StringVar(&o.out, "out", "", "folder for the archives and the bills of materials")
	flags.StringVar(&platforms, "platforms", "", "platforms, separated by commas, for example linux/amd64,linux/arm64")
	flags.StringVar(&o.registry, "registry", "", "registry and path in front of the names of the images, for example registry.example.com/hoststatus")
	flags.StringVar(&o.tag, "tag", "", "tag of the images; default: the version")
	flags.StringVar(&o.version, "version", "", "release that the binaries are of")
	flags.StringVar(&o.revision, "revision", "", "revision of the sources; without it the images have no such label")
	flags.StringVar(&created, "created", "0", "time that the images and the files in them have, in seconds since 1970")
	flags.BoolVar(&o.push, "push", false, "push the images to the registry, with the credentials of docker or podman login")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.commands = flags.Args()
	if o.tag == "" {
		o.tag = o.version
	}

	var errs []error
	for _, required := range []struct{ flag, value string }{
		{"binaries", o.binaries}, {"out", o.out}, {"platforms", platforms}, {"registry", o.registry}, {"version", o.version},
	} {
		if required.value == "" {
			errs = append(errs, fmt.Errorf("--%s is required", required.flag))
		}
	}
	if len(o.commands) == 0 {
		errs = append(errs, errors.New("no command: name the commands that get an image"))
	}
	if seconds, err := strconv.ParseInt(created, 10, 64); err != nil || seconds < 0 {
		errs = append(errs, fmt.Errorf("--created (SOURCE_DATE_EPOCH): %q is not a number of seconds since 1970", created))
	} else {
		o.created = time.Unix(seconds, 0).UTC()
	}
	seen := map[string]bool{}
	for platform := range strings.SplitSeq(platforms, ",") {
		// Variants such as linux/arm/v7 would need GOARM and the like for their binaries.
		system, architecture, _ := strings.Cut(platform, "/")
		switch {
		case platforms == "":
		case system != "linux" || architecture == "" || strings.Contains(architecture, "/"):
			errs = append(errs, fmt.Errorf("--platforms (PLATFORMS): %q is not linux/ARCHITECTURE, for example linux/amd64", platform))
		case seen[platform]:
			errs = append(errs, fmt.Errorf("--platforms (PLATFORMS): %s is listed twice", platform))
		}
		seen[platform] = true
		o.platforms = append(o.platforms, v1.Platform{OS: system, Architecture: architecture})
	}
	if o.registry != "" && o.tag != "" {
		for _, command := range o.commands {
			tag, err := o.reference(command)
			if err != nil {
				errs = append(errs, err)
				break
			}
			if o.push && tag.RegistryStr() == "localhost" {
				errs = append(errs, fmt.Errorf("--push: %s is not in a registry; set IMAGE_REGISTRY (--registry), for example to registry.example.com/hoststatus", tag))
				break
			}
		}
	}
	return o, errors.Join(errs...)
}

// reference is the name of the image of a command. It begins with a registry's name:
// without one, each engine completes it in its own way.
func (o options) reference(command string) (name.Tag, error) {
	full := o.registry + "/" + command + ":" + o.tag
	tag, err := name.NewTag(full, name.StrictValidation)
	if err == nil && strings.Contains(full, "//") {
		err = errors.New("a name has neither a scheme nor an empty part")
	}
	if err != nil {
		return tag, fmt.Errorf("%q is not the full name of an image (%w): set --registry (IMAGE_REGISTRY) such as registry.example.com/hoststatus, and --tag (IMAGE_TAG) such as 0.2.0", full, err)
	}
	return tag, nil
}

// binary is the path of a command's binary for a platform.
func (o options) binary(command string, p v1.Platform) string {
	return filepath.Join(o.binaries, p.OS+"_"+p.Architecture, command)
}

// push pushes the image with all its platforms.
func (m *image) push(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	return remote.WriteIndex(m.tag, m.index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("hoststatus-image"))
}
