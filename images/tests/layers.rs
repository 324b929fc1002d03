//! What must come out of a layer: whiteouts in overlayfs's form, all metadata, and the cases that a too careful
//! unpacker breaks. Needs root (owners, devices, trusted.* attributes), like the engine itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use images::{Contents, Devices, Limits};
use support::*;

fn unpack(temp: &Temp, entries: &[E<'_>]) -> PathBuf {
    unpack_bytes(temp, &tar(entries), Devices::Create).0
}

fn unpack_bytes(temp: &Temp, archive: &[u8], devices: Devices) -> (PathBuf, Contents) {
    let layer = temp.0.join("layer");
    fs::create_dir_all(&layer).unwrap();
    let folder: OwnedFd = File::open(&layer).unwrap().into();
    let contents = images::unpack_tar(archive, &folder, devices, &Limits::default()).unwrap();
    (layer, contents)
}

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

#[test]
fn whiteouts_become_overlayfs_ones() {
    let temp = Temp::new();
    let entries = [
        dir("etc"),
        file("etc/.wh.gone", ""),
        file(".wh.top", ""),
        dir("opaque"),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/new", "1"),
        // Without an entry for the folder.
        file("implied/folder/.wh.x", ""),
        // Whiteout and new content of the same name, in both orders: the lower one is hidden, this one is seen.
        file(".wh.file", ""),
        file("file", "new"),
        file("late", "new"),
        file(".wh.late", ""),
        file(".wh.dir", ""),
        dir("dir"),
        file("dir/a", "1"),
        dir("latedir"),
        file("latedir/a", "1"),
        file(".wh.latedir", ""),
        // aufs's own.
        dir(".wh..wh.plnk"),
    ];
    let layer = unpack(&temp, &entries);
    for path in ["etc/gone", "top", "implied/folder/x"] {
        assert!(is_whiteout(&layer.join(path)), "{path}");
    }
    for path in ["opaque", "dir", "latedir"] {
        assert!(is_opaque(&layer.join(path)), "{path}");
    }
    for path in ["file", "late"] {
        assert_eq!(fs::read_to_string(layer.join(path)).unwrap(), "new");
    }
    assert!(!is_opaque(&layer.join("etc")) && !layer.join(".wh..wh.plnk").exists());
    assert_eq!(fs::metadata(layer.join("implied")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn overlayfs_sees_the_whiteouts_as_the_image_means_them() {
    let temp = Temp::new();
    let place = |name: &str| temp.0.join(name);
    for (name, archive) in [
        ("low", tar(&[file("gone", ""), dir("d"), file("d/old", ""), dir("o"), file("o/old", ""), file("stays", "")])),
        (
            "up",
            tar(&[
                file(".wh.gone", ""),
                dir("d"),
                file("d/new", ""),
                dir("o"),
                file("o/.wh..wh..opq", ""),
                file("o/new", ""),
            ]),
        ),
    ] {
        fs::create_dir(place(name)).unwrap();
        let folder: OwnedFd = File::open(place(name)).unwrap().into();
        images::unpack_tar(&archive[..], &folder, Devices::Create, &Limits::default()).unwrap();
    }
    fs::create_dir(place("merged")).unwrap();
    // In a mount namespace of its own, by a shell: the test's threads share theirs.
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}:{} {} && cd {} && find . | sort",
        place("up").display(),
        place("low").display(),
        place("merged").display(),
        place("merged").display()
    );
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().collect::<Vec<_>>(), [".", "./d", "./d/new", "./d/old", "./o", "./o/new", "./stays"]);
}

#[test]
fn owners_modes_and_times_are_kept() {
    let temp = Temp::new();
    let entries = [
        E { mode: 0o1777, owner: (5, 6), ..dir("./") },
        E { mode: 0o2750, mtime: 86_400, ..dir("d") },
        E { mode: 0o4755, owner: (1000, 2000), mtime: 1, ..file("d/suid", "x") },
        E { mode: 0o000, pax: vec![(b"mtime", b"12.000000345"), (b"atime", b"13.5")], ..file("d/ns", "x") },
        E { owner: (3_000_000_000, 7), ..file("big", "") },
        E { pax: vec![(b"mtime", b"-1.5")], ..file("old", "") },
        E { owner: (1, 2), mtime: 5, ..symlink("link", "nowhere") },
        E { mode: 0o620, owner: (0, 5), mtime: 5, ..e(b'6', "fifo") },
        // A folder's entry again, after its contents.
        file("d/later", ""),
        hardlink("d/second", "d/suid"),
    ];
    let layer = unpack(&temp, &entries);
    let meta = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    let mode = |name: &str| meta(name).mode() & 0o7777;
    assert_eq!((mode("."), meta(".").uid(), meta(".").gid(), meta(".").mtime()), (0o1777, 5, 6, 1_000_000_000));
    assert_eq!((mode("d"), meta("d").mtime()), (0o2750, 86_400), "a folder's time comes after its contents");
    assert_eq!((mode("d/suid"), meta("d/suid").uid(), meta("d/suid").mtime()), (0o4755, 1000, 1));
    assert_eq!((mode("d/ns"), meta("d/ns").mtime(), meta("d/ns").mtime_nsec()), (0, 12, 345));
    assert_eq!((meta("d/ns").atime(), meta("d/ns").atime_nsec()), (13, 500_000_000));
    assert_eq!(meta("big").uid(), 3_000_000_000);
    assert_eq!((meta("old").mtime(), meta("old").mtime_nsec()), (-2, 500_000_000));
    assert_eq!((meta("link").uid(), meta("link").gid(), meta("link").mtime()), (1, 2, 5));
    assert_eq!((mode("fifo"), meta("fifo").gid(), meta("fifo").file_type().is_fifo()), (0o620, 5, true));
    assert_eq!((meta("d/second").ino(), meta("d/suid").nlink()), (meta("d/suid").ino(), 2));
}

#[test]
fn the_umask_does_not_show_in_an_image() {
    // Implied folders, files and devices; umask is the process's, so this runs in a process of its own.
    if std::env::var_os("IMAGES_TEST_UMASK").is_none() {
        let status = std::process::Command::new("sh")
            .args(["-c", "umask 077 && exec \"$0\" --exact the_umask_does_not_show_in_an_image"])
            .arg(std::env::current_exe().unwrap())
            .env("IMAGES_TEST_UMASK", "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let temp = Temp::new();
    let null = E { mode: 0o666, device: (1, 3), ..e(b'3', "null") };
    let layer = unpack(&temp, &[file("implied/file", ""), E { mode: 0o777, ..dir("d") }, null]);
    let mode = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap().mode() & 0o7777;
    assert_eq!([mode("implied"), mode("implied/file"), mode("d"), mode("null")], [0o755, 0o644, 0o777, 0o666]);
}

#[test]
fn file_capabilities_are_kept_and_forged_overlay_marks_dropped() {
    let temp = Temp::new();
    // cap_net_raw+ep, VFS_CAP_REVISION_2; and one whose bytes hold a newline (bits 1 and 3).
    let ping = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let newline = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let capability: &[u8] = b"SCHILY.xattr.security.capability";
    let entries = [
        E { mode: 0o4755, owner: (7, 7), pax: vec![(capability, ping)], ..file("ping", "x") },
        E { pax: vec![(capability, newline)], ..file("newline", "x") },
        E {
            pax: vec![(b"SCHILY.xattr.user.note", b"a\nb"), (b"SCHILY.xattr.user.overlay.redirect", b"/x")],
            ..file("user", "x")
        },
        E {
            pax: vec![
                (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
                (b"SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                (b"SCHILY.xattr.trusted.other", b"1"),
                (b"SCHILY.xattr.security.selinux", b"x"),
            ],
            ..dir("forged")
        },
        // user.* isn't possible on a link; that is no reason to fail.
        E { pax: vec![(b"SCHILY.xattr.user.note", b"1")], ..symlink("link", "x") },
    ];
    let layer = unpack(&temp, &entries);
    let get = |file: &str, name: &str| xattr(&layer.join(file), name);
    assert_eq!(get("ping", "security.capability").as_deref(), Some(&ping[..]));
    assert_eq!(fs::metadata(layer.join("ping")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(get("newline", "security.capability").as_deref(), Some(&newline[..]));
    if user_xattrs(&temp.0) {
        assert_eq!(get("user", "user.note").as_deref(), Some(&b"a\nb"[..]));
    }
    assert_eq!(get("user", "user.overlay.redirect"), None);
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.other", "security.selinux"] {
        assert_eq!(get("forged", name), None, "{name}");
    }
}

#[test]
fn long_and_non_utf8_names_are_kept() {
    let temp = Temp::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let link = format!("{}/x", "t".repeat(3000));
    let gnu = format!("{}/{}", "g".repeat(150), "h".repeat(150));
    let mut archive: Vec<u8> = [
        entry(&file(&long, "long")),
        entry(&symlink("link", &link)),
        entry(&E { name: b"latin-\xe9\xff", ..file("", "raw") }),
        entry(&E { name: b"back\\slash", ..file("", "x") }),
        entry(&E { name: b" space and\nnewline ", ..file("", "x") }),
        // GNU's long name and long link.
        header(&e(b'L', "././@LongLink"), gnu.len() as u64 + 1).as_bytes().to_vec(),
        padded([gnu.as_bytes(), b"\0"].concat()),
        entry(&file("short", "gnu")),
        header(&e(b'K', "././@LongLink"), link.len() as u64).as_bytes().to_vec(),
        padded(link.clone().into_bytes()),
        entry(&symlink("gnulink", "short")),
        // A global header is about no file.
        header(&e(b'g', "pax_global_header"), 20).as_bytes().to_vec(),
        padded(b"20 path=everything\n\n".to_vec()),
        entry(&file("after", "global")),
        // v7: a folder is a name with a slash.
        entry(&E { kind: 0, ..e(0, "v7dir/") }),
    ]
    .concat();
    archive.extend([0; 1024]);
    let (layer, contents) = unpack_bytes(&temp, &archive, Devices::Create);
    let read = |name: &[u8]| fs::read_to_string(layer.join(std::ffi::OsStr::from_bytes(name))).unwrap();
    assert_eq!(read(long.as_bytes()), "long");
    assert_eq!(read(b"latin-\xe9\xff"), "raw");
    assert_eq!(read(b"back\\slash"), "x");
    assert_eq!(read(b" space and\nnewline "), "x");
    assert_eq!(read(gnu.as_bytes()), "gnu");
    assert_eq!(read(b"after"), "global");
    assert_eq!(fs::read_link(layer.join("link")).unwrap(), Path::new(&link));
    assert_eq!(fs::read_link(layer.join("gnulink")).unwrap(), Path::new(&link));
    assert!(layer.join("v7dir").is_dir());
    assert!(contents.ended && contents.entries == 9, "{contents:?}");
    assert_eq!(contents.size_bytes, 4 + 3 + 1 + 1 + 3 + 6);
}

#[test]
fn what_a_too_careful_unpacker_breaks_works() {
    let temp = Temp::new();
    let entries = [
        // Hard links with an absolute target (moby PR 53470), and through a link.
        dir("bin"),
        file("bin/busybox", "program"),
        hardlink("bin/sh", "/bin/busybox"),
        symlink("sbin", "bin"),
        hardlink("bin/ls", "sbin/busybox"),
        hardlink("./bin/cat", "./bin/busybox"),
        // A second name for a symbolic link.
        hardlink("sbin2", "sbin"),
        // /var/run -> /run, with and without /run in the layer, and a chain of it.
        dir("var"),
        symlink("var/run", "/run"),
        file("var/run/a.pid", "1"),
        symlink("var/lock", "../run/lock"),
        file("var/lock/b", "2"),
        symlink("lib", "usr/lib"),
        file("lib/x86/c.so", "3"),
        // Absolute names and dots.
        file("/absolute", "4"),
        file("./dot/./twice//x", "5"),
        file("dot/../sideways", "6"),
        // Device nodes with their modes.
        dir("dev"),
        E { mode: 0o666, device: (1, 3), ..e(b'3', "dev/null") },
        E { mode: 0o660, device: (8, 1), owner: (0, 6), ..e(b'4', "dev/sda1") },
        // A folder merges, a file is replaced, a folder gives way to a file.
        file("twice", "old"),
        file("twice", "new"),
        file("tree/deep/file", ""),
        file("tree", "now a file"),
        E { mode: 0o700, ..dir("bin") },
    ];
    let layer = unpack(&temp, &entries);
    let read = |name: &str| fs::read_to_string(layer.join(name)).unwrap();
    let inode = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap().ino();
    for name in ["bin/sh", "bin/ls", "bin/cat"] {
        assert_eq!(inode(name), inode("bin/busybox"), "{name}");
    }
    assert_eq!(inode("sbin2"), inode("sbin"));
    assert_eq!((read("run/a.pid"), read("run/lock/b"), read("usr/lib/x86/c.so")), ("1".into(), "2".into(), "3".into()));
    assert_eq!((read("absolute"), read("dot/twice/x"), read("sideways")), ("4".into(), "5".into(), "6".into()));
    let device = |name: &str| {
        let meta = fs::symlink_metadata(layer.join(name)).unwrap();
        (meta.rdev(), meta.mode() & 0o7777, meta.gid())
    };
    assert_eq!(device("dev/null"), (rustix::fs::makedev(1, 3), 0o666, 0));
    assert_eq!(device("dev/sda1"), (rustix::fs::makedev(8, 1), 0o660, 6));
    assert_eq!((read("twice"), read("tree")), ("new".into(), "now a file".into()));
    assert_eq!(fs::metadata(layer.join("bin")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn devices_are_skipped_or_refused_by_policy() {
    let temp = Temp::new();
    let archive = tar(&[E { device: (1, 3), ..e(b'3', "null") }, e(b'6', "fifo"), file(".wh.gone", "")]);
    let (layer, _) = unpack_bytes(&temp, &archive, Devices::Skip);
    assert!(!layer.join("null").exists() && layer.join("fifo").exists() && is_whiteout(&layer.join("gone")));
    let folder: OwnedFd = File::open(&layer).unwrap().into();
    let error = images::unpack_tar(&archive[..], &folder, Devices::Refuse, &Limits::default()).unwrap_err();
    assert!(format!("{error:?}").contains("null"), "{error:?}");
}

#[test]
fn archives_of_gnu_tar_are_read_in_all_of_its_formats() {
    let temp = Temp::new();
    let source = temp.0.join("source");
    fs::create_dir_all(source.join("d".repeat(120))).unwrap();
    fs::write(source.join("d".repeat(120)).join("f".repeat(120)), "long").unwrap();
    fs::write(source.join("file"), "x".repeat(5000)).unwrap();
    fs::hard_link(source.join("file"), source.join("hard")).unwrap();
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    for n in 0..40u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"piece", n << 16).unwrap();
    }
    for options in
        [&["--format=gnu", "--sparse"][..], &["--format=gnu"], &["--format=posix"], &["--format=oldgnu", "--sparse"]]
    {
        let output =
            std::process::Command::new("tar").args(options).args(["-C", source.to_str().unwrap(), "-c", "."]).output();
        let temp = Temp::new();
        let (layer, _) = unpack_bytes(&temp, &output.unwrap().stdout, Devices::Create);
        assert_eq!(listing(&layer), listing(&source), "{options:?}");
    }
}
