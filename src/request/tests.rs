//! Tests of whole requests, from words to data.

use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::cli::{self, Command};

fn around() -> Surroundings<'static> {
    Surroundings {
        cwd: "/cwd".into(),
        environment: &|_| None,
        read: &|flag, path| Err(Invalid::value(flag, path, "cannot read it: no such file")),
    }
}

fn gather_words(words: Vec<OsString>) -> Result<RunRequest, Invalid> {
    let words = std::iter::once(OsString::from("run")).chain(words);
    match cli::parse(words, &|_| None) {
        Ok(invocation) => match invocation.command {
            Command::Run(args) => RunRequest::gather(&args, &around()),
            other => panic!("not run: {other:?}"),
        },
        Err(cli::Stop::Usage { message, code }) => Err(Invalid { message, code, by_engine: false }),
        Err(help) => panic!("{help:?}"),
    }
}

fn gather(words: &[&str]) -> Result<RunRequest, Invalid> {
    gather_words(words.iter().map(OsString::from).collect())
}

#[test]
fn a_bare_run_asks_for_dockers_defaults() {
    let request = gather(&["busybox"]).unwrap();
    assert_eq!(request.image, ImageSource::Name("busybox".into()));
    assert_eq!((request.entrypoint.clone(), request.log), (Entrypoint::Image, LogDriver::JsonFile));
    assert_eq!((request.shm_bytes, request.command.len(), request.warnings.len()), (64 << 20, 0, 0));
    assert_eq!((request.limits.clone(), request.namespaces.clone()), (Limits::default(), Namespaces::default()));
    let network = Network { attach: vec![attach::Attach::to("bridge")], ..Network::default() };
    assert_eq!((request.network.clone(), request.security.clone()), (network, Security::default()));
    assert!(!request.detach && !request.remove && !request.terminal && !request.interactive && !request.init);
}

#[test]
fn where_the_root_folder_comes_from() {
    let source = |words: &[&str]| gather(words).map(|request| request.image);
    assert_eq!(source(&["./a.tar"]), Ok(ImageSource::Archive("/cwd/./a.tar".into())));
    assert_eq!(source(&["/a.tar"]), Ok(ImageSource::Archive("/a.tar".into())));
    assert_eq!(source(&["a/b:c"]), Ok(ImageSource::Name("a/b:c".into())));
    let request = gather(&["--rootfs", "r", "sh", "-c", "x"]).unwrap();
    assert_eq!((request.image, request.command.len()), (ImageSource::Rootfs("/cwd/r".into()), 3));
    assert_eq!(
        gather(&[]).unwrap_err(),
        Invalid { message: "'minidock run' requires at least 1 argument".into(), code: 1, by_engine: false }
    );
    assert!(gather(&["--rootfs", "r"]).unwrap_err().message.contains("no command specified"));
    assert!(gather(&["--rootfs", "r", "--entrypoint", "sh"]).is_ok());
    assert!(gather(&[""]).is_err());
}

#[test]
fn the_entrypoint_can_be_cleared() {
    assert_eq!(gather(&["--entrypoint", "", "x"]).unwrap().entrypoint, Entrypoint::Cleared);
    assert_eq!(gather(&["--entrypoint", "sh", "x"]).unwrap().entrypoint, Entrypoint::Program("sh".into()));
}

#[test]
fn values_that_minidock_has_not_yet_are_refused_by_name() {
    let table: [(&[&str], &str); 11] = [
        (&["--pull", "always", "x"], "--pull"),
        (&["--pull", "foo", "x"], "must be one of"),
        (&["--restart", "sometimes", "x"], "unknown policy 'sometimes'"),
        (&["--platform", "windows/amd64", "x"], "--platform"),
        (&["--platform", "linux/s390x", "x"], "--platform"),
        (&["--log-driver", "syslog", "x"], "--log-driver"),
        (&["--network", "my/net", "x"], "--network"),
        (&["-v", "da/ta:/data", "x"], "--volume"),
        (&["--cgroupns", "host", "x"], "--cgroupns"),
        (&["-w", "relative", "x"], "--workdir"),
        (&["--stop-signal", "FOO", "x"], "--stop-signal"),
    ];
    for (words, part) in table {
        let error = gather(words).unwrap_err();
        assert!(error.message.contains(part) && error.code == 125, "{words:?}: {error}");
        assert!(error.message.lines().count() <= 2, "{error}");
    }
    assert!(
        gather(&[
            "--pull",
            "never",
            "--restart",
            "no",
            "--platform",
            "linux",
            "--sig-proxy=true",
            "--log-driver",
            "none",
            "--userns",
            "host",
            "--no-healthcheck",
            "x"
        ])
        .is_ok()
    );
    assert!(gather(&["--env-file", "/nope", "x"]).unwrap_err().message.contains("/nope"));
}

#[test]
fn one_thing_is_mounted_at_one_place() {
    let error = gather(&["-v", "/a:/x", "--tmpfs", "/x/", "busybox"]).unwrap_err();
    assert!(error.message.contains("duplicate mount point: /x"), "{error}");
    assert_eq!(gather(&["-v", "/a:/x:z", "--tmpfs", "/y", "busybox"]).unwrap().warnings.len(), 1);
}

#[test]
fn a_terminal_is_promised_only_where_there_is_one() {
    let check = |words: &[&str], tty| gather(words).unwrap().check_terminal(tty);
    let error = check(&["-it", "x"], false).unwrap_err();
    assert_eq!((error.code, error.message.starts_with("the input device is not a TTY")), (1, true));
    assert!(check(&["-it", "x"], true).is_ok());
    assert!(check(&["-dit", "x"], false).is_ok());
    assert!(check(&["-t", "x"], false).is_ok());
}

/// The engine keeps the request with the container; bytes that are no text come back as they were.
#[test]
fn a_request_survives_json() {
    let bytes = |prefix: &str| {
        let mut bytes = prefix.as_bytes().to_vec();
        bytes.extend([0xff, 0xfe]);
        OsString::from_vec(bytes)
    };
    let mut words: Vec<OsString> = [
        "-d",
        "--rm",
        "--name",
        "web",
        "-p",
        "10080:80",
        "-p",
        "1-3:1-3/udp",
        "-p",
        "8000-8005:81",
        "--cpus",
        "1.5",
        "-m",
        "64m",
        "--cpuset-cpus",
        "0-1",
        "--add-host",
        "a:host-gateway",
        "--net-cls",
        "1:10",
        "--ulimit",
        "core=-1",
        "--security-opt",
        "seccomp=unconfined",
        "--pid",
        "container:x",
        "--tmpfs",
        "/t:size=1m",
        "--device",
        "/dev/null",
        "-l",
        "a=b",
        "-e",
        "GONE",
    ]
    .iter()
    .map(OsString::from)
    .collect();
    words.extend([
        "-v".into(),
        bytes("/src:/dst"),
        "-e".into(),
        bytes("X="),
        "--entrypoint".into(),
        bytes("/bin/"),
        "busybox".into(),
        bytes("arg"),
    ]);
    let request = gather_words(words).unwrap();
    let text = serde_json::to_string(&request).unwrap();
    assert!(text.contains(r#""command":[[97,114,103,255,254]]"#), "{text}");
    assert_eq!(serde_json::from_str::<RunRequest>(&text).unwrap(), request);
}

/// Whatever stands in a value: an answer, never a panic, and a short one.
#[test]
fn every_flag_survives_nasty_values() {
    let long = "x".repeat(128 << 10);
    let nasty = [
        "",
        " ",
        "-",
        "--",
        ":",
        "::",
        "=",
        ",",
        "/",
        "//",
        ".",
        "..",
        "\0",
        "\n",
        "\u{1f980}",
        "é:é:é",
        "0",
        "-1",
        "1e99",
        "0x",
        "NaN",
        "-0",
        "18446744073709551616",
        "9223372036854775807",
        "a=b=c",
        "a:b:c:d:e",
        "[::1]:1:1",
        "1-",
        "-1-1",
        "0-999999999",
        "%s%n",
        "\"",
        "\"\"\"",
        "type=",
        "/dev/:",
        "/:/",
        "1.",
        ".1",
        "m",
        "1mm",
        "container:",
        "ns:",
        "host",
        "SIGRTMIN+",
        "ALL",
        "\u{202e}",
        &long,
    ];
    for (flag, takes_value) in crate::cli::declared("run") {
        if !takes_value {
            continue;
        }
        for value in nasty {
            let result = gather(&[&format!("--{flag}={value}"), "busybox"]);
            if let Err(error) = result {
                assert!(error.message.len() < 1000 && error.code != 0, "--{flag}: {}", error.message.len());
            }
        }
    }
}
