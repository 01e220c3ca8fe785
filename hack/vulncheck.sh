#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Looks for known vulnerabilities that our code can reach, with govulncheck and the
# database that hack/deps/vulndb pins, so that the same tree always gives the same result.
# For newer vulnerabilities: GOVULNDB=https://vuln.go.dev.
set -euo pipefail
cd "$(dirname "$0")/.."

# indexed writes the pinned database once, in govulncheck's format, and prints its URL.
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
    # If another process was first, its result stays.
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
# The standard library is that of the Go that builds. Releases use the Go that go.mod
# pins; a machine that cannot download it only gets a warning.
pinned=$(sed -n 's/^toolchain //p' go.mod) here=$(go env GOVERSION)

# fixed_in_pinned succeeds if everything found is in the standard library, and fixed in that
# of the Go that go.mod pins.
fixed_in_pinned() {
  grep -q '^  Module: \|Fixed in: N/A' <<<"$out" && return 1
  local newest
  newest=$(sed -n 's/^ *Fixed in: .*@go//p' <<<"$out" | sort -V | tail -n 1)
  [ "$(printf '%s\n' "$newest" "${pinned#go}" | sort -V | tail -n 1)" = "${pinned#go}" ]
}

case $code in
0) ;;
3)
  if [ "$here" != "$pinned" ] && fixed_in_pinned; then
    echo "   none with $pinned, which go.mod pins; the standard library of $here, which is used here, has $(grep -c '^Vulnerability #' <<<"$out"):"
    sed -n 's/^Vulnerability #.*: /   /p' <<<"$out"
    exit 0
  fi
  echo "$out"
  echo "upgrade the modules above: go get MODULE@VERSION, or for the standard library go get toolchain@VERSION and the Dockerfile"
  ;;
*) echo "$out"; echo "govulncheck failed: see above" ;;
esac
exit $code
