#!/bin/sh
# All tests of minidock: format, lints, unit and end-to-end tests, and some of these on other kernels in a VM.
# As root. What is missing is installed by apt. --no-vm leaves the VMs out.
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "tests/all.sh: the tests make namespaces; run them as root" >&2; exit 1; }

packages="iptables nftables iproute2 iputils-ping busybox-static conntrack bridge-utils curl gzip zstd util-linux procps net-tools
    openvswitch-switch"
missing=
for package in $packages; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # RUNLEVEL=1: no service is started on this machine (openvswitch-switch has one); the tests start their own.
    # shellcheck disable=SC2086
    RUNLEVEL=1 apt-get -qq -y --no-install-recommends install $missing >/dev/null
fi

step() {
    echo "== $*"
    "$@"
}

step cargo fmt --all --check
step cargo clippy --quiet --workspace --all-targets -- -D warnings
step cargo test --workspace --no-fail-fast
[ "${1-}" = --no-vm ] || step tests/vm/vm.sh
echo "== all passed"
