//! Device rules: which device nodes a container may make, read and write.
//!
//! One list, three uses: the lines of the v1 devices controller here, the eBPF program of cgroup2 in `program.rs`,
//! and the text for people. A rule list starts from "everything allowed", and for each access the last rule decides.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use super::Error;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Every device, whatever its numbers.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// One rule, in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which devices.
    pub kind: DeviceKind,
    /// Major number; None = any.
    pub major: Option<u32>,
    /// Minor number; None = any.
    pub minor: Option<u32>,
    /// Applies to opening for reading.
    pub read: bool,
    /// Applies to opening for writing.
    pub write: bool,
    /// Applies to mknod(2).
    pub mknod: bool,
}

impl DeviceRule {
    /// Reads an OCI rule.
    ///
    /// # Errors
    /// A type, number or access that no device controller knows.
    pub fn from_oci(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
        let refuse = |why: String| Err(Error::refused(format!("invalid device rule: {why}")));
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => DeviceKind::All,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
            Some(LinuxDeviceType::B) => DeviceKind::Block,
            Some(LinuxDeviceType::P) => {
                return refuse("a FIFO is no device; the type is a, b or c".to_owned());
            }
        };
        let number = |name: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            // eBPF compares with a signed 32-bit constant; dev_t has 12 and 20 bits anyway.
            Some(value) => match i32::try_from(value) {
                Ok(value) if value >= 0 => Ok(Some(value.unsigned_abs())),
                _ => Err(Error::refused(format!("invalid device rule: {name} number {value} is out of range"))),
            },
        };
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        if kind == DeviceKind::All && (major.is_some() || minor.is_some()) {
            return refuse(
                "type a stands for every device and takes no numbers; write one rule for b and one for c".to_owned(),
            );
        }
        // An absent access means all three, as `a` alone does in the kernel's own files.
        let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
        if let Some(other) = access.chars().find(|letter| !"rwm".contains(*letter)) {
            return refuse(format!("access {access:?} has {other:?}; use r, w and m"));
        }
        let has = |letter| access.contains(letter);
        Ok(DeviceRule { allow: rule.allow(), kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') })
    }

    /// The kernel's bits: mknod 1, read 2, write 4 (linux/bpf.h, BPF_DEVCG_ACC_*).
    pub(super) fn access_bits(&self) -> u8 {
        u8::from(self.mknod) | u8::from(self.read) << 1 | u8::from(self.write) << 2
    }

    fn is_everything(&self) -> bool {
        self.kind == DeviceKind::All && self.access_bits() == 7
    }

    fn overlaps(&self, other: &DeviceRule) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access_bits() & other.access_bits() != 0
    }

    fn same_devices(&self, other: &DeviceRule) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }
}

/// The line of `devices.allow` and `devices.deny`: `c 1:3 rwm`, or `a` for everything.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("a");
        }
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |value: Option<u32>| value.map_or("*".to_owned(), |value| value.to_string());
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (there, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if there {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// Reads a whole OCI list; rules that an "everything" rule behind them overrides are left out.
///
/// The result is empty when everything is allowed, which needs no rule (`--privileged`).
pub(super) fn parse(list: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, Error> {
    let mut rules = list.iter().map(DeviceRule::from_oci).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = rules.iter().rposition(DeviceRule::is_everything) {
        let keep = if rules[last].allow { last + 1 } else { last };
        rules.drain(..keep);
    }
    if rules.iter().all(|rule| rule.allow) {
        rules.clear();
    }
    Ok(rules)
}

/// The v1 lines for a rule list: the file (`devices.allow`, `devices.deny`) and the line.
///
/// The v1 controller keeps a default and a list of exceptions. A rule against the default adds an exception; a rule
/// with the default only *removes* exceptions for exactly the same numbers, and silently does nothing to wider or
/// narrower ones (security/device_cgroup.c, dev_exception_rm). Such a rule is refused here instead of being lost.
///
/// # Errors
/// A rule that v1 can't express.
pub(super) fn v1_lines(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>, Error> {
    let mut lines = Vec::with_capacity(rules.len());
    let mut allowed_by_default = true;
    let mut exceptions: Vec<DeviceRule> = Vec::new();
    for rule in rules.iter().flat_map(by_kind) {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        if rule.is_everything() {
            lines.push((file, rule.to_string()));
            allowed_by_default = rule.allow;
            exceptions.clear();
        } else if rule.allow != allowed_by_default {
            lines.push((file, rule.to_string()));
            exceptions.push(rule);
        } else {
            let mut hit = false;
            for exception in exceptions.iter_mut().filter(|exception| exception.overlaps(&rule)) {
                if !exception.same_devices(&rule) {
                    return Err(Error::refused(format!(
                        "device rule `{} {rule}` takes back a part of `{exception}`, which the v1 devices controller can't do; name the devices singly",
                        if rule.allow { "allow" } else { "deny" }
                    )));
                }
                exception.read &= !rule.read;
                exception.write &= !rule.write;
                exception.mknod &= !rule.mknod;
                hit = true;
            }
            if hit {
                lines.push((file, rule.to_string()));
            }
        }
    }
    Ok(lines)
}

/// `a` with a part of the accesses means both kinds: the kernel would take it for everything.
fn by_kind(rule: &DeviceRule) -> Vec<DeviceRule> {
    if rule.kind != DeviceKind::All || rule.is_everything() {
        return vec![rule.clone()];
    }
    [DeviceKind::Char, DeviceKind::Block].map(|kind| DeviceRule { kind, ..rule.clone() }).to_vec()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cgroup) fn rule(text: &str) -> DeviceRule {
        let (allow, text) = (text.starts_with('+'), &text[1..]);
        let mut words = text.split(' ');
        let kind = match words.next().unwrap() {
            "c" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            _ => DeviceKind::All,
        };
        let (major, minor) = words.next().unwrap_or("*:*").split_once(':').unwrap();
        let access = words.next().unwrap_or("rwm");
        let has = |letter| access.contains(letter);
        let (major, minor) = (major.parse().ok(), minor.parse().ok());
        DeviceRule { allow, kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') }
    }

    #[test]
    fn v1_lines_say_what_the_controller_can_keep() {
        let rules = ["-a", "-c 10:229 rwm", "+c *:* m", "+c 1:3 rwm", "+c 1:3 rw", "-c 1:3 w", "+a *:* m"].map(rule);
        let lines: Vec<String> =
            v1_lines(&rules).unwrap().iter().map(|(file, line)| format!("{file} {line}")).collect();
        assert_eq!(
            lines,
            [
                "devices.deny a",
                "devices.allow c *:* m",
                "devices.allow c 1:3 rwm",
                "devices.allow c 1:3 rw",
                "devices.deny c 1:3 w",
                "devices.allow c *:* m",
                "devices.allow b *:* m"
            ]
        );
        let error = v1_lines(&["-a", "+c *:* m", "-c 1:3 m"].map(rule)).unwrap_err().to_string();
        assert!(error.contains("`deny c 1:3 m`") && error.contains("`c *:* m`"), "{error}");
    }

    #[test]
    fn rules_before_everything_count_for_nothing() {
        let oci = |json: &str| serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap();
        let list = oci(
            r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"r"},{"allow":false},{"allow":true,"type":"b","major":8,"access":"r"}]"#,
        );
        let rules: Vec<String> = parse(&list).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["a", "b 8:* r"]);
        assert!(parse(&oci(r#"[{"allow":false},{"allow":true,"type":"a","access":"rwm"}]"#)).unwrap().is_empty());
        for bad in [
            r#"[{"allow":true,"type":"p"}]"#,
            r#"[{"allow":true,"type":"c","major":-2}]"#,
            r#"[{"allow":true,"type":"c","major":4294967296}]"#,
            r#"[{"allow":true,"type":"c","access":"rx"}]"#,
            r#"[{"allow":true,"type":"a","major":1}]"#,
        ] {
            assert!(parse(&oci(bad)).unwrap_err().to_string().starts_with("invalid device rule"), "{bad}");
        }
    }
}
