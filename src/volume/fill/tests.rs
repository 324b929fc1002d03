//! The copy as root, on real overlays.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, XattrFlags, mknodat};
use rustix::process::{kill_process, pidfd_open};

use super::*;

/// Layers, a volume's folder and `merged` below one temporary folder.
struct Bench(PathBuf);

impl Bench {
    fn new() -> Bench {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let top = std::env::temp_dir().join(format!("minidock-volume:,copy-{}-{number}", std::process::id()));
        for folder in ["volumes/data/_data", "merged", "layers"] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        Bench(top)
    }

    /// A path in layer `number`, whose folders are made.
    fn at(&self, number: usize, path: &str) -> PathBuf {
        let path = self.0.join(format!("layers/{number:03}")).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn file(&self, number: usize, path: &str, text: &str) -> PathBuf {
        fs::write(self.at(number, path), text).unwrap();
        self.at(number, path)
    }

    fn node(&self, number: usize, path: &str, kind: FileType, device: u64) {
        mknodat(CWD, self.at(number, path), kind, Mode::from_raw_mode(0o640), device).unwrap();
    }

    fn layers(&self) -> Vec<PathBuf> {
        let mut layers: Vec<_> = fs::read_dir(self.0.join("layers")).unwrap().map(|e| e.unwrap().path()).collect();
        layers.sort();
        layers
    }

    fn fill(&self, target: &str) -> Result<(), String> {
        let volume = Volume {
            source: self.0.join("volumes/data/_data"),
            target: target.into(),
            copy: true,
            ..Volume::default()
        };
        fill(&[volume], &self.layers(), &self.0.join("merged"), &|_| false).map_err(|error| error::text(&error))
    }

    fn volume(&self, path: &str) -> PathBuf {
        self.0.join("volumes/data/_data").join(path)
    }

    /// Names in the volume, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let list = fs::read_dir(self.volume(path)).unwrap();
        let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Not fs::remove_dir_all: it holds a descriptor per level.
        let _ = std::process::Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

fn device(major: u32, minor: u32) -> u64 {
    rustix::fs::makedev(major, minor)
}

#[test]
fn the_volume_gets_what_the_layers_show_together() {
    let bench = Bench::new();
    bench.file(0, "data/kept", "low");
    bench.file(0, "data/changed", "low");
    bench.file(0, "data/removed", "low");
    bench.file(0, "data/replaced/old", "low");
    bench.file(1, "data/changed", "high");
    bench.node(1, "data/removed", FileType::CharacterDevice, 0);
    let replaced = bench.file(1, "data/replaced/new", "high");
    rustix::fs::setxattr(replaced.parent().unwrap(), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    bench.fill("/data").unwrap();
    assert_eq!(bench.names(""), ["changed", "kept", "replaced"]);
    assert_eq!(bench.names("replaced"), ["new"]);
    assert_eq!(fs::read_to_string(bench.volume("changed")).unwrap(), "high");
    assert_eq!(fs::read_to_string(bench.volume("kept")).unwrap(), "low");
    let mut list = [0u8; 1000];
    assert_eq!(rustix::fs::listxattr(bench.volume("replaced"), &mut list), Ok(0), "overlay's marks stay behind");
    assert_eq!(fs::read_dir(bench.0.join("merged")).unwrap().count(), 0);
}

#[test]
fn a_single_layer_hides_its_whiteouts_and_150_long_names_fit() {
    let bench = Bench::new();
    bench.file(0, "data/000", "");
    bench.node(0, "data/gone", FileType::CharacterDevice, 0);
    bench.fill("/data").unwrap();
    assert_eq!(bench.names(""), ["000"]);

    let bench = Bench::new();
    (0..150).for_each(|number| drop(bench.file(number, &format!("data/{number:03}"), "")));
    bench.fill("/data").unwrap();
    assert_eq!(bench.names("").len(), 150);
}

#[test]
fn owners_modes_times_and_attributes_are_kept() {
    let bench = Bench::new();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let file = bench.file(0, "data/folder/file", "text");
    chown(&file, Some(70_000), Some(80)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    // cap_net_raw=ep, revision 2 (linux/capability.h).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(&file, "security.capability", &capability, XattrFlags::empty()).unwrap();
    // Before Linux 6.6 a tmpfs keeps no user.* attributes.
    let note = rustix::fs::setxattr(&file, "user.note", b"mine", XattrFlags::empty());
    assert!(matches!(note, Ok(()) | Err(Errno::OPNOTSUPP)), "{note:?}");
    fs::File::open(&file).unwrap().set_modified(old).unwrap();
    symlink("/nowhere", bench.at(0, "data/link")).unwrap();
    lchown(bench.at(0, "data/link"), Some(5), Some(6)).unwrap();
    for (folder, mode) in [("data/folder", 0o2555), ("data", 0o1777)] {
        let folder = bench.at(0, folder);
        chown(&folder, Some(11), Some(12)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::open(&folder).unwrap().set_modified(old).unwrap();
    }
    bench.fill("/data").unwrap();

    let stat = fs::metadata(bench.volume("folder/file")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode()), (70_000, 80, 0o104_751));
    assert_eq!((stat.modified().unwrap(), stat.len()), (old, 4));
    let attributes = [("security.capability", &capability[..]), ("user.note", b"mine")];
    for (name, expected) in attributes.into_iter().take(1 + usize::from(note.is_ok())) {
        let mut value = [0u8; 100];
        let length = rustix::fs::getxattr(bench.volume("folder/file"), name, &mut value).unwrap();
        assert_eq!(&value[..length], expected);
    }
    for (folder, mode) in [("folder", 0o42_555), ("", 0o41_777)] {
        let stat = fs::metadata(bench.volume(folder)).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode(), stat.modified().unwrap()), (11, 12, mode, old), "{folder}");
    }
    let link = fs::symlink_metadata(bench.volume("link")).unwrap();
    assert_eq!((link.uid(), link.gid()), (5, 6));
    assert_eq!(fs::read_link(bench.volume("link")).unwrap(), Path::new("/nowhere"));
}

#[test]
fn every_kind_of_file_is_copied_as_what_it_is() {
    let bench = Bench::new();
    bench.node(0, "data/fifo", FileType::Fifo, 0);
    bench.node(0, "data/socket", FileType::Socket, 0);
    bench.node(0, "data/null", FileType::CharacterDevice, device(1, 3));
    bench.node(0, "data/disk", FileType::BlockDevice, device(7, 200));
    fs::create_dir_all(bench.at(0, "data/deep/er")).unwrap();
    let one = bench.file(0, "data/one", "linked");
    fs::hard_link(&one, bench.at(0, "data/deep/er/two")).unwrap();
    fs::hard_link(&one, bench.at(0, "outside")).unwrap();
    let sparse = fs::File::create(bench.at(0, "data/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 50 << 20).unwrap();
    sparse.set_len(100 << 20).unwrap();
    let strange = std::ffi::OsStr::from_bytes(b"\xff\n\x1b[31m");
    fs::write(bench.at(0, "data").join(strange), "strange").unwrap();
    bench.fill("/data").unwrap();

    let stat = |path: &str| fs::symlink_metadata(bench.volume(path)).unwrap();
    assert!(stat("fifo").file_type().is_fifo() && stat("fifo").mode() & 0o7777 == 0o640);
    assert!(stat("socket").file_type().is_socket());
    assert!(stat("null").file_type().is_char_device() && stat("null").rdev() == device(1, 3));
    assert!(stat("disk").file_type().is_block_device() && stat("disk").rdev() == device(7, 200));
    assert_eq!((stat("one").ino(), stat("one").nlink()), (stat("deep/er/two").ino(), 2));
    assert_eq!(fs::read_to_string(bench.volume("deep/er/two")).unwrap(), "linked");
    assert_eq!(stat("sparse").len(), 100 << 20);
    assert!(stat("sparse").blocks() < 1000, "{} blocks", stat("sparse").blocks());
    let content = fs::read(bench.volume("sparse")).unwrap();
    assert_eq!(&content[50 << 20..(50 << 20) + 6], b"middle");
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 6);
    assert_eq!(fs::read_to_string(bench.volume("").join(strange)).unwrap(), "strange");
}

#[test]
fn links_at_the_target_lead_nowhere_but_into_the_image() {
    let up = "../".repeat(40);
    for link in ["/etc", &format!("{up}etc"), "inner/../../../../etc"] {
        let bench = Bench::new();
        bench.file(0, "etc/canary", "image");
        fs::create_dir(bench.at(0, "inner")).unwrap();
        symlink(link, bench.at(0, "data")).unwrap();
        bench.fill("/data").unwrap();
        assert_eq!(bench.names(""), ["canary"], "{link}");
        assert_eq!(fs::read_to_string(bench.volume("canary")).unwrap(), "image");
    }
    // What only the host has is nothing.
    let bench = Bench::new();
    let canary = bench.0.join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "host").unwrap();
    for (name, link) in
        [("absolute", canary.clone()), ("relative", Path::new(&up).join(canary.strip_prefix("/").unwrap()))]
    {
        symlink(link, bench.at(0, name)).unwrap();
        bench.fill(&format!("/{name}")).unwrap();
        bench.fill(&format!("/{name}/../canary")).unwrap();
        assert!(bench.names("").is_empty(), "{name}");
    }
    symlink("loop", bench.at(0, "loop")).unwrap();
    assert!(bench.fill("/loop").unwrap_err().contains("symbolic links"));
}

#[test]
fn an_empty_folder_gives_its_owner_and_mode() {
    let bench = Bench::new();
    let data = bench.at(0, "data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(999), Some(998)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    bench.fill("/data").unwrap();
    let stat = fs::metadata(bench.volume("")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (999, 998, 0o700));
}

#[test]
fn only_a_folder_can_fill_a_volume() {
    let bench = Bench::new();
    bench.file(0, "file", "");
    bench.node(0, "fifo", FileType::Fifo, 0);
    let before = fs::metadata(bench.volume("")).unwrap();
    bench.fill("/missing/folder").unwrap();
    let after = fs::metadata(bench.volume("")).unwrap();
    assert_eq!((before.mode(), before.ctime_nsec()), (after.mode(), after.ctime_nsec()));
    for target in ["/file", "/fifo", "/file/below"] {
        let error = bench.fill(target).unwrap_err();
        assert_eq!(
            error,
            format!(
                "cannot fill the volume at {target:?}: the image has no folder but a file there; choose another place with -v"
            )
        );
    }
}

#[test]
fn volumes_that_are_not_to_be_filled_start_no_process() {
    let volume = Volume { source: "/missing".into(), target: "/data".into(), ..Volume::default() };
    fill(std::slice::from_ref(&volume), &["/missing".into()], Path::new("/missing"), &|_| false).unwrap();
    fill(&[Volume { copy: true, ..volume }], &[], Path::new("/missing"), &|_| false).unwrap();
}

#[test]
fn depth_ends_at_the_longest_path_not_at_the_number_of_open_files() {
    for (name, depth, fits) in [("d".to_owned(), 1100, true), ("n".repeat(200), 25, false)] {
        let bench = Bench::new();
        // Longer than PATH_MAX: made from folder to folder.
        let mut folder = rustix::fs::openat(CWD, bench.at(0, "top").parent().unwrap(), FOLDER, Mode::empty()).unwrap();
        for name in std::iter::once("data").chain(std::iter::repeat_n(name.as_str(), depth)) {
            rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)).unwrap();
            folder = rustix::fs::openat(&folder, name, FOLDER, Mode::empty()).unwrap();
        }
        match bench.fill("/data") {
            Ok(()) => assert!(fits && bench.volume(&"d/".repeat(depth)).is_dir()),
            Err(error) => assert!(!fits && error.ends_with("nested too deep"), "{error}"),
        }
    }
}

/// Runs it in a thread with its own mount namespace, in which every mount is shared.
fn in_shared_mounts(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            const NONE: Option<&str> = None;
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).unwrap();
            test();
        });
        inside.join().unwrap();
    });
}

#[test]
fn no_mount_comes_out() {
    let bench = Bench::new();
    bench.file(0, "data/file", "");
    in_shared_mounts(|| {
        let mounts = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let before = mounts();
        bench.fill("/data").unwrap();
        assert_eq!(mounts(), before);
    });
    assert_eq!(bench.names(""), ["file"]);
}

#[test]
fn a_full_file_system_is_told_with_path_and_way_out() {
    let bench = Bench::new();
    bench.file(0, "data/folder/big", &"x".repeat(2 << 20));
    in_shared_mounts(|| {
        mount(Some("tmpfs"), &bench.0.join("volumes"), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        fs::create_dir_all(bench.volume("")).unwrap();
        let error = bench.fill("/data").unwrap_err();
        let expected = format!(
            "cannot fill the volume at \"/data\": cannot copy the image's files to {}: \"/folder/big\": No space left on \
             device; free some space there or keep containers elsewhere with --root",
            bench.volume("").display().to_string().trim_end_matches('/')
        );
        assert_eq!(error, expected);
    });
}

#[test]
fn a_missing_layer_is_told() {
    let bench = Bench::new();
    let volume = Volume { source: bench.volume(""), target: "/data".into(), copy: true, ..Volume::default() };
    let error = fill(&[volume], &[bench.0.join("missing")], &bench.0.join("merged"), &|_| false).unwrap_err();
    let error = error::text(&error);
    assert!(error.starts_with("cannot mount the image's layers to fill its volumes: "), "{error}");
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn the_child_s_death_is_an_error_and_other_children_are_left_alone() {
    // Like the cleaner: a child that doesn't end by itself.
    let (mine, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let other = std::process::Command::new("/bin/cat").stdin(OwnedFd::from(theirs)).spawn();
    let error = in_child(|| {
        let _ = kill_process(rustix::process::getpid(), Signal::KILL);
        Ok(())
    });
    assert_eq!(error.unwrap_err().to_string(), "the copy into volumes was killed by SIGKILL; is memory short?");
    let error = in_child(|| Err(anyhow!("inner").context("outer")));
    assert_eq!(error.unwrap_err().to_string(), "outer: inner");
    in_child(|| Ok(())).unwrap();
    drop(mine);
    assert!(other.unwrap().wait().unwrap().success());
}

#[test]
fn the_copy_dies_with_its_parent() {
    let (answer, tell) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let say_pid = || rustix::io::write(&tell, &rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes());
    if let Fork::Child = sys::fork().unwrap() {
        let _ = say_pid();
        let _ = in_child(|| {
            let _ = say_pid();
            loop {
                rustix::event::pause();
            }
        });
        sys::exit_now(1);
    }
    let mut answer = File::from(answer);
    let mut next_pid = || {
        let mut pid = [0u8; 4];
        answer.read_exact(&mut pid).unwrap();
        rustix::process::Pid::from_raw(i32::from_ne_bytes(pid)).unwrap()
    };
    let (middle, copier) = (next_pid(), next_pid());
    let copier = pidfd_open(copier, rustix::process::PidfdFlags::empty()).unwrap();
    kill_process(middle, Signal::KILL).unwrap();
    waitpid(Pid::from_raw(middle.as_raw_nonzero().get()), None).unwrap();
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&copier, PollFlags::IN)], Some(&limit));
    let _ = rustix::process::pidfd_send_signal(&copier, Signal::KILL);
    assert_eq!(ended, Ok(1), "it still runs");
}

#[test]
fn a_killed_copy_is_begun_anew_and_a_filled_volume_is_left_alone() {
    let bench = Bench::new();
    bench.file(0, "data/file", "image");
    let mark = bench.0.join("volumes/data/filling");
    fs::write(bench.volume("half"), "hal").unwrap();
    fs::write(&mark, "").unwrap();
    bench.fill("/data").unwrap();
    assert_eq!((bench.names(""), mark.exists()), (vec!["file".to_string()], false));
    fs::write(bench.volume("own"), "").unwrap();
    fs::remove_file(bench.volume("file")).unwrap();
    bench.fill("/data").unwrap();
    assert_eq!(bench.names(""), ["own"]);
}
