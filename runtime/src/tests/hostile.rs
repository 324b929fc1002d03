//! Images that try to get out. A canary folder beside the root must stay as it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::host::{Container, Host, isolated};
use crate::{Rootfs, StartErrorKind};

/// A root folder that the test may spoil, beside a canary folder.
fn spoiled(host: &Host, number: usize) -> (PathBuf, PathBuf) {
    let folder = host.folder.join(format!("spoiled{number}"));
    let (root, canary) = (folder.join("root"), folder.join("canary"));
    host.make_rootfs(&root);
    fs::create_dir_all(&canary).unwrap();
    fs::write(canary.join("file"), "untouched").unwrap();
    (root, canary)
}

fn check_canary(canary: &Path) {
    let names: Vec<_> = fs::read_dir(canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"], "something was made outside of the root");
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "untouched");
}

#[test]
fn links_in_the_image_never_lead_to_the_host() {
    isolated("hostile::links_in_the_image_never_lead_to_the_host", |host| {
        let cases =
            ["dev", "dev/pts", "dev/shm", "dev/mqueue", "etc", "new", "dev/console", "sys/fs/cgroup", "dev/null"];
        for (number, path) in cases.iter().enumerate() {
            let (root, canary) = spoiled(host, number);
            let link = root.join(path);
            let _ = fs::remove_dir_all(&link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            // Both ways out: enough dots, and an absolute path of the host.
            let target = if number % 2 == 0 {
                PathBuf::from("../../../../../../../..").join(canary.strip_prefix("/").unwrap())
            } else {
                canary.clone()
            };
            symlink(target, &link).unwrap();
            let data = host.folder.join("bound");
            fs::write(&data, "bound").unwrap();
            let mut container = Container::sh(host, "cat /etc/hosts /new/file 2>/dev/null; true")
                .mount(&data, "/etc/hosts", &["bind"])
                .mount(&data, "/new/file", &["bind"]);
            container.rootfs = Rootfs::Dir(root);
            let result = container.run();
            assert!(
                result.as_ref().is_err() || !result.as_ref().unwrap().stdout.contains("untouched"),
                "{path}: {result:?}"
            );
            check_canary(&canary);
        }
    });
}

#[test]
fn proc_and_sys_must_be_ordinary_folders() {
    isolated("hostile::proc_and_sys_must_be_ordinary_folders", |host| {
        for (number, path) in ["proc", "sys"].iter().enumerate() {
            let (root, canary) = spoiled(host, number);
            let _ = fs::remove_dir_all(root.join(path));
            symlink("/etc", root.join(path)).unwrap();
            let mut container = Container::new(host, &["true"]);
            container.rootfs = Rootfs::Dir(root);
            let error = container.run().unwrap_err();
            assert!(error.message.contains("must be an ordinary folder"), "{error}");
            check_canary(&canary);
        }
        for target in ["/proc/self", "/proc/sys/kernel", "/proc", "/"] {
            let error = Container::new(host, &["true"]).mount(&host.folder, target, &["bind"]).run().unwrap_err();
            assert!(error.message.contains(target), "{error}");
        }
    });
}

#[test]
fn descriptors_are_no_way_out() {
    isolated("hostile::descriptors_are_no_way_out", |host| {
        // Descriptors of the host's / that somebody forgot, at every number.
        let leaks: Vec<_> = (0..40).map(|_| fs::File::open("/").unwrap()).collect();
        for leak in &leaks {
            rustix::io::fcntl_setfd(leak, rustix::io::FdFlags::empty()).unwrap();
        }
        for number in 0..48 {
            for path in [format!("/proc/self/fd/{number}"), format!("/proc/1/fd/{number}/etc")] {
                let error = Container::new(host, &["pwd"])
                    .process(|process| {
                        process.set_cwd(path.clone().into());
                    })
                    .run()
                    .unwrap_err();
                assert_eq!(error.kind, StartErrorKind::Other, "{path}: {error}");
                assert!(error.message.contains("working directory"), "{path}: {error}");
            }
        }
    });
}

#[test]
fn our_own_binary_is_never_the_program() {
    isolated("hostile::our_own_binary_is_never_the_program", |host| {
        let script = |name: &str, line: &str| {
            let path = host.layer().join("bin").join(name);
            fs::write(&path, line).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        script("direct", "#!/proc/self/exe\n");
        script("indirect", "#! /bin/direct x\n");
        symlink("/proc/self/exe", host.layer().join("bin/link")).unwrap();
        for program in ["/proc/self/exe", "/proc/1/exe", "direct", "indirect", "link", "/proc/self/fd/3"] {
            for init in [false, true] {
                let error = Container { init, ..Container::new(host, &[program]) }.run().unwrap_err();
                assert_ne!(error.kind, StartErrorKind::Other, "{program}: {error}");
            }
        }
    });
}

#[test]
fn a_false_user_file_is_refused_and_does_not_hang() {
    isolated("hostile::a_false_user_file_is_refused_and_does_not_hang", |host| {
        let passwd = host.layer().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
        let error = Container { user: Some("ann"), ..Container::new(host, &["id"]) }.run().unwrap_err();
        assert!(error.message.contains("/etc/passwd"), "{error}");
        // Root by number needs no file.
        assert_eq!(Container::sh(host, "echo $HOME").output(), "/\n");
    });
}
