#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the revision of the sources, with -dirty behind it if they were changed since:
# what --version says where a build does not find it out by itself. REVISION overrides
# it. Without a repository there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${REVISION+set}" ]; then
  echo "$REVISION"
elif revision=$(git rev-parse HEAD 2>/dev/null); then
  [ -z "$(git status --porcelain)" ] || revision+=-dirty
  echo "$revision"
fi
