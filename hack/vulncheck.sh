#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Looks for known vulnerabilities that our code can reach, by govulncheck, in the
# database that hack/deps/vulndb pins: a check of the same tree always says the same. For what
# has become known since: GOVULNDB=https://vuln.go.dev.
set -euo pipefail
cd "$(dirname "$0")/.."

# indexed writes the pinned database as govulncheck reads it, once, and prints its folder.
indexed() {
  local module version dir
  module=$(cd hack/deps/vulndb && go mod download && go list -m -f '{{.Dir}}' golang.org/x/vulndb)
  version=${module##*@}
  dir=${XDG_CACHE_HOME:-$HOME/.cache}/hoststatus/vulndb-$version
  if [ ! -e "$dir/index/modules.json" ]; then
    mkdir -p "$(dirname "$dir")"
    local partial
    partial=$(mktemp -d "$dir.XXXXXX")
    (cd hack/deps/vulndb && go tool indexdb -vulns "$module/data/osv" -out "$partial") >&2
    # Who comes second keeps what the first has made.
    mv -T "$partial" "$dir" 2>/dev/null || rm -rf "$partial"
  fi
  echo "$version file://$dir"
}

if [ -z "${GOVULNDB:-}" ]; then
  found=$(indexed)
  read -r version GOVULNDB <<<"$found"
  echo "   in the database $version"
fi
code=0
out=$(go tool -modfile=hack/tools/go.mod govulncheck -db "$GOVULNDB" ./... 2>&1) || code=$?
# The standard library is that of whoever builds. Releases take the Go that go.mod asks
# for; a machine that may not fetch it is told, and can do no more.
pinned=$(sed -n 's/^toolchain //p' go.mod) here=$(go env GOVERSION)

# mended says whether all that was found is in the standard library, and not in that of
# the Go that go.mod asks for.
mended() {
  grep -q '^  Module: \|Fixed in: N/A' <<<"$out" && return 1
  local newest
  newest=$(sed -n 's/^ *Fixed in: .*@go//p' <<<"$out" | sort -V | tail -n 1)
  [ "$(printf '%s\n' "$newest" "${pinned#go}" | sort -V | tail -n 1)" = "${pinned#go}" ]
}

case $code in
0) ;;
3)
  if [ "$here" != "$pinned" ] && mended; then
    echo "   none in what is built with $pinned, as go.mod asks; the standard library of $here, which is used here, has $(grep -c '^Vulnerability #' <<<"$out"):"
    sed -n 's/^Vulnerability #.*: /   /p' <<<"$out"
    exit 0
  fi
  echo "$out"
  echo "upgrade what is found above: go get MODULE@VERSION, or for the standard library go get toolchain@VERSION and the Dockerfile"
  ;;
*) echo "$out"; echo "govulncheck does not work: see above" ;;
esac
exit $code
