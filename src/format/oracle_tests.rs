//! Templates against docker's client 28.2.2: `oracle.tsv` holds what it printed for the document below
//! (template, stdout as JSON, stderr as JSON), fed by an API server that answered with that document. Left out of it:
//! what prints Go's pointers (0xc000…), what differs because docker tries its document once more as plain maps
//! (`index .Ports "80/tcp" 0`, `len .State.Pid`), the exact words about an argument of a wrong type, and `else with`.

use std::collections::BTreeMap;

use super::document::{Document, object};
use super::template::Template;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn map(entries: impl IntoIterator<Item = (&'static str, Document)>) -> Document {
    Document::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn document() -> Document {
    let binding = |address: &str, port: &str| object! { "HostIp": address, "HostPort": port };
    let labels = BTreeMap::from([("a.b".to_owned(), "c".to_owned()), ("x".to_owned(), "y".to_owned())]);
    object! {
        "Id": "aaaaaaaaaaaaaaaa",
        "Created": "2025-01-02T03:04:05.123456789Z",
        "Path": "sh",
        "Args": strings(&["-c", "x"]),
        "State": object! {
            "Status": "running", "Running": true, "Paused": false, "Restarting": false, "OOMKilled": false,
            "Dead": false, "Pid": 42, "ExitCode": 0, "Error": "", "StartedAt": "2025-01-02T03:04:05Z",
            "FinishedAt": "0001-01-01T00:00:00Z", "Health": Document::omittable(None::<bool>),
        },
        "Image": "sha256:abc",
        "LogPath": "",
        "Name": "/web",
        "RestartCount": 0,
        "SizeRw": Document::omittable(None::<i64>),
        "HostConfig": object! {
            "Binds": Document::NoList,
            "LogConfig": object! { "Type": "json-file", "Config": map([]) },
            "PortBindings": map([("80/tcp", Document::from(vec![binding("", "8080")]))]),
            "RestartPolicy": object! { "Name": "no", "MaximumRetryCount": 0 },
            "ConsoleSize": vec![0, 0],
            "CapAdd": Document::NoList,
            "Dns": Vec::<String>::new(),
            "Memory": 67_108_864,
            "PidsLimit": None::<i64>,
            "OomKillDisable": None::<bool>,
        },
        "GraphDriver": object! { "Data": map([("LowerDir", "l".into())]), "Name": "overlay2" },
        "Mounts": vec![object! {
            "Type": "bind", "Name": Document::omittable(""), "Source": "/s", "Destination": "/d",
            "Driver": Document::omittable(""), "Mode": "", "RW": true, "Propagation": "rprivate",
        }],
        "Config": object! {
            "Hostname": "h",
            "ExposedPorts": map([("80/tcp", object! {})]),
            "Env": strings(&["A=1", "B=<&>"]),
            "Cmd": strings(&["sh"]),
            "Volumes": map([("/data", object! {})]),
            "Entrypoint": Document::NoList,
            "Labels": &labels,
        },
        "NetworkSettings": object! {
            "Bridge": "",
            "Ports": map([
                ("53/udp", Vec::<Document>::new().into()),
                ("80/tcp", vec![binding("0.0.0.0", "10080")].into()),
            ]),
            "IPAddress": "172.17.0.2",
            "Networks": map([("bridge", object! { "IPAddress": "172.17.0.2", "Aliases": Document::NoList })]),
        },
    }
}

#[test]
fn templates_print_what_docker_s_client_prints() {
    let mut wrong = Vec::new();
    let cases: Vec<Vec<&str>> = include_str!("oracle.tsv").lines().map(|line| line.split('\t').collect()).collect();
    assert!(cases.len() > 100, "{}", cases.len());
    for case in cases {
        let [template, stdout, stderr] = case.as_slice() else { panic!("{case:?}") };
        let text = |json: &str| serde_json::from_str::<String>(json).unwrap();
        let (stdout, stderr) = (text(stdout), text(stderr));
        let (stdout, code) = stdout.rsplit_once("rc=").unwrap();
        let ours = Template::parse(template).and_then(|template| template.render(document().to_value()));
        let same = match &ours {
            Ok(text) => code == "0" && format!("{text}\n") == stdout,
            Err(error) => code == error.code.to_string() && format!("{}\n", error.message) == stderr,
        };
        if !same {
            wrong.push(format!("{template}\n  docker: {stdout:?} {stderr:?} {code}\n  ours:   {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
