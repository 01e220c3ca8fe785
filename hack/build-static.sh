#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the binaries as they are in the images, static and without paths of this
# machine, into a folder: hack/build-static.sh DIRECTORY. GOOS and GOARCH set the
# platform, REVISION the revision of the sources, for --version.
set -euo pipefail
if [ $# != 1 ]; then
  echo "usage: $0 DIRECTORY" >&2
  exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
CGO_ENABLED=0 GOFLAGS= go build -trimpath -buildvcs=false -ldflags="-s${REVISION:+ -X hoststatus.dev/hoststatus/internal/version.revision=$REVISION}" -o "$out/" ./cmd/...
