//! The iptables back end: the rules that the lecture shows, written by the `iptables` programs.
//!
//! One `iptables-restore` for a whole batch (a process costs ~6 ms). Rules are written here exactly as `iptables-save`
//! prints them, so that a rule can be found again by comparing text. This is the only file that starts processes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command as Program, Stdio};

use serde::{Deserialize, Serialize};

use crate::undo::{Residue, Undone};
use crate::{Command, Error, Network, PortMapping, Result};

/// Operations on the rules of iptables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes a chain.
    Chain {
        /// filter, nat or raw.
        table: String,
        /// The chain's name.
        chain: String,
        /// What it is for.
        why: String,
    },
    /// Adds a rule.
    Rule {
        /// filter, nat or raw.
        table: String,
        /// The chain.
        chain: String,
        /// The words after the chain, as `iptables-save` prints them.
        rule: Vec<String>,
        /// Before the rules that are there, not behind them.
        first: bool,
        /// What it is for.
        why: String,
    },
    /// Leads a host port to a container: a rule in nat's chain DOCKER.
    Publish {
        /// The port.
        mapping: PortMapping,
        /// The container's address.
        address: IpAddr,
    },
}

const DOCKER: &str = "DOCKER";

impl Op {
    pub(crate) fn residue(&self) -> Residue {
        match self {
            Op::Chain { table, chain, .. } => Residue::IptablesChain { table: table.clone(), chain: chain.clone() },
            Op::Rule { table, chain, rule, .. } => {
                Residue::IptablesRule { table: table.clone(), chain: chain.clone(), rule: rule.clone() }
            }
            Op::Publish { mapping, address } => Residue::IptablesRule {
                table: "nat".to_owned(),
                chain: DOCKER.to_owned(),
                rule: dnat(mapping, *address),
            },
        }
    }

    /// Table, and the line after `iptables -t TABLE`.
    fn line(&self) -> (&str, String) {
        match self {
            Op::Chain { table, chain, .. } => (table, format!("-N {chain}")),
            Op::Rule { table, chain, rule, first, .. } => {
                (table, format!("{} {chain} {}", if *first { "-I" } else { "-A" }, rule.join(" ")))
            }
            Op::Publish { mapping, address } => ("nat", format!("-A {DOCKER} {}", dnat(mapping, *address).join(" "))),
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let (table, line) = self.line();
        let why = match self {
            Op::Chain { why, .. } | Op::Rule { why, .. } => why.clone(),
            Op::Publish { .. } => "lead the host port to the container".to_owned(),
        };
        vec![(if table == "filter" { format!("iptables {line}") } else { format!("iptables -t {table} {line}") }, why)]
    }
}

/// The lecture's rule: `-p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80`.
fn dnat(mapping: &PortMapping, address: IpAddr) -> Vec<String> {
    let protocol = mapping.protocol;
    let at =
        if mapping.host_address.is_unspecified() { String::new() } else { format!("-d {}/32 ", mapping.host_address) };
    let to = mapping.container_port;
    words(&format!(
        "{at}-p {protocol} -m {protocol} --dport {} -j DNAT --to-destination {address}:{to}",
        mapping.host_port
    ))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Everything that a network needs.
fn rules(network: &Network) -> Vec<Op> {
    let bridge = &network.bridge;
    let subnet = network.ipv4.as_ref().map(ToString::to_string).unwrap_or_default();
    // 28 characters are the most that a chain's name may have.
    let prefix: String = network.table.to_uppercase().chars().take(20).collect();
    let (guard, forward) = (format!("{prefix}-GUARD"), format!("{prefix}-FORWARD"));
    let chain =
        |table: &str, chain: &str, why: &str| Op::Chain { table: table.into(), chain: chain.into(), why: why.into() };
    let rule = |table: &str, chain: &str, first: bool, rule: &str, why: &str| Op::Rule {
        table: table.into(),
        chain: chain.into(),
        rule: words(rule),
        first,
        why: why.into(),
    };
    // A chain's way in comes before its rules, so that undo, in reverse, finds the chain empty. Accepting rules go to the
    // front and dropping ones to the end: a repair that adds only what is missing keeps the order that matters.
    vec![
        chain("raw", &guard, "protection of localhost"),
        rule("raw", "PREROUTING", true, &format!("-j {guard}"), "judge every packet that comes in"),
        rule(
            "raw",
            &guard,
            false,
            "-d 127.0.0.0/8 ! -i lo -j DROP",
            "localhost is for this host alone, whatever route_localnet says",
        ),
        rule("raw", &guard, false, "-s 127.0.0.0/8 ! -i lo -j DROP", "nobody else may pose as localhost"),
        chain("nat", DOCKER, "the published ports"),
        rule(
            "nat",
            "PREROUTING",
            false,
            "-m addrtype --dst-type LOCAL -j DOCKER",
            "from other hosts and containers to this host",
        ),
        rule("nat", "OUTPUT", false, "-m addrtype --dst-type LOCAL -j DOCKER", "from this host to itself"),
        rule(
            "nat",
            "POSTROUTING",
            false,
            &format!("-s {subnet} ! -o {bridge} -j MASQUERADE"),
            "containers leave with this host's address",
        ),
        rule(
            "nat",
            "POSTROUTING",
            false,
            &format!("-s {subnet} -o {bridge} -m conntrack --ctstate DNAT -j MASQUERADE"),
            "containers to published ports: the answer must come back this way",
        ),
        rule(
            "nat",
            "POSTROUTING",
            false,
            &format!("-s 127.0.0.0/8 -o {bridge} -j MASQUERADE"),
            "localhost to published ports: no container can answer to 127.0.0.1",
        ),
        chain("filter", &forward, "what may pass to containers"),
        rule("filter", "FORWARD", true, &format!("-j {forward}"), "judge every packet that passes"),
        rule("filter", &forward, true, &format!("-i {bridge} -o {bridge} -j ACCEPT"), "containers of one network"),
        rule(
            "filter",
            &forward,
            true,
            &format!("-o {bridge} -m conntrack --ctstate DNAT -j ACCEPT"),
            "published ports",
        ),
        rule(
            "filter",
            &forward,
            true,
            &format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            "answers to containers",
        ),
        rule(
            "filter",
            &forward,
            false,
            &format!("-o {bridge} -j DROP"),
            "no other way in, such as a route to the subnet by this host",
        ),
        rule("filter", "FORWARD", false, &format!("-i {bridge} ! -o {bridge} -j ACCEPT"), "containers may go out"),
    ]
}

/// What is missing for this network.
pub(crate) fn plan_network(network: &Network, facts: &Facts) -> Vec<Op> {
    let missing = |op: &Op| match op {
        Op::Chain { table, chain, .. } => !facts.has_chain(table, chain),
        Op::Rule { table, chain, rule, .. } => !facts.has_rule(table, chain, &rule.join(" ")),
        Op::Publish { .. } => true,
    };
    rules(network).into_iter().filter(missing).collect()
}

/// Chains and rules, as `iptables-save` prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// table → chain → rules (without `-A CHAIN `).
    tables: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Facts {
    /// Asks `iptables-save`.
    pub(crate) fn read() -> Result<Facts> {
        Ok(Facts::parse(&run("iptables-save", &[], "", "read the rules of iptables")?))
    }

    fn parse(text: &str) -> Facts {
        let mut facts = Facts::default();
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(chain) = line.strip_prefix(':') {
                let chain = chain.split(' ').next().unwrap_or_default();
                facts.tables.entry(table.to_owned()).or_default().entry(chain.to_owned()).or_default();
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
                let rules = facts.tables.entry(table.to_owned()).or_default().entry(chain.to_owned()).or_default();
                rules.push(rule.trim_end().to_owned());
            }
        }
        facts
    }

    fn rules(&self, table: &str, chain: &str) -> &[String] {
        self.tables.get(table).and_then(|chains| chains.get(chain)).map_or(&[], Vec::as_slice)
    }

    fn has_chain(&self, table: &str, chain: &str) -> bool {
        self.tables.get(table).is_some_and(|chains| chains.contains_key(chain))
    }

    fn has_rule(&self, table: &str, chain: &str, rule: &str) -> bool {
        self.rules(table, chain).iter().any(|found| found == rule)
    }

    /// Takes the rule away; false when it isn't there.
    fn remove_rule(&mut self, table: &str, chain: &str, rule: &str) -> bool {
        let Some(rules) = self.tables.get_mut(table).and_then(|chains| chains.get_mut(chain)) else {
            return false;
        };
        let position = rules.iter().position(|found| found == rule);
        position.map(|index| rules.remove(index)).is_some()
    }

    /// The rule in DOCKER that already takes packets of this mapping.
    fn holder(&self, mapping: &PortMapping) -> Option<&String> {
        self.rules("nat", DOCKER).iter().find(|rule| {
            let words: Vec<&str> = rule.split(' ').collect();
            let after =
                |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1)).copied();
            let at = mapping.host_address;
            let overlaps =
                after("-d").is_none_or(|found| at.is_unspecified() || found.trim_end_matches("/32") == at.to_string());
            overlaps
                && after("-p") == Some(mapping.protocol.name())
                && after("--dport") == Some(mapping.host_port.to_string().as_str())
        })
    }
}

/// Applies the ops with one `iptables-restore`; a table's lines take effect together.
pub(crate) fn apply(ops: &[&Op]) -> Result<()> {
    let publishes = |op: &&&Op| matches!(op, Op::Publish { .. });
    if ops.iter().any(|op| publishes(&op)) {
        // iptables has no exclusive creation: a rule behind another for the same port would never be reached.
        let facts = Facts::read()?;
        for op in ops {
            if let Op::Publish { mapping, .. } = op
                && let Some(rule) = facts.holder(mapping)
            {
                return Err(Error::PortTaken {
                    mapping: *mapping,
                    holder: format!("the iptables rule -t nat -A {DOCKER} {rule}"),
                });
            }
        }
    }
    restore(&ops.iter().map(|op| op.line()).collect::<Vec<_>>(), "write the rules of iptables")
}

/// Removes rules and chains: one `iptables-save` to see what is there, one `iptables-restore` to remove it; one result
/// each. Only rules of exactly this text, only chains that are empty by then.
pub(crate) fn undo(residues: &[&Residue]) -> Vec<Result<Undone>> {
    let mut facts = match Facts::read() {
        Ok(facts) => facts,
        Err(error) => {
            let again = || Error::Refused(error.to_string());
            return residues.iter().map(|_| Err(again())).collect();
        }
    };
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut results: Vec<Result<Undone>> =
        residues.iter().map(|residue| Ok(plan_undo(residue, &mut facts, &mut lines))).collect();
    let what = "remove rules of iptables";
    if restore(&lines, what).is_err() {
        // Something changed meanwhile: try each by itself, and report those that fail.
        let mut line = lines.iter();
        for result in &mut results {
            if matches!(result, Ok(Undone::Removed))
                && let Some(line) = line.next()
                && let Err(error) = restore(std::slice::from_ref(line), what)
            {
                *result = Err(error);
            }
        }
    }
    results
}

fn plan_undo<'a>(residue: &'a Residue, facts: &mut Facts, lines: &mut Vec<(&'a str, String)>) -> Undone {
    match residue {
        Residue::IptablesRule { table, chain, rule } => {
            let text = rule.join(" ");
            // The way into a chain stays while somebody's rules are in it (another minidock's ports in DOCKER).
            let target = rule.iter().position(|word| word == "-j").and_then(|at| rule.get(at + 1));
            if let Some(target) = target.filter(|target| !facts.rules(table, target).is_empty()) {
                return Undone::NotOurs(format!("the chain {target} of the iptables table {table} is still in use"));
            }
            if !facts.remove_rule(table, chain, &text) {
                return Undone::NotThere;
            }
            lines.push((table, format!("-D {chain} {text}")));
        }
        Residue::IptablesChain { table, chain } => {
            if !facts.has_chain(table, chain) {
                return Undone::NotThere;
            }
            let jump = format!("-j {chain}");
            let used = facts
                .tables
                .get(table)
                .is_some_and(|chains| chains.values().flatten().any(|rule| rule.ends_with(&jump)));
            if used || !facts.rules(table, chain).is_empty() {
                return Undone::NotOurs(format!("the chain {chain} of the iptables table {table} is still in use"));
            }
            lines.push((table, format!("-X {chain}")));
        }
        _ => return Undone::NotThere,
    }
    Undone::Removed
}

/// Host address, host port and container address of a rule that publishes a UDP port.
pub(crate) fn udp_port(residue: &Residue) -> Option<(IpAddr, u16, IpAddr)> {
    let Residue::IptablesRule { rule, .. } = residue else {
        return None;
    };
    let after = |flag: &str| rule.iter().position(|word| word == flag).and_then(|at| rule.get(at + 1));
    let host_address =
        after("-d").map_or(Some(IpAddr::from([0, 0, 0, 0])), |text| text.trim_end_matches("/32").parse().ok())?;
    let (address, _) = after("--to-destination")?.split_once(':')?;
    after("-p").filter(|protocol| *protocol == "udp")?;
    Some((host_address, after("--dport")?.parse().ok()?, address.parse().ok()?))
}

/// The rules of the caller's network namespace as `iptables-save` prints them; none where it isn't installed.
pub(crate) fn save() -> Vec<String> {
    let text = run("iptables-save", &[], "", "read the rules of iptables").unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#') && *line != "COMMIT").map(str::to_owned).collect()
}

/// Writes lines into tables of the caller's network namespace; those of one table take effect together.
pub(crate) fn write_lines(lines: &[(&str, String)]) -> Result<()> {
    restore(lines, "write the rules of iptables")
}

/// Removes a rule of exactly this text; one that isn't there is no matter.
pub(crate) fn remove_rule(table: &str, chain: &str, rule: &str) -> Result<()> {
    match Facts::read()?.has_rule(table, chain, rule) {
        true => restore(&[(table, format!("-D {chain} {rule}"))], "remove rules of iptables"),
        false => Ok(()),
    }
}

/// Writes lines for several tables; those of one table take effect together.
fn restore(lines: &[(&str, String)], what: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut input = String::new();
    for chunk in lines.chunk_by(|one, next| one.0 == next.0) {
        let _ = writeln!(input, "*{}", chunk[0].0);
        for (_, line) in chunk {
            let _ = writeln!(input, "{line}");
        }
        input.push_str("COMMIT\n");
    }
    run("iptables-restore", &["--noflush", "--wait"], &input, what).map(drop)
}

/// Runs one of the programs of the package iptables; gives back what it printed.
fn run(program: &str, arguments: &[&str], input: &str, what: &str) -> Result<String> {
    // root's PATH lacks /usr/sbin in some shells (su without a dash).
    let found = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"]
        .into_iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.exists());
    let mut command = Program::new(found.unwrap_or_else(|| program.into()));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
    let mut child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Refused(format!(
                "cannot {what}: {program} is not installed; install the package iptables, or use --firewall nftables"
            )));
        }
        result => result.map_err(|error| Error::system(format!("run {program}"), error))?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes()); // when it does not read, its message says why
    }
    let output = child.wait_with_output().map_err(|error| Error::system(format!("run {program}"), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message: String = String::from_utf8_lossy(&output.stderr).lines().take(3).collect::<Vec<_>>().join("; ");
    let failed = io::Error::other(format!("{program} failed with {}", output.status));
    Err(Error::System { what: what.to_owned(), source: failed, detail: Some(message) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protocol, PublishMode};

    fn mapping(host_address: &str, host_port: u16) -> PortMapping {
        let host_address: IpAddr = host_address.parse().unwrap();
        PortMapping { protocol: Protocol::Tcp, host_address, host_port, container_port: 80, mode: PublishMode::Dnat }
    }

    #[test]
    fn a_port_is_the_rule_of_the_lecture() {
        let op = Op::Publish { mapping: mapping("0.0.0.0", 10080), address: [172, 17, 0, 2].into() };
        assert_eq!(
            op.explain()[0].0,
            "iptables -t nat -A DOCKER -p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80"
        );
    }

    #[test]
    fn a_rule_for_the_same_port_is_found() {
        let facts = Facts::parse(
            "*nat\n:DOCKER - [0:0]\n-A DOCKER -p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80\n\
             -A DOCKER -d 127.0.0.1/32 -p tcp -m tcp --dport 10081 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n",
        );
        for (address, port, found) in [
            ("0.0.0.0", 10080, true),
            ("127.0.0.1", 10080, true),
            ("0.0.0.0", 10081, true),
            ("127.0.0.1", 10081, true),
            ("127.0.0.2", 10081, false),
            ("0.0.0.0", 1008, false),
        ] {
            assert_eq!(facts.holder(&mapping(address, port)).is_some(), found, "{address}:{port}");
        }
        let udp = PortMapping { protocol: Protocol::Udp, ..mapping("0.0.0.0", 10080) };
        assert!(facts.holder(&udp).is_none());
    }
}
