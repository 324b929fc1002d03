//! Tests of the command line. Facts about docker are those of its client 28.2.2.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use netsetup::Backend;

use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn read(line: &str) -> Result<Invocation, Stop> {
    parse(words(line), &|_| None)
}

fn run(line: &str) -> RunArgs {
    match read(&format!("run {line}")).unwrap().command {
        Command::Run(args) => *args,
        other => panic!("not run: {other:?}"),
    }
}

/// The first line of the message, and the exit code.
fn refused(line: &str) -> (String, u8) {
    match read(line) {
        Err(Stop::Usage { message, code }) => (message.lines().next().unwrap_or_default().to_owned(), code),
        other => panic!("{line}: {other:?}"),
    }
}

/// All flags of `docker run` 28.2.2: long name, and whether it takes a value.
const DOCKERS_FLAGS: &str = "add-host+ annotation+ attach+ blkio-weight+ blkio-weight-device+ cap-add+ cap-drop+ \
    cgroup-parent+ cgroupns+ cidfile+ cpu-count+ cpu-percent+ cpu-period+ cpu-quota+ cpu-rt-period+ cpu-rt-runtime+ \
    cpu-shares+ cpus+ cpuset-cpus+ cpuset-mems+ detach detach-keys+ device+ device-cgroup-rule+ device-read-bps+ \
    device-read-iops+ device-write-bps+ device-write-iops+ disable-content-trust dns+ dns-opt+ dns-option+ dns-search+ \
    domainname+ entrypoint+ env+ env-file+ expose+ gpus+ group-add+ health-cmd+ health-interval+ health-retries+ \
    health-start-interval+ health-start-period+ health-timeout+ hostname+ init interactive io-maxbandwidth+ io-maxiops+ \
    ip+ ip6+ ipc+ isolation+ kernel-memory+ label+ label-file+ link+ link-local-ip+ log-driver+ log-opt+ mac-address+ \
    memory+ memory-reservation+ memory-swap+ memory-swappiness+ mount+ name+ net+ net-alias+ network+ network-alias+ \
    no-healthcheck oom-kill-disable oom-score-adj+ pid+ pids-limit+ platform+ privileged publish+ publish-all pull+ quiet \
    read-only restart+ rm runtime+ security-opt+ shm-size+ sig-proxy stop-signal+ stop-timeout+ storage-opt+ sysctl+ \
    tmpfs+ tty ulimit+ use-api-socket user+ userns+ uts+ volume+ volume-driver+ volumes-from+ workdir+";

#[test]
fn every_flag_of_docker_run_is_taken_or_refused_with_a_reason() {
    let declared = pflag::declared("run");
    for flag in DOCKERS_FLAGS.split_whitespace() {
        let (name, takes_value) = match flag.strip_suffix('+') {
            Some(name) => (name, true),
            None => (flag, false),
        };
        match declared.iter().find(|(known, _)| known == name) {
            Some((_, known)) => assert_eq!(*known, takes_value, "--{name}"),
            None => assert!(not_supported::reason("run", name).is_some(), "--{name} is unknown"),
        }
    }
}

#[test]
fn refused_flags_say_why_in_every_form() {
    for (flag, why) in not_supported::of_run() {
        for line in [format!("run --{flag} 1 busybox"), format!("run --{flag}=1 busybox"), format!("run --rm --{flag}")]
        {
            assert_eq!(refused(&line), (format!("minidock: --{flag} is not supported: {why}"), 125));
        }
    }
    assert!(refused("image inspect --platform x y").0.contains("--platform is not supported"));
    assert!(refused("images --tree").0.contains("--tree is not supported"));
    assert!(refused("rm -l x").0.contains("--link is not supported"));
    // After the image it is the container's business.
    assert_eq!(run("busybox --gpus all").words, words("busybox --gpus all"));
}

#[test]
fn flags_have_dockers_forms() {
    let args =
        run("-dit --name a -p8080:80 -p 81 --publish=82 -eFOO=bar -e X --rm=false --init=true -m=64m -h=host busybox");
    assert!(args.detach && args.interactive && args.tty && args.init && !args.rm);
    assert_eq!(args.name.as_deref(), Some("a"));
    assert_eq!(args.publish, ["8080:80", "81", "82"]);
    assert_eq!(args.env, ["FOO=bar", "X"]);
    assert_eq!((args.memory.as_deref(), args.hostname.as_deref()), (Some("64m"), Some("host")));
    // A value may begin with a hyphen; the last of two wins.
    let args = run("--memory-swap -1 --pids-limit -1 --oom-score-adj=-500 --name -x --name y -e -a=b busybox");
    assert_eq!((args.memory_swap.as_deref(), args.pids_limit, args.oom_score_adj), (Some("-1"), Some(-1), Some(-500)));
    assert_eq!((args.name.as_deref(), &args.env[..]), (Some("y"), &[OsString::from("-a=b")][..]));
    // The last letter of a bundle may take the rest, or the next word.
    assert_eq!(run("-tp 80 busybox").publish, ["80"]);
    assert_eq!(run("-itv/a:/b busybox").volume, ["/a:/b"]);
    assert!(!run("-d=false busybox").detach);
    assert!(run("--rm=T busybox").rm && !run("--rm=0 busybox").rm);
    assert_eq!(run("--net host --dns-opt x busybox").network, ["host"]);
    assert_eq!(run("--cpu-period 0x10 busybox").cpu_period, Some(16));
    assert_eq!(run("--name= busybox").name.as_deref(), Some(""));
    assert!(run("busybox").sig_proxy && !run("--sig-proxy=false busybox").sig_proxy);
}

#[test]
fn options_end_at_the_image() {
    let args = run("--rm busybox --rm -d -p 80 -- --name x");
    assert_eq!(args.words, words("busybox --rm -d -p 80 -- --name x"));
    assert!(args.rm && !args.detach && args.publish.is_empty() && args.name.is_none());
    assert_eq!(run("-- busybox -x").words, words("busybox -x"));
    assert_eq!(run("--rm - x").words, words("- x"));
    let Command::Exec(args) = read("exec -it web sh -c -d").unwrap().command else { panic!("not exec") };
    assert_eq!((args.container(), args.command()), ("web".to_owned(), &words("sh -c -d")[..]));
    assert!(args.interactive && args.tty && !args.detach);
}

#[test]
fn wrong_flags_are_dockers_errors() {
    let table = [
        ("run --foo x", "unknown flag: --foo", 125),
        ("run --memori 3 x", "unknown flag: --memori; did you mean --memory?", 125),
        ("run -z x", "unknown shorthand flag: 'z' in -z", 125),
        ("run -itz x", "unknown shorthand flag: 'z' in -z", 125),
        ("run --name", "flag needs an argument: --name", 125),
        ("run -h", "flag needs an argument: --hostname", 125),
        ("run --rm=maybe x", "invalid argument \"maybe\" for \"--rm\" flag: not true or false", 125),
        ("run -c x y", "invalid argument \"x\" for \"-c, --cpu-shares\" flag: not a whole number", 125),
        (
            "run --pids-limit 99999999999999999999 x",
            "invalid argument \"99999999999999999999\" for \"--pids-limit\" flag: number too large",
            125,
        ),
        ("ps --foo", "unknown flag: --foo", 125),
        ("stop --time x c", "invalid argument \"x\" for \"-t, --timeout\" flag: not a whole number", 125),
        (
            "logs --tail x c",
            "invalid argument \"x\" for \"-n, --tail\" flag: not a number of lines; use a number or all",
            125,
        ),
        ("-x ps", "unknown shorthand flag: 'x' in -x", 125),
        ("--foo ps", "unknown flag: --foo", 125),
        ("-H unix:///x ps", "-H is not supported: minidock has no daemon to talk to", 125),
        ("--root", "flag needs an argument: --root", 125),
    ];
    for (line, message, code) in table {
        assert_eq!(refused(line), (format!("minidock: {message}"), code), "{line}");
    }
}

#[test]
fn wrong_commands_and_counts_exit_with_1() {
    let table = [
        ("rm", "'minidock rm' requires at least 1 argument"),
        ("exec c", "'minidock exec' requires at least 2 arguments"),
        ("tag a", "'minidock tag' requires 2 arguments"),
        ("tag a b c", "'minidock tag' requires 2 arguments"),
        ("ps extra", "'minidock ps' accepts no arguments"),
        ("port", "'minidock port' requires at least 1 and at most 2 arguments"),
        ("port a b c", "'minidock port' requires at least 1 and at most 2 arguments"),
        ("runn x", "'runn' is not a minidock command; did you mean 'run'?"),
        ("container lss", "'container lss' is not a minidock command; did you mean 'container ls'?"),
        ("zzzzzz", "'zzzzzz' is not a minidock command"),
        ("build x", "'build' is not available yet; build with another tool, and load the result with 'minidock load'"),
        (
            "container commit x",
            "'container commit' is not available yet; build with another tool, and load the result with 'minidock load'",
        ),
    ];
    for (line, message) in table {
        assert_eq!(refused(line), (format!("minidock: {message}"), 1), "{line}");
    }
    let Err(Stop::Usage { message, .. }) = read("run --foo x") else { panic!("taken") };
    assert_eq!(message, "minidock: unknown flag: --foo\nSee 'minidock run --help'.");
}

#[test]
fn both_of_dockers_forms_are_one_command() {
    for (short, long) in [
        ("run busybox", "container run busybox"),
        ("ps -a", "container ls -a"),
        ("ps -a", "container list -a"),
        ("logs x", "container logs x"),
        ("rm -f x", "container rm -f x"),
        ("images -q", "image ls -q"),
        ("rmi x", "image rm x"),
        ("load -i f", "image load -i f"),
        ("import - x", "image import - x"),
        ("tag a b", "image tag a b"),
    ] {
        assert_eq!(format!("{:?}", read(short).unwrap()), format!("{:?}", read(long).unwrap()));
    }
    let kind = |line: &str| match read(line).unwrap().command {
        Command::Inspect(args) => args.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind("inspect x"), InspectKind::Any);
    assert_eq!(kind("inspect --type image x"), InspectKind::Image);
    assert_eq!(kind("container inspect x"), InspectKind::Container);
    assert_eq!(kind("image inspect -f {{.Id}} x"), InspectKind::Image);
}

#[test]
fn global_options_stand_before_and_after_and_in_the_environment() {
    let global = |line: &str| {
        parse(words(line), &|name: &OsStr| match name.to_str() {
            Some("MINIDOCK_ROOT") => Some("/env".into()),
            Some("MINIDOCK_FIREWALL") => Some("iptables".into()),
            _ => None,
        })
        .unwrap()
        .global
    };
    assert_eq!(global("ps").root.as_deref(), Some(Path::new("/env")));
    assert_eq!(global("ps").firewall, Some(Backend::Iptables));
    assert_eq!(global("--root /a ps").root.as_deref(), Some(Path::new("/a")));
    assert_eq!(global("--root=/a -D ps --root /b").root.as_deref(), Some(Path::new("/b")));
    assert_eq!(global("run --firewall nftables x").firewall, Some(Backend::Nftables));
    assert!(global("-D ps").debug && global("ps -D").debug && !global("ps").debug);
    assert_eq!(read("ps").unwrap().global.root, None);
    assert!(parse(words("ps"), &|name: &OsStr| (name == "MINIDOCK_FIREWALL").then(|| "pf".into())).is_err());
    assert!(refused("--firewall pf ps").0.contains("use nftables or iptables"));
    let root = OsString::from_vec(b"/r\xff".to_vec());
    let mut line = OsString::from("--root=");
    line.push(&root);
    assert_eq!(parse([line, "ps".into()], &|_| None).unwrap().global.root, Some(root.into()));
}

#[test]
fn help_goes_to_stdout_and_every_parser_is_sound() {
    for entry in table::COMMANDS {
        pflag::check(entry);
        for line in [format!("{} --help", entry.name()), format!("help {}", entry.name())] {
            let Err(Stop::Help(text)) = read(&line) else { panic!("{line}") };
            assert!(text.starts_with(&format!("Usage: minidock {}", entry.name())), "{text}");
            assert!(text.contains(entry.about), "{text}");
        }
    }
    for line in ["--help", "-h", "help", "image --help", "ps -h", "--version", "-v"] {
        let Err(stop) = read(line) else { panic!("{line}") };
        assert!(matches!(stop, Stop::Help(_)), "{line}: {stop:?}");
        assert_eq!(stop.code(), 0);
    }
    for line in ["", "container"] {
        let Err(stop) = read(line) else { panic!("{line}") };
        assert!(
            matches!(&stop, Stop::Usage { message, code: 0 } if message.starts_with("Usage: ")),
            "{line}: {stop:?}"
        );
    }
}

/// Words as a shell cuts them, for lines with nothing but plain and single quotes.
fn shell_words(line: &str) -> Vec<OsString> {
    let mut words: Vec<String> = vec![];
    let mut inside = false;
    let mut fresh = true;
    for letter in line.chars() {
        match letter {
            '\'' => inside = !inside,
            ' ' if !inside => fresh = true,
            letter => {
                if std::mem::take(&mut fresh) {
                    words.push(String::new());
                }
                words.last_mut().unwrap().push(letter);
            }
        }
    }
    words.into_iter().map(OsString::from).collect()
}

#[test]
fn every_command_has_an_example_that_is_its_own() {
    for entry in table::COMMANDS {
        // What a shell does with the output isn't ours to parse.
        let own = entry.example.split(['>', '|']).next().unwrap();
        let typed = shell_words(own.trim_end());
        let name = format!("minidock {}", entry.name());
        assert!(format!("{} ", entry.example).starts_with(&format!("{name} ")), "{name}: {}", entry.example);
        assert!(entry.example.len() <= 90, "{}", entry.example);
        assert!(parse(typed[1..].to_vec(), &|_| None).is_ok(), "{}", entry.example);
        let Err(Stop::Help(text)) = read(&format!("help {}", entry.name())) else { panic!("{name}") };
        assert!(text.contains(&format!("Example: {}\n", entry.example)), "{text}");
    }
}

#[test]
fn large_and_odd_arguments_are_only_arguments() {
    let mut line = words("run");
    line.extend((0..100_000).flat_map(|n| [OsString::from("-e"), OsString::from(format!("V{n}=x"))]));
    line.push("busybox".into());
    line.push(OsString::from("a".repeat(128 << 10)));
    line.push(OsString::from_vec(vec![0xff, 0xfe]));
    let Command::Run(args) = parse(line, &|_| None).unwrap().command else { panic!("not run") };
    assert_eq!((args.env.len(), args.words.len()), (100_000, 3));
    let bytes = OsString::from_vec(vec![b'x', 0xff]);
    for flag in ["-e", "-v", "--entrypoint", "-w", "--cidfile", "--rootfs", "--mount", "--network"] {
        let line = [OsString::from("run"), flag.into(), bytes.clone(), "busybox".into()];
        assert!(parse(line, &|_| None).is_ok(), "{flag}");
    }
    for line in [
        vec!["run".into(), "--name".into(), bytes.clone()],
        vec![bytes.clone()],
        vec!["--x\u{e9}".into()],
        vec!["run".into(), OsString::from_vec(b"-\xff".to_vec())],
        vec!["run".into(), OsString::from_vec(b"--\xff=1".to_vec())],
        vec!["container".into(), bytes],
    ] {
        assert!(parse(line.clone(), &|_| None).is_err(), "{line:?}");
    }
    assert!(refused(&"x".repeat(1 << 20)).0.contains("is not a minidock command"));
}
