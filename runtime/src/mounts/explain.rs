//! Mount operations as a person would type them, with the host's tools, before pivot_root.
//!
//! `$root` is a shell variable of the script, so `"$root/proc"` is the container's /proc. Links inside an image are the
//! one thing that these commands follow by string and minidock doesn't.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Bind, Device, FileSystem, NodeKind, Op, Overlay};
use crate::Command;
use crate::shell::{inside, word};

/// Into all namespaces of the holder: what is mounted belongs to them (proc shows its pids, sysfs its network).
const ENTER: &str = "nsenter -t $pid -a --";

pub(super) fn explain(op: &Op) -> Vec<Command> {
    let one = |command: String, reason: &str| vec![(command, reason.to_owned())];
    match op {
        Op::Isolate(propagation) => one(
            format!("{ENTER} mount --make-{} /", propagation.name()),
            "mounts from here on stay in the container's mount namespace",
        ),
        Op::Overlay(overlay) => explain_overlay(overlay),
        Op::RootFolder(path) => vec![
            (format!("root={}", word(path)), "the root file system".to_owned()),
            (format!("{ENTER} mount --rbind \"$root\" \"$root\""), "pivot_root wants a mount point".to_owned()),
        ],
        Op::FileSystem(mount) => explain_file_system(mount),
        Op::Bind(bind) => explain_bind(bind),
        Op::Device(device) => explain_device(device),
        Op::Symlink { path, target } => one(format!("{ENTER} ln -s {} {}", word(target), inside(path)), ""),
        Op::Console(path) => one(
            format!("# a terminal: open $root/dev/pts/ptmx, bind its other end to $root{}", path.display()),
            "what posix_openpt does has no command",
        ),
        Op::Mask(paths) => one(
            format!(
                "{ENTER} sh -c 'for path; do if [ -d \"$path\" ]; then mount -t tmpfs -o ro tmpfs \"$path\"; elif [ -e \"$path\" ]; then mount --bind \"$0\" \"$path\"; fi; done' {}",
                arguments("/dev/null", paths)
            ),
            "what these show is the host's business: files look empty, folders too",
        ),
        Op::ReadOnly(paths) => one(
            format!(
                "{ENTER} sh -c 'for path; do if [ -e \"$0$path\" ]; then mount --rbind \"$0$path\" \"$0$path\" && mount -o remount,bind,ro \"$0$path\"; fi; done' \"$root\" {}",
                paths.iter().map(word).collect::<Vec<_>>().join(" ")
            ),
            "what these change is the host's business",
        ),
        Op::Sysctl { key, value } => {
            let inner = format!("echo {} > /proc/sys/{key}", word(value));
            one(format!("{ENTER} sh -c {}", word(inner)), "kernel parameter of the container's own namespace")
        }
        Op::Seal { target, attributes } => {
            let path = if target == Path::new("/") { "\"$root\"".to_owned() } else { inside(target) };
            one(
                format!("{ENTER} mount -o remount,bind,{} {path}", attributes.words().join(",")),
                "complete, so it can be closed",
            )
        }
        Op::PivotRoot { propagation } => {
            let mut commands = vec![
                (
                    format!("{ENTER} env -C \"$root\" pivot_root . ."),
                    "the new root under the old one, at the same place".to_owned(),
                ),
                (
                    "nsenter -t $pid -m -- umount -l /".to_owned(),
                    "take the old one, the host's, away from above".to_owned(),
                ),
            ];
            if let Some(propagation) = propagation {
                let text = format!(
                    "# nsenter -t $pid -m -- mount --make-{} / (with the image's own mount)",
                    propagation.name()
                );
                commands.push((text, "as rootfsPropagation says".to_owned()));
            }
            commands
        }
    }
}

fn explain_overlay(overlay: &Overlay) -> Vec<Command> {
    let folder = match &overlay.base {
        Some(base) => format!("env -C {} ", word(base)),
        None => String::new(),
    };
    let options = if overlay.one_by_one {
        let lower: Vec<_> = overlay.lower.iter().map(|path| format!("lowerdir+={}", path.display())).collect();
        format!(
            "{},upperdir={},workdir={},{}",
            lower.join(","),
            overlay.upper.display(),
            overlay.work.display(),
            overlay.flags()
        )
    } else {
        String::from_utf8_lossy(&overlay.data()).into_owned()
    };
    vec![
        (format!("root={}", word(&overlay.merged)), "the root file system".to_owned()),
        (
            format!("{ENTER} {folder}mount -t overlay -o {} overlay \"$root\"", word(options)),
            "the image's layers, topmost first, below the container's own folder".to_owned(),
        ),
    ]
}

fn explain_file_system(mount: &FileSystem) -> Vec<Command> {
    let mut options: Vec<String> = mount.attributes.words().into_iter().map(str::to_owned).collect();
    for (flag, name) in [(libc::MS_SYNCHRONOUS, "sync"), (libc::MS_DIRSYNC, "dirsync"), (libc::MS_LAZYTIME, "lazytime")]
    {
        if mount.flags & flag != 0 {
            options.push(name.to_owned());
        }
    }
    if !mount.data.is_empty() {
        options.push(mount.data.clone());
    }
    let options = if options.is_empty() { String::new() } else { format!(" -o {}", word(options.join(","))) };
    let target = inside(&mount.target);
    let reason = match mount.kind.as_str() {
        "proc" => "processes of the container's pid namespace",
        "sysfs" => "devices; of network devices only its own",
        "devpts" => "terminals of its own",
        "mqueue" => "message queues of its ipc namespace",
        "cgroup" | "cgroup2" => "its own groups and limits",
        _ => "",
    };
    let command = format!("{ENTER} mount --mkdir -t {}{options} {} {target}", word(&mount.kind), word(&mount.source));
    let mut commands = vec![(command, reason.to_owned())];
    if let Some(propagation) = mount.propagation {
        commands.push((format!("{ENTER} mount --make-{} {target}", propagation.name()), String::new()));
    }
    commands
}

fn explain_bind(bind: &Bind) -> Vec<Command> {
    let source = bind.subpath.as_ref().map_or_else(|| bind.source.clone(), |path| bind.source.join(path));
    let (source, target) = (word(source), inside(&bind.target));
    let how = if bind.recursive { "--rbind" } else { "--bind" };
    let mut steps = vec![
        // A folder on a folder, anything else on a file.
        "if [ -d \"$1\" ]; then mkdir -p \"$2\"; elif [ ! -e \"$2\" ]; then mkdir -p \"${2%/*}\" && : > \"$2\"; fi"
            .to_owned(),
        format!("mount {how} \"$1\" \"$2\""),
        format!("mount --make-{} \"$2\"", bind.propagation.name()),
    ];
    if !bind.below.is_empty() {
        let words = bind.below.words().join(",");
        steps.push(format!(
            "findmnt -Rno TARGET \"$2\" | while read -r path; do mount -o remount,bind,{words} \"$path\"; done"
        ));
    }
    if !bind.attributes.is_empty() {
        steps.push(format!("mount -o remount,bind,{} \"$2\"", bind.attributes.words().join(",")));
    }
    let command = format!("{ENTER} sh -ec {} sh {source} {target}", word(steps.join("; ")));
    vec![(command, "a folder or file of the host".to_owned())]
}

fn explain_device(device: &Device) -> Vec<Command> {
    let path = inside(&device.path);
    let numbers = match device.kind {
        NodeKind::Character => format!(" c {} {}", device.major, device.minor),
        NodeKind::Block => format!(" b {} {}", device.major, device.minor),
        NodeKind::Fifo => " p".to_owned(),
    };
    let mut commands = Vec::new();
    if let Some(folder) = device.path.parent().filter(|folder| *folder != Path::new("/dev")) {
        commands.push((format!("{ENTER} mkdir -p {}", inside(folder)), String::new()));
    }
    commands.push((format!("{ENTER} mknod -m {:o} {path}{numbers}", device.mode), String::new()));
    if (device.uid, device.gid) != (0, 0) {
        commands.push((format!("{ENTER} chown {}:{} {path}", device.uid, device.gid), String::new()));
    }
    commands
}

/// `"$root/first" "$root/a" "$root/b"`.
fn arguments(first: &str, paths: &[PathBuf]) -> String {
    let all = std::iter::once(Path::new(first)).chain(paths.iter().map(PathBuf::as_path));
    all.map(|path| inside(OsStr::from_bytes(path.as_os_str().as_bytes()))).collect::<Vec<_>>().join(" ")
}
