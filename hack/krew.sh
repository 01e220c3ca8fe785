#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the plugin's archives for all platforms, and the krew manifest for them:
#   hack/krew.sh VERSION BASE-URL DIRECTORY
set -euo pipefail
if [ $# != 3 ]; then
  echo "usage: $0 VERSION BASE-URL DIRECTORY, for example $0 v0.1.0 https://example.com/v0.1.0 dist" >&2
  exit 2
fi
version=$1 base=${2%/} out=$(mkdir -p "$3" && cd "$3" && pwd)
cd "$(dirname "$0")/.."
if ! [[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
  echo "$version is not a version; write it as v0.1.0" >&2
  exit 2
fi
revision=$(hack/revision.sh)
sed "s|@VERSION@|$version|" deploy/krew/hosts.yaml >"$out/hosts.yaml"
for platform in ${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64}; do
  os=${platform%/*} arch=${platform#*/} suffix=
  [ "$os" = windows ] && suffix=.exe
  archive=kubectl-hosts-$version-$os-$arch.tar.gz
  build=$(mktemp -d)
  CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -buildvcs=false -ldflags="-s${revision:+ -X hoststatus.dev/hoststatus/internal/version.revision=$revision}" -o "$build/kubectl-hosts$suffix" ./cmd/kubectl-hosts
  cp LICENSE cmd/kubectl-hosts/kubectl_complete-hosts "$build"
  # The same source gives the same archive, and so the same checksum. The folder is not
  # in it: tar would apply its mode to the folder into which it is unpacked.
  tar --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=u=rwX,go=rX -C "$build" \
    -c LICENSE "kubectl-hosts$suffix" kubectl_complete-hosts | gzip -n >"$out/$archive"
  rm -rf "$build"
  cat >>"$out/hosts.yaml" <<END
  - selector:
      matchLabels:
        os: $os
        arch: $arch
    uri: $base/$archive
    sha256: $(sha256sum "$out/$archive" | cut -d' ' -f1)
    bin: kubectl-hosts$suffix
END
done
echo "$out/hosts.yaml"
