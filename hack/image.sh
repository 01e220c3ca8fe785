#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the container images, one for each command in cmd/: see `make image`.
#
#   hack/image.sh [--push]
#       assembles them without a container engine, and writes them to bin/images: OCI
#       archives for all PLATFORMS, Docker archives and bills of materials for each. The
#       same sources and the same Go give the same bytes. --push pushes them, too.
#   CONTAINER_ENGINE=docker hack/image.sh [ARGUMENT...]
#       builds them from the Dockerfile with docker, podman or buildah, into its store. The
#       arguments are passed on to its build command.
#
# IMAGE_REGISTRY comes before the names, by default localhost/hoststatus, which no node
# pulls from; IMAGE_TAG comes after them, by default the release. PLATFORMS is by default
# linux/amd64,linux/arm64, and with an engine this machine's. IMAGE_OUT replaces the folder
# bin/images, SOURCE_DATE_EPOCH the time of the commit.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^const Version = "\(.*\)"$/\1/p' internal/version/version.go)
registry=${IMAGE_REGISTRY:-localhost/hoststatus} tag=${IMAGE_TAG:-$version}
commands=(cmd/*/)
commands=("${commands[@]%/}") commands=("${commands[@]#cmd/}")
# The images are built without the repository, so they cannot find the revision.
revision=$(hack/revision.sh)

if [ -n "${CONTAINER_ENGINE:-}" ]; then
  # A client may be installed without a running engine.
  if ! command -v "$CONTAINER_ENGINE" >/dev/null || ! "$CONTAINER_ENGINE" info >/dev/null; then
    echo "CONTAINER_ENGINE=$CONTAINER_ENGINE: it is not installed, or '$CONTAINER_ENGINE info' fails. Start it, or unset CONTAINER_ENGINE to build the images without an engine." >&2
    exit 1
  fi
  for name in "${commands[@]}"; do
    "$CONTAINER_ENGINE" build ${PLATFORMS:+--platform="$PLATFORMS"} --target "$name" --tag "$registry/$name:$tag" \
      --label=org.opencontainers.image.version="$version" \
      ${revision:+--build-arg=REVISION="$revision" --label=org.opencontainers.image.revision="$revision"} "$@" .
  done
  exit
fi

push=
case "$*" in
'') ;;
--push) push=yes ;;
*)
  echo "usage: $0 [--push]; other arguments are for the build command of an engine, which CONTAINER_ENGINE names" >&2
  exit 2
  ;;
esac
platforms=${PLATFORMS:-linux/amd64,linux/arm64}
for platform in ${platforms//,/ }; do
  if ! [[ $platform =~ ^linux/[a-z0-9]+$ ]]; then
    echo "PLATFORMS: '$platform' is not linux/ARCHITECTURE; write for example PLATFORMS=linux/amd64,linux/arm64" >&2
    exit 2
  fi
done
mkdir -p "${IMAGE_OUT:=bin/images}"
out=$(cd "$IMAGE_OUT" && pwd)
created=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
# The binaries stay, so that the next build links only what has changed.
for platform in ${platforms//,/ }; do
  GOOS=${platform%/*} GOARCH=${platform#*/} REVISION=$revision hack/build-static.sh "$out/static/${platform/\//_}"
done
# Old images of another command or platform would look like new ones.
rm -f "$out"/*.oci.tar "$out"/*.docker.tar "$out"/*.cdx.json
cd hack/image
GOFLAGS=-buildvcs=false go run . --binaries="$out/static" --out="$out" --platforms="$platforms" --registry="$registry" --tag="$tag" \
  --version="$version" ${revision:+--revision="$revision"} --created="$created" ${push:+--push} "${commands[@]}"
echo "written to $out: COMMAND.oci.tar, and for each platform COMMAND.OS-ARCHITECTURE.docker.tar and .cdx.json" >&2
