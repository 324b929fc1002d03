//! What changes a running container's networks: connect and disconnect. Every operation is in the container's journal
//! before it happens, as at a start, so that a killed monitor leaves nothing.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use netsetup::dns::Scope;
use netsetup::firewall::{self, nftables};
use netsetup::{Endpoint, Host, Links, Live, NewNetns, PublishMode, link};
use serde_json::Value;

use super::Served;
use crate::events::{self, Event};
use crate::files;
use crate::network::joining::{self, Joining};
use crate::network::{self, definition};
use crate::op::{self, Op};
use crate::plan::endpoints::{self, Card, Leased, Names, Owner};
use crate::plan::paths::ContainerFolder;
use crate::plan::{etc, names};
use crate::request::attach::Attach;
use crate::reservation;
use crate::residue::{self, Residue};
use crate::state::Attachment;

/// `{"wish": …}`: what is wanted of the network.
pub fn connect(served: &mut Served, body: &Value) -> Result<Value> {
    let wish: Attach = serde_json::from_value(body.get("wish").cloned().unwrap_or_default())
        .context("no network was given in a form that this monitor knows")?;
    let mut host = Host::open()?;
    let joining = joining::read_one(&served.order.engine, &wish, &mut host)?;
    let name = joining.network.name.clone();
    if served.state.attachments.iter().any(|one| one.network == name) {
        bail!("endpoint with name {} already exists in network {name}", served.state.name);
    }
    let roots = served.order.engine.roots.clone();
    let in_use = netsetup::bridge_addresses_in_use(&mut host, &joining.network)?;
    let leased = reservation::take_addresses(&roots, &served.journal, &joining, &in_use, &served.state.id)?;
    let endpoint = new_endpoint(served, &joining, leased);
    let ops = card_ops(served, &joining, &endpoint);
    let made = network::ensure(&roots, &joining.network, &joining.facts, &mut host, &mut |_| {})
        .and_then(|()| apply(served, &ops, &mut host));
    if let Err(error) = made {
        undo(served, &joining, &endpoint, &ops, &mut host)?;
        return Err(error);
    }
    let mut attachment = endpoints::attachment(&joining, &endpoint);
    for place in [&mut attachment.ipv4, &mut attachment.ipv6].into_iter().flatten() {
        place.gateway = None; // until it's chosen
    }
    let new: Vec<IpAddr> = endpoint.places().map(|place| place.address).collect();
    let attachments = &mut served.state.attachments;
    let at = attachments.iter().position(|one| one.gateway_priority < wish.gateway_priority);
    attachments.insert(at.unwrap_or(attachments.len()), attachment);
    served.order.request.network.attach_to(joining.wish);
    changed(served, &mut host, &[], &new)?;
    note(served, "connect", &joining.network.id, &name);
    Ok(Value::Null)
}

/// `{"network": "lan"}`
pub fn disconnect(served: &mut Served, body: &Value) -> Result<Value> {
    let Some(wanted) = body.get("network").and_then(Value::as_str) else { bail!("no network was given") };
    let Some(at) = served.state.attachments.iter().position(|one| one.network == wanted) else {
        bail!("container {} is not connected to network {wanted}", served.state.id);
    };
    let mut host = Host::open()?;
    let attachment = served.state.attachments[at].clone();
    let is_proxied = |port: &netsetup::PortMapping| port.mode == PublishMode::Proxy;
    if !attachment.ports.is_empty() && attachment.ports.iter().all(is_proxied) {
        bail!(
            "network {wanted} carries ports that are published by the proxy, which can't be moved while the container \
             runs; stop it first"
        );
    }
    let joining = joining::read_one(&served.order.engine, &as_it_is(&attachment), &mut host)?;
    let endpoint = as_endpoint(served, &joining, &attachment);
    let ops = card_ops(served, &joining, &endpoint);
    undo(served, &joining, &endpoint, &ops, &mut host)?;
    served.state.attachments.remove(at);
    served.order.request.network.detach_from(wanted);
    move_ports(served, &attachment, &mut host)?;
    let gone: Vec<IpAddr> = endpoint.places().map(|place| place.address).collect();
    changed(served, &mut host, &gone, &[])?;
    note(served, "disconnect", &attachment.network_id, wanted);
    Ok(Value::Null)
}

fn new_endpoint(served: &Served, joining: &Joining, leased: Leased) -> Endpoint {
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
fn as_it_is(attachment: &Attachment) -> Attach {
    Attach {
        aliases: attachment.aliases.clone(),
        mac: Some(attachment.mac),
        link_local: attachment.extra_addresses.iter().map(|(address, _)| *address).collect(),
        gateway_priority: attachment.gateway_priority,
        ..Attach::to(&attachment.network)
    }
}

fn as_endpoint(served: &Served, joining: &Joining, attachment: &Attachment) -> Endpoint {
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
fn card_ops(served: &Served, joining: &Joining, endpoint: &Endpoint) -> Vec<Op> {
    let networks = served.order.engine.roots.run.join("network");
    let mut ops: Vec<Op> = netsetup::plan_endpoint(&joining.network, endpoint).into_iter().map(Op::Net).collect();
    ops.push(names::publish(&networks, &joining.network, endpoint, &joining.wish.aliases));
    ops
}

fn apply(served: &Served, ops: &[Op], host: &mut Host) -> Result<()> {
    let pid = served.state.process.map(|process| process.pid);
    served.journal.record(&ops.iter().filter_map(|op| op.residue(pid)).collect::<Vec<_>>())?;
    let mut netns = inside(served)?;
    op::apply(ops, &mut Live { host, netns: Some(&mut netns), init_pid: pid })
}

fn inside(served: &Served) -> Result<NewNetns> {
    match served.state.process {
        Some(process) => Ok(NewNetns::of_process(process.pid)?),
        None => bail!("container {} is not running", served.state.name),
    }
}

/// Takes a card away, and gives its addresses back. The journal keeps the entries: undoing them again does nothing.
fn undo(served: &Served, joining: &Joining, endpoint: &Endpoint, ops: &[Op], host: &mut Host) -> Result<()> {
    let (mut net, mut files) = (Vec::new(), Vec::new());
    for residue in ops.iter().rev().filter_map(|op| op.residue(None)) {
        match residue {
            Residue::Net(residue) => net.push(residue),
            other => files.push(other),
        }
    }
    if joining.network.driver != netsetup::Driver::Bridge {
        inside(served)?.remove_link(&endpoint.inside_link)?;
    }
    // The namespace lives on, so the link wouldn't vanish by itself.
    for result in netsetup::undo_with(&net, host, Links::WaitMs(0)) {
        result?;
    }
    files.extend(endpoint.places().map(|place| Residue::Lease {
        network: joining.network.name.clone(),
        address: place.address,
        id: served.state.id.clone(),
    }));
    crate::recover::first_error(residue::undo(&served.order.engine.roots, None, &files))
}

/// The ports of a card that is gone lead into the next network that has ports at all.
fn move_ports(served: &mut Served, gone: &Attachment, host: &mut Host) -> Result<()> {
    if gone.ports.is_empty() {
        return Ok(());
    }
    for at in 0..served.state.attachments.len() {
        let attachment = served.state.attachments[at].clone();
        let joining = joining::read_one(&served.order.engine, &as_it_is(&attachment), host)?;
        if !joining.publishes() {
            continue;
        }
        // A proxy can't be moved; where one stands in for the other IP version, that is published again at the next start.
        served.proxies.clear();
        let dnat = gone.ports.iter().filter(|port| port.mode == PublishMode::Dnat);
        served.state.attachments[at].ports = dnat.copied().collect();
        let endpoint = as_endpoint(served, &joining, &served.state.attachments[at]);
        let rules = netsetup::plan_rules(&joining.network, &endpoint);
        let is_known = |op: &firewall::Op| matches!(op, firewall::Op::Nftables(nftables::Op::Senders { .. }));
        let ops: Vec<Op> =
            rules.into_iter().filter(|op| !is_known(op)).map(|op| Op::Net(netsetup::Op::Firewall(op))).collect();
        return apply(served, &ops, host);
    }
    Ok(())
}

/// After a change of the attachments: default routes, /etc/hosts, names, the state file.
fn changed(served: &mut Served, host: &mut Host, gone: &[IpAddr], new: &[IpAddr]) -> Result<()> {
    let routes = lead_out(&mut served.state.attachments);
    if !routes.is_empty() {
        let routes: Vec<Op> = routes
            .into_iter()
            .map(|gateway| Op::Net(netsetup::Op::Link(link::Op::ReplaceDefaultRoute { gateway })))
            .collect();
        apply(served, &routes, host)?;
    }
    let roots = &served.order.engine.roots;
    let folder = ContainerFolder::new(&served.state.etc_folder);
    // The container may write it: what is too large for a hosts file is its own business.
    if let Some(text) = small_text(&folder.hosts()) {
        let text = etc::hosts_changed(&text, gone, new, &served.state.config.hostname);
        // In place: the file is mounted in the container.
        files::overwrite(&folder.hosts(), text.as_bytes()).context("cannot change the container's /etc/hosts")?;
    }
    let scopes = served.state.attachments.iter().map(|one| Scope {
        network: one.network.clone(),
        folder: names::register(&roots.run.join("network"), &one.network),
        internal: definition::read(roots, &one.network).ok().flatten().is_some_and(|network| network.internal),
    });
    if let Some(resolver) = &mut served.resolver {
        resolver.set_scopes(scopes.collect());
    }
    served.state.request = serde_json::to_value(&served.order.request)?;
    served.state.write(roots)
}

/// Gives each IP version's default route to the first attachment that leads out. The gateways that are new.
fn lead_out(attachments: &mut [Attachment]) -> Vec<IpAddr> {
    let mut new = Vec::new();
    for ipv4 in [true, false] {
        let gateway = |one: &Attachment| one.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == ipv4);
        let holder = attachments.iter().position(|one| gateway(one).is_some());
        for (at, one) in attachments.iter_mut().enumerate() {
            let wanted = gateway(one).filter(|_| holder == Some(at));
            let Some(place) = (if ipv4 { &mut one.ipv4 } else { &mut one.ipv6 }) else { continue };
            if let Some(wanted) = wanted.filter(|wanted| place.gateway != Some(*wanted)) {
                new.push(wanted);
            }
            place.gateway = wanted;
        }
    }
    new
}

fn note(served: &Served, action: &str, id: &str, name: &str) {
    let mut event = Event::new("network", action, id);
    event.attributes.insert("container".to_owned(), served.state.id.clone());
    event.attributes.insert("name".to_owned(), name.to_owned());
    events::note(&served.order.engine.roots, event);
}

/// A text file of at most 1 MiB.
fn small_text(path: &std::path::Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, (1 << 20) + 1), &mut text).ok()?;
    (text.len() <= 1 << 20).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(network: &str, gateway: Option<[u8; 4]>) -> Attachment {
        let text = format!(
            r#"{{"network":"{network}","bridge":"b","host_link":"v","mac":[2,0,0,0,0,1],
                "ipv4":{{"address":"10.0.0.2","prefix_len":24,"gateway":null}}}}"#
        );
        let mut attachment: Attachment = serde_json::from_str(&text).unwrap();
        attachment.gateways = gateway.map(IpAddr::from).into_iter().collect();
        attachment
    }

    #[test]
    fn the_first_that_leads_out_has_the_default_route() {
        let mut all =
            vec![attachment("inner", None), attachment("a", Some([10, 1, 0, 1])), attachment("b", Some([10, 2, 0, 1]))];
        assert_eq!(lead_out(&mut all), [IpAddr::from([10, 1, 0, 1])]);
        assert_eq!(lead_out(&mut all), [] as [IpAddr; 0], "nothing has changed");
        all.remove(1);
        assert_eq!(lead_out(&mut all), [IpAddr::from([10, 2, 0, 1])]);
        all.insert(0, attachment("c", Some([10, 3, 0, 1])));
        assert_eq!(lead_out(&mut all), [IpAddr::from([10, 3, 0, 1])]);
        assert_eq!(all[2].ipv4.unwrap().gateway, None);
    }
}
