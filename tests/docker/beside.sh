#!/bin/sh
# minidock beside a real dockerd, both orders: default bridge and a network of its own, published ports of both from
# outside, no address twice, dockerd's restart, what each removes. By hand, not in CI.
#
#   tests/docker/beside.sh         as root; needs Debian's docker.io, containerd, runc, busybox-static, iptables, curl
#                                  (DOCKER_BIN: a folder with their programs, as from apt-get download and dpkg -x)
#
# All of it is in a network, mount and PID namespace of its own, which ends with this script.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "beside.sh: needs root: it starts container engines" >&2; exit 1; }
if [ "${INSIDE:-}" = "" ]; then
    if [ "${MINIDOCK:-}" = "" ]; then
        (cd "$here/../.." && cargo build --quiet)
        for MINIDOCK in "${CARGO_TARGET_DIR:-$here/../../target}"/*/debug/minidock; do [ -x "$MINIDOCK" ] && break; done
    fi
    MINIDOCK=$(realpath "$MINIDOCK") WORK=$(mktemp -d /var/tmp/minidock-beside.XXXXXX) INSIDE=1
    export MINIDOCK WORK INSIDE
    PATH=${DOCKER_BIN:+$DOCKER_BIN:}$PATH
    for first in dockerd minidock; do
        code=0
        FIRST=$first unshare -n -m -p -f --kill-child --mount-proc --propagation private "$0" || code=$?
        find /sys/fs/cgroup -depth -type d -path '*/minidock-beside*' -exec rmdir {} + 2>/dev/null || true
        [ "$code" = 0 ] || { tail -n 5 "$WORK"/*.log >&2; exit "$code"; }
        rm -rf "$WORK"/docker "$WORK"/containerd "$WORK"/run
    done
    rm -rf "$WORK"
    echo "beside.sh: all well"
    exit 0
fi

# Its PID 1 sees this namespace as the machine's own: the engine has its default root.
mkdir -p /var/lib/minidock /run/minidock "$WORK/run" "$WORK/image/bin" "$WORK/image/www"
for folder in /var/lib/minidock /run; do mount -t tmpfs none "$folder"; done
mkdir -p /run/netns /run/lock
ip link set lo up
ip link add uplink type veth peer name far
ip netns add outside
ip link set far netns outside
ip addr add 10.98.0.1/24 dev uplink; ip link set uplink up
ip -n outside addr add 10.98.0.2/24 dev far; ip -n outside link set far up; ip -n outside link set lo up
ip route add default via 10.98.0.2
export DOCKER_HOST="unix://$WORK/run/docker.sock"
cp "$(command -v busybox)" "$WORK/image/bin/busybox"
for applet in sh sleep httpd ping ip; do ln -sf busybox "$WORK/image/bin/$applet"; done
echo page >"$WORK/image/www/index.html"

# Our addresses keep away from docker's as soon as docker is installed: in a folder of one's own nobody would see it.
[ -e /usr/sbin/dockerd ] || [ -e /usr/bin/dockerd ] || : >/run/docker.pid

wait_for() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ "$n" -lt 150 ] || { echo "beside.sh: in vain: $*" >&2; exit 1; }; sleep 0.2; done; }
start_dockerd() {
    dockerd --containerd "$WORK/run/containerd.sock" --data-root "$WORK/docker" --exec-root "$WORK/run/docker" -p "$WORK/run/docker.pid" \
        -H "$DOCKER_HOST" --cgroup-parent /minidock-beside --live-restore >>"$WORK/dockerd.log" 2>&1 &
    dockerd=$!
    wait_for docker version
}
docker_up() {
    containerd --root "$WORK/containerd" --state "$WORK/run/containerd" --address "$WORK/run/containerd.sock" >"$WORK/containerd.log" 2>&1 &
    wait_for [ -S "$WORK/run/containerd.sock" ]
    start_dockerd
    tar -C "$WORK/image" -cf - . | docker import - busybox >/dev/null
    docker network create dlan >/dev/null
    docker run -d --name d1 -p 10090:80 busybox httpd -f -h /www >/dev/null
    docker run -d --name d2 -p 10091:80 --network dlan busybox httpd -f -h /www >/dev/null
}
minidock_up() {
    tar -C "$WORK/image" -cf - . | "$MINIDOCK" import - busybox >/dev/null
    "$MINIDOCK" network create lan >/dev/null
    "$MINIDOCK" run -d --name m1 -p 10080:80 busybox httpd -f -h /www >/dev/null
    "$MINIDOCK" run -d --name m2 -p 10081:80 --network lan busybox httpd -f -h /www >/dev/null
}
fetch() { ip netns exec outside curl -sf -m 2 "http://10.98.0.1:$1/" | grep -q page; }
all_pass() {
    for port in 10080 10081 10090 10091; do wait_for fetch "$port"; done
    for name in m1 m2; do "$MINIDOCK" exec "$name" ping -c1 -W2 10.98.0.2 >/dev/null || { echo "$1: $name doesn't get out" >&2; exit 1; }; done
    for name in d1 d2; do docker exec "$name" ping -c1 -W2 10.98.0.2 >/dev/null || { echo "$1: $name doesn't get out" >&2; exit 1; }; done
    d2=$(docker inspect -f '{{.NetworkSettings.Networks.dlan.IPAddress}}' d2)
    # dockerd sets its policy only where nobody forwarded before it: then its networks are open to every other one.
    ! iptables -S FORWARD | grep -q -- '-P FORWARD DROP' || ! "$MINIDOCK" exec m2 ping -c1 -W1 "$d2" >/dev/null || { echo "$1: docker's network is open to ours" >&2; exit 1; }
    echo "$FIRST first, $1: m1 $("$MINIDOCK" inspect -f '{{.NetworkSettings.IPAddress}}' m1) d1 $(docker inspect -f '{{.NetworkSettings.IPAddress}}' d1)"
}
# Many of both: no address twice.
no_twice() {
    for n in 1 2 3 4 5; do
        docker run -d --name "d1$n" busybox sleep 1000 >/dev/null
        "$MINIDOCK" run -d --name "m1$n" busybox sleep 1000 >/dev/null
    done
    twice=$({ docker ps -q | xargs docker inspect -f '{{.NetworkSettings.IPAddress}}'
        "$MINIDOCK" ps -q | xargs "$MINIDOCK" inspect -f '{{.NetworkSettings.IPAddress}}'; } | grep . | sort | uniq -d)
    [ -z "$twice" ] || { echo "given twice: $twice" >&2; exit 1; }
    routes=$(ip -4 route show proto kernel | cut -d' ' -f1 | sort | uniq -d)
    [ -z "$routes" ] || { echo "subnets given twice: $routes" >&2; exit 1; }
}

if [ "$FIRST" = dockerd ]; then docker_up; minidock_up; else minidock_up; docker_up; fi
all_pass "both up"
no_twice
kill "$dockerd"; wait "$dockerd" || true
start_dockerd
all_pass "after dockerd's restart"
"$MINIDOCK" ps -aq | xargs "$MINIDOCK" rm -f >/dev/null
docker network prune -f >/dev/null
"$MINIDOCK" network rm lan >/dev/null
"$MINIDOCK" network rm bridge >/dev/null
for port in 10090 10091; do wait_for fetch "$port"; done
docker exec d1 ping -c1 -W2 10.98.0.2 >/dev/null || { echo "docker broke by our removal" >&2; exit 1; }
! iptables-save | grep -i minidock || { echo "rules of ours are left" >&2; exit 1; }
docker ps -aq | xargs docker rm -f >/dev/null
docker network prune -f >/dev/null
minidock_up 2>/dev/null || true
for port in 10080 10081; do wait_for fetch "$port"; done
"$MINIDOCK" ps -aq | xargs "$MINIDOCK" rm -f >/dev/null
