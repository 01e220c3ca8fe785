#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks everything that needs no test: see `make verify`.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { # name command...
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  "$@"
  echo "   $((SECONDS - begin)) s"
}

formatted() {
  local files
  files=$(gofmt -l api cmd controllers hack internal test webhook)
  if [ -n "$files" ]; then
    echo "not formatted; run gofmt -w on: $files"
    return 1
  fi
}

licensed() {
  local files
  files=$(git ls-files -co --exclude-standard '*.go' | xargs grep -L '^// SPDX-License-Identifier: Apache-2.0$' || true)
  if [ -n "$files" ]; then
    echo "without '// SPDX-License-Identifier: Apache-2.0': $files"
    return 1
  fi
}

tidy() {
  local module
  for module in . hack/controlplane-newest hack/tools hack/vulndb hack/packaging hack/controlplane hack/lua hack/plot hack/prometheus-operator hack/dashboard; do
    (cd "$module" && go mod tidy -diff) || { echo "run go mod tidy in $module"; return 1; }
  done
}

# Generates in a copy of the tree, so that a check changes nothing and sees new
# files as well as changed ones.
generated() {
  local copy
  copy=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$copy'" RETURN
  git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$copy" 2>/dev/null || true
  (cd "$copy" && hack/generate.sh)
  local part different=0
  for part in api config docs charts; do
    diff -r "$part" "$copy/$part" || different=1
  done
  if [ $different = 1 ]; then
    echo "generated files are not up to date; run make generate"
    return 1
  fi
}

step "format" formatted
step "licence headers" licensed
step "go vet" go vet ./...
step "lint" bin/golangci-lint run ./...
step "modules are tidy" tidy
step "known vulnerabilities" hack/vulncheck.sh
step "chart" bin/helm lint --strict --quiet --set image.registry=registry.invalid/hoststatus charts/hoststatus
step "generated files are up to date" generated
