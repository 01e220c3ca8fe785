#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the archives of the plugins for all platforms, and a krew manifest for each plugin:
#   hack/krew.sh VERSION BASE-URL DIRECTORY
set -euo pipefail
if [ $# != 3 ]; then
  echo "usage: $0 VERSION BASE-URL DIRECTORY, for example $0 v0.2.0 https://example.com/v0.2.0 dist" >&2
  exit 2
fi
version=$1 base=${2%/} out=$(mkdir -p "$3" && cd "$3" && pwd)
cd "$(dirname "$0")/.."
if ! [[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
  echo "$version is not a version; write it as v0.2.0" >&2
  exit 2
fi
revision=$(hack/revision.sh)
for manifest in deploy/krew/*.yaml; do
  name=$(basename "$manifest" .yaml)
  plugin=kubectl-$name
  sed "s|@VERSION@|$version|" "$manifest" >"$out/$name.yaml"
  for platform in ${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64}; do
    os=${platform%/*} arch=${platform#*/} suffix=
    [ "$os" = windows ] && suffix=.exe
    archive=$plugin-$version-$os-$arch.tar.gz
    build=$(mktemp -d)
    CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -buildvcs=false -ldflags="-s${revision:+ -X hoststatus.dev/hoststatus/internal/version.revision=$revision}" -o "$build/$plugin$suffix" "./cmd/$plugin"
    cp LICENSE "cmd/$plugin/kubectl_complete-$name" "$build"
    # The same source gives the same archive, and so the same checksum. The folder is not
    # in it: tar would apply its mode to the folder into which it is unpacked.
    tar --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=u=rwX,go=rX -C "$build" \
      -c LICENSE "$plugin$suffix" "kubectl_complete-$name" | gzip -n >"$out/$archive"
    rm -rf "$build"
    cat >>"$out/$name.yaml" <<END
  - selector:
      matchLabels:
        os: $os
        arch: $arch
    uri: $base/$archive
    sha256: $(sha256sum "$out/$archive" | cut -d' ' -f1)
    bin: $plugin$suffix
END
  done
  echo "$out/$name.yaml"
done
