//! The layer unpacker under libFuzzer. The first failure to look for is a panic; the second, checked here, a change
//! outside the layer's folder. Run it as root in a mount namespace of its own, so that a bug harms nothing:
//! `unshare -m sh -c 'mount -o remount,ro,bind / ; mount -t tmpfs t /tmp; cargo +nightly fuzz run layer'`.
#![no_main]

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use images::{Devices, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let top = std::env::temp_dir().join(format!("fuzz-layer-{}", std::process::id()));
    let layer = top.join("work/layer");
    let _ = fs::remove_dir_all(&layer);
    fs::create_dir_all(&layer).unwrap();
    for place in ["file", "work/file"] {
        fs::write(top.join(place), "canary").unwrap();
    }
    let limits = Limits {
        unpacked_bytes: 1 << 20,
        entries: 1000,
        ..Limits::default()
    };
    let folder: OwnedFd = File::open(&layer).unwrap().into();
    let _ = images::unpack_tar(data, &folder, Devices::Skip, &limits);
    for place in ["file", "work/file"] {
        assert_eq!(fs::read(top.join(place)).unwrap(), b"canary");
    }
    assert_eq!(fs::read_dir(&top).unwrap().count(), 2);
    assert_eq!(fs::read_dir(top.join("work")).unwrap().count(), 2);
});
