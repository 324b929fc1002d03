#!/bin/sh
# Compares minidock with docker: archives of each read by the other, then every case of cases.txt with both, differences
# told. By hand, not in CI: a docker container takes a second.
#
#   tests/docker/run.sh [--only RE]        as root; needs Debian's docker.io, busybox-static, python3
#
# dockerd and minidock each get a network namespace, a folder and a cgroup parent of their own; all of it ends with this
# script.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "run.sh: needs root: it starts container engines" >&2; exit 1; }
for tool in dockerd containerd docker busybox python3 ip nsenter; do
    command -v "$tool" >/dev/null || { echo "run.sh: $tool is missing: apt-get install docker.io busybox-static python3 iproute2" >&2; exit 1; }
done
if [ "${MINIDOCK:-}" = "" ]; then
    (cd "$here/../.." && cargo build --quiet)
    for MINIDOCK in "${CARGO_TARGET_DIR:-$here/../../target}"/*/debug/minidock; do [ -x "$MINIDOCK" ] && break; done
fi
MINIDOCK=$(realpath "$MINIDOCK")
work=$(mktemp -d /var/tmp/minidock-docker.XXXXXX)
mkdir "$work/run" "$work/image" "$work/image/bin" "$work/image/etc" "$work/image/tmp" "$work/image/root"

# A namespace with loopback and an uplink, in which its first process does what the arguments say.
host() {
    octet=$1; shift
    unshare -n -m --propagation private sh -c '
        mkdir -p /run/netns; mount -t tmpfs none /run/netns
        ip link set lo up
        ip link add uplink type veth peer name far
        ip addr add 10.98.'"$octet"'.1/24 dev uplink; ip link set uplink up; ip link set far up
        ip route add default via 10.98.'"$octet"'.2
        exec "$@"' host "$@" </dev/null >"$work/host-$octet.log" 2>&1 &
}
host 1 sh -c "containerd --root '$work/containerd' --state '$work/run/containerd' --address '$work/run/containerd.sock' &
    echo \$! >'$work/run/containerd.pid'
    until [ -S '$work/run/containerd.sock' ]; do sleep 0.1; done
    exec dockerd --containerd '$work/run/containerd.sock' --data-root '$work/docker' --exec-root '$work/run/docker' \
        -p '$work/run/docker.pid' -H 'unix://$work/run/docker.sock' --cgroup-parent /minidock-compare"
docker_host=$!
host 2 sleep 1000000
minidock_host=$!
tidy() {
    kill "$docker_host" "$minidock_host" 2>/dev/null || true
    wait 2>/dev/null || true
    for pid in $(cat "$work/run/containerd.pid" 2>/dev/null); do
        kill "$pid" 2>/dev/null || true
        while [ -d "/proc/$pid" ]; do sleep 0.1; done
    done
    find /sys/fs/cgroup -depth -type d -path '*/minidock-compare*' -exec rmdir {} + 2>/dev/null || true
    rm -rf "$work"
}
trap tidy EXIT
trap 'exit 1' INT TERM HUP

cat >"$work/docker.sh" <<SCRIPT
#!/bin/sh
export DOCKER_HOST=unix://$work/run/docker.sock
exec nsenter -t $docker_host -n docker "\$@"
SCRIPT
cat >"$work/minidock.sh" <<SCRIPT
#!/bin/sh
export MINIDOCK_ROOT=$work/minidock
exec nsenter -t $minidock_host -n -m --wd="\$PWD" $MINIDOCK "\$@"
SCRIPT
chmod +x "$work/docker.sh" "$work/minidock.sh"

cp "$(command -v busybox)" "$work/image/bin/busybox"
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$work/image/bin/$applet"; done
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$work/image/etc/passwd"
printf 'root:x:0:\nwheel:x:10:\n' >"$work/image/etc/group"
n=0
until "$work/docker.sh" version >/dev/null 2>&1; do
    n=$((n + 1))
    [ "$n" -lt 100 ] || { echo "run.sh: dockerd doesn't answer:" >&2; tail -5 "$work/host-1.log" >&2; exit 1; }
    sleep 0.2
done
for engine in docker minidock; do tar -C "$work/image" -cf - . | "$work/$engine.sh" import - busybox >/dev/null; done
# Each reads what the other has written.
cross() {
    printf 'an archive of %s read by %s: ' "$1" "$2"
    "$work/$1.sh" tag busybox crossed:1
    "$work/$1.sh" save -o "$work/crossed.tar" crossed:1
    "$work/$2.sh" load -q -i "$work/crossed.tar" >/dev/null
    "$work/$2.sh" run --rm crossed:1 busybox true
    "$work/$1.sh" create --name crossed crossed:1 busybox true >/dev/null
    "$work/$1.sh" export crossed | "$work/$2.sh" import - exported:1 >/dev/null
    "$work/$2.sh" run --rm exported:1 busybox echo good
    "$work/$1.sh" rm crossed >/dev/null
    "$work/$1.sh" rmi crossed:1 >/dev/null
    "$work/$2.sh" rmi crossed:1 exported:1 >/dev/null
}
cross minidock docker
cross docker minidock
python3 "$here/compare.py" "$@" "$work/docker.sh" "$work/minidock.sh"
