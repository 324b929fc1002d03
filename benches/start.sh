#!/bin/sh
# Start-to-exit time of `minidock run --rm busybox true`, bridged, with -p and without network, against floor.c on the same host
# in the same minutes. Works on a network namespace, mount namespace, engine root and cgroup parents of its own.
#
#   benches/start.sh [ROUNDS]        as root; ROUNDS: 200
#   MINIDOCK=PATH benches/start.sh   with this binary, without building one; MINIDOCK=none: the floor alone
#
# Needs cc (with a static libc), ip, nft and busybox (Debian: build-essential iproute2 nftables busybox-static).
# The exit code tells of failures, never of times.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
rounds=${1:-200}

if [ "${BENCH_INSIDE:-}" = "" ]; then
    [ "$(id -u)" = 0 ] || { echo "start.sh: needs root: it makes namespaces and cgroups" >&2; exit 1; }
    for tool in cc ip nft busybox unshare tar; do
        command -v "$tool" >/dev/null || { echo "start.sh: $tool is missing: apt-get install build-essential iproute2 nftables busybox-static" >&2; exit 1; }
    done
    if [ "${MINIDOCK:-}" = "" ]; then
        (cd "$here/.." && cargo build --release --quiet)
        for MINIDOCK in "${CARGO_TARGET_DIR:-$here/../target}"/*/release/minidock "${CARGO_TARGET_DIR:-$here/../target}/release/minidock"; do
            [ -x "$MINIDOCK" ] && break
        done
    fi
    case $MINIDOCK in none) ;; *) MINIDOCK=$(realpath "$MINIDOCK") ;; esac
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/minidock-bench.XXXXXX") # not /tmp: overlay's upper folder wants a disk as the users' has
    tidy() {
        for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
            # With groups in it where a floor program has failed.
            [ -d "$group/$FLOOR_CGROUP" ] && find "$group/$FLOOR_CGROUP" -depth -type d -exec rmdir {} + || true
        done
        rm -rf "$work"
    }
    FLOOR_CGROUP=floor-bench-$$
    trap tidy EXIT
    trap 'exit 1' INT TERM HUP
    cc -O2 -static -Wall -o "$work/floor" "$here/floor.c"
    cc -O2 -static -Wall -o "$work/timer" "$here/timer.c"
    export MINIDOCK FLOOR_CGROUP
    status=0
    BENCH_INSIDE=$work unshare --net --mount "$here/start.sh" "$rounds" || status=$?
    exit $status
fi

# From here on in the test host's own namespaces.
work=$BENCH_INSIDE
floor=$work/floor-host
mkdir -p "$floor/lower" "$floor/merged" "$floor/run" "$work/root"
for folder in bin dev etc proc root sys tmp; do mkdir "$floor/lower/$folder"; done
cp "$(command -v busybox)" "$floor/lower/bin/busybox"
for applet in true sh echo cat; do ln -s busybox "$floor/lower/bin/$applet"; done

for group in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/devices; do
    if [ -f "$group/cgroup.procs" ]; then mkdir -p "$group/$FLOOR_CGROUP"; fi
done

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward # this namespace's
ip link add floor0 type bridge
ip addr add 172.31.0.1/16 dev floor0
ip link set floor0 up
nft -f - <<'RULES'
table ip floor {
    map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
    chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local dnat ip to meta l4proto . th dport map @ports; }
    chain postrouting { type nat hook postrouting priority srcnat; ip saddr 172.31.0.0/16 oifname != "floor0" masquerade; }
}
RULES

subject() { if [ "$MINIDOCK" = none ]; then echo -; else echo "$MINIDOCK $*"; fi; }
if [ "$MINIDOCK" != none ]; then
    export MINIDOCK_ROOT="$work/root"
    tar -C "$floor/lower" -cf - . | "$MINIDOCK" import - busybox >/dev/null
fi
"$work/timer" "$rounds" \
    "bridged" "$(subject run --rm busybox true)" "$work/floor $floor bridged" \
    "bridged, -p" "$(subject run --rm -p 18080:80 busybox true)" "$work/floor $floor published" \
    "no network" "$(subject run --rm --network none busybox true)" "$work/floor $floor none"
if [ "${BENCH_TRACE:-}" ]; then FLOOR_TRACE=1 "$work/floor" "$floor" published; fi
left=$(ls "$floor/run" | wc -l)
tries=50
while [ "$left" != 0 ] && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); left=$(ls "$floor/run" | wc -l); done
[ "$left" = 0 ] || { echo "start.sh: the floor left $left folders behind" >&2; exit 1; }
