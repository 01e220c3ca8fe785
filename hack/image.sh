#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the container images: see `make image`. IMAGE_REGISTRY stands before their
# names, by default one that no node asks anybody for, IMAGE_TAG behind; PLATFORMS, such as linux/amd64,linux/arm64, builds for more
# than this machine, which needs a builder that can, and --push to keep the result.
set -euo pipefail
cd "$(dirname "$0")/.."
registry=${IMAGE_REGISTRY:-localhost/hoststatus} tag=${IMAGE_TAG:-$(sed -n 's/^const Version = "\(.*\)"$/\1/p' internal/version/version.go)}

# A client without an engine that it could speak to is of no use.
engine=
for candidate in ${CONTAINER_ENGINE:-docker podman}; do
  if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
    engine=$candidate
    break
  fi
done
if [ -z "$engine" ]; then
  echo "there is no container engine here: neither of '${CONTAINER_ENGINE:-docker podman}' is installed and answers '<engine> info'." >&2
  echo "Start one, or name it by CONTAINER_ENGINE. What would be in the images is built and tested without one by: go test ./test/install" >&2
  exit 1
fi
# The repository itself is not among what images are built from.
revision=$(hack/revision.sh)
for name in manager tenant-apiserver agent kubectl-hosts; do
  "$engine" build ${PLATFORMS:+--platform="$PLATFORMS"} --target "$name" --tag "$registry/$name:$tag" \
    ${revision:+--build-arg=REVISION="$revision" --label=org.opencontainers.image.revision="$revision"} "$@" .
done
