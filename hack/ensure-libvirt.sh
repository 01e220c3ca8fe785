#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what test/libvirt needs to run domains, from Debian's packages, if it is missing:
# libvirtd, its QEMU driver, virsh and QEMU. Where it cannot, it prints why, and the test is
# skipped. Not libvirt-daemon-system: that is for a machine that is to keep a libvirtd.
set -euo pipefail
packages=()
need() { # PACKAGE COMMAND
  command -v "$2" >/dev/null || packages+=("$1")
}
need libvirt-daemon libvirtd
compgen -G '/usr/lib*/*/libvirt/connection-driver/libvirt_driver_qemu.so' >/dev/null || packages+=(libvirt-daemon-driver-qemu)
need libvirt-clients virsh
need qemu-system-x86 qemu-system-x86_64
need iproute2 ip
[ ${#packages[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${packages[*]}; install them as root, for example by: apt-get install --no-install-recommends ${packages[*]}" >&2
  exit 0
fi
echo "installing ${packages[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { apt-get install -y --no-install-recommends "${packages[@]}" >"$log" 2>&1; }
# The lists of a machine that was never updated know no packages, and old ones know
# versions that are gone.
install || { apt-get update >"$log" 2>&1 && install; } || { tail -5 "$log" >&2; echo "apt-get cannot install ${packages[*]}" >&2; exit 1; }
