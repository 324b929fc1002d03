// The floor under `minidock run --rm busybox true`: the same kernel objects by raw system calls, in the cheapest way known.
//
//   floor DIR bridged|published|none [PROGRAM [ARG...]]        (PROGRAM: /bin/busybox true)
//
// DIR is made by start.sh: lower/ (the image), merged/ (an empty folder), run/ (for the upper folders), and in the current
// network namespace a bridge `floor0` (172.31.0.1/16) and an nft table `floor` with a map `ports`. There is nothing of
// minidock in here: no images, plans, journals, states, logs, and no relaying of the program's output.
//
// Three processes: this one makes the network while its child mounts; a cleaner, forked when both are busy, holds the mount
// namespace, so that the child's death doesn't wait for its unmounting, and removes everything after we have reported.
// What each step costs, and why it is done in this way and not in the obvious one: see ../README.md and the comments.
// FLOOR_TRACE=1 prints where the time went.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/veth.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GATEWAY 0xac1f0001u // 172.31.0.1
#define HOST_PORT 18080
#define CONTAINER_PORT 80

// ---------------------------------------------------------------------------------------------------- errors and trace

static void die(const char *what) {
    dprintf(2, "floor: %s: %s\n", what, strerror(errno));
    _exit(125);
}

#define OK(call) ((call) < 0 ? die(#call) : (void)0)

struct mark {
    const char *what;
    struct timespec at;
};
struct trace {
    int count[2]; // ours, the child's
    struct mark marks[2][24];
};
static struct trace *trace; // shared with the child; NULL: off

static void mark(int who, const char *what) {
    if (!trace || trace->count[who] >= 24)
        return;
    struct mark *m = &trace->marks[who][trace->count[who]++];
    m->what = what;
    clock_gettime(CLOCK_MONOTONIC, &m->at);
}

static void print_trace(void) {
    struct timespec zero = trace->marks[0][0].at;
    for (int who = 0; who < 2; who++) {
        double last = -1;
        for (int i = 0; i < trace->count[who]; i++) {
            struct mark *m = &trace->marks[who][i];
            double ms = (m->at.tv_sec - zero.tv_sec) * 1e3 + (m->at.tv_nsec - zero.tv_nsec) / 1e6;
            dprintf(2, "%-7s %7.3f  %+7.3f  %s\n", who ? "child" : "parent", ms, last < 0 ? 0 : ms - last, m->what);
            last = ms;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- netlink

struct batch {
    int length;
    struct nlmsghdr *message;
    char data[4096] __attribute__((aligned(8)));
};

static void *append(struct batch *b, const void *data, int length) {
    void *at = b->data + b->length;
    if (data)
        memcpy(at, data, length);
    b->length += NLMSG_ALIGN(length);
    if (b->message)
        b->message->nlmsg_len = b->data + b->length - (char *)b->message;
    return at;
}

static void begin(struct batch *b, int type, int flags, const void *body, int length) {
    b->message = (void *)(b->data + b->length);
    struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = 1};
    append(b, &header, sizeof header);
    append(b, body, length);
}

static struct nlattr *attribute(struct batch *b, int type, const void *data, int length) {
    struct nlattr header = {.nla_len = NLA_HDRLEN + length, .nla_type = type};
    struct nlattr *at = append(b, &header, sizeof header);
    if (length)
        append(b, data, length);
    return at;
}

static void attribute_u32(struct batch *b, int type, uint32_t value) { attribute(b, type, &value, sizeof value); }
static void attribute_text(struct batch *b, int type, const char *text) { attribute(b, type, text, strlen(text) + 1); }
static struct nlattr *nest(struct batch *b, int type) { return attribute(b, type | NLA_F_NESTED, NULL, 0); }
static void end(struct batch *b, struct nlattr *nested) { nested->nla_len = b->data + b->length - (char *)nested; }

// One sendmsg for everything; only the last message asks for an answer, an error of another comes without asking.
static void send_batch(int socket, struct batch *b, const char *what) {
    char answer[4096] __attribute__((aligned(8)));
    OK(send(socket, b->data, b->length, 0));
    int length = recv(socket, answer, sizeof answer, 0);
    OK(length);
    struct nlmsghdr *header = (void *)answer;
    struct nlmsgerr *error = NLMSG_DATA(header);
    if (header->nlmsg_type != NLMSG_ERROR || error->error) {
        errno = header->nlmsg_type == NLMSG_ERROR ? -error->error : EBADMSG;
        die(what);
    }
}

// ------------------------------------------------------------------------------------------------------------- network

// Made from inside the new namespace: the host's end goes out by IFLA_NET_NS_FD, on its bridge and up, the container's end is
// born in place. A pair that is made outside and moved waits for an RCU grace period.
static void network(int socket, int host_netns, int bridge, const char *link, uint32_t address) {
    struct batch b = {0};
    if (bridge) {
        struct ifinfomsg host_end = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
        begin(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &host_end, sizeof host_end);
        attribute_text(&b, IFLA_IFNAME, link);
        attribute_u32(&b, IFLA_NET_NS_FD, host_netns);
        attribute_u32(&b, IFLA_MASTER, bridge);
        struct nlattr *info = nest(&b, IFLA_LINKINFO);
        attribute_text(&b, IFLA_INFO_KIND, "veth");
        struct nlattr *data = nest(&b, IFLA_INFO_DATA), *peer = nest(&b, VETH_INFO_PEER);
        struct ifinfomsg inside = {0}; // can't be born up: veth_open wants the other end to be there (ENOTCONN)
        append(&b, &inside, sizeof inside);
        attribute_text(&b, IFLA_IFNAME, "eth0");
        uint8_t mac[6] = {0x02, 0x42, address >> 24, address >> 16, address >> 8, address};
        attribute(&b, IFLA_ADDRESS, mac, sizeof mac);
        end(&b, peer), end(&b, data), end(&b, info);

        // The first link of a fresh namespace after lo has index 2.
        struct ifinfomsg up = {.ifi_index = 2, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
        begin(&b, RTM_NEWLINK, 0, &up, sizeof up);
        struct ifaddrmsg on = {.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = 2};
        begin(&b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &on, sizeof on);
        attribute_u32(&b, IFA_LOCAL, htonl(address));
        attribute_u32(&b, IFA_BROADCAST, htonl(address | 0xffff));

        struct rtmsg route = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
        begin(&b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &route, sizeof route);
        attribute_u32(&b, RTA_GATEWAY, htonl(GATEWAY));
    }
    struct ifinfomsg lo = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    begin(&b, RTM_NEWLINK, NLM_F_ACK, &lo, sizeof lo);
    send_batch(socket, &b, "network");
}

// One element of the map `ports`: a key of (protocol, port), each padded to 4 bytes, to (address, port).
static void publish(int socket, int message, uint32_t address) {
    struct batch b = {0};
    struct nfgenmsg general = {.nfgen_family = AF_UNSPEC, .res_id = htons(NFNL_SUBSYS_NFTABLES)}, ip = {.nfgen_family = AF_INET};
    begin(&b, NFNL_MSG_BATCH_BEGIN, 0, &general, sizeof general);
    int flags = message == NFT_MSG_NEWSETELEM ? NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK : NLM_F_ACK;
    begin(&b, NFNL_SUBSYS_NFTABLES << 8 | message, flags, &ip, sizeof ip);
    attribute_text(&b, NFTA_SET_ELEM_LIST_TABLE, "floor");
    attribute_text(&b, NFTA_SET_ELEM_LIST_SET, "ports");
    struct nlattr *list = nest(&b, NFTA_SET_ELEM_LIST_ELEMENTS), *element = nest(&b, NFTA_LIST_ELEM);
    uint8_t key[8] = {IPPROTO_TCP, 0, 0, 0, HOST_PORT >> 8, HOST_PORT & 255};
    uint8_t value[8] = {address >> 24, address >> 16, address >> 8, address, CONTAINER_PORT >> 8, CONTAINER_PORT & 255};
    struct nlattr *part = nest(&b, NFTA_SET_ELEM_KEY);
    attribute(&b, NFTA_DATA_VALUE, key, sizeof key);
    end(&b, part);
    if (message == NFT_MSG_NEWSETELEM) {
        part = nest(&b, NFTA_SET_ELEM_DATA);
        attribute(&b, NFTA_DATA_VALUE, value, sizeof value);
        end(&b, part);
    }
    end(&b, element), end(&b, list);
    begin(&b, NFNL_MSG_BATCH_END, 0, &general, sizeof general);
    send_batch(socket, &b, message == NFT_MSG_NEWSETELEM ? "publish" : "unpublish");
}

static int netlink(int protocol) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    OK(fd);
    return fd;
}

// ------------------------------------------------------------------------------------------------------------- cgroups

// Without limits a container needs a group in cgroup2, if there is one, to find and kill all processes, and docker's device
// rules. A program on the cgroup2 group keeps them for 0.1 ms; the v1 controller (FLOOR_DEVICES=v1, or where there is no cgroup2)
// costs 13 writes and an attach that waits for an RCU grace period.
static char group_v2[256], group_devices[256];

static void put(const char *folder, const char *file, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

static const int allowed[][2] = {{1, 3}, {1, 8}, {1, 7}, {5, 0}, {1, 5}, {1, 9}, {136, -1}, {5, 2}, {5, 1}};
enum { ALLOWED = sizeof allowed / sizeof *allowed };

static void device_rules_v1(void) {
    char path[300], line[40];
    put(group_devices, "devices.deny", "a");
    snprintf(path, sizeof path, "%s/devices.allow", group_devices);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    OK(fd);
    OK(write(fd, "c *:* m", 7));
    OK(write(fd, "b *:* m", 7));
    for (int i = 0; i < ALLOWED; i++) {
        int length = allowed[i][1] < 0 ? sprintf(line, "c %d:* rwm", allowed[i][0]) : sprintf(line, "c %d:%d rwm", allowed[i][0], allowed[i][1]);
        OK(write(fd, line, length));
    }
    close(fd);
}

static void device_program(int group) {
    struct bpf_insn code[64];
    int n = 0;
#define INSN(c, d, s, o, i) code[n++] = (struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)}
    for (int field = 0; field < 3; field++) // r2 = access and type, r3 = major, r4 = minor
        INSN(BPF_LDX | BPF_MEM | BPF_W, 2 + field, 1, 4 * field, 0);
    INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
    INSN(BPF_ALU64 | BPF_MOV | BPF_X, 5, 2, 0, 0);
    INSN(BPF_ALU64 | BPF_RSH | BPF_K, 5, 0, 0, 16);
    INSN(BPF_JMP | BPF_JNE | BPF_K, 5, 0, 1, BPF_DEVCG_ACC_MKNOD); // making any node is allowed
    INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    for (int i = 0; i < ALLOWED; i++) {
        INSN(BPF_JMP | BPF_JNE | BPF_K, 3, 0, allowed[i][1] < 0 ? 1 : 2, allowed[i][0]);
        if (allowed[i][1] >= 0)
            INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 1, allowed[i][1]);
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    }
    INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
    INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
#undef INSN
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (uintptr_t)code, .insn_cnt = n, .license = (uintptr_t) "Apache-2.0"};
    int program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    OK(program);
    union bpf_attr attach = {.target_fd = group, .attach_bpf_fd = program, .attach_type = BPF_CGROUP_DEVICE};
    OK(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
    close(program);
}

// Returns the cgroup2 group's folder, or -1.
static int cgroups(void) {
    const char *v2 = NULL, *parent = getenv("FLOOR_CGROUP") ?: "floor";
    if (!access("/sys/fs/cgroup/unified/cgroup.procs", F_OK))
        v2 = "/sys/fs/cgroup/unified";
    else if (!access("/sys/fs/cgroup/cgroup.controllers", F_OK))
        v2 = "/sys/fs/cgroup";
    int fd = -1;
    if (v2) {
        snprintf(group_v2, sizeof group_v2, "%s/%s/%d", v2, parent, getpid());
        OK(mkdir(group_v2, 0755));
        OK(fd = open(group_v2, O_PATH | O_DIRECTORY | O_CLOEXEC));
    }
    if (!v2 || (getenv("FLOOR_DEVICES") && !strcmp(getenv("FLOOR_DEVICES"), "v1"))) {
        snprintf(group_devices, sizeof group_devices, "/sys/fs/cgroup/devices/%s/%d", parent, getpid());
        OK(mkdir(group_devices, 0755));
        device_rules_v1();
    } else {
        int group = open(group_v2, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        OK(group);
        device_program(group);
        close(group);
    }
    return fd;
}

// ------------------------------------------------------------------------------------------------------------- the child

static void mounted(const char *kind, const char *at, unsigned long flags, const char *data) {
    if (mount(kind, at, kind, flags, data))
        die(at);
}

static void mounts_early(const char *dir, const char *run) {
    char options[1024], path[512], source[512];
    OK(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    snprintf(options, sizeof options, "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,volatile", dir, run, run);
    snprintf(path, sizeof path, "%s/merged", dir);
    mounted("overlay", path, 0, options);
    static const char *files[] = {"hosts", "hostname", "resolv.conf"};
    for (int i = 0; i < 3; i++) {
        snprintf(source, sizeof source, "%s/%s", run, files[i]);
        snprintf(path, sizeof path, "%s/merged/etc/%s", dir, files[i]);
        if (mount(source, path, NULL, MS_BIND, NULL))
            die(path);
    }
    snprintf(path, sizeof path, "%s/merged", dir);
    OK(chdir(path));
    // The new root over the old one, and the old one off: no folder for the old root is needed (pivot_root(2)).
    OK(syscall(SYS_pivot_root, ".", "."));
    OK(umount2(".", MNT_DETACH));

    mounted("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mounted("tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    umask(0);
    static const struct { const char *name; int major, minor; } nodes[] = {
        {"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
    for (int i = 0; i < 6; i++)
        OK(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    OK(mkdir("/dev/pts", 0755)), OK(mkdir("/dev/mqueue", 0755)), OK(mkdir("/dev/shm", 0755));
    OK(symlink("/proc/self/fd", "/dev/fd")), OK(symlink("/proc/self/fd/0", "/dev/stdin")), OK(symlink("/proc/self/fd/1", "/dev/stdout"));
    OK(symlink("/proc/self/fd/2", "/dev/stderr")), OK(symlink("pts/ptmx", "/dev/ptmx"));
    umask(022);
    mounted("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mounted("mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mounted("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");

    // Masks: one empty read-only tmpfs for all folders, /dev/null for files. What isn't there needs none.
    static const char *masked[] = {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                                   "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"};
    const char *empty = NULL;
    for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
        if (!mount("/dev/null", masked[i], NULL, MS_BIND, NULL) || errno == ENOENT)
            continue;
        if (errno != ENOTDIR)
            die(masked[i]);
        if (empty)
            OK(mount(empty, masked[i], NULL, MS_BIND, NULL));
        else
            mounted("tmpfs", empty = masked[i], MS_RDONLY, "nr_blocks=1,nr_inodes=1");
    }
    static const char *read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (unsigned i = 0; i < sizeof read_only / sizeof *read_only; i++) {
        if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL)) {
            if (errno == ENOENT)
                continue;
            die(read_only[i]);
        }
        OK(mount(NULL, read_only[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    }
}

// What shows the network namespace (sysfs) or the cgroup namespace.
static void mounts_late(void) {
    unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mounted("sysfs", "/sys", flags, NULL);
    if (*group_v2 && !*group_devices) {
        mounted("cgroup2", "/sys/fs/cgroup", flags, NULL);
    } else {
        mounted("tmpfs", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755");
        if (*group_devices) {
            OK(mkdir("/sys/fs/cgroup/devices", 0755));
            mounted("cgroup", "/sys/fs/cgroup/devices", flags, "devices");
        }
        if (*group_v2) {
            OK(mkdir("/sys/fs/cgroup/unified", 0755));
            mounted("cgroup2", "/sys/fs/cgroup/unified", flags, NULL);
        }
        OK(mount(NULL, "/sys/fs/cgroup", NULL, MS_REMOUNT | flags, NULL));
    }
    static const char *masked[] = {"/sys/devices/virtual/powercap", "/sys/firmware"};
    for (int i = 0; i < 2; i++)
        if (mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1") && errno != ENOENT)
            die(masked[i]);
}

// As many instructions as docker's default rules come to when they are a binary search over the syscall numbers (117).
// The leaves allow, but for the numbers that no kernel has: what they would say costs nothing.
static int search(struct sock_filter *code, int at, int low, int high) {
    if (low == high) {
        code[at] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, low * 8 < 600 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | ENOSYS);
        return at + 1;
    }
    int middle = (low + high + 1) / 2, right = search(code, at + 1, low, middle - 1);
    code[at] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, middle * 8, right - at - 1, 0);
    return search(code, right, middle, high);
}

static void seccomp(void) {
    struct sock_filter code[160];
    code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
#ifdef __x86_64__
                                           AUDIT_ARCH_X86_64,
#else
                                           AUDIT_ARCH_AARCH64,
#endif
                                           1, 0);
    code[2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[3] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    struct sock_fprog filter = {.filter = code};
    filter.len = search(code, 4, 0, 56);
    OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}

static void capabilities(void) {
    const uint64_t kept = 0xa80425fb; // docker's fourteen
    for (int number = 0; number < 41; number++)
        if (!(kept >> number & 1))
            prctl(PR_CAPBSET_DROP, number);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = (uint32_t)kept, .permitted = (uint32_t)kept}};
    OK(syscall(SYS_capset, &header, data));
}

struct start {
    const char *dir, *run;
    char **program;
    int go; // the pipe from the parent: the number of the network namespace's descriptor (the table is shared)
};

static void child(struct start *s) {
    OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
    mark(1, "begins");
    // First, and while the parent makes the network: on v1 this write may wait for an RCU grace period.
    if (*group_devices)
        put(group_devices, "cgroup.procs", "0");
    mark(1, "in its v1 group");
    mounts_early(s->dir, s->run);
    OK(sethostname("floor", 5));
    mark(1, "mounted what needs no network namespace, pivot_root");
    int netns;
    if (read(s->go, &netns, sizeof netns) != sizeof netns)
        _exit(125);
    OK(setns(netns, CLONE_NEWNET));
    OK(unshare(CLONE_NEWCGROUP));
    mark(1, "in its network namespace");
    mounts_late();
    mark(1, "mounted sysfs, cgroup, masks");
    seccomp();
    capabilities();
    OK(syscall(SYS_close_range, 3, ~0u, 2 /* CLOSE_RANGE_UNSHARE */));
    mark(1, "seccomp, capabilities, descriptors");
    static char *environment[] = {"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOSTNAME=floor", NULL};
    execve(s->program[0], s->program, environment);
    die("execve");
}

// ------------------------------------------------------------------------------------------------------------- the parent

static void file(const char *run, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", run, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    OK(fd);
    if (*text)
        OK(write(fd, text, strlen(text)));
    close(fd);
}

// The upper folder has etc/ with the three files that are bound over: made here, they cost no copy-up.
static void folders(const char *run) {
    char path[512];
    static const char *names[] = {"", "/upper", "/upper/etc", "/work"};
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", run, names[i]);
        if (mkdir(path, 0755))
            die(path);
    }
    file(run, "upper/etc/hosts", ""), file(run, "upper/etc/hostname", ""), file(run, "upper/etc/resolv.conf", "");
    file(run, "hosts", "127.0.0.1\tlocalhost\n"), file(run, "hostname", "floor\n"), file(run, "resolv.conf", "nameserver 172.31.0.1\n");
}

static void remove_all(const char *run) {
    static const char *names[] = {"upper/etc/hosts", "upper/etc/hostname", "upper/etc/resolv.conf", "upper/etc", "upper", "work/work/incompat/volatile/dirty", "work/work/incompat/volatile",
                                  "work/work/incompat", "work/work", "work", "hosts", "hostname", "resolv.conf", ""};
    char path[512];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", run, names[i]);
        remove(path);
    }
}

// Sleeps until the parent is gone; then the slow work that nobody waits for.
static void cleaner(int parent_alive, int mount_namespace, int nft, uint32_t address, const char *run) {
    char nothing;
    while (read(parent_alive, &nothing, 1) < 0 && errno == EINTR)
        ;
    if (nft >= 0)
        publish(nft, NFT_MSG_DELSETELEM, address);
    close(mount_namespace); // the last reference: unmounts all
    remove_all(run);
    for (int tries = 0; tries < 1000 && *group_devices && rmdir(group_devices) && errno == EBUSY; tries++)
        usleep(1000);
    for (int tries = 0; tries < 1000 && *group_v2 && rmdir(group_v2) && errno == EBUSY; tries++)
        usleep(1000);
    _exit(0);
}

static int bridge_index(void) {
    struct ifreq request = {.ifr_name = "floor0"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    OK(ioctl(fd, SIOCGIFINDEX, &request));
    close(fd);
    return request.ifr_ifindex;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        dprintf(2, "usage: floor DIR bridged|published|none [PROGRAM [ARG...]]\n");
        return 2;
    }
    int published = !strcmp(argv[2], "published"), networked = published || !strcmp(argv[2], "bridged");
    static char *usual[] = {"/bin/busybox", "true", NULL};
    if (getenv("FLOOR_TRACE"))
        trace = mmap(NULL, sizeof *trace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    mark(0, "begins");

    char run[300], link[16];
    snprintf(run, sizeof run, "%s/run/%d", argv[1], getpid());
    snprintf(link, sizeof link, "vf%x", getpid());
    uint32_t address = (GATEWAY & 0xffff0000) | (2 + getpid() % 65000);
    int port = -1;
    if (published) { // reserved: bound, not listening
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(HOST_PORT)};
        OK(port = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        OK(bind(port, (void *)&any, sizeof any));
    }
    folders(run);
    mark(0, "folders and files");
    int group = cgroups();
    mark(0, "cgroups and device rules");

    int go[2], alive[2];
    OK(pipe2(go, O_CLOEXEC)), OK(pipe2(alive, O_CLOEXEC));
    struct start start = {.dir = argv[1], .run = run, .program = argc > 3 ? argv + 3 : usual, .go = go[0]};
    // CLONE_FILES: the child finds the network namespace's descriptor, which we open later, in the shared table.
    struct clone_args how = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_FILES, .exit_signal = SIGCHLD};
    if (group >= 0) {
        how.flags |= CLONE_INTO_CGROUP;
        how.cgroup = group;
    }
    pid_t pid = syscall(SYS_clone3, &how, sizeof how);
    OK(pid);
    if (!pid)
        child(&start);
    mark(0, "clone3");

    int host_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    OK(host_netns);
    int bridge = networked ? bridge_index() : 0;
    OK(unshare(CLONE_NEWNET));
    mark(0, "unshare(CLONE_NEWNET)");
    network(netlink(NETLINK_ROUTE), host_netns, bridge, link, address);
    mark(0, "veth, address, route, lo in one sendmsg");
    int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    OK(netns);
    OK(setns(host_netns, CLONE_NEWNET));
    OK(write(go[1], &netns, sizeof netns));
    int nft = published ? netlink(NETLINK_NETFILTER) : -1;
    if (published)
        publish(nft, NFT_MSG_NEWSETELEM, address);
    mark(0, published ? "nft map element" : "back");

    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", pid);
    int mount_namespace = open(path, O_RDONLY | O_CLOEXEC);
    pid_t cleaning = fork();
    OK(cleaning);
    if (!cleaning) {
        close(alive[1]), close(netns);
        cleaner(alive[0], mount_namespace, nft, address, run);
    }
    mark(0, "cleaner forked");
    int status;
    OK(waitpid(pid, &status, 0));
    mark(0, "the program has exited");
    if (trace)
        print_trace();
    // The end of this process closes `alive`, and the cleaner begins. No RTM_DELLINK: the namespace's death removes the pair.
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
