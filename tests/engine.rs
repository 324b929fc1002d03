//! The commands about the engine: info, doctor, the configuration files, completion, man pages, tables on a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, wait_until};

#[test]
fn info_shows_what_is_in_force_and_where_it_comes_from() {
    let mut host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    std::fs::write(host.root.join("config.toml"), "mtu = 1400\nlog_max_size = \"2m\"\n").unwrap();
    let text = host.minidock(&["info"]).ok().out() + "\n";
    for line in
        ["Containers: 1", "  Running: 1", "Storage Driver: overlay2", "Images: 1", "  log_max_file: 3 (default)"]
    {
        assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
    }
    let file = host.root.join("config.toml").display().to_string();
    assert!(text.contains(&format!("  mtu: 1400 ({file})\n")), "{text}");
    assert!(text.contains("  firewall: nftables (default)\n"), "{text}");
    host.set("MINIDOCK_FIREWALL", "iptables");
    assert!(
        host.minidock(&["system", "info"])
            .ok()
            .out()
            .contains("  firewall: iptables (--firewall or MINIDOCK_FIREWALL)\n")
    );
    assert_eq!(host.minidock(&["info", "--format", "{{.ContainersRunning}} {{.Driver}}"]).ok().out(), "1 overlay2");
    let json: serde_json::Value =
        serde_json::from_str(&host.minidock(&["info", "--format", "json"]).ok().out()).unwrap();
    assert_eq!((&json["Containers"], &json["OSType"]), (&1.into(), &"linux".into()));
    host.unset("MINIDOCK_FIREWALL");
    // A wrong key is an error with its line, and a near miss.
    std::fs::write(host.root.join("config.toml"), "mtu = 1400\n\nfirewal = \"nftables\"\n").unwrap();
    host.minidock(&["info"]).exits(1).says(&["config.toml line 3", "firewal", "did you mean firewall?"]);
    host.minidock(&["run", "--rm", "busybox", "true"]).exits(125).says(&["config.toml line 3"]);
    host.minidock(&["doctor"]).exits(1);
    std::fs::remove_file(host.root.join("config.toml")).unwrap();
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn the_configuration_is_kept() {
    let host = TestHost::new();
    let config = "publish_address = \"127.0.0.1\"\nlog_max_size = \"1m\"\nlog_max_file = 2\n\
                  subnet_pools = [{ base = \"10.77.0.0/16\", size = 28 }]\n";
    std::fs::write(host.root.join("config.toml"), config).unwrap();
    host.detached(&["--name", "web", "-p", "10080:80", "-p", "10.99.0.1:10081:81", "busybox", "sleep", "1000"]);
    assert_eq!(host.minidock(&["port", "web", "80"]).ok().out(), "127.0.0.1:10080");
    assert_eq!(host.minidock(&["port", "web", "81"]).ok().out(), "10.99.0.1:10081");
    host.detached(&["--name", "all", "-P", "--expose", "90", "-p", "91", "busybox", "sleep", "1000"]);
    for port in ["90", "91"] {
        assert!(host.minidock(&["port", "all", port]).ok().out().starts_with("127.0.0.1:"), "{port}");
    }
    assert_eq!(host.inspect("web", "{{index .HostConfig.LogConfig.Config \"max-size\"}}"), "1m");
    host.detached(&["--name", "own", "--log-opt", "max-size=3m", "busybox", "sleep", "1000"]);
    let options = host.inspect(
        "own",
        "{{index .HostConfig.LogConfig.Config \"max-size\"}} {{index .HostConfig.LogConfig.Config \"max-file\"}}",
    );
    assert_eq!(options, "3m 2");
    host.minidock(&["network", "create", "lab"]).ok();
    let subnet = host.minidock(&["network", "inspect", "lab", "-f", "{{(index .IPAM.Config 0).Subnet}}"]).ok().out();
    assert_eq!(subnet, "10.77.0.0/28");
    host.minidock(&["network", "rm", "lab"]).ok();
    host.remove(&["web", "all", "own"]);
    host.finish();
}

#[test]
fn doctor_finds_this_host_fit_and_names_what_is_not() {
    let host = TestHost::new();
    let before = host.sh("ip link | grep -c .; nft list ruleset | grep -c .").out();
    let text = host.minidock(&["doctor"]).ok().out();
    for line in ["ok    rights", "ok    kernel", "ok    cgroups", "ok    disk", "ok    network", "ok    left-overs"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    assert_eq!(host.sh("ip link | grep -c .; nft list ruleset | grep -c .").out(), before);
    // Another table's policy that drops what is forwarded is a warning with its remedy.
    host.sh("nft add table ip other; nft 'add chain ip other forward { type filter hook forward priority 0; policy drop; }'").ok();
    let text = host.minidock(&["doctor"]).ok().out();
    assert!(text.contains("table ip other, chain forward, policy drop drops what"), "{text}");
    assert!(text.contains("-> to let it pass: nft insert rule ip other forward iifname docker0 accept"), "{text}");
    host.sh("nft delete table ip other").ok();
    // A container whose processes were killed is a left-over.
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    host.kill_everything();
    let left = host.minidock(&["doctor", "--format", "{{.What}} {{.Level}}"]).ok().out();
    assert!(left.contains("left-overs warn"), "{left}");
    host.minidock(&["ps"]).ok();
    assert!(host.minidock(&["doctor"]).ok().out().contains("ok    left-overs"));
    // What would make a run fail is a failure: here an iptables that isn't there.
    let failed = host.command(&["doctor", "--firewall", "iptables"]).env("PATH", "/nowhere").run().exits(1);
    assert!(failed.out().contains("FAIL  firewall"), "{}", failed.out());
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn completion_knows_commands_flags_and_names() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    let ask = |words: &[&str]| {
        let mut all = vec!["__complete"];
        all.extend(words);
        host.minidock(&all).ok().out()
    };
    assert_eq!(ask(&["stop", "w"]), "web");
    assert_eq!(ask(&["run", "bus"]), "busybox:latest");
    assert_eq!(ask(&["container", "insp"]), "inspect");
    assert_eq!(ask(&["run", "--hostn"]), "--hostname");
    assert_eq!(ask(&["run", "--network", "ho"]), "host");
    // The script really completes in bash.
    let script = "source <(\"$MINIDOCK\" completion bash); complete -F _minidock md; \
                  COMP_WORDS=(\"$MINIDOCK\" stop w); COMP_CWORD=2; _minidock; echo \"${COMPREPLY[@]}\"";
    let shell =
        host.shell(&host.host, &format!("bash -c '{script}'")).env("MINIDOCK", host::minidock().to_str().unwrap());
    assert_eq!(shell.run().ok().out(), "web");
    for shell in ["zsh", "fish"] {
        assert!(host.minidock(&["completion", shell]).ok().out().contains("__complete"));
    }
    host.minidock(&["completion", "tcsh"]).says(&["bash, zsh and fish"]);
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn man_pages_are_written_from_the_same_definitions() {
    let host = TestHost::bare();
    let written = host.minidock(&["man", host.work.to_str().unwrap()]).ok().out();
    assert!(written.lines().count() > 30, "{written}");
    let page = host::read(host.work.join("minidock-exec.1"));
    assert!(page.contains(".SH EXAMPLE\n.nf\nminidock exec") && page.contains("\\fB\\-\\-workdir\\fR"), "{page}");
    let help = host.minidock(&["help", "exec"]).ok().out();
    assert!(help.contains("Example: minidock exec -it web sh\n"), "{help}");
    host.minidock(&["man", "/nowhere/at/all"]).exits(1).says(&["cannot write"]);
    host.finish();
}

#[test]
fn tables_fit_the_terminal_and_colours_are_for_terminals_only() {
    let host = TestHost::new();
    let long = "a-name-that-is-much-longer-than-any-sensible-column-of-a-table";
    let id = host.detached(&["--name", long, "busybox", "sh", "-c", "sleep 1000 # a command with many words"]);
    let screen = |args: &[&str], no_color: &str| {
        let invocation = host.command(args).env("NO_COLOR", no_color);
        let mut terminal = host::pty::Terminal::start(invocation, 24, 80);
        terminal.wait();
        // The last bytes may still be on their way through the terminal.
        wait_until("both lines are there", || {
            let screen = terminal.screen();
            screen.ends_with('\n') && screen.trim_end().lines().count() >= 2
        });
        terminal.screen()
    };
    let table = screen(&["ps"], "");
    assert!(table.lines().all(|line| line.trim_end().chars().count() <= 80), "{table}");
    assert!(table.contains("a-name-") && table.contains('…') && table.contains(&id[..12]), "{table}");
    let whole = screen(&["ps", "--no-trunc"], "");
    assert!(whole.contains(long), "{whole}");
    // Into a pipe goes everything.
    assert!(host.minidock(&["ps"]).ok().out().contains(long));
    assert!(screen(&["doctor"], "").contains("\u{1b}[32mok"));
    assert!(!screen(&["doctor"], "1").contains('\u{1b}'));
    host.remove(&[long]);
    host.finish();
}
