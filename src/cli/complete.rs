//! What may follow on a command line, for the shells' completion: from the table of commands and their parsers.
//!
//! The scripts of `minidock completion` call `minidock __complete WORDS…`, the last word being the one that is typed.
//! Candidates come a line each; names of containers and the like are left to the caller as a [`Wanted`].

use clap::Arg;

use super::pflag;
use super::table::{COMMANDS, GROUPS};

/// Names that the engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing more.
    Nothing,
    /// Files, by the shell.
    Files,
    /// Containers.
    Containers,
    /// Images.
    Images,
    /// Networks.
    Networks,
    /// Volumes.
    Volumes,
}

/// The candidates for the last word, and what else fits there.
pub fn candidates(words: &[String]) -> (Vec<String>, Wanted) {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let fitting = |all: Vec<String>| -> Vec<String> { all.into_iter().filter(|one| one.starts_with(typed)).collect() };
    let Some(first) = before.first() else {
        return (fitting(tops()), Wanted::Nothing);
    };
    let is_group = GROUPS.iter().any(|(group, _)| group == first);
    if first == "help" || (is_group && before.len() == 1) {
        let inside = COMMANDS.iter().flat_map(|entry| entry.names);
        let inside = inside.filter_map(|name| name.strip_prefix(first.as_str())?.strip_prefix(' ')).map(str::to_owned);
        return (fitting(if first == "help" { tops() } else { inside.collect() }), Wanted::Nothing);
    }
    let form = if is_group { before[..2].join(" ") } else { first.clone() };
    let Some(entry) = COMMANDS.iter().find(|entry| entry.names.contains(&form.as_str())) else {
        return (vec![], Wanted::Nothing);
    };
    let command = pflag::bare(entry);
    let flags: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_positional()).collect();
    if typed.starts_with('-') {
        let long = flags.iter().filter_map(|arg| arg.get_long()).map(|long| format!("--{long}"));
        return (fitting(long.collect()), Wanted::Nothing);
    }
    // The value of the flag before it.
    let previous = before.last().map(String::as_str).unwrap_or_default();
    let flag = flags.iter().find(|arg| {
        let long = arg.get_long().is_some_and(|long| previous.strip_prefix("--") == Some(long));
        let short = arg
            .get_short()
            .is_some_and(|short| previous.starts_with('-') && !previous.starts_with("--") && previous.ends_with(short));
        (long || short) && arg.get_action().takes_values()
    });
    if let Some(flag) = flag {
        let value = flag.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let wanted = match (flag.get_long().unwrap_or_default(), value) {
            ("network" | "net", _) => Wanted::Networks,
            ("volumes-from", _) => Wanted::Containers,
            (_, value) if ["FILE", "DIR", "PATH", "SRC"].iter().any(|word| value.contains(word)) => Wanted::Files,
            _ => Wanted::Nothing,
        };
        return (vec![], wanted);
    }
    (vec![], wanted(entry.usage))
}

fn tops() -> Vec<String> {
    let single = COMMANDS.iter().flat_map(|entry| entry.names).filter(|name| !name.contains(' '));
    let groups = GROUPS.iter().map(|(group, _)| *group);
    single.copied().chain(groups).chain(["help"]).map(str::to_owned).collect()
}

/// By the usage line: `[OPTIONS] CONTAINER [CONTAINER...]`.
fn wanted(usage: &str) -> Wanted {
    let word = usage.split(' ').find(|word| !word.starts_with("[OPTIONS"));
    let word = word.unwrap_or_default().trim_start_matches('[');
    match () {
        () if word.starts_with("CONTAINER:") || word.contains("FILE") || word.contains("DIR") => Wanted::Files,
        () if word.starts_with("CONTAINER") || word.starts_with("NAME") => Wanted::Containers,
        () if word.contains("IMAGE") || word.starts_with("REPOSITORY") => Wanted::Images,
        () if word.starts_with("NETWORK") => Wanted::Networks,
        () if word.starts_with("VOLUME") => Wanted::Volumes,
        () => Wanted::Nothing,
    }
}

/// The script for a shell.
pub fn script(shell: &str) -> Option<&'static str> {
    match shell {
        "bash" => Some(BASH),
        "zsh" => Some(ZSH),
        "fish" => Some(FISH),
        _ => None,
    }
}

const BASH: &str = r#"# bash completion for minidock: source <(minidock completion bash)
_minidock() {
    local word="${COMP_WORDS[COMP_CWORD]}" line
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o default 2>/dev/null
        else
            COMPREPLY+=("$line")
        fi
    done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" "$word" 2>/dev/null)
}
complete -F _minidock minidock
"#;

const ZSH: &str = r#"#compdef minidock
# zsh completion for minidock: source <(minidock completion zsh)
_minidock() {
    local -a lines
    lines=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
    if (( ${lines[(Ie):files]} )); then
        _files
        lines=("${(@)lines:#:files}")
    fi
    lines=("${(@)lines:#}")
    (( ${#lines} )) && compadd -- "${lines[@]}"
}
if [ "$funcstack[1]" = "_minidock" ]; then _minidock; else compdef _minidock minidock; fi
"#;

const FISH: &str = r#"# fish completion for minidock: minidock completion fish | source
function __minidock_complete
    set -l words (commandline -opc)
    minidock __complete $words[2..-1] (commandline -ct) 2>/dev/null | string match -v ':files'
end
function __minidock_wants_files
    set -l words (commandline -opc)
    minidock __complete $words[2..-1] (commandline -ct) 2>/dev/null | string match -q ':files'
end
complete -c minidock -f
complete -c minidock -a '(__minidock_complete)'
complete -c minidock -n __minidock_wants_files -F
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> (Vec<String>, Wanted) {
        candidates(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands_flags_and_names() {
        assert_eq!(ask("insp").0, ["inspect"]);
        assert!(ask("").0.contains(&"run".to_owned()) && ask("").0.contains(&"container".to_owned()));
        assert!(ask("container st").0.contains(&"stats".to_owned()));
        assert_eq!(ask("run --hostn").0, ["--hostname"]);
        assert_eq!(ask("container run --hostn").0, ["--hostname"]);
        assert_eq!(ask("stop w").1, Wanted::Containers);
        assert_eq!(ask("run --rm b").1, Wanted::Images);
        assert_eq!(ask("run --network b").1, Wanted::Networks);
        assert_eq!(ask("load -i x").1, Wanted::Files);
        assert_eq!(ask("network rm x").1, Wanted::Networks);
        assert_eq!(ask("nonsense x"), (vec![], Wanted::Nothing));
        assert_eq!(ask("help insp").0, ["inspect"]);
        assert_eq!(candidates(&[]).1, Wanted::Nothing);
        for form in COMMANDS.iter().flat_map(|entry| entry.names) {
            assert!(ask(&format!("{form} --he")).0.contains(&"--help".to_owned()), "{form}");
        }
    }
}
