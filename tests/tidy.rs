//! The rules of the project that a machine can check. Needs no root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// Where `unsafe` may stand: small modules of system calls, each with its reasons.
const UNSAFE: &[&str] = &[
    "runtime/src/sys.rs",
    "runtime/src/cgroup/bpf_sys.rs",
    "runtime/src/seccomp/sys.rs",
    "netsetup/src/sys.rs",
    "netsetup/src/proxy/pktinfo.rs",
    "src/sys.rs",
];
/// Where a program may be started.
const SPAWNING: &[&str] = &["netsetup/src/firewall/iptables.rs", "netsetup/src/ovs.rs", "src/log/journalctl.rs"];
/// The longest file: beyond it, ask for its second job.
const LONGEST: usize = 700;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the repository: (path from the root, text).
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(root(), &mut files);
    files.sort();
    assert!(files.len() > 20, "the sources are not where this test looks");
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    files.iter().map(|path| (relative(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// A file's code: without comments, string contents and test modules (which stand at the end of a file).
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let mut out = String::new();
    let mut chars = text[..end].chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()), // the character '"'
            '"' => {
                out.push('"');
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                out.push('"');
            }
            c => out.push(c),
        }
    }
    out
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("tests.rs")
        || path.starts_with("benches/")
        || path.starts_with("fuzz/")
}

/// Whether the code has this word, not as a part of another one.
fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn member_crates_do_not_depend_on_each_other() {
    let members = ["runtime", "netsetup", "images", "minidock"];
    let mut found = Vec::new();
    for member in &members[..3] {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        for line in manifest.lines().map(str::trim) {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if members.contains(&name) || line.contains("path =") && line.contains("..") {
                found.push(format!("{member}/Cargo.toml: {line}"));
            }
        }
    }
    none("a member crate knows another one", found);
}

#[test]
fn unsafe_stands_only_in_its_few_modules() {
    let found = sources()
        .into_iter()
        .filter(|(path, text)| !UNSAFE.contains(&path.as_str()) && !is_test(path) && has_word(&code(text), "unsafe"));
    none("`unsafe` outside of sys.rs", found.map(|(path, _)| path).collect());
}

#[test]
fn each_unsafe_block_says_why_it_is_safe() {
    let mut found = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| UNSAFE.contains(&path.as_str())) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| code(line).contains("unsafe {")) {
            let above = &lines[number.saturating_sub(8)..=number];
            if !above.iter().any(|line| line.contains("SAFETY")) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("an `unsafe` block without a SAFETY comment", found);
}

#[test]
fn processes_are_spawned_only_by_iptables_open_vswitch_and_journald() {
    let words = ["std::process::Command", "process::Command", "Command::new("];
    let found = sources().into_iter().filter(|(path, text)| {
        let code = code(text);
        !SPAWNING.contains(&path.as_str())
            && !is_test(path)
            && !path.ends_with("build.rs")
            && words.iter().any(|word| spawns(&code, word))
    });
    none("a program is started", found.map(|(path, _)| path).collect());
}

/// clap has a `Command` too.
fn spawns(code: &str, word: &str) -> bool {
    code.replace("clap::Command::new(", "").contains(word)
}

#[test]
fn the_plan_is_pure() {
    let forbidden = [
        "std::fs",
        "fs::",
        "std::env",
        "env::",
        "nix::",
        "rustix::",
        "std::net::TcpStream",
        "SystemTime",
        "Instant",
        "File::open",
    ];
    let plan = |path: &str| path == "src/plan.rs" || path.starts_with("src/plan/");
    let mut found = Vec::new();
    let mut seen = 0;
    for (path, text) in sources().iter().filter(|(path, _)| plan(path) && !is_test(path)) {
        seen += 1;
        let code = code(text);
        found.extend(forbidden.iter().filter(|word| has_start(&code, word)).map(|word| format!("{path}: {word}")));
    }
    assert!(seen > 0, "there is no plan");
    none("the plan touches the system", found);
}

fn has_start(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(part))
}

#[test]
fn each_file_begins_with_what_it_is_for() {
    let found = sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path);
    none("a file without a head comment", found.collect());
}

#[test]
fn no_file_is_too_long() {
    let lines = |text: &str| match text.find("#[cfg(test)]\nmod ") {
        Some(end) => text[..end].lines().count(), // its unit tests don't count
        None => text.lines().count(),
    };
    let code = sources().into_iter().filter(|(path, _)| !is_test(path));
    let long = code.map(|(path, text)| (path, lines(&text))).filter(|(_, lines)| *lines > LONGEST);
    none("a file with a second job", long.map(|(path, lines)| format!("{path}: {lines} lines")).collect());
}

#[test]
fn nothing_is_left_to_be_done_or_may_panic() {
    let words = ["todo!(", "unimplemented!(", "dbg!("];
    let found = sources().into_iter().filter(|(path, text)| {
        let code = code(text);
        !is_test(path) && words.iter().any(|word| code.contains(word))
    });
    none("unfinished code", found.map(|(path, _)| path).collect());
}

#[test]
fn the_readme_s_commands_and_files_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let commands: String =
        sources().iter().filter(|(path, _)| path.starts_with("src/")).map(|(_, text)| text.as_str()).collect();
    let mut missing = Vec::new();
    let mut in_code = false;
    for line in readme.lines() {
        in_code ^= line.starts_with("```");
        let words: Vec<&str> = line.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let is_call = word.trim_start_matches(['`', '$', '|']) == "minidock" && (in_code || word.starts_with('`'));
            if let Some(next) = words.get(at + 1).filter(|_| is_call) {
                let next = next.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                if next.starts_with(|c: char| c.is_ascii_lowercase()) && !commands.contains(&format!("\"{next}\"")) {
                    missing.push(format!("minidock {next}"));
                }
            }
        }
        for path in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|text| text.contains('/') && !text.contains(' ') && !text.starts_with(['/', '$', '.', '-']))
        {
            let path = path.trim_end_matches('/');
            let in_repository = ["src/", "tests/", "runtime/", "netsetup/", "images/", "docs/", "benches/"]
                .iter()
                .any(|top| path.starts_with(top));
            if in_repository && !path.contains(['*', '{']) && !root().join(path).exists() {
                missing.push(path.to_string());
            }
        }
    }
    none("the README names what isn't there", missing);
    for needed in [".ci/run", "LICENSE", "ARCHITECTURE.md", "tests/all.sh", "tests/vm/vm.sh"] {
        assert!(root().join(needed).exists(), "{needed} is missing");
    }
}

#[test]
fn this_test_s_own_reading_of_code_works() {
    let text = "let a = \"unsafe\"; // unsafe\nlet q = '\"'; unsafe { }\n#[cfg(test)]\nmod tests { todo!() }";
    let code = code(text);
    assert_eq!(code.matches("unsafe").count(), 1);
    assert!(!code.contains("todo"));
    assert!(has_word("unsafe {", "unsafe") && !has_word("unsafe_op", "unsafe"));
}
