//! `--filter KEY=VALUE` of the commands about images, volumes and prunes.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::format::human::Nanoseconds;
use crate::request::logs;

/// Filters by key. Values of one key are alternatives, but labels all have to fit; so do different keys.
#[derive(Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the flags; `known` are the keys that the command has.
    ///
    /// # Errors
    /// A word without `=`, or an unknown key.
    pub fn parse(flags: &[String], known: &[&str]) -> Result<Filters> {
        let mut filters = Filters::default();
        for flag in flags {
            let Some((key, value)) = flag.split_once('=') else {
                bail!("bad format of filter {flag:?} (expected name=value)");
            };
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            if !known.contains(&key.as_str()) {
                bail!("invalid filter '{key}'; there are {}", known.join(", "));
            }
            filters.0.entry(key).or_default().push(value.to_string());
        }
        Ok(filters)
    }

    /// The values of a key.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a key is not asked for, or one of its values fits.
    pub fn fits(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// docker's rule for names: one of the patterns (regular expressions) is found in it.
    pub fn names(&self, name: &str) -> bool {
        self.fits("name", |pattern| like(pattern, name))
    }

    /// A key that is true or false.
    ///
    /// # Errors
    /// Another value, or both.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let mut found = None;
        for value in self.values(key) {
            let Ok(value) = crate::cli::boolean(value) else {
                bail!("invalid filter '{key}={value}'; write true or false");
            };
            if found.is_some_and(|found| found != value) {
                bail!("invalid filter '{key}': it can't be both true and false");
            }
            found = Some(value);
        }
        Ok(found)
    }

    /// `label=KEY[=VALUE]` and `label!=KEY[=VALUE]`.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }

    /// `until=TIME`: whether something that old is meant.
    ///
    /// # Errors
    /// A time that can't be read.
    pub fn until(&self, created: Option<Nanoseconds>, now: Nanoseconds) -> Result<bool> {
        for value in self.values("until") {
            let until = logs::time("--filter until", value, now.into())?;
            if created.is_some_and(|created| i128::from(created) >= until) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a pattern (a regular expression) is found in a text; one that is none is found in nothing, as docker has it.
pub fn like(pattern: &str, text: &str) -> bool {
    regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// Asks before something is removed; what is no `y` is a no. The question is docker's.
pub fn confirmed(warning: &str, force: bool) -> bool {
    if force {
        return true;
    }
    use std::io::{BufRead, Write};
    print!("{warning}\nAre you sure you want to continue? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    // No stdin is no answer.
    let _ = std::io::Read::take(std::io::stdin().lock(), 64).read_line(&mut answer);
    // After ^D the cursor stands behind the question still.
    if answer.is_empty() && rustix::termios::isatty(std::io::stdout()) {
        println!();
    }
    answer.trim().eq_ignore_ascii_case("y")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Filters> {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        Filters::parse(&words, &["label", "label!", "until", "dangling", "name"])
    }

    #[test]
    fn labels_all_have_to_fit_and_until_is_a_time() {
        let labels = BTreeMap::from([("a".to_string(), "1".to_string()), ("b".to_string(), String::new())]);
        for (words, fits) in [
            (&["label=a"][..], true),
            (&["label=a=1", "label=b"], true),
            (&["label=a", "label=c"], false),
            (&["label=a=2"], false),
            (&["label!=a"], false),
            (&["label!=c", "label!=a=2"], true),
        ] {
            assert_eq!(read(words).unwrap().labels(&labels), fits, "{words:?}");
        }
        let minute = 60_000_000_000;
        let filters = read(&["until=1m"]).unwrap();
        assert!(filters.until(Some(10 * minute - 1), 11 * minute).unwrap());
        assert!(!filters.until(Some(10 * minute), 11 * minute).unwrap());
        assert!(read(&["until=x"]).unwrap().until(None, 0).is_err());
    }

    #[test]
    fn wrong_filters_are_told() {
        assert!(read(&["label"]).is_err() && read(&["what=1"]).is_err());
        assert_eq!(read(&["dangling=1"]).unwrap().boolean("dangling").unwrap(), Some(true));
        assert!(read(&["dangling=1", "dangling=0"]).unwrap().boolean("dangling").is_err());
        assert!(read(&["dangling=x"]).unwrap().boolean("dangling").is_err());
        let names = read(&["name=^a", "name=b$", "name=("]).unwrap();
        assert_eq!(["ab", "ba", "xb", "bx"].map(|name| names.names(name)), [true, false, true, false]);
    }
}
