//! docker's flags that minidock refuses, each with its reason. None is ever ignored in silence.
//!
//! They are not declared to the parser: meeting one is an error whatever its argument is, so the parser stops there
//! and the name is looked up here. That costs a start nothing.

/// Flags of `docker run` 28.
const RUN: &[(&str, &str)] = &[
    ("annotation", "minidock hands nothing to an OCI runtime; use --label to keep your own notes on a container"),
    ("blkio-weight-device", "only the weight for all devices can be set; use --blkio-weight"),
    ("cgroup-parent", "minidock places its cgroups itself; start minidock inside the wanted cgroup"),
    ("cpu-count", "it exists on Windows only; use --cpus"),
    ("cpu-percent", "it exists on Windows only; use --cpus"),
    ("cpu-rt-period", "real-time scheduling of cgroups is off in common kernels; use --cpus or --cpu-quota"),
    ("cpu-rt-runtime", "real-time scheduling of cgroups is off in common kernels; use --cpus or --cpu-quota"),
    ("device-cgroup-rule", "device rules without a device are not available; name the device with --device"),
    ("gpus", "minidock has no GPU hooks; pass the device files with --device"),
    ("io-maxbandwidth", "it exists on Windows only; use --device-read-bps and --device-write-bps"),
    ("io-maxiops", "it exists on Windows only; use --device-read-iops and --device-write-iops"),
    ("isolation", "it exists on Windows only; leave it out"),
    ("kernel-memory", "the kernel has no such limit any more; use --memory, which includes kernel memory"),
    ("link", "containers find each other by name in a network of their own: see minidock network create"),
    ("runtime", "minidock is its own OCI runtime; leave it out"),
    ("storage-opt", "the overlay driver can't limit a container's size; use a --tmpfs with size="),
    ("use-api-socket", "minidock has no daemon, so there is no API socket; leave it out"),
    ("volume-driver", "minidock has no volume plug-ins; mount a folder with -v"),
    ("disable-content-trust", "minidock has no content trust; digests are always verified, leave it out"),
];

/// Flags of the other commands of docker 28, as (command, flag, reason).
const OTHER: &[(&str, &str, &str)] = &[
    ("create", "config-from", "write the options again; a network has its own"),
    ("create", "config-only", "minidock has no swarm, so there is nothing to configure on other machines"),
    ("create", "ingress", "minidock has no swarm; publish with run's -p"),
    ("create", "ipam-opt", "the default IPAM driver has no options"),
    ("connect", "link", "links are replaced by names; use --alias, or the container's name"),
    ("inspect", "platform", "an image is kept for one platform; leave it out"),
    ("images", "tree", "an image is kept for one platform; leave it out"),
    ("rmi", "no-prune", "minidock keeps no intermediate images; leave it out"),
    ("history", "platform", "an image is kept for one platform; leave it out"),
    ("rmi", "platform", "an image is kept for one platform; leave it out"),
    ("load", "platform", "the image of this machine's platform is taken; leave it out"),
    ("import", "platform", "images are made for this machine's platform; leave it out"),
    ("update", "cpu-rt-period", "real-time scheduling of cgroups is off in common kernels; use --cpus or --cpu-quota"),
    ("update", "cpu-rt-runtime", "real-time scheduling of cgroups is off in common kernels; use --cpus or --cpu-quota"),
    ("rm", "link", "links are not available; leave it out"),
];

/// docker's short forms of the refused flags.
const SHORT: &[(&str, char, &str)] = &[("rm", 'l', "link")];

/// The reason for refusing `--flag` of a command, if it is a flag that docker has. `command` is the table's first name.
pub(super) fn reason(command: &str, flag: &str) -> Option<&'static str> {
    let known = |list: &[(&str, &'static str)]| list.iter().find(|(name, _)| *name == flag).map(|(_, why)| *why);
    if command == "run" {
        return known(RUN);
    }
    OTHER.iter().find(|(of, name, _)| *of == command && *name == flag).map(|(_, _, why)| *why)
}

/// The long name of a refused short flag.
pub(super) fn long_name(command: &str, short: char) -> Option<&'static str> {
    SHORT.iter().find(|(of, letter, _)| *of == command && *letter == short).map(|(_, _, long)| *long)
}

/// All refused flags of `run`, for tests and help.
#[cfg(test)]
pub(super) fn of_run() -> impl Iterator<Item = (&'static str, &'static str)> {
    RUN.iter().copied()
}
