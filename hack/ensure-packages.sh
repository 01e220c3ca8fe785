#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what some tests need, from Debian's packages, if it is missing:
#   hack/ensure-packages.sh browser   for test/page: Chromium, and a font
#   hack/ensure-packages.sh nodes     for test/cluster: containerd, runc, CNI and networks
#   hack/ensure-packages.sh domains   for test/libvirt: libvirtd, its QEMU driver, virsh, QEMU.
#                                     Not libvirt-daemon-system, which keeps a libvirtd running
#   hack/ensure-packages.sh fencing   for test/fencing: a simulated management controller, and
#                                     the fence agent that powers hosts off by it
#   hack/ensure-packages.sh openstack for test/nova: openstack, nova, and the SDK that they bring
#   hack/ensure-packages.sh model     for test/model: Spin and a C compiler
# Where it cannot, it prints why, and the test is skipped.
set -euo pipefail
packages=()
need() { # PACKAGE COMMAND-OR-FILE
  command -v "$2" >/dev/null || compgen -G "$2" >/dev/null || packages+=("$1")
}
case "${1:-}" in
browser)
  need chromium chromium
  need fonts-dejavu-core /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
  ;;
nodes)
  need containerd containerd
  need runc runc
  need containernetworking-plugins /usr/lib/cni/bridge
  need iptables iptables
  need iproute2 ip
  need util-linux nsenter
  need conntrack conntrack
  ;;
domains)
  need libvirt-daemon libvirtd
  need libvirt-daemon-driver-qemu '/usr/lib*/*/libvirt/connection-driver/libvirt_driver_qemu.so'
  need libvirt-clients virsh
  need qemu-system-x86 qemu-system-x86_64
  need iproute2 ip
  ;;
fencing)
  need openipmi ipmi_sim
  need fence-agents /usr/sbin/fence_ipmilan
  need ipmitool ipmitool
  ;;
openstack)
  need python3-openstackclient openstack
  need python3-novaclient nova
  need python3-openstacksdk /usr/lib/python3/dist-packages/openstack/__init__.py
  need fence-agents /usr/sbin/fence_compute
  need python3-keystoneclient /usr/lib/python3/dist-packages/keystoneclient/__init__.py
  ;;
model)
  need spin spin
  need gcc gcc
  need libc6-dev /usr/include/stdio.h
  ;;
*)
  echo "usage: $0 browser|nodes|domains|fencing|openstack|model" >&2
  exit 2
  ;;
esac
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
