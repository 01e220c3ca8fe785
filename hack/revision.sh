#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the revision of the sources, with -dirty appended if they were changed since, for
# --version in builds that cannot find it themselves. REVISION overrides it. Without a
# repository it prints nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${REVISION+set}" ]; then
  echo "$REVISION"
elif revision=$(git rev-parse HEAD 2>/dev/null); then
  [ -z "$(git status --porcelain)" ] || revision+=-dirty
  echo "$revision"
fi
