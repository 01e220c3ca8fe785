#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the folder that holds prometheus and promtool. If this machine has none, it
# unpacks Debian's package into the user's cache directory: nothing is installed, no
# service starts. PROMETHEUS_ASSETS names another folder to take them from.
set -euo pipefail

has_both() { [ -x "$1/prometheus" ] && [ -x "$1/promtool" ]; }

if [ -n "${PROMETHEUS_ASSETS:-}" ]; then
  has_both "$PROMETHEUS_ASSETS" || { echo "PROMETHEUS_ASSETS=$PROMETHEUS_ASSETS does not hold prometheus and promtool" >&2; exit 1; }
  echo "$PROMETHEUS_ASSETS"
  exit
fi
if path=$(command -v promtool) && has_both "$(dirname "$path")"; then
  dirname "$path"
  exit
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/hoststatus/prometheus
if has_both "$cache/usr/bin"; then
  echo "$cache/usr/bin"
  exit
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  echo "this machine has neither prometheus nor apt-get to download it; install it, or set PROMETHEUS_ASSETS" >&2
  exit 1
fi
mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9
if ! has_both "$cache/usr/bin"; then
  work=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  cd "$work"
  echo "Unpacking Debian's prometheus into $cache" >&2
  # Package lists may be missing, or so old that they name versions that are gone;
  # updating them takes root.
  if ! apt-get download prometheus >apt.log 2>&1; then
    { apt-get update && apt-get download prometheus; } >apt.log 2>&1 || { tail -5 apt.log >&2; echo "apt-get cannot download prometheus; install it, or set PROMETHEUS_ASSETS" >&2; exit 1; }
  fi
  dpkg -x prometheus_*.deb unpacked
  rm -rf "$cache"
  mv unpacked "$cache"
fi
has_both "$cache/usr/bin" || { echo "Debian's package does not contain prometheus and promtool" >&2; exit 1; }
echo "$cache/usr/bin"
