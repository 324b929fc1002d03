//! The iptables back end: the rules that the lecture shows, written by the programs `iptables` and `ip6tables`.
//!
//! One `iptables-restore` for a whole batch (a process costs ~6 ms). Rules are written here exactly as `iptables-save`
//! prints them, so that a rule can be found again by comparing text. This is the only file that starts processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use serde::{Deserialize, Serialize};

use super::element::Run;
use super::iptables_rules::{beside_docker, rules};
use crate::undo::{Residue, Undone};
use crate::{Command, Error, Network, PortMapping, Protocol, Result, Subnet};

/// Operations on the rules of iptables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Says that a table comes with its first rule: iptables-nft makes it then, with its built-in chains, and never takes it
    /// away.
    Table {
        /// With ip6tables.
        v6: bool,
        /// filter, nat, mangle or raw.
        table: String,
    },
    /// Makes a chain.
    Chain {
        /// With ip6tables.
        v6: bool,
        /// filter, nat, mangle or raw.
        table: String,
        /// The chain's name.
        chain: String,
        /// What it is for.
        why: String,
    },
    /// Adds a rule.
    Rule {
        /// With ip6tables.
        v6: bool,
        /// filter, nat, mangle or raw.
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
    /// Leads host ports with consecutive numbers to a container: a rule in nat's chain DOCKER.
    Publish {
        /// The first of the ports.
        mapping: PortMapping,
        /// The last of them, on the host.
        last: u16,
        /// The container's address.
        address: IpAddr,
    },
}

pub(super) const DOCKER: &str = "DOCKER";
/// dockerd never touches what its users put here.
pub(super) const DOCKER_USER: &str = "DOCKER-USER";

impl Op {
    pub(crate) fn publish(run: &Run, address: IpAddr) -> Op {
        Op::Publish { mapping: run.first, last: run.last.host_port, address }
    }

    pub(crate) fn residue(&self) -> Residue {
        let v6 = self.v6();
        match self {
            Op::Table { table, .. } => Residue::IptablesTable { v6, table: table.clone() },
            Op::Chain { table, chain, .. } => Residue::IptablesChain { v6, table: table.clone(), chain: chain.clone() },
            Op::Rule { table, chain, rule, .. } => {
                Residue::IptablesRule { v6, table: table.clone(), chain: chain.clone(), rule: rule.clone() }
            }
            Op::Publish { mapping, last, address } => Residue::IptablesRule {
                v6,
                table: "nat".to_owned(),
                chain: DOCKER.to_owned(),
                rule: dnat(mapping, *last, *address),
            },
        }
    }

    pub(super) fn accepts(&self) -> bool {
        matches!(self, Op::Rule { rule, .. } if rule.last().is_some_and(|word| word == "ACCEPT"))
    }

    fn table(&self) -> Option<&str> {
        match self {
            Op::Table { table, .. } | Op::Chain { table, .. } | Op::Rule { table, .. } => Some(table),
            Op::Publish { .. } => None,
        }
    }

    fn v6(&self) -> bool {
        match self {
            Op::Table { v6, .. } | Op::Chain { v6, .. } | Op::Rule { v6, .. } => *v6,
            Op::Publish { address, .. } => address.is_ipv6(),
        }
    }

    /// Table, and the line after `iptables -t TABLE`; none of what takes no command.
    fn line(&self) -> Option<Line> {
        let (table, text) = match self {
            Op::Table { .. } => return None,
            Op::Chain { table, chain, .. } => (table.as_str(), format!("-N {chain}")),
            Op::Rule { table, chain, rule, first, .. } => {
                (table.as_str(), format!("{} {chain} {}", if *first { "-I" } else { "-A" }, rule.join(" ")))
            }
            Op::Publish { mapping, last, address } => {
                ("nat", format!("-A {DOCKER} {}", dnat(mapping, *last, *address).join(" ")))
            }
        };
        Some(Line { v6: self.v6(), table: table.to_owned(), text })
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let Some(Line { v6, table, text }) = self.line() else { return vec![] };
        let why = match self {
            Op::Table { .. } => String::new(),
            Op::Chain { why, .. } | Op::Rule { why, .. } => why.clone(),
            Op::Publish { .. } => "lead the host port to the container".to_owned(),
        };
        let program = if v6 { "ip6tables" } else { "iptables" };
        let table = if table == "filter" { String::new() } else { format!("-t {table} ") };
        vec![(format!("{program} {table}{text}"), why)]
    }
}

/// A line of a table, without the table's name.
#[derive(Debug, Clone)]
struct Line {
    v6: bool,
    table: String,
    text: String,
}

/// The lecture's rule: `-p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80`. A range keeps its numbers
/// (no port behind the address) or is moved as a whole (`:80-89/10080`).
fn dnat(mapping: &PortMapping, last: u16, address: IpAddr) -> Vec<String> {
    let (protocol, first) = (mapping.protocol, mapping.host_port);
    let length = if mapping.host_address.is_ipv6() { 128 } else { 32 };
    let at = if mapping.host_address.is_unspecified() {
        String::new()
    } else {
        format!("-d {}/{length} ", mapping.host_address)
    };
    let ports = if first == last { first.to_string() } else { format!("{first}:{last}") };
    let bracketed = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    let to = mapping.container_port;
    let to = match (first == last, first == to) {
        (true, _) => format!("{bracketed}:{to}"),
        (false, true) => address.to_string(),
        (false, false) => format!("{bracketed}:{to}-{}/{first}", to + (last - first)),
    };
    words(&format!("{at}-p {protocol} -m {protocol} --dport {ports} -j DNAT --to-destination {to}"))
}

pub(super) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// What is missing for this network.
pub(crate) fn plan_network(network: &Network, facts: &Facts) -> Vec<Op> {
    plan(network, facts, rules)
}

/// What dockerd's policy lacks, to let through a network that another back end serves.
pub(crate) fn plan_beside_docker(network: &Network, facts: &Facts) -> Vec<Op> {
    plan(network, facts, |network, subnet, docker| if docker { beside_docker(network, subnet) } else { vec![] })
}

fn plan(network: &Network, facts: &Facts, rules: impl Fn(&Network, &Subnet, bool) -> Vec<Op>) -> Vec<Op> {
    let mut ops = Vec::new();
    for subnet in network.subnets() {
        let v6 = subnet.gateway.is_ipv6();
        let facts = facts.of(v6);
        let missing = |op: &Op| match op {
            Op::Chain { table, chain, .. } => !facts.has_chain(table, chain),
            Op::Rule { table, chain, rule, .. } => !facts.has_rule(table, chain, &rule.join(" ")),
            Op::Table { .. } | Op::Publish { .. } => true,
        };
        let lacking: Vec<Op> =
            rules(network, subnet, facts.has_chain("filter", DOCKER_USER)).into_iter().filter(missing).collect();
        let tables: BTreeSet<&str> = lacking.iter().filter_map(Op::table).collect();
        let new = tables.into_iter().filter(|table| !facts.tables.contains_key(*table));
        ops.extend(new.map(|table| Op::Table { v6, table: table.to_owned() }));
        ops.extend(lacking);
    }
    ops
}

/// Whether iptables can be used here at all.
pub(crate) fn is_installed() -> bool {
    program("iptables-restore").is_some()
}

/// Whether iptables can make rules that translate addresses. A process.
pub(crate) fn works() -> bool {
    is_installed() && run("iptables-save", &["-t", "nat"], "", "read the rules of iptables").is_ok()
}

/// root's PATH lacks /usr/sbin in some shells (su without a dash).
fn program(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];
    folders.into_iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// What is there of iptables and ip6tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// iptables
    pub v4: Tables,
    /// ip6tables; empty where nobody asked.
    pub v6: Tables,
}

impl Facts {
    /// Asks `iptables-save` and `ip6tables-save`, as far as wanted.
    pub(crate) fn read(v4: bool, v6: bool) -> Result<Facts> {
        let ask = |wanted: bool, program: &str| {
            let text = if wanted { run(program, &[], "", "read the rules of iptables")? } else { String::new() };
            Ok::<_, Error>(Tables::parse(&text))
        };
        Ok(Facts { v4: ask(v4, "iptables-save")?, v6: ask(v6, "ip6tables-save")? })
    }

    /// No table is there: nobody has used iptables yet, or nobody can.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.tables.is_empty() && self.v6.tables.is_empty()
    }

    pub(super) fn beside_docker(&self) -> bool {
        self.v4.has_chain("filter", DOCKER_USER)
    }

    fn of(&self, v6: bool) -> &Tables {
        if v6 { &self.v6 } else { &self.v4 }
    }
}

/// Chains and rules, as `iptables-save` prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// table → chain → rules (without `-A CHAIN `).
    tables: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Tables {
    fn parse(text: &str) -> Tables {
        let mut facts = Tables::default();
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

    /// The rule in DOCKER that already takes packets of one of these ports.
    fn holder(&self, mapping: &PortMapping, last: u16) -> Option<&String> {
        self.rules("nat", DOCKER).iter().find(|rule| {
            let Some((protocol, at, (first, its_last))) = published(rule) else { return false };
            let same_address = |at: IpAddr| mapping.host_address.is_unspecified() || at == mapping.host_address;
            protocol == mapping.protocol.name()
                && at.is_none_or(same_address)
                && first <= last
                && mapping.host_port <= its_last
        })
    }
}

/// Protocol, host address (none: every) and ports of a rule in DOCKER.
fn published(rule: &str) -> Option<(&str, Option<IpAddr>, (u16, u16))> {
    let words: Vec<&str> = rule.split(' ').collect();
    let after = |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1)).copied();
    let at = after("-d").and_then(|text| text.split('/').next()).map(|text| text.parse());
    let ports = after("--dport")?;
    let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
    Some((after("-p")?, at.transpose().ok()?, (first.parse().ok()?, last.parse().ok()?)))
}

/// Applies the ops with one `iptables-restore`; a table's lines take effect together.
pub(crate) fn apply(ops: &[&Op]) -> Result<()> {
    let publishes = |v6: bool| ops.iter().any(|op| matches!(op, Op::Publish { .. }) && op.v6() == v6);
    if publishes(false) || publishes(true) {
        // iptables has no exclusive creation: a rule behind another for the same port would never be reached.
        let facts = Facts::read(publishes(false), publishes(true))?;
        for op in ops {
            if let Op::Publish { mapping, last, address } = op
                && let Some(rule) = facts.of(address.is_ipv6()).holder(mapping, *last)
            {
                return Err(Error::PortTaken {
                    mapping: *mapping,
                    holder: format!("the iptables rule -t nat -A {DOCKER} {rule}"),
                });
            }
        }
    }
    restore(&ops.iter().filter_map(|op| op.line()).collect::<Vec<_>>(), "write the rules of iptables")
}

/// Adds those of the rules that aren't there; gives back how many. Ports are led on behind other ports, the rest is
/// accepted before anything is dropped.
pub(crate) fn add_missing(rules: &[&Residue]) -> Result<usize> {
    let wanted = |v6: bool| rules.iter().any(|rule| is_v6(rule) == v6);
    let facts = Facts::read(wanted(false), wanted(true))?;
    let line = |residue: &&Residue| {
        let Residue::IptablesRule { v6, table, chain, rule } = residue else { return None };
        let text = rule.join(" ");
        let how = if chain == DOCKER { "-A" } else { "-I" };
        let missing = !facts.of(*v6).has_rule(table, chain, &text);
        missing.then(|| Line { v6: *v6, table: table.clone(), text: format!("{how} {chain} {text}") })
    };
    let lines: Vec<Line> = rules.iter().filter_map(line).collect();
    restore(&lines, "write the rules of iptables")?;
    Ok(lines.len())
}

/// Removes rules and chains: one `iptables-save` to see what is there, one `iptables-restore` to remove it; one result
/// each. Only rules of exactly this text, only chains that are empty by then.
pub(crate) fn undo(residues: &[&Residue]) -> Vec<Result<Undone>> {
    let wanted = |v6: bool| residues.iter().any(|residue| is_v6(residue) == v6);
    let mut facts = match Facts::read(wanted(false), wanted(true)) {
        Ok(facts) => facts,
        Err(error) => {
            let again = || Error::Refused(error.to_string());
            return residues.iter().map(|_| Err(again())).collect();
        }
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut results: Vec<Result<Undone>> = residues
        .iter()
        .map(|residue| {
            let v6 = is_v6(residue);
            Ok(plan_undo(residue, v6, if v6 { &mut facts.v6 } else { &mut facts.v4 }, &mut lines))
        })
        .collect();
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

fn is_v6(residue: &Residue) -> bool {
    matches!(residue, Residue::IptablesRule { v6: true, .. } | Residue::IptablesChain { v6: true, .. })
}

fn plan_undo(residue: &Residue, v6: bool, facts: &mut Tables, lines: &mut Vec<Line>) -> Undone {
    match residue {
        Residue::IptablesRule { table, chain, rule, .. } => {
            let text = rule.join(" ");
            // The way into a chain stays while somebody's rules are in it (another minidock's ports in DOCKER). One that
            // only one network's packets take is that network's own.
            let own = rule.iter().any(|word| word == "-i" || word == "-o");
            let target = rule.iter().position(|word| word == "-j" && !own).and_then(|at| rule.get(at + 1));
            if let Some(target) = target.filter(|target| !facts.rules(table, target).is_empty()) {
                return Undone::NotOurs(format!("the chain {target} of the iptables table {table} is still in use"));
            }
            if !facts.remove_rule(table, chain, &text) {
                return Undone::NotThere;
            }
            lines.push(Line { v6, table: table.clone(), text: format!("-D {chain} {text}") });
        }
        Residue::IptablesChain { table, chain, .. } => {
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
            lines.push(Line { v6, table: table.clone(), text: format!("-X {chain}") });
        }
        _ => return Undone::NotThere,
    }
    Undone::Removed
}

/// Host address, host ports and container address of a rule that publishes UDP ports.
pub(crate) fn udp_ports(residue: &Residue) -> Option<(IpAddr, (u16, u16), IpAddr)> {
    let Residue::IptablesRule { v6, rule, .. } = residue else {
        return None;
    };
    let any = if *v6 { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0_u8; 4]) };
    let to = rule.iter().position(|word| word == "--to-destination").and_then(|at| rule.get(at + 1))?;
    let text = rule.join(" ");
    let (protocol, at, ports) = published(&text)?;
    let address = match to.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if *v6 => to,
        None => to.split(':').next()?,
    };
    (protocol == Protocol::Udp.name()).then_some((at.unwrap_or(any), ports, address.parse().ok()?))
}

/// The rules of the caller's network namespace as `iptables-save` prints them; none where it isn't installed.
pub(crate) fn save() -> Vec<String> {
    saved_by("iptables-save")
}

/// As [`save`], of one of its sisters: `ip6tables-save`, `iptables-legacy-save`.
pub(crate) fn saved_by(program: &str) -> Vec<String> {
    let text = run(program, &[], "", "read the rules of iptables").unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#') && *line != "COMMIT").map(str::to_owned).collect()
}

/// Writes lines into tables of the caller's network namespace; those of one table take effect together.
pub(crate) fn write_lines(lines: &[(&str, String)]) -> Result<()> {
    let line = |(table, text): &(&str, String)| Line { v6: false, table: (*table).to_owned(), text: text.clone() };
    restore(&lines.iter().map(line).collect::<Vec<_>>(), "write the rules of iptables")
}

/// Removes a rule of exactly this text; one that isn't there is no matter.
pub(crate) fn remove_rule(table: &str, chain: &str, rule: &str) -> Result<()> {
    if !Facts::read(true, false)?.v4.has_rule(table, chain, rule) {
        return Ok(());
    }
    let line = Line { v6: false, table: table.to_owned(), text: format!("-D {chain} {rule}") };
    restore(&[line], "remove rules of iptables")
}

/// Writes lines for several tables; those of one table take effect together.
fn restore(lines: &[Line], what: &str) -> Result<()> {
    for (v6, program) in [(false, "iptables-restore"), (true, "ip6tables-restore")] {
        let lines: Vec<&Line> = lines.iter().filter(|line| line.v6 == v6).collect();
        let mut input = String::new();
        for chunk in lines.chunk_by(|one, next| one.table == next.table) {
            let _ = writeln!(input, "*{}", chunk[0].table);
            for line in chunk {
                let _ = writeln!(input, "{}", line.text);
            }
            input.push_str("COMMIT\n");
        }
        if !input.is_empty() {
            run(program, &["--noflush", "--wait"], &input, what)?;
        }
    }
    Ok(())
}

/// Runs one of the programs of the package iptables; gives back what it printed.
fn run(program: &str, arguments: &[&str], input: &str, what: &str) -> Result<String> {
    let found = self::program(program);
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
        let op = Op::Publish { mapping: mapping("0.0.0.0", 10080), last: 10080, address: [172, 17, 0, 2].into() };
        assert_eq!(
            op.explain()[0].0,
            "iptables -t nat -A DOCKER -p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80"
        );
    }

    #[test]
    fn a_rule_for_the_same_port_is_found() {
        let facts = Tables::parse(
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
            assert_eq!(facts.holder(&mapping(address, port), port).is_some(), found, "{address}:{port}");
        }
        let udp = PortMapping { protocol: Protocol::Udp, ..mapping("0.0.0.0", 10080) };
        assert!(facts.holder(&udp, 10080).is_none());
    }
}
