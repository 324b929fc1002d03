//! Patterns as Go's `path.Match` has them, for filters.

/// Whether the whole text is like the pattern: `*` is anything but a slash, `?` one letter, `[a-z]` one of these.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Where to go on when the last `*` takes one letter more; so no pattern takes longer than pattern × text.
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, from));
                at += 1;
                continue;
            }
            Some(_) if let Some(next) = one(&pattern, at, text[from]) => {
                (at, from) = (next, from + 1);
                continue;
            }
            _ => {}
        }
        match star {
            Some((after, taken)) if text[taken] != '/' => {
                star = Some((after, taken + 1));
                (at, from) = (after, taken + 1);
            }
            _ => return false,
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

/// Whether one letter fits; where the pattern goes on.
fn one(pattern: &[char], at: usize, letter: char) -> Option<usize> {
    match pattern[at] {
        '?' => (letter != '/').then_some(at + 1),
        '\\' => (pattern.get(at + 1) == Some(&letter)).then_some(at + 2),
        '[' => {
            let end = at + 1 + pattern[at + 1..].iter().skip(1).position(|letter| *letter == ']')? + 1;
            let mut set = &pattern[at + 1..end];
            let not = set.first() == Some(&'^');
            if not {
                set = &set[1..];
            }
            let mut fits = false;
            while let [first, rest @ ..] = set {
                (fits, set) = match rest {
                    ['-', last, rest @ ..] => (fits || (*first..=*last).contains(&letter), rest),
                    _ => (fits || *first == letter, rest),
                };
            }
            (fits != not).then_some(end + 1)
        }
        other => (other == letter).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_are_those_of_go() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busybox", "busybox:1", false),
            ("busy*", "busybox:latest", true),
            ("*:latest", "busybox:latest", true),
            ("*", "me/app", false),
            ("*/*", "me/app:1", true),
            ("b?sybox", "busybox", true),
            ("[a-c]usy*", "busybox", true),
            ("[^a-c]usy*", "busybox", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("\\*", "*", true),
            ("[", "[", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(200), &"a".repeat(150)));
    }
}
