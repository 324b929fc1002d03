//! Words in commands that somebody is told to type, and in lines for a terminal. Names of links, chains and rules may be a
//! container's: none of them may become a command, an option or an escape sequence.

/// A word for the shell: as it is when harmless, in single quotes otherwise.
pub fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_-./:,@=+%".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Whether all words of a line are plain ones, which need no quotes and mean the same everywhere.
pub fn is_plain(line: &str) -> bool {
    line.chars().all(|c| c.is_ascii_alphanumeric() || "_./:,=- ".contains(c))
}

/// A line of `iptables-save`, which puts words into double quotes (the shell would expand them), with quotes for the shell.
pub fn quoted_line(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut begun, mut inside) = (String::new(), false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => (inside, begun) = (!inside, true),
            '\\' if inside => word.extend(chars.next()),
            ' ' if !inside => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    // `! -o docker0`: a shell takes a lonely ! as it is.
    let words = words.iter().map(|word| if word == "!" { word.clone() } else { quoted(word) });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether nft takes this as the name of a table or chain. It reads all its words as one text, in which quotes of the shell
/// are gone: what is no plain name could be a command of its own.
pub fn is_nft_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
}

/// For one line of a terminal: no control characters, no ends of lines, no marks that turn the direction of writing.
pub fn printable(text: &str) -> String {
    let is_bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_bad(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_no_commands() {
        for (word, safe) in [
            ("eth0", "eth0"),
            (";reboot;#", "';reboot;#'"),
            ("$(id)", "'$(id)'"),
            ("`id`", "'`id`'"),
            ("a'b", "'a'\\''b'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), safe);
        }
        for (line, safe) in [
            ("-A INPUT ! -i lo -p tcp -j DROP", "-A INPUT ! -i lo -p tcp -j DROP"),
            (r#"-m comment --comment "$(touch x)" -j DROP"#, "-m comment --comment '$(touch x)' -j DROP"),
            (r#"--comment "a\"b\\c" -j DROP"#, r#"--comment 'a"b\c' -j DROP"#),
            ("--comment ;reboot -j DROP", "--comment ';reboot' -j DROP"),
            (r#"--comment "" -j X"#, "--comment '' -j X"),
        ] {
            assert_eq!(quoted_line(line), safe);
        }
        assert!(is_plain("-A FORWARD -p tcp -m tcp --dport 80 -j DROP"));
        assert!(["a$b", "a'b", "a\"b", "a;b", "a\nb", "~/x", "*"].iter().all(|word| !is_plain(word)));
        assert!(is_nft_name("filter_x-1.y/z"));
        assert!(["t; flush ruleset", "", "-f", "1a", "a b", "a\n", "a{", "$x"].iter().all(|name| !is_nft_name(name)));
        assert_eq!(printable("a\u{1b}[31m\nb\u{202e}"), "a?[31m?b?");
    }
}
