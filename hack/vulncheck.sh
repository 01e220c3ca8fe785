#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Looks for known vulnerabilities that our code can reach, by govulncheck. GOVULNDB
# names another database than Go's own. Where that cannot be reached, there is nothing
# to say, and this does not fail; it does for any other error.
set -euo pipefail
cd "$(dirname "$0")/.."

code=0
out=$(go tool -modfile=hack/tools/go.mod govulncheck -db "${GOVULNDB:-https://vuln.go.dev}" ./... 2>&1) || code=$?
unreachable='fetching vulnerabilities: .*(dial tcp|proxyconnect|no such host|network is unreachable|[Tt]imeout|deadline exceeded)'
if [ $code != 0 ] && grep -qE "$unreachable" <<<"$out"; then
  echo "   not checked: the database of vulnerabilities cannot be reached from here (${GOVULNDB:-https://vuln.go.dev})"
  exit 0
fi
case $code in
0) ;;
3) echo "$out"; echo "upgrade what is found above: go get MODULE@VERSION" ;;
*) echo "$out"; echo "govulncheck does not work: see above" ;;
esac
exit $code
