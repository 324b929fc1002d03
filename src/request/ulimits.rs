//! `--ulimit NAME=SOFT[:HARD]`.

use serde::{Deserialize, Serialize};

use super::Invalid;

/// A limit of each process. `None`: unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// docker's name: `nofile`
    pub name: String,
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far a process may raise it.
    pub hard: Option<u64>,
}

impl Ulimit {
    /// The kernel's and OCI's name: `RLIMIT_NOFILE`.
    pub fn oci_name(&self) -> String {
        format!("RLIMIT_{}", self.name.to_ascii_uppercase())
    }
}

/// getrlimit(2)
const NAMES: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads all flags; of two for one limit the later wins.
pub(super) fn parse(flags: &[String]) -> Result<Vec<Ulimit>, Invalid> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for text in flags {
        let limit = one(text).map_err(|why| Invalid::value("--ulimit", text, why))?;
        limits.retain(|other| other.name != limit.name);
        limits.push(limit);
    }
    Ok(limits)
}

fn one(text: &str) -> Result<Ulimit, String> {
    let (name, values) = text.split_once('=').ok_or("invalid ulimit argument; write NAME=SOFT[:HARD]")?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}; there are {}", NAMES.join(", ")));
    }
    let (soft, hard) = match values.split(':').collect::<Vec<_>>()[..] {
        [both] => (value(both)?, value(both)?),
        [soft, hard] => (value(soft)?, value(hard)?),
        _ => {
            return Err(format!("too many limit value arguments - {values}, can only have up to two, SOFT[:HARD]"));
        }
    };
    let ordered = match (soft, hard) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(soft), Some(hard)) => soft <= hard,
    };
    if !ordered {
        let show = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            show(soft),
            show(hard)
        ));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

fn value(text: &str) -> Result<Option<u64>, String> {
    if text == "-1" || text == "unlimited" {
        return Ok(None);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .map(Some)
        .ok_or_else(|| format!("invalid limit {text:?}; write a number, or -1 for no limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let read = |text: &str| {
            parse(&[text.to_owned()]).map(|limits| (limits[0].name.clone(), limits[0].soft, limits[0].hard))
        };
        assert_eq!(read("nofile=1024"), Ok(("nofile".into(), Some(1024), Some(1024))));
        assert_eq!(read("nofile=1:2"), Ok(("nofile".into(), Some(1), Some(2))));
        assert_eq!(read("core=-1"), Ok(("core".into(), None, None)));
        assert_eq!(read("core=0:-1"), Ok(("core".into(), Some(0), None)));
        for text in [
            "",
            "nofile",
            "foo=1",
            "nofile=",
            "nofile=5:3",
            "nofile=-1:3",
            "nofile=1:2:3",
            "nofile=x",
            "nofile=-2",
            "nofile=1:",
            "nofile=99999999999999999999",
            "NOFILE=1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let two = parse(&["nofile=1".into(), "core=2".into(), "nofile=3".into()]).unwrap();
        assert_eq!(
            two.iter().map(|limit| (limit.oci_name(), limit.soft)).collect::<Vec<_>>(),
            [("RLIMIT_CORE".to_owned(), Some(2)), ("RLIMIT_NOFILE".to_owned(), Some(3))]
        );
    }
}
