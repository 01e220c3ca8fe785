#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the whole test suite: see `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
begin=$SECONDS

finish() {
  local code=$?
  if [ $code = 0 ]; then
    echo "PASS: the whole test suite, in $((SECONDS - begin)) s"
  else
    echo "FAIL: the test suite, after $((SECONDS - begin)) s"
  fi
}
trap finish EXIT

# The race detector needs a C compiler, which a machine for Go may lack.
race=-race
if [ "$(go env CGO_ENABLED)" != 1 ] || ! command -v "$(go env CC)" >/dev/null; then
  race=
  echo "== without the race detector: there is no C compiler"
fi

echo "== unit tests"
go test $race $(go list ./... | grep -v /test/)

echo "== the local control plane"
go run ./hack/ensure-controlplane

echo "== Prometheus"
if prometheus=$(hack/ensure-prometheus.sh); then
  export PROMETHEUS_ASSETS=$prometheus
elif [ "${CI:-}" = true ]; then
  echo "without it the alerts are not tested, which CI does not accept"
  exit 1
else
  echo "!! SKIPPED: without Prometheus neither the alerts nor the dashboard are tested"
fi

# The tests on a real control plane build our binaries with the same flags, and look for
# data races in their logs.
echo "== installation, the plugin and Nodes as hosts, two packages at a time"
together="./test/gitops ./test/install ./test/kubectlhosts ./test/nodemirror"
# On a new machine it builds 0.1, a scheduler and images of its own first.
GOFLAGS="$(go env GOFLAGS) $race" go test -p 2 -timeout 40m $together

echo "== the other end-to-end tests, one package after the other: they look at how long things take"
GOFLAGS="$(go env GOFLAGS) $race" go test -p 1 -timeout 20m $(go list ./test/... | grep -vxF "$(go list ./test/leaks $together)")

echo "== memory under attack, and elections by the hundred, without the race detector"
go test -timeout 10m ./internal/serving ./internal/leadership

echo "== goroutines that are left"
# Without the race detector: it would find a race within k8s.io/apiserver, which
# starts to follow its certificates before it has finished its TLS configuration.
go test -timeout 10m ./test/leaks

echo "== performance, by ratios"
make --no-print-directory bench-short
