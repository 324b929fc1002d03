//! A seccomp profile in docker's JSON form (`--security-opt seccomp=FILE`) as OCI rules: docker's conditions
//! (`includes`, `excludes`) are decided here, for this container's capabilities and this machine.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp};
use serde_json::{Map, Value, json};

/// Converts a profile. `kernel`: major and minor version.
pub fn read(text: &str, capabilities: &LinuxCapabilities, kernel: (u32, u32)) -> Result<LinuxSeccomp> {
    let profile: Value = serde_json::from_str(text).context("it is not JSON")?;
    let Value::Object(profile) = profile else { bail!("it is not a JSON object") };
    let machine = Machine { capabilities: held(capabilities), kernel };
    let mut out = Map::new();
    for key in ["defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"] {
        if let Some(value) = profile.get(key).filter(|value| !value.is_null()) {
            out.insert(key.to_string(), value.clone());
        }
    }
    out.insert("architectures".to_string(), Value::Array(architectures(&profile)));
    let mut syscalls = Vec::new();
    for (index, rule) in profile.get("syscalls").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if machine.applies(rule) {
            syscalls.push(rule_of(rule).with_context(|| format!("rule {} is wrong", index + 1))?);
        }
    }
    out.insert("syscalls".to_string(), Value::Array(syscalls));
    serde_json::from_value(Value::Object(out)).context("it is not a seccomp profile")
}

fn held(capabilities: &LinuxCapabilities) -> Vec<String> {
    capabilities
        .bounding()
        .iter()
        .flatten()
        .map(|capability| format!("CAP_{}", capability.to_string().trim_start_matches("CAP_")))
        .collect()
}

const NATIVE: &str = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
/// docker's and Go's word for this machine, as `includes.arches` has it.
const GO_NATIVE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The native architecture and those that it runs too; all that is listed where there's no `archMap`.
fn architectures(profile: &Map<String, Value>) -> Vec<Value> {
    let listed = profile.get("architectures").and_then(Value::as_array).filter(|list| !list.is_empty());
    if let Some(listed) = listed {
        return listed.clone();
    }
    let mut all = vec![json!(NATIVE)];
    for entry in profile.get("archMap").and_then(Value::as_array).into_iter().flatten() {
        if entry.get("architecture") == Some(&json!(NATIVE)) {
            all.extend(entry.get("subArchitectures").and_then(Value::as_array).into_iter().flatten().cloned());
        }
    }
    all
}

struct Machine {
    capabilities: Vec<String>,
    kernel: (u32, u32),
}

impl Machine {
    fn applies(&self, rule: &Value) -> bool {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let capability = |wanted: &Value| self.capabilities.iter().any(|held| *wanted == **held);
        let arch = |wanted: &Value| *wanted == GO_NATIVE;
        let list = |part: &Value, key: &str| part[key].as_array().cloned().unwrap_or_default();
        let enough = |part: &Value| part["minKernel"].as_str().is_none_or(|wanted| self.kernel >= version(wanted));
        let arches = list(includes, "arches");
        list(includes, "caps").iter().all(capability)
            && (arches.is_empty() || arches.iter().any(arch))
            && enough(includes)
            && !list(excludes, "caps").iter().any(capability)
            && !list(excludes, "arches").iter().any(arch)
            && (excludes["minKernel"].is_null() || !enough(excludes))
    }
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn rule_of(rule: &Value) -> Result<Value> {
    let mut names = rule["names"].as_array().cloned().unwrap_or_default();
    names.extend(rule.get("name").filter(|name| name.as_str().is_some_and(|name| !name.is_empty())).cloned());
    if names.is_empty() {
        bail!("it names no system call");
    }
    let mut out = Map::new();
    out.insert("names".to_string(), Value::Array(names));
    out.insert("action".to_string(), rule["action"].clone());
    for key in ["errnoRet", "args"] {
        if let Some(value) = rule.get(key).filter(|value| !value.is_null()) {
            out.insert(key.to_string(), value.clone());
        }
    }
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::capabilities::Set;

    fn capabilities(set: Set) -> LinuxCapabilities {
        let mut capabilities = LinuxCapabilities::default();
        capabilities.set_bounding(Some(set.to_oci()));
        capabilities
    }

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["old"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
        ]}"#;

    fn names(seccomp: &LinuxSeccomp) -> Vec<String> {
        seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn dockers_conditions_are_decided_for_this_container() {
        let without = read(PROFILE, &capabilities(Set::EMPTY), (6, 1)).unwrap();
        assert_eq!(names(&without), ["read", "write", "clone", "ptrace"]);
        let with = read(PROFILE, &capabilities(Set::all(40)), (4, 4)).unwrap();
        assert_eq!(names(&with), ["read", "write", "mount"]);
        assert_eq!(with.architectures().as_ref().map(Vec::len), Some(2));
    }

    #[test]
    fn what_is_no_profile_is_an_error() {
        for text in ["", "[]", "{\"syscalls\": [{\"action\": \"SCMP_ACT_ALLOW\"}]}", "{\"defaultAction\": \"NO\"}"] {
            assert!(read(text, &capabilities(Set::EMPTY), (6, 1)).is_err(), "{text}");
        }
    }
}
