//! The picture for a terminal.

use std::fmt::Write;

use netsetup::shell::printable;
use netsetup::survey::{Link, Namespace};

use super::model::{self, Owner, Picture};

/// Each namespace with its links, what they lead to, routes, translations.
pub fn render(picture: &Picture) -> String {
    let mut text = String::new();
    for namespace in &picture.namespaces {
        let who = match picture.owner(namespace) {
            Owner::Host(guests) if guests.is_empty() => String::new(),
            Owner::Host(guests) => format!("   with {}", guests.join(", ")),
            Owner::Container(state) => format!("   {}", model::thinks(state)),
            Owner::Router(router, _) => format!("   router of network {}", router.inside.network),
            Owner::Hand => "   not minidock's".to_owned(),
        };
        let forward = if namespace.ip_forward { "   forwards" } else { "" };
        let title = printable(&picture.title(namespace));
        let _ = writeln!(text, "{title}   net:[{}]{forward}{who}", namespace.inode);
        for link in namespace.links.iter().filter(|link| link.master == 0 && !is_plain_lo(link)) {
            line(&mut text, picture, namespace, link, "  ");
            let ports: Vec<&Link> = namespace.links.iter().filter(|port| port.master == link.index).collect();
            for (at, port) in ports.iter().enumerate() {
                line(&mut text, picture, namespace, port, if at + 1 == ports.len() { "  └ " } else { "  ├ " });
            }
        }
        section(&mut text, "routes", namespace.routes.iter().map(|route| model::route(namespace, route)).collect());
        section(&mut text, "translation", model::translations(namespace));
        let published = model::published(picture, namespace);
        let whose = |whose: &str| if whose.is_empty() { String::new() } else { format!("   ({whose})") };
        section(
            &mut text,
            "published",
            published.iter().map(|(at, to, who)| format!("{at} -> {to}{}", whose(who))).collect(),
        );
        let qdiscs = namespace.qdiscs.iter().flat_map(|qdisc| {
            let link = namespace.link(qdisc.link).map(|link| link.name.clone()).unwrap_or_default();
            let classes = qdisc.classes.iter().map(|class| {
                format!(
                    "  class {} rate {} ceil {}",
                    class.id,
                    model::rate(class.rate_bits),
                    model::rate(class.ceiling_bits)
                )
            });
            std::iter::once(format!("{link} {} {}", qdisc.kind, qdisc.handle)).chain(classes).collect::<Vec<_>>()
        });
        section(&mut text, "shaping", qdiscs.collect());
        if !namespace.legacy_tables.is_empty() {
            let _ = writeln!(
                text,
                "  old iptables (legacy) tables: {}; see iptables-legacy-save",
                namespace.legacy_tables.join(", ")
            );
        }
        for difference in picture.differences_of(namespace) {
            let _ = writeln!(text, "  ! {}", printable(difference));
        }
        text.push('\n');
    }
    let count = picture.differences.len();
    if count > 0 {
        let _ = writeln!(
            text,
            "{count} {} from what minidock thinks, marked with !",
            if count == 1 { "difference" } else { "differences" }
        );
    }
    text
}

fn is_plain_lo(link: &Link) -> bool {
    link.name == "lo" && link.up
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {title}");
    for line in lines {
        let _ = writeln!(text, "    {}", printable(&line));
    }
}

fn line(text: &mut String, picture: &Picture, namespace: &Namespace, link: &Link, indent: &str) {
    let mut words = vec![link.name.clone()];
    if !link.kind.is_empty() && link.kind != "veth" {
        words.push(link.kind.clone());
    }
    if !link.up {
        words.push("DOWN".to_owned());
    } else if !link.carrier && link.kind != "bridge" {
        words.push("no carrier".to_owned());
    }
    words.extend(model::addresses(link));
    if link.mtu != 1500 {
        words.push(format!("mtu {}", link.mtu));
    }
    if let Some((there, other)) = picture.peer(link) {
        let place =
            if there.inode == namespace.inode { String::new() } else { format!(" of {}", picture.title(there)) };
        words.push(format!("<-> {}{place}", other.name));
    } else if link.kind == "veth" {
        words.push("<-> ?".to_owned());
    } else if let Some((there, parent)) = picture.leads_to(namespace, link) {
        let of = if there.inode == namespace.inode { String::new() } else { format!(" of {}", picture.title(there)) };
        words.push(format!("on {}{of}", parent.name));
    } else if link.peer_index != 0
        && let Some(below) = namespace.link(link.peer_index)
    {
        words.push(format!("on {}", below.name));
    }
    let _ = writeln!(text, "{indent}{}", printable(&words.join("  ")));
}
