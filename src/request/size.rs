//! Numbers of bytes: `512m`, `1g`, `1.5GiB`, `4096`. Units are powers of 1024, as docker's memory flags have them.

use super::Invalid;

/// Reads a size in bytes.
///
/// # Errors
/// Names the flag and the forms that are understood.
pub fn bytes(flag: &str, text: &str) -> Result<u64, Invalid> {
    parse(text).map_err(|why| Invalid::value(flag, text, why))
}

/// A size without a flag around it.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let hint = "write a number of bytes, or one with b, k, m or g such as 512m";
    let digits_end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(digits_end);
    let number = number.trim_end_matches(' ');
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value = match number.parse::<f64>() {
        Ok(value) if plain => value,
        _ => return Err(format!("invalid size: '{text}'; {hint}")),
    };
    let unit = unit.to_ascii_lowercase();
    let letter = unit.strip_suffix("ib").filter(|rest| !rest.is_empty()).unwrap_or(&unit);
    let letter = if letter.len() == 2 { letter.strip_suffix('b').unwrap_or(letter) } else { letter };
    let power = match letter {
        "" | "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("invalid suffix: '{unit}'; {hint}")),
    };
    let bytes = value * 1024_f64.powi(power);
    // An i64 is what the kernel's limits take; above it they mean "no limit".
    if bytes >= i64::MAX as f64 {
        return Err(format!("the number is too large; {hint}"));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        let table = [
            ("0", 0),
            ("4096", 4096),
            ("1b", 1),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64 m", 64 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("2t", 2 << 40),
            ("1p", 1 << 50),
        ];
        for (text, bytes) in table {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "m",
            "-1",
            "-1m",
            "12q",
            "1mm",
            "1ib",
            "1e3",
            "0x10",
            "inf",
            "nan",
            "1.2.3",
            "99999999999g",
            "1 2",
            "١m",
            "1mib2",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
