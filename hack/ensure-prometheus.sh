#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the folder that holds prometheus and promtool, or with the argument alertmanager
# the one that holds prometheus-alertmanager. If this machine has none, it unpacks Debian's
# package into the user's cache directory: nothing is installed, no service starts.
# PROMETHEUS_ASSETS and ALERTMANAGER_ASSETS name other folders to take them from.
set -euo pipefail

case "${1:-prometheus}" in
prometheus) package=prometheus assets=PROMETHEUS_ASSETS programs=(prometheus promtool) ;;
alertmanager) package=prometheus-alertmanager assets=ALERTMANAGER_ASSETS programs=(prometheus-alertmanager) ;;
*)
  echo "usage: $0 [prometheus|alertmanager]" >&2
  exit 2
  ;;
esac
has_all() {
  local program
  for program in "${programs[@]}"; do [ -x "$1/$program" ] || return 1; done
}

if [ -n "${!assets:-}" ]; then
  has_all "${!assets}" || { echo "$assets=${!assets} does not hold ${programs[*]}" >&2; exit 1; }
  echo "${!assets}"
  exit
fi
if path=$(command -v "${programs[-1]}") && has_all "$(dirname "$path")"; then
  dirname "$path"
  exit
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/hoststatus/$package
if has_all "$cache/usr/bin"; then
  echo "$cache/usr/bin"
  exit
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  echo "this machine has neither $package nor apt-get to download it; install it, or set $assets" >&2
  exit 1
fi
mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9
if ! has_all "$cache/usr/bin"; then
  work=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  cd "$work"
  echo "Unpacking Debian's $package into $cache" >&2
  # Package lists may be missing, or so old that they name versions that are gone;
  # updating them takes root.
  if ! apt-get download "$package" >apt.log 2>&1; then
    { apt-get update && apt-get download "$package"; } >apt.log 2>&1 || { tail -5 apt.log >&2; echo "apt-get cannot download $package; install it, or set $assets" >&2; exit 1; }
  fi
  dpkg -x "$package"_*.deb unpacked
  rm -rf "$cache"
  mv unpacked "$cache"
fi
has_all "$cache/usr/bin" || { echo "Debian's package does not contain ${programs[*]}" >&2; exit 1; }
echo "$cache/usr/bin"
