#!/bin/sh
# Runs the tests of limits, devices, net_cls and ports on stock Debian kernels (6.1 and 6.12) with cgroup v2, hybrid and
# v1, with the release binary. The test programs are static, so they run in the guest as they are.
#   tests/vm/vm.sh [KERNEL:LAYOUT]...     e.g. bookworm:v1; all six without arguments
set -eu
cd "$(dirname "$0")/../.."

vmtest=${VMTEST:-../shared/vmtest/vmtest}
if [ ! -x "$vmtest" ]; then
    echo "vm.sh: no $vmtest: put the folder 'shared' beside this checkout, or set VMTEST" >&2
    exit 1
fi

# The guest is emulated, many times slower than this machine: the tests that depend on the kernel, not all.
limits='memory cpu_ cpuset number_of_processes disk_ net_cls device oom published_port'
network='dnat_by_nftables::a_published_page dnat_by_iptables::a_published_page proxy_beside_nftables::a_published_page
    dnat_by_nftables::a_port_published_on_localhost dnat_by_nftables::no_unpublished_port nftables::an_outside_server
    iptables::an_outside_server network_none the_container_s_namespace'

target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
cargo build --quiet --release --bin minidock
binary=$(find "$target" -path '*/release/minidock' -type f -perm -100 | head -n 1)
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
cp "$binary" "$programs/minidock"
for test in limits network harness; do
    executable=$(cargo test --quiet --test "$test" --no-run --message-format json 2>/dev/null |
        sed -n 's/.*"name":"'"$test"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [ -n "$executable" ] || { echo "vm.sh: cannot build the test $test" >&2; exit 1; }
    cp "$executable" "$programs/$test"
done
cat >"$programs/run" <<RUN
#!/bin/sh
set -eu
export MINIDOCK_BIN=/root/programs/minidock RUST_TEST_THREADS=4 RUST_BACKTRACE=0
cd /root/programs
./harness
./limits $(echo $limits)
./network $(echo $network)
RUN
chmod 755 "$programs/run"

# Fetch and build once, before several start at the same time.
"$vmtest" --setup bookworm backports >/dev/null

failed=
[ $# -gt 0 ] || set -- bookworm:v2 bookworm:hybrid bookworm:v1 backports:v2 backports:hybrid backports:v1
for guest in "$@"; do
    echo "-- kernel ${guest%:*}, cgroup ${guest#*:}"
    start=$(date +%s)
    if "$vmtest" --kernel "${guest%:*}" --cgroup "${guest#*:}" --mem 3G --timeout 900 --copy "$programs:/root/programs" \
        -- sh /root/programs/run; then
        echo "-- passed in $(($(date +%s) - start)) s"
    else
        failed="$failed $guest"
        echo "-- FAILED on $guest"
    fi
done
if [ -n "$failed" ]; then
    echo "vm.sh: failed on:$failed" >&2
    exit 1
fi
