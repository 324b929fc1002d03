//! Traffic classes: what makes `--net-cls` hold for packets, not only for sockets, and the classes of `--net-rate`.

use anyhow::{Result, anyhow, bail};
use netsetup::tc;
use netsetup::{Endpoint, Network};
use runtime::cgroup::ClassWay;

use super::Places;
use crate::facts::Facts;
use crate::op::Op;
use crate::request::RunRequest;
use crate::request::network::NetworkMode;
use crate::request::shaping::Shaping;

/// Who sees to the class of the container's packets. `rated`: the class of `--net-rate`.
pub fn class_way(request: &RunRequest, facts: &Facts, rated: Option<u32>) -> ClassWay {
    // What leaves by a macvlan or ipvlan comes to the parent's queue as its socket sent it; a veth pair clears the class,
    // and the host's rules give it again.
    let on_parent = facts.networks.iter().any(|joining| !on_bridge(&joining.network));
    match rated {
        Some(class) if on_parent || request.network.mode == NetworkMode::Host => ClassWay::Rated(class),
        None if on_parent || request.network.mode == NetworkMode::Host => ClassWay::Packets,
        _ if !facts.networks.is_empty() => ClassWay::Carried,
        _ => ClassWay::NetCls,
    }
}

/// Where packets go straight to the host's cards and there is no cgroup2, net_cls marks sockets only: the class holds
/// where a filter of the user's asks for it; where one is there, it's taken for that.
pub fn warning(request: &RunRequest, facts: &Facts, rated: Option<u32>) -> Option<String> {
    let by_filter = class_way(request, facts, rated) == ClassWay::Packets && facts.runtime.cgroup.v2.is_none();
    let class = request.network.net_cls.filter(|_| by_filter && !facts.cgroup_filter)?;
    Some(format!(
        "--net-cls {}: without cgroup2 this class holds only where a filter of the kernel's cgroup classifier (cls_cgroup) \
         asks for it: tc filter add dev UPLINK protocol ip parent MAJOR:0 prio 1 handle 1: cgroup; or mount cgroup2: \
         mount -t cgroup2 none /sys/fs/cgroup/unified",
        tc::Uplink::class_text(class)
    ))
}

/// A class that the uplink's tree doesn't have: its packets go by the tree's default.
pub fn no_such_class(request: &RunRequest, facts: &Facts) -> Option<String> {
    let class = request.network.net_cls?;
    let uplink = facts.uplink.as_ref()?;
    let (link, text) = (&uplink.link, tc::Uplink::class_text(class));
    let major = class >> 16;
    let add = format!("tc class add dev {link} parent {major:x}: classid {text} htb rate 8mbit");
    match &uplink.tree {
        tc::Tree::Htb { major: there, classes } if u32::from(*there) == major && classes.contains(&class) => None,
        tc::Tree::Htb { major: there, .. } if u32::from(*there) == major => Some(format!(
            "--net-cls {text}: {link} has no class {text} yet, so its packets go by the tree's default; {add}"
        )),
        tc::Tree::Htb { major: there, .. } => Some(format!(
            "--net-cls {text}: the tree of {link} has the handle {there:x}:, so no class {text}; tc class show dev {link}"
        )),
        tc::Tree::None => Some(format!(
            "--net-cls {text}: {link} has no tree of classes yet, so the class shapes nothing there; tc qdisc add dev {link} root handle {major:x}: htb; {add}"
        )),
        tc::Tree::Other(_) => None, // its own classes can't be known here
    }
}

/// What can't be kept in a network is refused: the card of a macvlan or ipvlan has no end on the host.
pub fn check(shaping: &Shaping, network: &Network, uplink: Option<&str>, classed: bool) -> Result<()> {
    let name = &network.name;
    if on_bridge(network) {
        if network.no_firewall && (classed || shaping.rate.is_some()) {
            bail!(
                "a traffic class needs nftables or iptables, which this kernel lacks: without them what leaves network \
                 {name} has none; leave out --net-cls and --net-rate, or use --network host"
            );
        }
        return Ok(());
    }
    if shaping.rate_in.is_some() {
        bail!(
            "--net-rate-in needs a bridge: the cards of network {name} have no end on the host, where it would be kept; \
             leave it out"
        );
    }
    if let Some(uplink) = uplink.filter(|uplink| shaping.rate.is_some() && *uplink != network.bridge) {
        bail!(
            "--net-rate is kept on the uplink {uplink}, and network {name} leaves by {}; leave it out",
            network.bridge
        );
    }
    Ok(())
}

/// The class that `--net-rate` makes on the uplink.
pub fn rated(request: &RunRequest, facts: &Facts, id: &str) -> Result<Option<u32>> {
    if request.network.shaping.rate.is_none() {
        return Ok(None);
    }
    let uplink = facts.uplink.as_ref().ok_or_else(|| anyhow!("--net-rate needs an uplink, and none was found"))?;
    let seed = u16::from_str_radix(id.get(..4).unwrap_or_default(), 16).unwrap_or_default();
    Ok(Some(uplink.class(seed)?))
}

/// Everything, to be put before the firewall's rules: links are there, and a class is before packets get it.
pub fn links(request: &RunRequest, facts: &Facts, cards: &[Endpoint], rated: Option<u32>, places: &Places) -> Vec<Op> {
    let shaping = &request.network.shaping;
    let mut ops = Vec::new();
    if let (Some(rate), Some(class), Some(uplink)) = (shaping.rate, rated, &facts.uplink) {
        let lock = places.networks.join("uplink.lock");
        ops.push(tc::Op::Class { link: uplink.link.clone(), class, rate, lock });
    }
    let mut ops: Vec<Op> = ops.into_iter().map(|op| Op::Net(netsetup::Op::Tc(op))).collect();
    for (joining, endpoint) in facts.networks.iter().zip(cards) {
        ops.extend(card(shaping, &joining.network, endpoint));
    }
    ops
}

/// The queueing disciplines of one card.
pub fn card(shaping: &Shaping, network: &Network, card: &Endpoint) -> Vec<Op> {
    let mut ops = Vec::new();
    if let Some(rate) = shaping.rate_in.filter(|_| on_bridge(network)) {
        ops.push(tc::Op::Inbound { link: card.host_link.clone(), rate });
    }
    if let Some(netem) = shaping.netem {
        ops.push(tc::Op::Netem { link: card.inside_link.clone(), netem });
    }
    ops.into_iter().map(|op| Op::Net(netsetup::Op::Tc(op))).collect()
}

/// Gives what leaves by this card its class on the host.
pub fn class(network: &Network, endpoint: &Endpoint, class: Option<u32>) -> Vec<Op> {
    let class = class.filter(|_| on_bridge(network));
    let ops = class.map(|class| netsetup::plan_class(network, endpoint, class));
    ops.into_iter().flatten().map(Op::Net).collect()
}

/// The packets of a macvlan or ipvlan never come by the host's routes.
fn on_bridge(network: &Network) -> bool {
    network.driver == netsetup::Driver::Bridge
}
