//! The text of `version`.

use super::document::{Document, object};
use super::template::{FormatError, Template};

/// What minidock and its host are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionView {
    /// minidock's.
    pub version: String,
    /// Of the OCI runtime specification.
    pub oci_spec: String,
    /// `linux/amd64`
    pub os_arch: String,
    /// `uname -r`
    pub kernel: String,
    /// Where images and containers are.
    pub root: String,
    /// `nftables` or `iptables`
    pub firewall: String,
    /// `v2`, `v1` or `hybrid`
    pub cgroup: String,
}

/// Prints it by `--format`.
///
/// # Errors
/// The template is wrong.
pub fn print(view: &VersionView, format: Option<&str>) -> Result<String, FormatError> {
    match format.unwrap_or_default() {
        "" => Ok(text(view)),
        "json" => Ok(serde_json::to_string(&document(view)).unwrap_or_default() + "\n"),
        template => Ok(Template::parse(template)?.render(document(view).to_value())? + "\n"),
    }
}

/// minidock has no daemon: client and server are one, and both of docker's names lead to it.
fn document(view: &VersionView) -> Document {
    let (os, arch) = view.os_arch.split_once('/').unwrap_or((&view.os_arch, ""));
    let half = || {
        object! {
            "Version": view.version.as_str(),
            "OciSpecVersion": view.oci_spec.as_str(),
            "Os": os,
            "Arch": arch,
            "KernelVersion": view.kernel.as_str(),
            "Root": view.root.as_str(),
            "Firewall": view.firewall.as_str(),
            "CgroupVersion": view.cgroup.as_str(),
        }
    };
    object! { "Client": half(), "Server": half() }
}

fn text(view: &VersionView) -> String {
    let lines = [
        ("Version", &view.version),
        ("OCI runtime spec", &view.oci_spec),
        ("OS/Arch", &view.os_arch),
        ("Kernel", &view.kernel),
        ("Cgroup", &view.cgroup),
        ("Firewall", &view.firewall),
        ("Root", &view.root),
    ];
    let mut text = String::from("minidock (one program, no daemon):\n");
    for (key, value) in lines {
        text += &format!(" {:<18}{value}\n", format!("{key}:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_dockers_names_work() {
        let view = VersionView {
            version: "0.1.0".into(),
            oci_spec: "1.2.0".into(),
            os_arch: "linux/amd64".into(),
            kernel: "6.18".into(),
            root: "/var/lib/minidock".into(),
            firewall: "nftables".into(),
            cgroup: "hybrid".into(),
        };
        assert_eq!(print(&view, Some("{{.Client.Version}} {{.Server.Version}}")).unwrap(), "0.1.0 0.1.0\n");
        assert!(print(&view, None).unwrap().contains("\n Version:          0.1.0\n"));
        assert!(print(&view, Some("json")).unwrap().starts_with(r#"{"Client":{"Version":"0.1.0""#));
        assert_eq!(print(&view, Some("{{.Nope}}")).unwrap_err().code, 1);
    }
}
