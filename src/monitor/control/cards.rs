//! One card of a running container: its operations, its journal entries, and how these are taken back while the container
//! goes on. What is undone is struck out of the journal before its addresses are given back: an address may be another
//! container's a moment later, and elements without a value tell nobody whose they are.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, bail};
use netsetup::firewall::{self, nftables};
use netsetup::{Endpoint, Host, Links, Live, Network, NewNetns};

use super::Served;
use crate::network::joining::Joining;
use crate::op::{self, Op};
use crate::plan::endpoints::{self, Card, Leased, Names, Owner};
use crate::plan::{names, shaping};
use crate::recover;
use crate::request::attach::Attach;
use crate::residue::{self, Residue};
use crate::state::Attachment;

/// The card of a network that the container comes into, without ports.
pub fn new(served: &Served, joining: &Joining, leased: Leased) -> Endpoint {
    let state = &served.state;
    let taken = state.attachments.iter().map(|one| one.inside_link.clone()).collect();
    let is_free = |nth: &usize| {
        let name = endpoints::host_link(&state.id, *nth);
        !state.attachments.iter().any(|one| one.host_link == name)
    };
    let nth = (1..).find(is_free).unwrap_or(1);
    let card = Card { link: Names::beside(taken).next(joining), host_link: None, nth };
    let owner = Owner { id: &state.id, name: &state.name };
    as_allowed(served, endpoints::endpoint(joining, leased, owner, card, (false, false), vec![]))
}

/// The wish that an attachment is the outcome of, as far as it matters.
pub fn wish_of(attachment: &Attachment) -> Attach {
    Attach {
        aliases: attachment.aliases.clone(),
        mac: Some(attachment.mac),
        link_local: attachment.extra_addresses.iter().map(|(address, _)| *address).collect(),
        gateway_priority: attachment.gateway_priority,
        ..Attach::to(&attachment.network)
    }
}

/// The card of an attachment.
pub fn of(served: &Served, joining: &Joining, attachment: &Attachment) -> Endpoint {
    let leased =
        Leased { ipv4: attachment.ipv4.map(|place| place.address), ipv6: attachment.ipv6.map(|place| place.address) };
    // Not the first one, whatever it was: the namespace's name and lo stay.
    let card = Card { link: attachment.inside_link.clone(), host_link: Some(attachment.host_link.clone()), nth: 1 };
    let owner = Owner { id: &served.state.id, name: &served.state.name };
    as_allowed(served, endpoints::endpoint(joining, leased, owner, card, (false, false), attachment.ports.clone()))
}

/// `--security-opt net-spoof=allow` holds for cards that come later, too.
fn as_allowed(served: &Served, endpoint: Endpoint) -> Endpoint {
    Endpoint { may_spoof: endpoint.may_spoof || served.order.request.security.may_spoof, ..endpoint }
}

/// The operations of one card: link, names, rules.
pub fn ops(served: &Served, joining: &Joining, endpoint: &Endpoint) -> Vec<Op> {
    let networks = served.order.engine.roots.run.join("network");
    let mut ops: Vec<Op> = netsetup::plan_endpoint(&joining.network, endpoint).into_iter().map(Op::Net).collect();
    ops.push(names::publish(&networks, &joining.network, endpoint, &joining.wish.aliases));
    // After the links and before the rules, as at a start.
    let is_rule = |op: &Op| matches!(op, Op::Net(netsetup::Op::Firewall(_)));
    let at = ops.iter().position(is_rule).unwrap_or(ops.len());
    ops.splice(at..at, shaping::card(&served.order.request.network.shaping, &joining.network, endpoint));
    ops.extend(shaping::class(&joining.network, endpoint, served.state.class));
    ops
}

/// What can't be kept on a card that comes later is refused.
pub fn check_shaping(served: &Served, network: &Network) -> Result<()> {
    shaping::check(
        &served.order.request.network.shaping,
        network,
        None,
        served.order.request.network.net_cls.is_some(),
    )?;
    if network.driver != netsetup::Driver::Bridge && served.state.class.is_some() {
        bail!(
            "the packets of container {} have a class, which a card of network {} can't be given while it runs; stop it \
             first: the network is joined at its next start",
            served.state.name,
            network.name
        );
    }
    Ok(())
}

/// The operations of a card's ports.
pub fn port_ops(joining: &Joining, endpoint: &Endpoint) -> Vec<Op> {
    let is_port = |op: &firewall::Op| !matches!(op, firewall::Op::Nftables(nftables::Op::Senders { .. }));
    let rules = netsetup::plan_rules(&joining.network, endpoint).into_iter().filter(is_port);
    rules.map(|op| Op::Net(netsetup::Op::Firewall(op))).collect()
}

/// Does it, with the journal first.
pub fn apply(served: &Served, ops: &[Op], host: &mut Host) -> Result<()> {
    let pid = served.state.process.map(|process| process.pid);
    served.journal.record(&ops.iter().filter_map(|op| op.residue(pid)).collect::<Vec<_>>())?;
    let mut netns = inside(served)?;
    op::apply(ops, &mut Live { host, netns: Some(&mut netns), init_pid: pid })
}

/// The container's network namespace.
pub fn inside(served: &Served) -> Result<NewNetns> {
    match served.state.process {
        Some(process) => Ok(NewNetns::of_process(process.pid)?),
        None => bail!("container {} is not running", served.state.name),
    }
}

/// Takes back journal entries while the container goes on: first what is on the host, then its place in the journal, then
/// the addresses. `is_meant` gets each entry's index in the journal. After an error everything not undone stays in the
/// journal, and the addresses stay the container's.
pub fn take_back(served: &Served, is_meant: impl Fn(usize, &Residue) -> bool, host: &mut Host) -> Result<()> {
    let is_lease = |entry: &Residue| matches!(entry, Residue::Lease { .. });
    let (roots, journal) = (&served.order.engine.roots, &served.journal);
    let (mut net, mut files, mut leases) = (Vec::new(), Vec::new(), Vec::new());
    let entries = journal.contents()?.entries;
    for (_, entry) in entries.iter().enumerate().filter(|(index, entry)| is_meant(*index, entry)) {
        match entry {
            Residue::Net(residue) => net.insert(0, residue.clone()),
            Residue::Lease { .. } => leases.push(entry.clone()),
            _ => files.push(entry.clone()),
        }
    }
    let mut errors = Vec::new();
    // The namespace lives on, so that the link wouldn't vanish by itself.
    let undone = netsetup::undo_with(&net, host, Links::WaitMs(0));
    errors.extend(undone.into_iter().filter_map(Result::err).map(anyhow::Error::from));
    errors.extend(residue::undo(roots, None, &files));
    recover::first_error(errors)?;
    journal.strike(|index, entry| is_meant(index, entry) && !is_lease(entry))?;
    recover::first_error(residue::undo(roots, None, &leases))?;
    // What is left of them. Those that came since are of nobody else: this process alone writes here.
    journal.strike(|_, entry| leases.contains(entry))
}

/// Whether a journal entry is of this card. Told by what the card has and not by the operations that made it: the
/// container's name, or the network's options, may have changed since.
pub fn is_of(attachment: &Attachment, networks: &Path, entry: &Residue) -> bool {
    let addresses = addresses(attachment);
    let register = names::register(networks, &attachment.network);
    match entry {
        Residue::Lease { network, .. } => *network == attachment.network,
        Residue::Names { folder, .. } | Residue::Net(netsetup::Residue::Names { folder, .. }) => *folder == register,
        Residue::Net(netsetup::Residue::Link { name, .. }) => *name == attachment.host_link,
        Residue::Net(netsetup::Residue::NftElements { elements, .. }) => {
            elements.iter().any(|element| element.is_of_card(&attachment.host_link, &addresses))
        }
        Residue::Net(netsetup::Residue::IptablesRule { rule, .. }) => {
            rule.iter().any(|word| addresses.iter().any(|address| mentions(word, *address)))
        }
        _ => false,
    }
}

fn addresses(attachment: &Attachment) -> Vec<IpAddr> {
    [attachment.ipv4, attachment.ipv6].into_iter().flatten().map(|place| place.address).collect()
}

/// Whether a word of an iptables rule is this address: `10.0.0.2/32`, `10.0.0.2:80`, `[fd00::2]:80`.
fn mentions(word: &str, address: IpAddr) -> bool {
    let rest = word.trim_start_matches('[').strip_prefix(&address.to_string()).map(str::to_owned);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', ']']) && !is_longer_ipv6(address, &rest))
}

/// `fd00::2:80` begins with `fd00::2`, too.
fn is_longer_ipv6(address: IpAddr, rest: &str) -> bool {
    address.is_ipv6() && rest.starts_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_in_a_rule_s_words() {
        let is = |word: &str, address: &str| mentions(word, address.parse().unwrap());
        assert!(is("10.0.0.2/32", "10.0.0.2") && is("10.0.0.2:80", "10.0.0.2") && is("[fd00::2]:80", "fd00::2"));
        assert!(!is("10.0.0.21/32", "10.0.0.2") && !is("fd00::2:80", "fd00::2") && !is("110.0.0.2", "10.0.0.2"));
    }
}
