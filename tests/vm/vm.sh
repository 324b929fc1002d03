#!/bin/sh
# Runs the tests of limits, devices, net_cls, ports, mounts and explain = apply on stock Debian kernels (6.1 and 6.12) with cgroup v2, hybrid and
# v1, with the release binary; and what needs a module that the usual test machine's kernel lacks: SCTP, netem, and the
# cgroup classifier. The test programs are static, so they run in the guest as they are.
#   tests/vm/vm.sh [KERNEL:LAYOUT]...     e.g. bookworm:v1; all six without arguments
set -eu
cd "$(dirname "$0")/../.."

vmtest=${VMTEST:-../shared/vmtest/vmtest}
if [ ! -x "$vmtest" ]; then
    echo "vm.sh: no $vmtest: put the folder 'shared' beside this checkout, or set VMTEST" >&2
    exit 1
fi

# What depends on the kernel, as TEST or TEST:FILTER. (The crash test needs a debug build and doesn't.)
runs="harness limits network:nftables network:dnat_by_iptables::a_published container explain lecture:row_1 lecture:row_6 shaping:bad_line \
    ipv6:sctp classes:beside_the classes:on_the_host classes:the_lecture"
tests="harness limits network container explain lecture shaping ipv6 classes"

target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
cargo build --quiet --release --bin minidock
binary=$(find "$target" -path '*/release/minidock' -type f -perm -100 | head -n 1)
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
cp "$binary" "$programs/minidock"
for test in $tests; do
    executable=$(cargo test --quiet --test "$test" --no-run --message-format json 2>/dev/null |
        sed -n 's/.*"name":"'"$test"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [ -n "$executable" ] || { echo "vm.sh: cannot build the test $test" >&2; exit 1; }
    cp "$executable" "$programs/$test"
done
cat >"$programs/run" <<RUN
#!/bin/sh
# The guest's packages were unpacked without their scripts: no /var/run.
[ -L /var/run ] || { rm -rf /var/run; ln -s /run /var/run; }
export MINIDOCK_BIN=/root/programs/minidock RUST_TEST_THREADS=4 RUST_BACKTRACE=0
# No part of a test is left out for want of these.
modprobe -a sctp sch_netem cls_cgroup || exit 1
export MINIDOCK_TEST_ALL=1
cd /root/programs
failed=
for run in $runs; do
    test=\${run%%:*} filter=\${run#\$test} filter=\${filter#:}
    ./\$test \$filter >log 2>&1 || { failed="\$failed \$run"; cat log; }
    echo "\$run: \$(grep '^test result' log)"
done
[ -z "\$failed" ] || { echo "failed:\$failed"; exit 1; }
RUN
chmod 755 "$programs/run"

# Fetch and build once, before several start at the same time.
"$vmtest" --setup bookworm backports >/dev/null

failed=
[ $# -gt 0 ] || set -- bookworm:v2 bookworm:hybrid bookworm:v1 backports:v2 backports:hybrid backports:v1
for guest in "$@"; do
    echo "-- kernel ${guest%:*}, cgroup ${guest#*:}"
    start=$(date +%s)
    if "$vmtest" --kernel "${guest%:*}" --cgroup "${guest#*:}" --mem 3G --timeout 1500 --copy "$programs:/root/programs" \
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
