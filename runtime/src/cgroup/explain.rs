//! Operations as the shell commands a person would type.

use super::Op;

/// The commands of one operation, each with its reason.
pub(super) fn explain(op: &Op) -> Vec<(String, String)> {
    let command = |line: String, why: &str| (line, why.to_owned());
    let shown = quote(&op.path().to_string_lossy());
    match op {
        Op::Mount { options, .. } => vec![
            command(format!("mkdir -p {shown}"), "the host has net_cls mounted nowhere"),
            command(
                format!("mount -t cgroup -o {options} {options} {shown}"),
                "for all containers, so it stays when this one goes",
            ),
        ],
        Op::Parent { .. } => vec![command(format!("mkdir -p {shown}"), "all containers' groups lie in here")],
        Op::Fill { value, why, .. } => {
            vec![command(format!("grep -q . {shown} || echo {} > {shown}", quote(value)), why)]
        }
        Op::Create { controllers, .. } if controllers.is_empty() => {
            vec![command(format!("mkdir {shown}"), "the container's group in cgroup2")]
        }
        Op::Create { controllers, .. } => {
            vec![command(format!("mkdir {shown}"), &format!("the container's group of {}", controllers.join(", ")))]
        }
        Op::Write { value, why, .. } => {
            vec![command(format!("echo {} > {shown}", quote(value)), why)]
        }
        Op::DeviceRules { rules, .. } => {
            let lines = super::devices::v1_lines(rules).unwrap_or_default();
            let line = |(index, (file, line)): (usize, &(&str, String))| {
                let why = if index == 0 { "which device nodes may be opened and made" } else { "" };
                command(format!("echo {} > {shown}/{file}", quote(line)), why)
            };
            lines.iter().enumerate().map(line).collect()
        }
        Op::ClassProgram { class, .. } => {
            vec![command(
                format!("# bpf(2): all that {shown} sends gets the class {class}"),
                "cgroup2 has no net_cls; no plain shell command does this (bpftool cgroup attach, with a compiled program)",
            )]
        }
        Op::DeviceProgram { rules, .. } => {
            let rule = |rule: &super::DeviceRule| format!("{} {rule}", if rule.allow { "allow" } else { "deny" });
            let list: Vec<String> = rules.iter().map(rule).collect();
            vec![command(
                format!("# bpf(2): a device filter for {shown}: {}", list.join(", ")),
                "cgroup2 has no devices file; no plain shell command does this (bpftool cgroup attach, with a compiled program)",
            )]
        }
    }
}

/// A word for sh: as it is when nothing in it is special, otherwise in single quotes.
pub(super) fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./,:=@%+-".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
