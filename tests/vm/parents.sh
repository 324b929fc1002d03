#!/bin/bash
# In a VM with a stock kernel: ipvlan, vlan and dummy links, which the usual test machine's kernel lacks. Prints one line
# for each promise that holds, and ends with 1 when one doesn't.
#   vmtest --kernel bookworm --cgroup v2 --copy minidock --copy busybox.tar --copy parents.sh -- bash ./parents.sh
# (minidock: a static build; busybox.tar: an image archive with busybox)
cd "$(dirname "$0")" || exit 1
M=./minidock
export MINIDOCK_ROOT=/tmp/mdroot
failed=0
holds() { if [ "$1" = 0 ]; then echo "ok: $2"; else echo "FAILED: $2"; failed=1; fi; }

ip link add upl type veth peer name peer; ip link set upl up; ip link set peer up
$M load -q -i busybox.tar

$M network create -d ipvlan --subnet 10.77.0.0/24 -o parent=upl ipv
$M run -d --name aa --network ipv busybox sleep 1000
$M run --rm --network ipv busybox ping -c 1 -W 5 10.77.0.2; holds $? "containers of an ipvlan network (l2) reach each other"
$M rm -f aa; $M network rm ipv

$M network create -d ipvlan --subnet 10.78.0.0/24 -o parent=upl -o ipvlan_mode=l3 l3
$M run --rm --network l3 busybox ip route | grep -q 'default dev eth0'; holds $? "ipvlan l3 routes by the card"
$M network rm l3

$M network create -d macvlan --subnet 10.79.0.0/24 -o parent=upl.10 vl
ip -d link show upl.10 | grep -q 'vlan protocol 802.1Q id 10'; holds $? "the vlan is made"
$M run -d --name bb --network vl busybox sleep 1000
$M run --rm --network vl busybox ping -c 1 -W 5 10.79.0.2; holds $? "macvlan on a vlan"
$M rm -f bb; $M network rm vl
! ip link show upl.10 2>/dev/null; holds $? "the vlan goes with its network"

$M network create -d macvlan priv
ip -br link | grep -q '^dm-'; holds $? "a network without a parent has a dummy link"
ip link del "$(ip -br link | grep -o 'dm-[0-9a-f]*')"
$M run --rm --network priv busybox true; holds $? "it is made again"
$M network rm priv
! ip -br link | grep -q '^dm-'; holds $? "it goes with its network"
exit $failed
