//! `--net-cls`: the class id that the kernel puts on the container's sockets.

use super::Invalid;

/// `1:10` as tc writes class ids (hexadecimal, major and minor), or the number itself as the lecture writes it into
/// net_cls.classid, `0x00010010`.
pub(super) fn net_cls(text: &str) -> Result<u32, Invalid> {
    let wrong = || {
        Invalid::value(
            "--net-cls",
            text,
            "write MAJOR:MINOR in hexadecimal as tc does, such as 1:10, or 0xAAAABBBB such as 0x00010010",
        )
    };
    let hexadecimal = |digits: &str| {
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| all)
    };
    let half = |digits: &str| hexadecimal(digits).filter(|half| *half <= 0xffff);
    let id = match text.split_once(':') {
        Some((major, minor)) => {
            let minor = if minor.is_empty() { Some(0) } else { half(minor) };
            half(major).zip(minor).map(|(major, minor)| major << 16 | minor)
        }
        None => match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => hexadecimal(digits),
            // Who writes 10 may mean the class 1:10 or 10:, and hardly the number ten.
            None => return Err(bare(text, half(text)).unwrap_or_else(wrong)),
        },
    };
    id.filter(|id| *id != 0).ok_or_else(wrong)
}

/// A number alone; the large ones are what net_cls.classid shows.
fn bare(text: &str, half: Option<u32>) -> Option<Invalid> {
    let meant = match (half, text.parse::<u32>()) {
        (Some(half), _) => format!("1:{half:x}"),
        (None, Ok(id)) => format!("{:x}:{:x}", id >> 16, id & 0xffff),
        _ => return None,
    };
    let why = format!("a class is MAJOR:MINOR in hexadecimal, as tc writes it, or 0xAAAABBBB; did you mean {meant}?");
    Some(Invalid::value("--net-cls", text, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_ids() {
        for (text, id) in [
            ("1:10", 0x0001_0010),
            ("0x00010010", 0x0001_0010),
            ("0x10010", 0x0001_0010),
            ("10:", 0x0010_0000),
            ("ffff:ffff", u32::MAX),
        ] {
            assert_eq!(net_cls(text), Ok(id), "{text}");
        }
        for (text, meant) in [("10", "did you mean 1:10?"), ("ff", "mean 1:ff?"), ("65552", "did you mean 1:10?")] {
            let error = net_cls(text).unwrap_err().to_string();
            assert!(error.contains(meant), "{text}: {error}");
        }
        for text in ["", ":", "0", "0x0", "0:0", "10000:1", "1:10000", "1:2:3", "x", "0x1ffffffff", "-1", "+1", "1:+1"]
        {
            assert!(net_cls(text).is_err(), "{text}");
        }
    }
}
