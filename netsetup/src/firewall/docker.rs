//! A dockerd beside us: its chain FORWARD drops what it doesn't know, whatever our own table says. Whether the rules are
//! there that let a network through, asked without starting a process; `iptables_rules::beside_docker` has them.

use super::encode::{self, Family, Table};
use super::iptables::{self, DOCKER_USER};
use super::iptables_rules::{self, beside_docker};
use super::table::{NFTA_CHAIN_USE, used};
use crate::netlink::{Answer, Batch, Netlink};
use crate::{Network, Result};

/// include/uapi/linux/netfilter/nf_tables.h
const NFT_RETURN: i32 = -5;

/// Asks for dockerd's chain; gives back which message it is.
pub(super) fn ask(batch: &mut Batch, family: Family) -> Option<usize> {
    let asked = family != Family::Bridge;
    asked.then(|| Table { batch, name: "filter", family }.chain(encode::GETCHAIN, 0, DOCKER_USER))
}

/// Whether a dockerd has set up IPv4 in this network namespace.
pub(crate) fn is_here(netlink: &mut Netlink) -> bool {
    let mut batch = Batch::default();
    let _ = ask(&mut batch, Family::Ip);
    netlink.exchange(&batch).is_ok_and(|(answers, _)| !answers.is_empty())
}

/// The rules of iptables, where some are missing that let the network through; none where all is well, or where nobody
/// could write them.
pub(super) fn lacking(netlink: &mut Netlink, network: &Network) -> Result<Option<iptables::Facts>> {
    let whole = network.subnets().all(|subnet| is_whole(netlink, network, subnet));
    if whole || network.internal || !iptables::is_installed() {
        return Ok(None);
    }
    let v6 = network.ipv6.is_some();
    Ok(Some(iptables::Facts::read(network.ipv4.is_some(), v6)?))
}

/// Our chain has the network's rules, and a way into it.
fn is_whole(netlink: &mut Netlink, network: &Network, subnet: &crate::Subnet) -> bool {
    let family = if subnet.gateway.is_ipv6() { Family::Ip6 } else { Family::Ip };
    let chain = iptables_rules::docker_chain(network);
    let mut ask = |question: &dyn Fn(&mut Table<'_>) -> usize| {
        let mut batch = Batch::default();
        question(&mut Table { batch: &mut batch, name: "filter", family });
        netlink.exchange(&batch).map(|(answers, _)| answers).unwrap_or_default()
    };
    if ask(&|table| table.chain(encode::GETCHAIN, 0, DOCKER_USER)).is_empty() {
        return true; // a dockerd for the other IP version only
    }
    let own = ask(&|table| table.chain(encode::GETCHAIN, 0, &chain));
    let uses = own.first().map_or(0, |answer| used(answer, NFTA_CHAIN_USE));
    let rules = ask(&|table| table.rules(&chain));
    let has = |rule: &Answer, wanted: &[u8]| rule.payload.windows(wanted.len()).any(|bytes| bytes == wanted);
    let name = [network.bridge.as_bytes(), &[0]].concat();
    // Returning rules of other networks name docker0, too.
    let ours = rules.iter().filter(|rule| has(rule, &name) && !has(rule, &NFT_RETURN.to_be_bytes()));
    let accepting = beside_docker(network, subnet).iter().filter(|op| op.accepts()).count();
    uses == rules.len() + 1 && ours.count() == accepting
}
