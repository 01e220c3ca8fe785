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
  files=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l)
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

# Every module of the repository: this one, and those of the tools.
modules() { git ls-files '*go.mod' | xargs -n 1 dirname; }

tidy() {
  local module
  for module in $(modules); do
    (cd "$module" && go mod tidy -diff) || { echo "run go mod tidy in $module"; return 1; }
  done
}

# Modules without packages only pin versions of what is built from others.
with_packages() {
  local module
  for module in $(modules); do
    if (cd "$module" && [ -n "$(go list ./... 2>/dev/null)" ]); then echo "$module"; fi
  done
}

vet() {
  local module
  for module in $(with_packages); do
    (cd "$module" && go vet ./...) || { echo "the above is in the module $module"; return 1; }
  done
}

lint() {
  local module
  for module in $(with_packages); do
    (cd "$module" && "$OLDPWD/bin/golangci-lint" run --config "$OLDPWD/.golangci.yml" ./...) || { echo "the above is in the module $module"; return 1; }
  done
}

# Generates in a copy of the tree, so that the check changes nothing and sees new files
# as well as changed ones.
generated() {
  local copy
  copy=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$copy'" RETURN
  git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$copy" 2>/dev/null || true
  (cd "$copy" && hack/generate.sh)
  local part different=0
  for part in api config docs charts internal hack; do
    diff -r "$part" "$copy/$part" || different=1
  done
  if [ $different = 1 ]; then
    echo "generated files are not up to date; run make generate"
    return 1
  fi
}

step "format" formatted
step "licence headers" licensed
step "go vet" vet
step "lint" lint
step "modules are tidy" tidy
step "known vulnerabilities" hack/vulncheck.sh
step "chart" bin/helm lint --strict --quiet --set image.registry=registry.invalid/hoststatus charts/hoststatus
step "generated files are up to date" generated
