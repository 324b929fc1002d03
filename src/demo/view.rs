//! Everything that the page and `/json` show, read anew for each request. What can't be read is `null`, and `missing` says why.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::cgroup::{self, Cgroup};
use super::network::{self, Interface, Route};
use super::process::{self, Mount, Namespace, Process, Visible};

/// The keys of `/json` are the fields' names; they are stable: fields are added, not renamed.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) minidock_version: &'static str,
    pub(super) hostname: String,
    /// `Linux 6.18.0`
    pub(super) kernel: String,
    pub(super) architecture: String,
    pub(super) client: Client,
    pub(super) process: Option<Process>,
    /// All processes in sight.
    pub(super) processes: Option<Vec<Visible>>,
    pub(super) interfaces: Option<Vec<Interface>>,
    pub(super) routes: Option<Vec<Route>>,
    pub(super) namespaces: Option<Vec<Namespace>>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) mounts: Option<Vec<Mount>>,
    /// The content of /etc/resolv.conf.
    pub(super) resolv_conf: Option<String>,
    /// The content of /etc/hosts.
    pub(super) hosts: Option<String>,
    /// For each `null` above: its key, and why it couldn't be read.
    pub(super) missing: BTreeMap<&'static str, String>,
}

/// Who asks, and by which of our addresses.
#[derive(Debug, Serialize)]
pub(super) struct Client {
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) server_address: Option<String>,
    pub(super) server_port: Option<u16>,
}

impl Client {
    pub(super) fn new(peer: SocketAddr, local: Option<SocketAddr>) -> Client {
        Client {
            address: peer.ip().to_canonical().to_string(),
            port: peer.port(),
            server_address: local.map(|local| local.ip().to_canonical().to_string()),
            server_port: local.map(|local| local.port()),
        }
    }
}

impl View {
    /// Reads it all. Never fails: a container may have no /proc at all.
    pub(super) fn read(client: Client) -> View {
        let mut missing = BTreeMap::new();
        let system = rustix::system::uname();
        let process = keep("process", process::read(), &mut missing);
        let processes = keep("processes", process::visible(), &mut missing);
        let (interfaces, routes) = match network::read() {
            Ok((interfaces, routes)) => (Some(interfaces), Some(routes)),
            Err(error) => {
                missing.insert("routes", error.clone());
                missing.insert("interfaces", error);
                (None, None)
            }
        };
        let namespaces = keep("namespaces", process::namespaces(), &mut missing);
        let mounts = keep("mounts", process::mounts(), &mut missing);
        let cgroup = keep("cgroup", cgroup::read(mounts.as_deref().unwrap_or_default()), &mut missing);
        let resolv_conf = keep("resolv_conf", process::text("/etc/resolv.conf"), &mut missing);
        let hosts = keep("hosts", process::text("/etc/hosts"), &mut missing);
        View {
            minidock_version: env!("CARGO_PKG_VERSION"),
            hostname: system.nodename().to_string_lossy().into_owned(),
            kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
            architecture: system.machine().to_string_lossy().into_owned(),
            client,
            process,
            processes,
            interfaces,
            routes,
            namespaces,
            cgroup,
            mounts,
            resolv_conf,
            hosts,
            missing,
        }
    }

    /// For scripts; ends with a newline.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut text =
            serde_json::to_vec_pretty(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}").into_bytes());
        text.push(b'\n');
        text
    }
}

fn keep<T>(key: &'static str, result: Result<T, String>, missing: &mut BTreeMap<&'static str, String>) -> Option<T> {
    result.map_err(|error| missing.insert(key, error)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_documented_keys_and_the_clients_address() {
        let client = Client::new("[::ffff:192.0.2.9]:4321".parse().unwrap(), Some("127.0.0.1:80".parse().unwrap()));
        let value: serde_json::Value = serde_json::from_slice(&View::read(client).json()).unwrap();
        assert_eq!(value["client"]["address"], "192.0.2.9");
        assert_eq!(value["client"]["server_port"], 80);
        assert_eq!(value["process"]["pid"], std::process::id());
        for key in
            ["hostname", "kernel", "interfaces", "routes", "namespaces", "mounts", "cgroup", "processes", "missing"]
        {
            assert!(!value[key].is_null(), "{key}");
        }
        assert!(value["cgroup"]["limits"].as_object().unwrap().contains_key("memory_bytes"));
    }
}
