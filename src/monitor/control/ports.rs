//! Which card the published ports lead to while networks come and go: that of the default route, as at a start and as
//! docker's. Without a network to lead to they wait, still reserved, for the next one that has ports at all. A container
//! that was started without such a network takes its ports when it comes into one.

use std::net::IpAddr;

use anyhow::Result;
use netsetup::proxy::{Gate, Proxy};
use netsetup::{Host, PortMapping};

use super::{Served, cards};
use crate::network::joining::{self, Joining};
use crate::residue::Residue;
use crate::start;

/// Takes a card's ports away, before it leaves.
pub fn leave(served: &mut Served, at: usize, host: &mut Host) -> Result<()> {
    if served.state.attachments[at].ports.is_empty() {
        return Ok(());
    }
    let joining = read(served, at, host)?;
    let endpoint = cards::of(served, &joining, &served.state.attachments[at]);
    let rules: Vec<Residue> = cards::port_ops(&joining, &endpoint).iter().filter_map(|op| op.residue(None)).collect();
    cards::take_back(served, |_, entry| rules.contains(entry), host)?;
    served.adrift = std::mem::take(&mut served.state.attachments[at].ports);
    aim(served, None)
}

/// Brings the ports to the card that they belong to now.
pub fn settle(served: &mut Served, host: &mut Host) -> Result<()> {
    let holder = served.state.attachments.iter().position(|one| !one.ports.is_empty());
    let network = &served.order.request.network;
    if holder.is_none() && served.adrift.is_empty() && network.publish.is_empty() && !network.publish_all {
        return Ok(());
    }
    let count = served.state.attachments.len();
    let joinings = (0..count).map(|at| read(served, at, host)).collect::<Result<Vec<_>>>()?;
    let wanted = crate::plan::endpoints::port_network(&joinings);
    if wanted == holder {
        return Ok(());
    }
    if let Some(at) = holder {
        leave(served, at, host)?;
    }
    let Some(at) = wanted else { return Ok(()) };
    if holder.is_none() && served.adrift.is_empty() {
        take(served, &joinings)?;
    }
    let ports: Vec<PortMapping> = std::mem::take(&mut served.adrift);
    served.state.attachments[at].ports = ports;
    let endpoint = cards::of(served, &joinings[at], &served.state.attachments[at]);
    let ops = cards::port_ops(&joinings[at], &endpoint);
    let led = match cards::apply(served, &ops, host) {
        Ok(()) => aim(served, Some(at)),
        Err(error) => Err(error),
    };
    if led.is_err() {
        let rules: Vec<Residue> = ops.iter().filter_map(|op| op.residue(None)).collect();
        let _ = cards::take_back(served, |_, entry| rules.contains(entry), host);
        served.adrift = std::mem::take(&mut served.state.attachments[at].ports);
    }
    led
}

/// Reserves the ports that were wished; none has been reserved in this run.
fn take(served: &mut Served, joinings: &[Joining]) -> Result<()> {
    let (order, exposed) = (&served.order, &served.state.config.exposed);
    let (mappings, sockets) = start::take_ports(&order.engine, &order.request, || exposed.clone(), joinings)?;
    let mut proxies = Vec::with_capacity(sockets.served.len());
    for (mapping, socket) in sockets.served {
        // Nobody yet: `aim` follows once the rules are made.
        let mut proxy = Proxy::new(&mapping, mapping.host_address, socket, None)?;
        proxy.aim(None, None)?;
        proxies.push(proxy);
    }
    served.proxies.extend(proxies);
    served.ports.extend(sockets.kept);
    served.adrift = mappings;
    Ok(())
}

fn read(served: &Served, at: usize, host: &mut Host) -> Result<Joining> {
    joining::read_one(&served.order.engine, &cards::wish_of(&served.state.attachments[at]), host)
}

/// Leads the proxies to a card, or to nobody.
fn aim(served: &mut Served, at: Option<usize>) -> Result<()> {
    if served.proxies.is_empty() {
        return Ok(());
    }
    let netns = at.map(|_| cards::inside(served)).transpose()?;
    for proxy in &mut served.proxies {
        let host: IpAddr = proxy.host().ip();
        let address = at.and_then(|at| served.state.attachments[at].address_for(host));
        let gate = netns.as_ref().map(|netns| Gate::inside(netns.fd())).transpose()?;
        proxy.aim(address, gate)?;
    }
    Ok(())
}
