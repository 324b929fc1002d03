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
' > /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hosts; chmod 644 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hosts
# its own name
printf %s 'c0ffee00c0ff
' > /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hostname; chmod 644 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hostname
# its name servers
printf %s 'nameserver 10.0.0.2
' > /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/resolv.conf; chmod 644 /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/resolv.conf
# all containers' groups lie in here
mkdir -p /sys/fs/cgroup/memory/minidock
# the container's group of memory
mkdir /sys/fs/cgroup/memory/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00
# -m 64m: more than this and the container is out of memory
echo 67108864 > /sys/fs/cgroup/memory/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/memory.limit_in_bytes
# --memory-swap 128m: memory and swap together
echo 134217728 > /sys/fs/cgroup/memory/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/memory.memsw.limit_in_bytes
# all containers' groups lie in here
mkdir -p /sys/fs/cgroup/pids/minidock
# the container's group of pids
mkdir /sys/fs/cgroup/pids/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00
# --pids-limit 20: no more processes and threads than this
echo 20 > /sys/fs/cgroup/pids/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/pids.max
# all containers' groups lie in here
mkdir -p /sys/fs/cgroup/devices/minidock
# the container's group of devices
mkdir /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00
# which device nodes may be opened and made
echo a > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.deny
echo 'c *:* m' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'b *:* m' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 1:3 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 1:8 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 1:7 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 5:0 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 1:5 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 1:9 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 136:* rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 5:2 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
echo 'c 5:1 rwm' > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/devices.allow
# all containers' groups lie in here
mkdir -p /sys/fs/cgroup/net_cls/minidock
# the container's group of net_cls
mkdir /sys/fs/cgroup/net_cls/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00
# --net-cls 1:10: tc class of the packets that this container's sockets send
echo 0x00010010 > /sys/fs/cgroup/net_cls/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/net_cls.classid
# a process that holds the container's namespaces (clone3 with CLONE_NEW… in minidock)
unshare --mount --propagation unchanged --uts --ipc --net --pid --fork --kill-child sh -c 'trap exit TERM; trap "exec unshare --cgroup sh -c \"trap exit TERM; sleep infinity & wait\"" USR1; while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &
# its pid on the host
until pid=$(pgrep -P $!); do kill -0 $!; sleep 0.05; done
# the container's first process enters its groups; its children inherit them
echo $pid > /sys/fs/cgroup/memory/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
echo $pid > /sys/fs/cgroup/pids/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
echo $pid > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
echo $pid > /sys/fs/cgroup/net_cls/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
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
nsenter -t $pid -a -- sh -ec 'if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then mkdir -p "${2%/*}" && : > "$2"; fi; mount --rbind "$1" "$2"; mount --make-rprivate "$2"; mount -o remount,bind,ro "$2"' sh /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hosts "$root/etc/hosts"
# a folder or file of the host
nsenter -t $pid -a -- sh -ec 'if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then mkdir -p "${2%/*}" && : > "$2"; fi; mount --rbind "$1" "$2"; mount --make-rprivate "$2"; mount -o remount,bind,ro "$2"' sh /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/hostname "$root/etc/hostname"
# a folder or file of the host
nsenter -t $pid -a -- sh -ec 'if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then mkdir -p "${2%/*}" && : > "$2"; fi; mount --rbind "$1" "$2"; mount --make-rprivate "$2"; mount -o remount,bind,ro "$2"' sh /var/lib/minidock/containers/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/resolv.conf "$root/etc/resolv.conf"
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
# where ip netns looks for names
mkdir -p /var/run/netns
# ip netns exec calm_wren … finds the container's network namespace
ln -s /proc/$pid/ns/net /var/run/netns/calm_wren
# devices; of network devices only its own
nsenter -t $pid -a -- mount --mkdir -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
nsenter -t $pid -a -- mount --mkdir -t tmpfs -o nosuid,nodev,noexec,mode=755 tmpfs "$root/sys/fs/cgroup"
# its own groups and limits
nsenter -t $pid -a -- mount --mkdir -t cgroup -o ro,nosuid,nodev,noexec,memory cgroup "$root/sys/fs/cgroup/memory"
# its own groups and limits
nsenter -t $pid -a -- mount --mkdir -t cgroup -o ro,nosuid,nodev,noexec,pids cgroup "$root/sys/fs/cgroup/pids"
# its own groups and limits
nsenter -t $pid -a -- mount --mkdir -t cgroup -o ro,nosuid,nodev,noexec,devices cgroup "$root/sys/fs/cgroup/devices"
# its own groups and limits
nsenter -t $pid -a -- mount --mkdir -t cgroup -o ro,nosuid,nodev,noexec,net_cls cgroup "$root/sys/fs/cgroup/net_cls"
# complete, so it can be closed
nsenter -t $pid -a -- mount -o remount,bind,ro "$root/sys/fs/cgroup"
# kernel parameter of the container's own namespace
nsenter -t $pid -a -- sh -c 'echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start'
# kernel parameter of the container's own namespace
nsenter -t $pid -a -- sh -c 'echo '\''0 2147483647'\'' > /proc/sys/net/ipv4/ping_group_range'
# what these show is the host's business: files look empty, folders too
nsenter -t $pid -a -- sh -c 'for path; do if [ -d "$path" ]; then mount -t tmpfs -o ro tmpfs "$path"; elif [ -e "$path" ]; then mount --bind "$0" "$path"; fi; done' "$root/dev/null" "$root/sys/devices/virtual/powercap" "$root/sys/firmware"
# complete, so it can be closed
nsenter -t $pid -a -- mount -o remount,bind,ro "$root"
# the new root under the old one, at the same place
nsenter -t $pid -a -- env -C "$root" pivot_root . .
# take the old one, the host's, away from above
nsenter -t $pid -m -- umount -l /
# this shell too, for the program is its child; nsenter(1) enters namespaces only
echo $$ > /sys/fs/cgroup/memory/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
# this shell too, for the program is its child; nsenter(1) enters namespaces only
echo $$ > /sys/fs/cgroup/pids/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
# this shell too, for the program is its child; nsenter(1) enters namespaces only
echo $$ > /sys/fs/cgroup/devices/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
# this shell too, for the program is its child; nsenter(1) enters namespaces only
echo $$ > /sys/fs/cgroup/net_cls/minidock/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00/cgroup.procs
# capabilities (capset): bounding, permitted, effective = chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,setfcap; inheritable = {}
# system call rules (seccomp): 354 BPF instructions
# the program, with nothing but its own environment
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=c0ffee00c0ff LANG=C "$(command -v nsenter)" -t $pid -a --wdns=/srv -- /bin/server -v
