//! What changes a running container's networks: connect and disconnect. Every operation is in the container's journal
//! before it happens, as at a start, so that a killed monitor leaves nothing.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use netsetup::dns::Scope;
use netsetup::{Endpoint, Host, link};
use serde_json::Value;

use super::{Served, cards, ports};
use crate::events::{self, Event};
use crate::files;
use crate::network::joining::{self, Joining};
use crate::network::{self, definition};
use crate::op::Op;
use crate::plan::endpoints::{self, Leased};
use crate::plan::paths::ContainerFolder;
use crate::plan::{etc, names};
use crate::request::attach::Attach;
use crate::reservation;
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
    cards::check_shaping(served, &joining.network)?;
    if !served.journal.has_room() {
        bail!(
            "networks have come and gone too often in this run of container {}; restart it: minidock restart {0}",
            served.state.name
        );
    }
    let before = served.journal.contents()?.entries.len();
    let endpoint = match plug_in(served, &joining, &mut host) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            // All that this attempt has brought; what can't be taken back now stays in the journal for the end.
            if joining.network.driver != netsetup::Driver::Bridge {
                let _ = remove_inside(served, &cards::new(served, &joining, Leased::default()).inside_link);
            }
            return match cards::take_back(served, |index, _| index >= before, &mut host) {
                Ok(()) => Err(error),
                Err(left) => Err(error.context(format!("not all could be taken back: {}", crate::error::text(&left)))),
            };
        }
    };
    let mut attachment = endpoints::attachment(&joining, &endpoint);
    for place in [&mut attachment.ipv4, &mut attachment.ipv6].into_iter().flatten() {
        place.gateway = None; // until it's chosen
    }
    let new: Vec<IpAddr> = endpoint.places().map(|place| place.address).collect();
    let attachments = &mut served.state.attachments;
    let at = attachments.iter().position(|one| one.gateway_priority < wish.gateway_priority);
    attachments.insert(at.unwrap_or(attachments.len()), attachment);
    served.order.request.network.attach_to(joining.wish);
    if let Err(error) = changed(served, &mut host, &[], &new) {
        let back = served.state.attachments.iter().position(|one| one.network == name);
        let back = back.map(|at| unplug(served, at, &mut host).and_then(|_| changed(served, &mut host, &new, &[])));
        return match back {
            Some(Err(left)) => {
                Err(error.context(format!("not all could be taken back: {}", crate::error::text(&left))))
            }
            _ => Err(error),
        };
    }
    note(served, "connect", &joining.network.id, &name);
    Ok(Value::Null)
}

/// Addresses, the network itself, the card.
fn plug_in(served: &Served, joining: &Joining, host: &mut Host) -> Result<Endpoint> {
    let roots = &served.order.engine.roots;
    let in_use = netsetup::bridge_addresses_in_use(host, &joining.network)?;
    let leased = reservation::take_addresses(roots, &served.journal, joining, &in_use, &served.state.id)?;
    let endpoint = cards::new(served, joining, leased);
    network::ensure(roots, &joining.network, &joining.facts, host, &mut |_| {})?;
    cards::apply(served, &cards::ops(served, joining, &endpoint), host)?;
    Ok(endpoint)
}

/// `{"network": "lan"}`
pub fn disconnect(served: &mut Served, body: &Value) -> Result<Value> {
    let Some(wanted) = body.get("network").and_then(Value::as_str) else { bail!("no network was given") };
    let Some(at) = served.state.attachments.iter().position(|one| one.network == wanted) else {
        bail!("container {} is not connected to network {wanted}", served.state.id);
    };
    let mut host = Host::open()?;
    let attachment = unplug(served, at, &mut host)?;
    let gone: Vec<IpAddr> =
        [attachment.ipv4, attachment.ipv6].into_iter().flatten().map(|place| place.address).collect();
    changed(served, &mut host, &gone, &[])?;
    note(served, "disconnect", &attachment.network_id, wanted);
    Ok(Value::Null)
}

/// The card and all that belongs to it.
fn unplug(served: &mut Served, at: usize, host: &mut Host) -> Result<Attachment> {
    ports::leave(served, at, host)?;
    let attachment = served.state.attachments[at].clone();
    let networks = served.order.engine.roots.networks();
    // A link of macvlan or ipvlan has no end on the host.
    remove_inside(served, &attachment.inside_link)?;
    cards::take_back(served, |_, entry| cards::is_of(&attachment, &networks, entry), host)?;
    served.state.attachments.remove(at);
    served.order.request.network.detach_from(&attachment.network);
    Ok(attachment)
}

fn remove_inside(served: &Served, link: &str) -> Result<()> {
    Ok(cards::inside(served)?.remove_link(link)?)
}

/// After a change of the attachments: default routes, ports, /etc/hosts, names, the state file. What fails doesn't keep the
/// others from telling how it is now.
fn changed(served: &mut Served, host: &mut Host, gone: &[IpAddr], new: &[IpAddr]) -> Result<()> {
    let routes = lead_out(&mut served.state.attachments);
    let mut errors = Vec::new();
    if !routes.is_empty() {
        let routes: Vec<Op> = routes
            .into_iter()
            .map(|gateway| Op::Net(netsetup::Op::Link(link::Op::ReplaceDefaultRoute { gateway })))
            .collect();
        errors.extend(cards::apply(served, &routes, host).err());
    }
    errors.extend(ports::settle(served, host).err());
    errors.extend(tell_hosts(served, gone, new).err());
    let roots = &served.order.engine.roots;
    let scopes = served.state.attachments.iter().map(|one| Scope {
        network: one.network.clone(),
        folder: names::register(&roots.run.join("network"), &one.network),
        internal: definition::read(roots, &one.network).ok().flatten().is_some_and(|network| network.internal),
    });
    if let Some(resolver) = &mut served.resolver {
        resolver.set_scopes(scopes.collect());
    }
    match serde_json::to_value(&served.order.request) {
        Ok(request) => served.state.request = request,
        Err(error) => errors.push(error.into()),
    }
    errors.extend(served.state.write(roots).err());
    crate::recover::first_error(errors)
}

/// The container's own addresses in its /etc/hosts.
fn tell_hosts(served: &Served, gone: &[IpAddr], new: &[IpAddr]) -> Result<()> {
    let folder = ContainerFolder::new(&served.state.etc_folder);
    // The container may write it: what is too large for a hosts file is its own business.
    let Some(text) = small_text(&folder.hosts()) else { return Ok(()) };
    let config = &served.state.config;
    let names = crate::plan::names_in_hosts(&config.hostname, &config.domainname);
    let text = etc::hosts_changed(&text, gone, new, &names);
    // In place: the file is mounted in the container.
    files::overwrite(&folder.hosts(), text.as_bytes()).context("cannot change the container's /etc/hosts")
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
    let roots = &served.order.engine.roots;
    events::note(roots, Event::network(roots, action, &served.state, (id, name)));
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
