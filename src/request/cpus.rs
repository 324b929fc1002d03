//! Amounts and sets of CPUs.

use serde::{Deserialize, Serialize};

/// Highest CPU or memory node number that is taken. The kernel's own limit is CONFIG_NR_CPUS, 8192 on Debian.
const HIGHEST: u32 = 8191;

/// Reads a decimal number of CPUs, in billionths. Exact: no floating point.
pub fn nano_cpus(text: &str) -> Result<u64, String> {
    let not_a_number = || format!("failed to parse {text} as a rational number; write a number such as 1.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(not_a_number());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise; nine digits after the point are enough".to_owned());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| not_a_number())? };
    let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| not_a_number())?;
    whole.checked_mul(1_000_000_000).and_then(|nano| nano.checked_add(fraction)).ok_or_else(not_a_number)
}

/// CPUs or memory nodes, as ranges: a hostile `0-999999999` is never spread out (CVE-2018-20699).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSet {
    /// The list as typed; what is written into the cgroup.
    pub text: String,
    /// Its parts, first and last number of each.
    pub ranges: Vec<(u32, u32)>,
}

impl CpuSet {
    /// Reads `0-3,5`.
    ///
    /// # Errors
    /// What is wrong with the list.
    pub fn parse(text: &str) -> Result<CpuSet, String> {
        if text.len() > 4096 {
            return Err("the list is too long; write ranges such as 0-63".to_owned());
        }
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(format!("the range {part} runs backwards"));
            }
            ranges.push((first, last));
        }
        Ok(CpuSet { text: text.to_owned(), ranges })
    }
}

fn number(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(number) if digits && number <= HIGHEST => Ok(number),
        Ok(_) | Err(_) if digits => Err(format!("value out of range, maximum is {HIGHEST}")),
        _ => Err("write numbers and ranges such as 0-3,5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_cpus_are_exact() {
        for (text, nano) in [
            ("1", 1_000_000_000),
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("0.01", 10_000_000),
            ("2.", 2_000_000_000),
            ("0", 0),
            ("1.000000001", 1_000_000_001),
            ("1.5000000000000", 1_500_000_000),
        ] {
            assert_eq!(nano_cpus(text), Ok(nano), "{text}");
        }
        for text in ["", ".", "abc", "-1", "1.0000000001", "1e3", "99999999999999", "1.5.5", "١"] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_set_stays_a_list_of_ranges() {
        let set = CpuSet::parse("0-3,5,7-7").unwrap();
        assert_eq!(set.ranges, [(0, 3), (5, 5), (7, 7)]);
        for text in
            ["", ",", "0-", "-1", "3-1", "0-999999999", "8192", "a", "0,,1", " 1", "99999999999999999999", "1-2-3"]
        {
            assert!(CpuSet::parse(text).is_err(), "{text}");
        }
        assert!(CpuSet::parse(&"1,".repeat(100_000)).is_err());
    }
}
