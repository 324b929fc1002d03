//! The resolver without descriptors for a new connection. Alone in its program, for the limit is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use netsetup::dns::{Resolver, Scope, Sockets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Serves for so long; gives how often it was woken.
fn serve(resolver: &mut Resolver, time: Duration) -> usize {
    let (end, mut turns) = (Instant::now() + time, 0);
    while Instant::now() < end {
        let wait = resolver.timeout(Instant::now()).unwrap_or(time).min(Duration::from_millis(100));
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
        let woken = poll(&mut [PollFd::from_borrowed_fd(resolver.fd(), PollFlags::IN)], Some(&wait)).unwrap();
        turns += woken;
        resolver.ready(Instant::now());
    }
    turns
}

#[test]
fn a_connection_waits_for_a_descriptor_and_nothing_spins() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    assert!(std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let folder = std::env::temp_dir().join(format!("netsetup-descriptors-{}", std::process::id()));
    let scope = Scope { network: "lab".into(), folder, internal: true };
    let mut resolver = Resolver::new(Sockets::here().unwrap(), vec![scope], &[]).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) }).unwrap();
    let mut client = TcpStream::connect("127.0.0.11:53").unwrap();
    let fill: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(fill.len() > 20);
    // "web", A, IN
    client.write_all(b"\0\x15\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01").unwrap();
    let turns = serve(&mut resolver, Duration::from_secs(1));
    assert!(turns < 20, "woken {turns} times in a second though there was nothing to do");
    drop(fill);
    serve(&mut resolver, Duration::from_secs(1));
    client.set_nonblocking(true).unwrap();
    let mut answer = [0; 64];
    let length = client.read(&mut answer).unwrap();
    assert_eq!((length > 14, &answer[2..4]), (true, &b"\0\x07"[..]), "it had its turn");
}
