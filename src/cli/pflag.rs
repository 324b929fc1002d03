//! docker's flag rules (those of Go's pflag) on top of clap, and clap's errors in docker's words.

use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args};

use super::stop::bounded;
use super::table::{self, Entry};
use super::{Global, Stop, not_supported};

/// Takes the options before the command's name off `words`.
pub(super) fn split_global(words: &mut Vec<OsString>) -> Result<Global, Stop> {
    let mut global = Global::default();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let text = word.to_string_lossy().into_owned();
        if !text.starts_with('-') || text == "-" {
            break;
        }
        at += 1;
        let (flag, attached) = match text.split_once('=') {
            Some((flag, _)) => (flag.to_owned(), Some(after_equals(word))),
            None => (text, None),
        };
        let value = |at: &mut usize| -> Result<OsString, Stop> {
            if let Some(value) = attached.clone() {
                return Ok(value);
            }
            *at += 1;
            words.get(*at - 1).cloned().ok_or_else(|| Stop::flag(format!("flag needs an argument: {flag}"), None))
        };
        match flag.as_str() {
            "--root" => global.root = Some(PathBuf::from(value(&mut at)?)),
            "--firewall" => {
                let name = value(&mut at)?.to_string_lossy().into_owned();
                global.firewall =
                    Some(super::backend(&name).map_err(|why| Stop::flag(invalid(&name, "--firewall", &why), None))?);
            }
            "-D" | "--debug" => global.debug = true,
            "-v" | "--version" => {
                return Err(Stop::Help(format!("minidock version {}\n", env!("CARGO_PKG_VERSION"))));
            }
            "-h" | "--help" => return Err(Stop::Help(table::help())),
            "-H" | "--host" | "-c" | "--context" | "--tls" | "--tlsverify" | "--config" | "-l" | "--log-level" => {
                return Err(Stop::flag(format!("{flag} is not supported: minidock has no daemon to talk to"), None));
            }
            _ => return Err(Stop::flag(unknown_flag(&flag), None)),
        }
    }
    words.drain(..at);
    Ok(global)
}

fn after_equals(word: &OsString) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = word.as_bytes();
    let from = bytes.iter().position(|byte| *byte == b'=').map_or(bytes.len(), |at| at + 1);
    OsString::from_vec(bytes[from..].to_vec())
}

/// Parses the words after a command's name.
pub(super) fn parse(entry: &'static Entry, words: Vec<OsString>) -> Result<ArgMatches, Stop> {
    let command = bare(entry).mut_args(as_pflag).no_binary_name(true);
    command.try_get_matches_from(words).map_err(|error| explain(error, entry))
}

/// The help of a command.
pub(super) fn help(entry: &Entry) -> Stop {
    let forms = match entry.names.len() {
        1 => String::new(),
        _ => format!(
            "Forms: {}\n\n",
            entry.names.iter().map(|name| format!("minidock {name}")).collect::<Vec<_>>().join(", ")
        ),
    };
    let command = bare(entry)
        .help_template(format!("{{usage-heading}} {{usage}}\n\n{}\n\n{forms}\0\n\n{{options}}\n", entry.about));
    // Put in afterwards: clap would take the braces of a Go template for its own.
    Stop::Help(command.clone().render_help().to_string().replacen('\0', &format!("Example: {}", entry.example), 1))
}

/// The parser of one command as declared.
pub(super) fn bare(entry: &Entry) -> clap::Command {
    let command = clap::Command::new("minidock")
        .override_usage(format!("minidock {} {}", entry.name(), entry.usage))
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .term_width(100);
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print this help");
    // docker still takes -h for help where it isn't another flag's.
    let help = if matches!(entry.name(), "run" | "create") { help } else { help.short_alias('h') };
    Global::augment_args((entry.define)(command)).arg(help.help_heading("Global options"))
}

/// pflag's rules: a switch takes `=false`, and the value of a flag may begin with a hyphen.
fn as_pflag(arg: Arg) -> Arg {
    if arg.is_positional() {
        return arg;
    }
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(ValueParser::new(boolean)),
        ArgAction::Set | ArgAction::Append => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

/// The flags of a command: long names (aliases too), and whether they take a value.
#[cfg(test)]
pub(crate) fn declared(form: &str) -> Vec<(String, bool)> {
    let mut flags = Vec::new();
    for arg in
        table::entry(form).map(|entry| bare(entry).mut_args(as_pflag)).iter().flat_map(clap::Command::get_arguments)
    {
        let required = arg.get_num_args().is_none_or(|number| number.min_values() > 0);
        let takes_value = arg.get_action().takes_values() && required;
        let names = arg.get_long().into_iter().chain(arg.get_visible_aliases().into_iter().flatten());
        flags.extend(names.map(|name| (name.to_owned(), takes_value)));
    }
    flags
}

/// clap's own check of a parser's declaration.
#[cfg(test)]
pub(super) fn check(entry: &Entry) {
    bare(entry).mut_args(as_pflag).debug_assert();
}

/// What Go's `strconv.ParseBool` takes.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("not true or false".to_owned()),
    }
}

/// A `--filter`, read by its command; docker's words for one that isn't even that.
pub(super) fn key_value(text: &str) -> Result<String, String> {
    match text.contains('=') {
        true => Ok(text.to_owned()),
        false => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

/// A whole number as Go's flags take it: decimal, 0x…, 0o…, 0b….
pub(super) fn integer(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("not a whole number".to_owned());
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|error| match error.kind() {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "number too large".to_owned(),
        _ => "not a whole number".to_owned(),
    })
}

/// Seconds to wait; -1 (any negative number) is for ever.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    integer(text).map(|seconds| seconds.max(-1))
}

/// A parser's error as docker says it.
pub(super) fn explain(error: clap::Error, entry: &Entry) -> Stop {
    let name = entry.name();
    let text = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(list)) => list.first().cloned(),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelp => help(entry),
        ErrorKind::UnknownArgument if flag.starts_with('-') && flag != "-" => {
            Stop::flag(refused_or_unknown(name, &flag, text(ContextKind::SuggestedArg)), Some(name))
        }
        ErrorKind::InvalidValue
            if text(ContextKind::InvalidValue).is_none_or(|value| value.is_empty()) && flag.starts_with('-') =>
        {
            Stop::flag(format!("flag needs an argument: {}", flag_name(&flag)), Some(name))
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if flag.starts_with('-') => {
            let why =
                error.source().map(|why| why.to_string()).unwrap_or_else(|| "not a value of this flag".to_owned());
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            Stop::flag(invalid(&value, &both_names(entry, &flag_name(&flag)), &why), Some(name))
        }
        ErrorKind::MissingRequiredArgument if flag.starts_with("--") => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(list)) => list.iter().filter(|one| one.starts_with("--")).cloned().collect(),
                _ => vec![flag],
            };
            let missing = missing.join(" and ").replace(['<', '>'], "");
            Stop::arguments(format!("'minidock {name}' needs {missing}, such as '{}'", entry.example), Some(name))
        }
        ErrorKind::InvalidUtf8 => Stop::flag(
            "a flag's value is not UTF-8 text; only paths, environment and the command may be bytes",
            Some(name),
        ),
        _ => Stop::arguments(format!("'minidock {name}' {}", entry.arguments), Some(name)),
    }
}

/// docker's sentence for a flag's bad value.
fn invalid(value: &str, flag: &str, why: &str) -> String {
    let value = bounded(value, 120);
    format!("invalid argument {value:?} for \"{flag}\" flag: {why}")
}

/// `--memory <BYTES>` → `--memory`
fn flag_name(shown: &str) -> String {
    shown.split([' ', '=', '[']).next().unwrap_or(shown).to_owned()
}

/// `--memory` → `-m, --memory`, where there is a short form.
fn both_names(entry: &Entry, long: &str) -> String {
    let command = bare(entry);
    let arg = command.get_arguments().find(|arg| arg.get_long() == long.strip_prefix("--"));
    match arg.and_then(Arg::get_short) {
        Some(short) => format!("-{short}, {long}"),
        None => long.to_owned(),
    }
}

fn refused_or_unknown(command: &str, flag: &str, suggestion: Option<String>) -> String {
    let long = match flag.strip_prefix("--") {
        Some(long) => Some(long.split('=').next().unwrap_or(long)),
        None => flag[1..].chars().next().and_then(|short| not_supported::long_name(command_of(command), short)),
    };
    if let Some(long) = long
        && let Some(why) = not_supported::reason(command_of(command), long)
    {
        return format!("--{long} is not supported: {why}");
    }
    let typed = flag_name(flag);
    let near = suggestion
        .map(|near| flag_name(&near))
        .filter(|near| crate::near::distance(&typed, near) <= typed.trim_start_matches('-').len() / 3);
    unknown_flag(flag) + &near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// `image inspect` refuses the flags that `inspect` refuses, and `create` those of `run`.
fn command_of(name: &str) -> &str {
    match name {
        "create" => "run",
        name => name.rsplit(' ').next().unwrap_or(name),
    }
}

fn unknown_flag(flag: &str) -> String {
    match flag.strip_prefix("--") {
        Some(long) => format!("unknown flag: --{}", long.split('=').next().unwrap_or(long)),
        None => {
            let short = flag.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: '{short}' in {flag}")
        }
    }
}
