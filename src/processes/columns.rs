//! The columns of ps(1) that `top` has, with procps's words: docker runs the host's ps, minidock reads /proc itself.

use super::Process;

/// Clock ticks a second in /proc: USER_HZ, 100 on every architecture that Linux has today (include/asm-generic/param.h).
const TICKS: u64 = 100;

/// What columns need beside the process.
pub struct Around {
    /// Seconds since 1970.
    pub now: u64,
    /// Clock ticks since boot.
    pub uptime_ticks: u64,
    /// The host's memory, bytes.
    pub memory: u64,
    /// Bytes.
    pub page: u64,
    /// Names of /etc/passwd and /etc/group, number → name.
    pub users: std::collections::HashMap<u32, String>,
    /// See above.
    pub groups: std::collections::HashMap<u32, String>,
}

/// A column: the words by which -o asks for it, its header, its cell.
struct Column {
    names: &'static [&'static str],
    header: &'static str,
    cell: fn(&Process, &Around) -> String,
}

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { names: &["pid", "tgid"], header: "PID", cell: |process, _| process.pid.to_string() },
    Column { names: &["ppid"], header: "PPID", cell: |process, _| process.parent.to_string() },
    Column { names: &["pgid", "pgrp"], header: "PGID", cell: |process, _| process.group.to_string() },
    Column { names: &["sid", "sess", "session"], header: "SID", cell: |process, _| process.session.to_string() },
    Column { names: &["user", "euser", "uname"], header: "USER", cell: |process, around| user(process, around) },
    Column { names: &["uid", "euid"], header: "UID", cell: |process, _| process.uid.to_string() },
    Column { names: &["group", "egroup"], header: "GROUP", cell: |process, around| group(process, around) },
    Column { names: &["gid", "egid"], header: "GID", cell: |process, _| process.gid.to_string() },
    Column { names: &["comm", "ucmd", "ucomm"], header: "COMMAND", cell: |process, _| process.name.clone() },
    Column { names: &["args", "command"], header: "COMMAND", cell: |process, _| command(process) },
    Column { names: &["cmd"], header: "CMD", cell: |process, _| command(process) },
    Column { names: &["s", "state"], header: "S", cell: |process, _| process.state.to_string() },
    Column { names: &["stat"], header: "STAT", cell: |process, _| stat(process) },
    Column { names: &["c"], header: "C", cell: |process, around| share(process, around).min(999).to_string() },
    Column { names: &["pcpu", "%cpu"], header: "%CPU", cell: |process, around| cpu(process, around) },
    Column { names: &["pmem", "%mem"], header: "%MEM", cell: |process, around| memory(process, around) },
    Column { names: &["rss", "rssize", "rsz"], header: "RSS", cell: |process, around| (process.resident_pages * around.page / 1024).to_string() },
    Column { names: &["vsz", "vsize"], header: "VSZ", cell: |process, _| (process.virtual_bytes / 1024).to_string() },
    Column { names: &["tty", "tt", "tname"], header: "TTY", cell: |process, _| terminal(process.terminal) },
    Column { names: &["time", "cputime"], header: "TIME", cell: |process, _| clock(process.ticks / TICKS) },
    Column { names: &["bsdtime"], header: "TIME", cell: |process, _| format!("{}:{:02}", process.ticks / TICKS / 60, process.ticks / TICKS % 60) },
    Column { names: &["etime"], header: "ELAPSED", cell: |process, around| elapsed(age(process, around)) },
    Column { names: &["etimes"], header: "ELAPSED", cell: |process, around| age(process, around).to_string() },
    Column { names: &["stime", "start_time"], header: "STIME", cell: |process, around| start(process, around) },
    Column { names: &["bsdstart", "start"], header: "START", cell: |process, around| start(process, around) },
    Column { names: &["ni", "nice"], header: "NI", cell: |process, _| process.nice.to_string() },
    Column { names: &["pri"], header: "PRI", cell: |process, _| (39 - process.priority).to_string() },
    Column { names: &["nlwp", "thcount"], header: "NLWP", cell: |process, _| process.threads.to_string() },
    Column { names: &["psr"], header: "PSR", cell: |process, _| process.processor.to_string() },
];

const FULL: &str = "user=UID,pid,ppid,c,stime,tty,time,cmd";
const BSD: &str = "user,pid,pcpu,pmem,vsz,rss,tty,stat,start,bsdtime=TIME,args";
const LONG_BSD: &str = "uid,pid,ppid,pri,ni,vsz,rss,stat,tty,bsdtime=TIME,args";

/// The titles and rows for the options that would be given to ps.
///
/// # Errors
/// An option or column that there isn't.
pub fn table(
    options: &[String],
    processes: &[Process],
    around: &Around,
) -> Result<(Vec<String>, Vec<Vec<String>>), String> {
    let columns = chosen(options)?;
    let titles = columns.iter().map(|(title, _)| title.clone()).collect();
    let row = |process: &Process| columns.iter().map(|(_, column)| (column.cell)(process, around)).collect();
    Ok((titles, processes.iter().map(row).collect()))
}

/// docker hands the words to ps as they are; these are the ones people use.
fn chosen(options: &[String]) -> Result<Vec<(String, &'static Column)>, String> {
    let mut columns = vec![];
    let mut words = options.iter();
    let mut layout = FULL;
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        if let Some(list) = word.strip_prefix("--format=") {
            columns.extend(listed(list)?);
        } else if word == "--format" {
            columns.extend(listed(words.next().ok_or("top: --format needs a list of columns")?)?);
        } else if let Some(at) = bare.find('o').filter(|at| "aeAfx".contains(&bare[..*at]) || *at == 0) {
            let attached = &bare[at + 1..];
            let next = || "top: -o needs a list of columns, such as pid,user,args".to_owned();
            let list = if attached.is_empty() { words.next().ok_or_else(next)? } else { attached };
            columns.extend(listed(list)?);
        } else {
            layout = match bare {
                "e" | "A" | "a" | "x" | "ax" => layout,
                "f" | "ef" | "fe" | "eF" | "Af" => FULL,
                "u" | "aux" | "au" | "ux" | "axu" | "auxw" | "auxww" => BSD,
                "l" | "axl" | "alx" => LONG_BSD,
                _ => {
                    return Err(format!(
                        "top knows no ps option {word:?}; there are -ef, aux and -o COLUMN,… (pid, ppid, user, args, …)"
                    ));
                }
            };
        }
    }
    if columns.is_empty() { listed(layout) } else { Ok(columns) }
}

/// `pid,user=OWNER,args`
fn listed(text: &str) -> Result<Vec<(String, &'static Column)>, String> {
    let one = |word: &str| {
        let (name, title) = word.split_once('=').map_or((word, None), |(name, title)| (name, Some(title)));
        let found = COLUMNS.iter().find(|column| column.names.contains(&name));
        let Some(column) = found else {
            let names: Vec<&str> = COLUMNS.iter().map(|column| column.names[0]).collect();
            return Err(format!(
                "error: unknown user-defined format specifier {name:?}{}; there are {}",
                crate::near::hint(name, &names),
                names.join(", ")
            ));
        };
        Ok((title.unwrap_or(column.header).to_owned(), column))
    };
    text.split([',', ' ']).filter(|word| !word.is_empty()).map(one).collect()
}

/// ps prints the number of a name that is longer than its column.
fn user(process: &Process, around: &Around) -> String {
    around.users.get(&process.uid).filter(|name| name.len() <= 8).cloned().unwrap_or_else(|| process.uid.to_string())
}

fn group(process: &Process, around: &Around) -> String {
    around.groups.get(&process.gid).filter(|name| name.len() <= 8).cloned().unwrap_or_else(|| process.gid.to_string())
}

/// Arguments are the container's: no control characters reach the terminal.
fn command(process: &Process) -> String {
    let text = match process.arguments.is_empty() {
        true => format!("[{}]{}", process.name, if process.state == 'Z' { " <defunct>" } else { "" }),
        false => process.arguments.join(" "),
    };
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn stat(process: &Process) -> String {
    let mut text = process.state.to_string();
    for (letter, has) in [
        ('<', process.nice < 0),
        ('N', process.nice > 0),
        ('s', process.session == process.pid),
        ('l', process.threads > 1),
        ('+', process.foreground > 0 && process.foreground == i64::from(process.group)),
    ] {
        if has {
            text.push(letter);
        }
    }
    text
}

fn age(process: &Process, around: &Around) -> u64 {
    around.uptime_ticks.saturating_sub(process.start_ticks) / TICKS
}

/// CPU time per time of life, in thousandths.
fn permille(process: &Process, around: &Around) -> u64 {
    let life = around.uptime_ticks.saturating_sub(process.start_ticks);
    process.ticks.saturating_mul(1000).checked_div(life).unwrap_or(0)
}

fn share(process: &Process, around: &Around) -> u64 {
    permille(process, around) / 10
}

fn cpu(process: &Process, around: &Around) -> String {
    let permille = permille(process, around);
    format!("{}.{}", permille / 10, permille % 10)
}

fn memory(process: &Process, around: &Around) -> String {
    let permille = (process.resident_pages * around.page * 1000).checked_div(around.memory).unwrap_or(0).min(999);
    format!("{}.{}", permille / 10, permille % 10)
}

/// Major numbers 136 to 143 are pseudo terminals (the kernel's Documentation/admin-guide/devices.txt).
fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, (device & 0xff) | (device >> 12 & 0xfff00));
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

/// `[DD-]HH:MM:SS`
fn clock(seconds: u64) -> String {
    let days = if seconds >= 86400 { format!("{:02}-", seconds / 86400) } else { String::new() };
    format!("{days}{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// `[[DD-]HH:]MM:SS`
fn elapsed(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{:02}:{:02}", seconds / 60, seconds % 60),
        _ => clock(seconds),
    }
}

/// `14:03` within a day, `Nov23` within a year, then the year; UTC.
fn start(process: &Process, around: &Around) -> String {
    let age = age(process, around);
    let text = crate::format::human::rfc3339(Some(around.now.saturating_sub(age).saturating_mul(1_000_000_000)));
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    match age {
        0..86400 => part(11, 16),
        86400..31_536_000 => {
            let month = part(5, 7).parse::<usize>().unwrap_or(1);
            format!("{}{}", MONTHS.get(month.wrapping_sub(1)).unwrap_or(&"?"), part(8, 10))
        }
        _ => part(0, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Around {
        Around {
            now: 1_763_900_000,
            uptime_ticks: 10_000_000,
            memory: 1 << 30,
            page: 4096,
            users: [(0, "root".to_owned()), (7, "a-very-long-name".to_owned())].into(),
            groups: [(0, "root".to_owned())].into(),
        }
    }

    fn process() -> Process {
        Process {
            pid: 42,
            name: "sleep".into(),
            state: 'S',
            parent: 41,
            session: 42,
            terminal: 136 << 8 | 3,
            ticks: 6500,
            start_ticks: 10_000_000 - 100 * 3600,
            resident_pages: 2560,
            virtual_bytes: 8192,
            threads: 1,
            arguments: vec!["sleep".into(), "1000".into()],
            ..Process::default()
        }
    }

    fn line(options: &[&str]) -> String {
        let options: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
        let (titles, rows) = table(&options, &[process()], &around()).unwrap();
        format!("{} | {}", titles.join(" "), rows[0].join(" "))
    }

    #[test]
    fn columns_are_those_of_ps() {
        for (options, expected) in [
            (&[][..], "UID PID PPID C STIME TTY TIME CMD | root 42 41 1 11:13 pts/3 00:01:05 sleep 1000"),
            (&["-o", "pid,comm"], "PID COMMAND | 42 sleep"),
            (&["-eo", "pid,user=OWNER", "-o", "args"], "PID OWNER COMMAND | 42 root sleep 1000"),
            (&["-opid,etime,pcpu,rss,stat"], "PID ELAPSED %CPU RSS STAT | 42 01:00:00 1.8 10240 Ss"),
            (
                &["aux"],
                "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND | root 42 1.8 0.9 8 10240 pts/3 Ss 11:13 1:05 sleep 1000",
            ),
        ] {
            assert_eq!(line(options), expected, "{options:?}");
        }
        for wrong in [&["-o"][..], &["-o", "pid,argz"], &["--forest"], &["-Z"]] {
            let wrong: Vec<String> = wrong.iter().map(|word| (*word).to_owned()).collect();
            assert!(table(&wrong, &[], &around()).is_err(), "{wrong:?}");
        }
        let mut other = process();
        (other.uid, other.arguments, other.state) = (7, vec![], 'Z');
        assert_eq!((user(&other, &around()).as_str(), command(&other).as_str()), ("7", "[sleep] <defunct>"));
        other.arguments = vec!["a\u{1b}[31m".into()];
        assert_eq!(command(&other), "a?[31m");
    }

    #[test]
    fn times_and_terminals() {
        assert_eq!((clock(90_061).as_str(), elapsed(61).as_str()), ("01-01:01:01", "01:01"));
        assert_eq!((terminal(0).as_str(), terminal(4 << 8 | 65).as_str()), ("?", "ttyS1"));
        let mut old = process();
        old.start_ticks = 0;
        assert_eq!(start(&old, &around()), "Nov22");
    }
}
