//! Flags of `run`, as typed. What they mean is checked in `request`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::pflag::integer;

/// Create a container from an image and run a program in it.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    // --- what runs
    /// Attach only to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "STREAM")]
    pub attach: Vec<String>,
    /// Keys that detach from the container's terminal [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub detach: bool,
    /// Remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    /// Name of the container, also of its namespace in `ip netns`
    #[arg(long)]
    pub name: Option<String>,
    /// Pass stdin on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set an environment variable (NAME alone: take it from here)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Run as this user: NAME or UID, with :GROUP if wanted
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Further groups of the user
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Program to run instead of the image's ENTRYPOINT
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Run a small init that passes signals on and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Signal that `stop` sends first
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds that `stop` waits before SIGKILL; -1: for ever
    #[arg(long, value_name = "SECONDS", value_parser = integer)]
    pub stop_timeout: Option<i64>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// `missing` or `never`: minidock doesn't pull yet
    #[arg(long, value_name = "WHEN")]
    pub pull: Option<String>,
    /// Print no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Where output is kept: json-file, journald or none
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Option of the log driver: max-size=10m, max-file=3, labels=, env=
    #[arg(long, value_name = "NAME=VALUE")]
    pub log_opt: Vec<String>,
    /// Platform of the image: this machine's only
    #[arg(long, value_name = "OS[/ARCH]")]
    pub platform: Option<String>,
    /// What happens when the program ends: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// Pass signals on to the program
    #[arg(long, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = super::pflag::boolean, action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    /// Don't run the image's health check
    #[arg(long)]
    pub no_healthcheck: bool,
    /// Shell line that tells whether the container is healthy
    #[arg(long, value_name = "LINE")]
    pub health_cmd: Option<String>,
    /// Time between two checks (30s)
    #[arg(long, value_name = "TIME")]
    pub health_interval: Option<String>,
    /// A check that takes longer has failed (30s)
    #[arg(long, value_name = "TIME")]
    pub health_timeout: Option<String>,
    /// Time after the start in which failures don't count
    #[arg(long, value_name = "TIME")]
    pub health_start_period: Option<String>,
    /// Time between two checks in the start period (5s)
    #[arg(long, value_name = "TIME")]
    pub health_start_interval: Option<String>,
    /// Failures in a row that make it unhealthy (3)
    #[arg(long, value_name = "N", value_parser = integer)]
    pub health_retries: Option<i64>,
    /// With -d: return when it is ready: port, port:N, log:PATTERN, healthy, http:/path, http:N/path
    #[arg(long, value_name = "WHAT")]
    pub wait: Vec<String>,
    /// How long to wait for that (60s)
    #[arg(long, value_name = "TIME")]
    pub wait_timeout: Option<String>,

    // --- what it sees
    /// Mount a folder or file of the host, a volume by its name, or (a path alone) an anonymous volume
    #[arg(short, long, value_name = "SRC:DST[:OPTS]")]
    pub volume: Vec<OsString>,
    /// Mount: type=bind|tmpfs|volume,src=…,dst=…[,readonly]
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub mount: Vec<OsString>,
    /// Mount what another container has mounted: its volumes and binds
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub volumes_from: Vec<String>,
    /// Mount a tmpfs
    #[arg(long, value_name = "DST[:OPTS]")]
    pub tmpfs: Vec<OsString>,
    /// Make the root folder read-only
    #[arg(long)]
    pub read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Let the container use a device: HOST[:CONTAINER[:rwm]]
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Use a folder as root file system, without any image
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,

    // --- network
    /// A network, once or several times: NAME[,ip=…,alias=…]; or none, host, container:NAME, ns:PATH
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub network: Vec<OsString>,
    /// A further name of the container in its (first) network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// IPv4 address in the (first) network
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// IPv6 address in the (first) network
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// A further address of the (first) link, not routed
    #[arg(long, value_name = "ADDRESS")]
    pub link_local_ip: Vec<String>,
    /// MAC address of the (first) link
    #[arg(long, value_name = "ADDRESS")]
    pub mac_address: Option<String>,
    /// Publish ports: [IP:][HOST:]CONTAINER[/PROTO]
    #[arg(short, long, value_name = "PORTS")]
    pub publish: Vec<String>,
    /// Publish all exposed ports on free ports
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Note that the container listens on a port, or a range of ports
    #[arg(long, value_name = "PORT[/PROTO]")]
    pub expose: Vec<String>,
    /// Publish by `dnat` in the kernel or by the built-in `proxy`
    #[arg(long, value_name = "MODE")]
    pub publish_mode: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Domain: NIS domain name, and the end of the full name in /etc/hosts
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// Name server for resolv.conf
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// Search domain for resolv.conf (. for none)
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Resolver option for resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// net_cls class id of the container's sockets: 1:10 or 0x00010010
    #[arg(long, value_name = "MAJOR:MINOR")]
    pub net_cls: Option<String>,
    /// Rate of what it sends by the uplink: 8mbit[,ceil=16mbit][,burst=32k]
    #[arg(long, value_name = "RATE")]
    pub net_rate: Option<String>,
    /// Rate of what comes to it: 8mbit[,burst=32k]
    #[arg(long, value_name = "RATE")]
    pub net_rate_in: Option<String>,
    /// Delay of what it sends: 100ms or 100ms,10ms
    #[arg(long, value_name = "TIME[,JITTER]")]
    pub net_delay: Option<String>,
    /// How much is lost of what it sends: 1%
    #[arg(long, value_name = "PERCENT")]
    pub net_loss: Option<String>,

    // --- namespaces and rights
    /// PID namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// IPC namespace: private, shareable, none, host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// Cgroup namespace: `private` only
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
    /// User namespace: `host` only
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// All capabilities, all devices, nothing masked
    #[arg(long)]
    pub privileged: bool,
    /// no-new-privileges, seccomp=unconfined|FILE, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Limit of a process: nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,

    // --- limits
    /// Memory limit: 512m, 1g
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Limit of memory and swap together; -1: no limit for swap
    #[arg(long, value_name = "BYTES")]
    pub memory_swap: Option<String>,
    /// Soft memory limit
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// How readily memory is swapped out, 0 to 100 (cgroup v1 only)
    #[arg(long, value_name = "NUMBER", value_parser = integer)]
    pub memory_swappiness: Option<i64>,
    /// At the memory limit programs wait instead of being killed (cgroup v1 only)
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// Number of CPUs: 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// CPU weight (1024 is normal)
    #[arg(short, long, value_name = "SHARES", value_parser = integer)]
    pub cpu_shares: Option<i64>,
    /// CPU period in microseconds
    #[arg(long, value_name = "US", value_parser = integer)]
    pub cpu_period: Option<i64>,
    /// CPU time per period in microseconds
    #[arg(long, value_name = "US", value_parser = integer)]
    pub cpu_quota: Option<i64>,
    /// CPUs to run on: 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use: 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Number of processes; -1: no limit
    #[arg(long, value_name = "NUMBER", value_parser = integer)]
    pub pids_limit: Option<i64>,
    /// Disk weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = integer)]
    pub blkio_weight: Option<i64>,
    /// Bytes per second read from a device
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_read_bps: Vec<String>,
    /// Bytes per second written to a device
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_write_bps: Vec<String>,
    /// Reads per second from a device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub device_read_iops: Vec<String>,
    /// Writes per second to a device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub device_write_iops: Vec<String>,
    /// How early the OOM killer takes it, -1000 to 1000
    #[arg(long, value_name = "SCORE", value_parser = integer)]
    pub oom_score_adj: Option<i64>,

    // --- the glass box
    /// Print each step as the command a person would type
    #[arg(long)]
    pub explain: bool,
    /// Print all steps as a shell script and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Image (a name, an id, or a file: ./image.tar), then the program and its arguments
    #[arg(trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG...]")]
    pub words: Vec<OsString>,
}
