//! Users of well-meant, damaged and hostile roots.

use super::*;
use std::fs;

const PASSWD: &str = "# comment\nroot:x:0:0:root:/root:/bin/sh\n+nis::0:0:::\n1000:x:0:0:a trap:/root:/bin/sh\nweb:x:33:33::/srv/www:/bin/false\n\
    odd:x::0::/:/bin/sh\nneg:x:-1:0::/:\nhex:x:0x0:0::/:\nshort:x\nhuge:x:4294967296:0::/:\nplain:x:7:8::/home/plain:\nplain:x:0:0::/second:\n";
const GROUP: &str =
    "root:x:0:root\nwww:x:33:\nvideo:x:44:web,plain\naudio:x:29:plain,web\n1000:x:0:web\nbad:x:zero:plain\n50:x:60:\n";

fn files() -> UserFiles {
    UserFiles { passwd: Some(PASSWD.into()), group: Some(GROUP.into()) }
}

fn who(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
    let user = resolve(&files(), user, &[]).map_err(|error| error.to_string())?;
    Ok((user.uid, user.gid, user.groups, user.home.display().to_string()))
}

#[test]
fn names_and_ids_are_resolved_as_docker_does() {
    let is = |uid, gid, groups: &[u32], home: &str| Ok((uid, gid, groups.to_vec(), home.to_owned()));
    assert_eq!(who(""), is(0, 0, &[0], "/root"));
    assert_eq!(who("root"), is(0, 0, &[0], "/root"));
    assert_eq!(who("web"), is(33, 33, &[0, 29, 44], "/srv/www"));
    assert_eq!(who("33"), is(33, 33, &[0, 29, 44], "/srv/www"));
    assert_eq!(who("web:audio"), is(33, 29, &[], "/srv/www"));
    assert_eq!(who("web:29"), is(33, 29, &[], "/srv/www"));
    assert_eq!(who("4711"), is(4711, 0, &[], "/"));
    assert_eq!(who("4711:4712"), is(4711, 4712, &[], "/"));
    assert_eq!(who("plain"), is(7, 8, &[29, 44], "/home/plain"));
    assert_eq!(who("2147483647"), is(2_147_483_647, 0, &[], "/"));
}

#[test]
fn a_user_named_1000_is_not_user_1000() {
    assert_eq!(who("1000"), Ok((1000, 0, vec![], "/".to_owned())));
    assert_eq!(who("1000:1000"), Ok((1000, 1000, vec![], "/".to_owned())));
    // A group named "50" is not group 50 either.
    assert_eq!(who("web:50").unwrap().1, 50);
    let added = resolve(&files(), "33", &["50".to_owned(), "video".to_owned(), "1000".to_owned()]).unwrap();
    assert_eq!(added.groups, [0, 29, 44, 50, 1000]);
}

#[test]
fn what_is_malformed_never_becomes_root() {
    for user in [
        "nobody",
        "Root",
        " root",
        "root ",
        "ro ot",
        "root\n",
        "root:",
        ":root",
        ":",
        "::",
        ":0",
        "0:",
        "root:x:0",
        "0x0",
        "+0",
        "-0",
        "-1",
        "00x",
        "1e0",
        "0.0",
        "0,0",
        "0;0",
        "4294967295",
        "4294967296",
        "2147483648",
        "-2147483648",
        "99999999999999999999",
        "٠",
        "0\0",
        "\0",
        "\t",
        "+nis",
        "#",
        "odd",
        "neg",
        "hex",
        "short",
        "huge",
        "web:nogroup",
        "web:bad",
        "web:0x0",
        "web:-1",
        "web:4294967295",
        "web:+0",
        "root:root:root",
        "root/root",
        "../root",
        "*",
        "%0",
        "${USER}",
        "root\u{a0}",
    ] {
        let result = who(user);
        assert!(result.is_err(), "{user:?} became {result:?}");
    }
    assert!(who(&"0".repeat(513)).is_err());
    assert_eq!(who("foo").unwrap_err(), "unable to find user foo: no matching entries in passwd file");
    assert_eq!(who("web:foo").unwrap_err(), "unable to find group foo: no matching entries in group file");
    for group in ["", "a b", "nobody", "0x0", "4294967295", "bad", "a:b"] {
        assert!(resolve(&files(), "web", &[group.to_owned()]).is_err(), "{group:?}");
    }
}

#[test]
fn without_files_only_ids_work() {
    let none = UserFiles::default();
    assert_eq!(resolve(&none, "", &[]).unwrap().uid, 0);
    assert_eq!(resolve(&none, "5:6", &[]).unwrap().gid, 6);
    assert!(resolve(&none, "root", &[]).is_err());
}

#[test]
fn long_lines_are_refused() {
    let group = format!("www:x:33:{}\n", "web,".repeat(1_000_000)).into_bytes();
    let files = UserFiles { group: Some(group), ..files() };
    let error = resolve(&files, "web", &[]).unwrap_err().to_string();
    assert!(error.contains("/etc/group") && error.contains("longer"), "{error}");
}

/// A folder of its own that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("minidock-users-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn layer(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.join("etc")).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn from_root(path: &Path) -> Result<UserFiles, Error> {
    UserFiles::from_root(open(path, OFlags::PATH, Mode::empty()).unwrap().as_fd())
}

#[test]
fn links_stay_inside_the_root() {
    let folder = Folder::new("links");
    let root = folder.layer("root");
    fs::write(root.join("hidden"), "in").unwrap();
    fs::write(folder.0.join("hidden"), "out").unwrap();
    for target in ["/hidden", "../hidden", "../../../hidden", "../../../../../../../../hidden"] {
        fs::remove_file(root.join("etc/passwd")).ok();
        std::os::unix::fs::symlink(target, root.join("etc/passwd")).unwrap();
        assert_eq!(from_root(&root).unwrap().passwd.as_deref(), Some(&b"in"[..]), "{target}");
        assert_eq!(UserFiles::from_layers(&[&root]).unwrap().passwd.as_deref(), Some(&b"in"[..]), "{target}");
    }
    fs::remove_file(root.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("passwd", root.join("etc/passwd")).unwrap();
    assert!(from_root(&root).is_err());
    assert!(UserFiles::from_layers(&[&root]).is_err());
    fs::remove_file(root.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root/etc/passwd", root.join("etc/passwd")).unwrap();
    assert_eq!(UserFiles::from_layers(&[&root]).unwrap().passwd, None);
    assert_eq!(from_root(&root).unwrap().passwd, None);
}

#[test]
fn a_fifo_a_folder_and_a_giant_are_refused_at_once() {
    let folder = Folder::new("fifo");
    let root = folder.layer("root");
    let both = |root: &Path| [from_root(root), UserFiles::from_layers(&[root])];
    rustix::fs::mknodat(rustix::fs::CWD, root.join("etc/passwd"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for result in both(&root) {
        assert!(result.unwrap_err().to_string().contains("not a regular file"));
    }
    fs::remove_file(root.join("etc/passwd")).unwrap();
    fs::create_dir(root.join("etc/passwd")).unwrap();
    assert!(both(&root).iter().all(Result::is_err));
    fs::remove_dir(root.join("etc/passwd")).unwrap();
    fs::File::create(root.join("etc/passwd")).unwrap().set_len(1 << 40).unwrap();
    for result in both(&root) {
        assert!(result.unwrap_err().to_string().contains("longer"));
    }
}

#[test]
fn layers_hide_each_other_as_overlayfs_does() {
    let folder = Folder::new("layers");
    let [top, middle, low] = ["top", "middle", "low"].map(|name| folder.layer(name));
    let read = |layers: &[&PathBuf]| {
        let files = UserFiles::from_layers(layers).unwrap();
        [files.passwd, files.group].map(|file| file.map(|bytes| String::from_utf8(bytes).unwrap()))
    };
    let some = |text: &str| Some(text.to_owned());
    fs::write(low.join("etc/passwd"), "low").unwrap();
    fs::write(low.join("etc/group"), "low").unwrap();
    fs::write(middle.join("etc/passwd"), "middle").unwrap();
    assert_eq!(read(&[&top, &middle, &low]), [some("middle"), some("low")]);
    // A link in one layer leads through all of them.
    fs::create_dir(top.join("data")).unwrap();
    std::os::unix::fs::symlink("../data/../etc/group", top.join("etc/passwd")).unwrap();
    assert_eq!(read(&[&top, &middle, &low]), [some("low"), some("low")]);
    fs::remove_file(top.join("etc/passwd")).unwrap();
    // A whiteout and an opaque folder (both need root).
    rustix::fs::mknodat(rustix::fs::CWD, top.join("etc/passwd"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    assert_eq!(read(&[&top, &middle, &low]), [None, some("low")]);
    let etc = fs::File::open(middle.join("etc")).unwrap();
    rustix::fs::fsetxattr(&etc, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(read(&[&middle, &low]), [some("middle"), None]);
}
