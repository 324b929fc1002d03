//! A host without any firewall: a kernel that has neither nftables nor what iptables needs. Simulated by a system call
//! filter that refuses the sockets of both, as such a kernel does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::os::unix::process::CommandExt;

use host::command::wait_listening;
use host::net::{Server, ask_udp, fetch};
use host::{Firewall, HOST, OUTSIDE, TestHost, images};

/// One instruction of classic BPF.
fn bpf(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Refuses `socket(AF_NETLINK, …, NETLINK_NETFILTER)` and `socket(AF_INET or AF_INET6, SOCK_RAW, IPPROTO_RAW)`, the latter
/// being what iptables-legacy talks by. Offsets: struct seccomp_data (include/uapi/linux/seccomp.h).
fn without_firewall() -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ALLOW: u32 = 0x7fff_0000;
    const REFUSE: u32 = 0x0005_0000 | libc::EPROTONOSUPPORT as u32;
    vec![
        bpf(LOAD, 0, 0, 0),
        bpf(EQUAL, 0, 9, libc::SYS_socket as u32),
        bpf(LOAD, 0, 0, 16),
        bpf(EQUAL, 0, 2, libc::AF_NETLINK as u32),
        bpf(LOAD, 0, 0, 32),
        bpf(EQUAL, 4, 5, libc::NETLINK_NETFILTER as u32),
        bpf(EQUAL, 1, 0, libc::AF_INET as u32),
        bpf(EQUAL, 0, 3, libc::AF_INET6 as u32),
        bpf(LOAD, 0, 0, 32),
        bpf(EQUAL, 0, 1, libc::IPPROTO_RAW as u32),
        bpf(RETURN, 0, 0, REFUSE),
        bpf(RETURN, 0, 0, ALLOW),
    ]
}

/// `minidock ARGS` on such a kernel: exit code, standard output, standard error.
fn minidock(host: &TestHost, args: &[&str]) -> (i32, String, String) {
    let mut command = host.command(args).raw();
    let filter = without_firewall();
    // SAFETY: between fork and exec: one system call on values that were ready before the fork. The filter's
    // instructions live as long as the closure.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            match libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn ok(host: &TestHost, args: &[&str]) -> (String, String) {
    let (code, out, err) = minidock(host, args);
    assert_eq!(code, 0, "minidock {args:?}: {out}{err}");
    (out, err)
}

#[test]
fn ports_go_by_the_proxy_and_one_line_says_why() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        let server = ["busybox", "httpd", "-f", "-h", "/www"];
        let flags = ["run", "-d", "--name", "web", "-p", "10080:80", "-p", "10053:54/udp"];
        let (_, err) = ok(&host, &[&flags[..], &server].concat());
        assert_eq!(err.lines().count(), 1, "{err}");
        for part in ["WARNING: network bridge: this kernel has no nftables", "can't reach the outside", "by the proxy"]
        {
            assert!(err.contains(part), "{part} in {err}");
        }
        wait_listening(&host.inside("web"), 80);
        for (place, at) in [(&host.outside, HOST), (&host.host, "127.0.0.1")] {
            assert_eq!(fetch(place, &format!("{at}:10080"), "/index.html"), images::PAGE);
        }
        let names = Server::udp(&host.inside("web"), "0.0.0.0:54");
        assert!(!ask_udp(&host.outside, &format!("{HOST}:10053"), "who").is_empty());
        drop(names);
        assert!(host.minidock(&["port", "web"]).ok().out().contains("80/tcp -> 0.0.0.0:10080"));
        // Without -p it starts with the same line, and reaches its neighbours by their names.
        let (out, err) = ok(&host, &["run", "--rm", "busybox", "wget", "-qO-", "http://172.17.0.2/"]);
        assert!(out.contains(images::PAGE.trim()) && err.contains("this kernel has no nftables"), "{out}{err}");
        ok(&host, &["network", "create", "own"]);
        ok(&host, &["network", "connect", "own", "web"]);
        let (out, _) = ok(&host, &["run", "--rm", "--network", "own", "busybox", "wget", "-qO-", "http://web/"]);
        assert!(out.contains(images::PAGE.trim()), "{out}");
        let rules = host.sh("nft list ruleset").ok().out();
        assert!(!rules.to_lowercase().contains("minidock") && !rules.contains("DOCKER"), "{rules}");
        // What can't be kept is refused, whole.
        for (flags, why) in [
            (["-p", "10090:90/sctp"], "cannot publish port 10090/sctp"),
            (["--net-cls", "1:10"], "a traffic class needs nftables or iptables"),
        ] {
            let (code, _, err) = minidock(&host, &[&["run", "--rm"], &flags[..], &["busybox", "true"]].concat());
            assert!(code == 125 && err.contains(why), "{err}");
        }
        let (script, _) = ok(&host, &["run", "--dry-run", "-p", "10081:80", "busybox", "true"]);
        assert!(script.contains("# WARNING: network bridge: this kernel has no nftables"), "{script}");
        assert!(script.contains("minidock proxy -proto tcp") && !script.contains("iptables -"), "{script}");
        let (_, out, _) = minidock(&host, &["doctor"]);
        assert!(out.contains("this kernel has no nftables"), "{out}");
        ok(&host, &["rm", "-f", "web"]);
        ok(&host, &["network", "rm", "own"]);
        // A kernel that has all of it: nothing of this is said.
        let quiet = host.minidock(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "30", OUTSIDE]).ok();
        assert_eq!(quiet.err(), "", "nothing to be warned of");
        host.finish();
    }
}
