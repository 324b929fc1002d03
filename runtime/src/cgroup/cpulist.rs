//! Lists of CPUs and memory nodes (`0-3,8`), never expanded: `0-999999999` costs two numbers (CVE-2018-20699).

/// The ranges of a list, each with its first and last number; sorted as given.
pub(super) type Ranges = Vec<(u32, u32)>;

/// More text than any machine's list needs: 8192 CPUs, every other one, is below 40 kB.
const LONGEST: usize = 64 * 1024;

/// Reads a list as cpuset(7) writes it. Stride forms (`0-7:1/2`) are not docker's and are refused.
///
/// # Errors
/// What is wrong, to stand behind "invalid list: ".
pub(super) fn parse(text: &str) -> Result<Ranges, String> {
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} characters"));
    }
    let number = |digits: &str| -> Result<u32, String> {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("{digits:?} is not a number"));
        }
        digits.parse().map_err(|_| format!("{digits} is too large"))
    };
    let mut ranges = Ranges::new();
    for part in text.trim().split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("{part} runs backwards"));
        }
        ranges.push((first, last));
    }
    Ok(ranges)
}

/// The first number of `wanted` that `available` does not hold.
pub(super) fn first_missing(wanted: &Ranges, available: &Ranges) -> Option<u32> {
    wanted.iter().find_map(|&(first, last)| {
        let mut next = first;
        // Each pass moves `next` behind one available range: bounded by their number.
        while let Some(&(_, end)) = available.iter().find(|&&(low, high)| low <= next && next <= high) {
            if end >= last {
                return None;
            }
            next = end.checked_add(1)?;
        }
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_compared_without_expanding_them() {
        let online = parse("0-3,8").unwrap();
        for (wanted, missing) in [
            ("0", None),
            ("0-3", None),
            ("1,8", None),
            ("0-4", Some(4)),
            ("0-999999999", Some(4)),
            ("4-7", Some(4)),
            ("8-4294967295", Some(9)),
            ("0,1,2,5", Some(5)),
        ] {
            assert_eq!(first_missing(&parse(wanted).unwrap(), &online), missing, "{wanted}");
        }
        assert_eq!(first_missing(&parse("0-7").unwrap(), &parse("0-1,4-7,2-3").unwrap()), None);
        assert_eq!(first_missing(&parse("0-4294967295").unwrap(), &parse("0-4294967295").unwrap()), None);
    }

    #[test]
    fn malformed_lists_are_refused() {
        for text in ["", ",", "0,", "-1", "1-", "a", "0-1-2", "3-1", "4294967296", "0:1/2", "0 1", "+1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"0,".repeat(40_000)).is_err());
    }
}
