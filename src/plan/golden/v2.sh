# takes the container's changes
mkdir -p -m 755 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/upper
# the overlay's own workspace
mkdir -p -m 700 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/work
# where the container's root is mounted
mkdir -p -m 755 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/merged
# names that the container knows
printf %s '127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
172.17.0.2	c0ffee00c0ff
' > /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hosts; chmod 644 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hosts
# its own name
printf %s 'c0ffee00c0ff
' > /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hostname; chmod 644 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hostname
# its name servers
printf %s 'nameserver 127.0.0.11
options ndots:0
' > /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/resolv.conf; chmod 644 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/resolv.conf
# 127.0.0.11 is minidock's own name server, which this script doesn't start: with NAMESERVER=9.9.9.9 set before it, its container asks that one (and finds no other container by name)
[ -z "${NAMESERVER-}" ] || echo "nameserver $NAMESERVER" > /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/resolv.conf
# all containers' groups lie in here
mkdir -p /sys/fs/cgroup/minidock
# the container's group in cgroup2
mkdir /sys/fs/cgroup/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00
# the groups below get these controllers
echo '+memory +cpu' > /sys/fs/cgroup/minidock/cgroup.subtree_control
# -m 64m: more than this and the container is out of memory
echo 67108864 > /sys/fs/cgroup/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/memory.max
# --memory-swap 128m: cgroup2 counts swap alone, so this is the rest after -m
echo 67108864 > /sys/fs/cgroup/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/memory.swap.max
# --cpus 0.5: microseconds of CPU time in each period
echo '50000 100000' > /sys/fs/cgroup/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cpu.max
# a process that holds the container's namespaces (clone3 with CLONE_NEW… in minidock)
unshare --mount --propagation unchanged --uts --ipc --net --pid --fork --kill-child sh -c 'trap exit TERM; trap "exec unshare --cgroup sh -c \"trap exit TERM; sleep infinity & wait\"" USR1; while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &
# its pid on the host
until pid=$(pgrep -P $!); do kill -0 $!; sleep 0.05; done
# the container's first process enters its groups; its children inherit them
echo $pid > /sys/fs/cgroup/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
# now that it is in its groups, they become / of its cgroup namespace
until [ "$(readlink /proc/$pid/ns/cgroup)" != "$(readlink /proc/self/ns/cgroup)" ]; do kill -USR1 $pid; sleep 0.05; done
# loopback is down in a new network namespace
nsenter -t $pid -n -- ip link set lo up
# host name inside
nsenter -t $pid -u -- hostname c0ffee00c0ff
# mounts from here on stay in the container's mount namespace
nsenter -t $pid -a -- mount --make-rprivate /
# the root file system
root=/var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/merged
# the image's layers, topmost first, below the container's own folder
nsenter -t $pid -a -- mount -t overlay -o lowerdir=/var/lib/minidock/images/layers/bbb:/var/lib/minidock/images/layers/aaa,upperdir=/var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/upper,workdir=/var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/work,index=off,metacopy=off,redirect_dir=off overlay "$root"
# processes of the container's pid namespace
nsenter -t $pid -a -- mount --mkdir -t proc -o nosuid,nodev,noexec proc "$root/proc"
nsenter -t $pid -a -- mount --mkdir -t tmpfs -o nosuid,strictatime,mode=755,size=65536k tmpfs "$root/dev"
# terminals of its own
nsenter -t $pid -a -- mount --mkdir -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
# message queues of its ipc namespace
nsenter -t $pid -a -- mount --mkdir -t mqueue -o nosuid,nodev,noexec mqueue "$root/dev/mqueue"
nsenter -t $pid -a -- mount --mkdir -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=67108864 shm "$root/dev/shm"
# a folder or file of the host
nsenter -t $pid -a -- sh -ec 'if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then mkdir -p "${2%/*}" && : > "$2"; fi; mount --rbind "$1" "$2"; mount --make-rprivate "$2"' sh /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hosts "$root/etc/hosts"
# a folder or file of the host
nsenter -t $pid -a -- sh -ec 'if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then mkdir -p "${2%/*}" && : > "$2"; fi; mount --rbind "$1" "$2"; mount --make-rprivate "$2"' sh /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hostname "$root/etc/hostname"
# a folder or file of the host
nsenter -t $pid -a -- sh -ec 'if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then mkdir -p "${2%/*}" && : > "$2"; fi; mount --rbind "$1" "$2"; mount --make-rprivate "$2"' sh /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/resolv.conf "$root/etc/resolv.conf"
# a folder or file of the host
nsenter -t $pid -a -- sh -ec 'if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then mkdir -p "${2%/*}" && : > "$2"; fi; mount --rbind "$1" "$2"; mount --make-rprivate "$2"; findmnt -Rno TARGET "$2" | while read -r path; do mount -o remount,bind,ro "$path"; done' sh /data "$root/srv/data"
nsenter -t $pid -a -- mknod -m 666 "$root/dev/null" c 1 3
nsenter -t $pid -a -- mknod -m 666 "$root/dev/random" c 1 8
nsenter -t $pid -a -- mknod -m 666 "$root/dev/full" c 1 7
nsenter -t $pid -a -- mknod -m 666 "$root/dev/tty" c 5 0
nsenter -t $pid -a -- mknod -m 666 "$root/dev/zero" c 1 5
nsenter -t $pid -a -- mknod -m 666 "$root/dev/urandom" c 1 9
nsenter -t $pid -a -- ln -s /proc/self/fd "$root/dev/fd"
nsenter -t $pid -a -- ln -s /proc/self/fd/0 "$root/dev/stdin"
nsenter -t $pid -a -- ln -s /proc/self/fd/1 "$root/dev/stdout"
nsenter -t $pid -a -- ln -s /proc/self/fd/2 "$root/dev/stderr"
nsenter -t $pid -a -- ln -s pts/ptmx "$root/dev/ptmx"
nsenter -t $pid -a -- ln -s /proc/kcore "$root/dev/core"
# what these change is the host's business
nsenter -t $pid -a -- sh -c 'for path; do if [ -e "$0$path" ]; then mount --rbind "$0$path" "$0$path" && mount -o remount,bind,ro "$0$path"; fi; done' "$root" /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger
# what these show is the host's business: files look empty, folders too
nsenter -t $pid -a -- sh -c 'for path; do if [ -d "$path" ]; then mount -t tmpfs -o ro tmpfs "$path"; elif [ -e "$path" ]; then mount --bind "$0" "$path"; fi; done' "$root/dev/null" "$root/proc/acpi" "$root/proc/asound" "$root/proc/interrupts" "$root/proc/kcore" "$root/proc/keys" "$root/proc/latency_stats" "$root/proc/sched_debug" "$root/proc/scsi" "$root/proc/timer_list" "$root/proc/timer_stats"
# cgroup2 has no devices file; no plain shell command does this (bpftool cgroup attach, with a compiled program)
# bpf(2): a device filter for /sys/fs/cgroup/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00: deny a, deny c 10:229 rwm, allow c *:* m, allow b *:* m, allow c 1:3 rwm, allow c 1:8 rwm, allow c 1:7 rwm, allow c 5:0 rwm, allow c 1:5 rwm, allow c 1:9 rwm, allow c 136:* rwm, allow c 5:2 rwm, allow c 5:1 rwm
# a virtual cable: one end on the host, the other in the container
ip link add vethc0ffee0 mtu 1500 group 365153437 type veth peer name eth0 address 02:42:ac:11:00:02 mtu 1500 netns $pid
# note whose cable it is
ip link set vethc0ffee0 alias web
# plug the host's end into the bridge
ip link set vethc0ffee0 master docker0
# switch the host's end on
ip link set vethc0ffee0 up
# switch the container's end on
nsenter -t $pid -n ip link set eth0 up
# the container's address
nsenter -t $pid -n ip addr add 172.17.0.2/16 dev eth0
# what is not in the subnet goes through the host
nsenter -t $pid -n ip route add default via 172.17.0.1
# localhost inside the container
nsenter -t $pid -n ip link set lo up
# questions for names, to 127.0.0.11 in the container, reach the monitor's socket there
nsenter -t $pid -n nft -f - <<'EOF'
table ip minidock_names {
  chain asked {
    type filter hook output priority raw;
    ip daddr != 127.0.0.11 accept
    udp dport 53 udp dport set 65353
    tcp dport 53 tcp dport set 65353
  }
  chain answered {
    type filter hook prerouting priority raw;
    ip saddr != 127.0.0.11 accept
    udp sport 65353 udp sport set 53
    tcp sport 65353 tcp sport set 53
  }
}
EOF
# the network's register of names
mkdir -p /run/minidock/network/bridge/names
# what the others in the network find the container by
ln -s '172.17.0.2 web c0ffee00c0ff' /run/minidock/network/bridge/names/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00
# where ip netns looks for names
mkdir -p /var/run/netns
# ip netns exec web … finds the container's network namespace
ln -s /proc/$pid/ns/net /var/run/netns/web
# the container sends as itself only
nft add element bridge minidock senders '{ "vethc0ffee0" . 02:42:ac:11:00:02 . 172.17.0.2 }'
# lead host ports to the container
nft add element ip minidock ports '{ tcp . 10080 comment "web c0ffee00c0ff" : 172.17.0.2 . 80 }'
# devices; of network devices only its own
nsenter -t $pid -a -- mount --mkdir -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
# its own groups and limits
nsenter -t $pid -a -- mount --mkdir -t cgroup2 -o ro,nosuid,nodev,noexec cgroup "$root/sys/fs/cgroup"
# kernel parameter of the container's own namespace
nsenter -t $pid -a -- sh -c 'echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start'
# kernel parameter of the container's own namespace
nsenter -t $pid -a -- sh -c 'echo '\''0 2147483647'\'' > /proc/sys/net/ipv4/ping_group_range'
# what these show is the host's business: files look empty, folders too
nsenter -t $pid -a -- sh -c 'for path; do if [ -d "$path" ]; then mount -t tmpfs -o ro tmpfs "$path"; elif [ -e "$path" ]; then mount --bind "$0" "$path"; fi; done' "$root/dev/null" "$root/sys/devices/virtual/powercap" "$root/sys/firmware"
# the new root under the old one, at the same place
nsenter -t $pid -a -- env -C "$root" pivot_root . .
# take the old one, the host's, away from above
nsenter -t $pid -m -- umount -l /
# this shell too, for the program is its child; nsenter(1) enters namespaces only
echo $$ > /sys/fs/cgroup/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
# capabilities (capset): bounding, permitted, effective = chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,setfcap; inheritable = {}
# system call rules (seccomp): 354 BPF instructions
# the program, with nothing but its own environment
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=c0ffee00c0ff LANG=C "$(command -v nsenter)" -t $pid -a --wdns=/srv -- /bin/server --port 80
