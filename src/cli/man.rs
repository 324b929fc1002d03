//! Man pages, made from the table of commands and their parsers: man(7)'s macros.

use clap::Arg;

use super::pflag;
use super::table::{self, COMMANDS, Entry};

/// All pages: file name, text. `minidock.1`, and `minidock-run.1` for each command.
pub fn pages() -> Vec<(String, String)> {
    let command = |entry: &Entry| (format!("minidock-{}.1", entry.name().replace(' ', "-")), page(entry));
    std::iter::once(("minidock.1".to_owned(), overview())).chain(COMMANDS.iter().map(command)).collect()
}

fn head(name: &str, about: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        ".TH {} 1 \"\" \"minidock {version}\" \"minidock\"\n.SH NAME\n{} \\- {}\n",
        escaped(&name.to_uppercase()),
        escaped(name),
        escaped(about)
    )
}

fn overview() -> String {
    let mut text = head("minidock", "a minimal but real container engine with networking built in");
    text += ".SH SYNOPSIS\n.B minidock\n[OPTIONS] COMMAND\n.SH DESCRIPTION\n.nf\n";
    text += &escaped(&table::help());
    text += ".fi\n.SH SEE ALSO\n";
    let others: Vec<String> = COMMANDS
        .iter()
        .map(|entry| format!(".BR minidock\\-{} (1)", escaped(&entry.name().replace(' ', "-"))))
        .collect();
    text + &others.join("\n") + "\n"
}

fn page(entry: &Entry) -> String {
    let name = format!("minidock-{}", entry.name().replace(' ', "-"));
    let mut text = head(&name, &lowered(entry.about));
    text += ".SH SYNOPSIS\n";
    for form in entry.names {
        text += &format!(".B minidock {}\n{}\n.br\n", escaped(form), escaped(entry.usage));
    }
    text += &format!(".SH DESCRIPTION\n{}.\n.SH OPTIONS\n", escaped(entry.about));
    for arg in pflag::bare(entry).get_arguments().filter(|arg| !arg.is_positional()) {
        text +=
            &format!(".TP\n{}\n{}\n", flag(arg), escaped(&arg.get_help().map(ToString::to_string).unwrap_or_default()));
    }
    text + &format!(".SH EXAMPLE\n.nf\n{}\n.fi\n.SH SEE ALSO\n.BR minidock (1)\n", escaped(entry.example))
}

/// `-m, --memory BYTES`, in bold but for the value.
fn flag(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
    let long = arg.get_long().map(|long| format!("\\fB\\-\\-{}\\fR", escaped(long)));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = arg.get_value_names().and_then(|names| names.first()).filter(|_| arg.get_action().takes_values());
    names.join(", ") + &value.map(|value| format!(" \\fI{}\\fR", escaped(value))).unwrap_or_default()
}

fn lowered(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// roff's own signs: backslash, hyphen, and dots and quotes at the beginning of a line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_flags_and_example() {
        let pages = pages();
        assert_eq!(pages.len(), COMMANDS.len() + 1);
        let text = |name: &str| &pages.iter().find(|(file, _)| file == name).unwrap().1;
        let run = text("minidock-run.1");
        assert!(run.starts_with(".TH MINIDOCK\\-RUN 1"), "{run}");
        assert!(run.contains(".TP\n\\fB\\-m\\fR, \\fB\\-\\-memory\\fR \\fI"), "{run}");
        assert!(run.contains(".SH EXAMPLE\n.nf\nminidock run"), "{run}");
        assert!(text("minidock.1").contains(".BR minidock\\-container\\-inspect (1)"));
    }
}
