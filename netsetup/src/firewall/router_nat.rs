//! The table in a router's own namespace (nftables back end): one-to-one addresses as elements of two maps, and one rule
//! that translates the rest. It goes with the namespace.

use std::net::Ipv4Addr;

use super::encode::link_name;
use super::messages::{DELSETELEM, Expressions, IPV4, KEEP, Messages, NEW, NEWSETELEM, NEWTABLE, meta, payload};
use crate::netlink::Netlink;
use crate::router::mask;
use crate::shell::quoted;
use crate::{Error, Result};

/// Its name. Not `nat`, which the `iptables` of a student who types beside it would want.
const TABLE: &str = "minidock";
const IN: &str = "floating_in";
const OUT: &str = "floating_out";
const SNAT: u32 = 0;
const DNAT: u32 = 1;
const WHY_IN: &str = "an outside address leads to its container";
const WHY_OUT: &str = "a container leaves as its outside address";
const WHY_REST: &str = "the rest leaves as the router";

/// The table as a script for `nft -f`.
pub(crate) fn script(subnet: Ipv4Addr, prefix_len: u8, link: &str, address: Ipv4Addr) -> String {
    format!(
        "table ip {TABLE} {{\n\
         \tmap {IN} {{ type ipv4_addr : ipv4_addr; }}\n\
         \tmap {OUT} {{ type ipv4_addr : ipv4_addr; }}\n\
         \tchain prerouting {{\n\
         \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
         \t\tdnat to ip daddr map @{IN} comment \"{WHY_IN}\"\n\
         \t}}\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tsnat to ip saddr map @{OUT} comment \"{WHY_OUT}\"\n\
         \t\tip saddr {subnet}/{prefix_len} oifname \"{link}\" snat to {address} comment \"{WHY_REST}\"\n\
         \t}}\n\
         }}\n"
    )
}

/// Makes the table in the caller's network namespace.
pub(crate) fn make(subnet: Ipv4Addr, prefix_len: u8, link: &str, address: Ipv4Addr) -> Result<()> {
    const PREROUTING: u32 = 0;
    const POSTROUTING: u32 = 4;
    let mut messages = Messages::begin(IPV4, TABLE);
    messages.table(NEWTABLE, NEW);
    messages.address_map(IN, 1);
    messages.address_map(OUT, 2);
    messages.base_chain("prerouting", "nat", PREROUTING, -100);
    messages.base_chain("postrouting", "nat", POSTROUTING, 100);
    let destination = || Expressions::default().payload(payload::NETWORK, 16, 4);
    let source = || Expressions::default().payload(payload::NETWORK, 12, 4);
    messages.rule("prerouting", &destination().map(IN, 1).nat(DNAT), WHY_IN);
    messages.rule("postrouting", &source().map(OUT, 2).nat(SNAT), WHY_OUT);
    let rest = source()
        .mask(&mask(prefix_len).to_be_bytes())
        .equal(&subnet.octets())
        .meta(meta::OIFNAME)
        .equal(&link_name(link))
        .constant(&address.octets())
        .nat(SNAT);
    messages.rule("postrouting", &rest, WHY_REST);
    send(messages, "write the router's nftables table")
}

/// Both directions of a one-to-one address.
pub(crate) fn float(outside: Ipv4Addr, inside: Ipv4Addr, comment: &str) -> Result<()> {
    let mut messages = Messages::begin(IPV4, TABLE);
    messages.address(NEWSETELEM, NEW, IN, outside.octets(), inside.octets(), comment);
    messages.address(NEWSETELEM, NEW, OUT, inside.octets(), outside.octets(), comment);
    send(messages, "write the one-to-one address into the router's nftables table")
}

/// Takes both directions away; what is not there is no matter.
pub(crate) fn unfloat(outside: Ipv4Addr, inside: Ipv4Addr) -> Result<()> {
    for (map, key, data) in [(IN, outside, inside), (OUT, inside, outside)] {
        let mut messages = Messages::begin(IPV4, TABLE);
        messages.address(DELSETELEM, KEEP, map, key.octets(), data.octets(), "");
        match Netlink::netfilter()?.send(&messages.end()) {
            Err(failure) if failure.errno != libc::ENOENT => {
                return Err(failure.into_error(format!("take {outside} out of the router's nftables table")));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn floating_commands(outside: Ipv4Addr, inside: Ipv4Addr, comment: &str) -> [(String, &'static str); 2] {
    let add = |map: &str, key: Ipv4Addr, data: Ipv4Addr| {
        format!("nft add element ip {TABLE} {map} {}", quoted(&format!("{{ {key} comment \"{comment}\" : {data} }}")))
    };
    [(add(IN, outside, inside), WHY_IN), (add(OUT, inside, outside), WHY_OUT)]
}

pub(crate) fn unfloat_commands(outside: Ipv4Addr, inside: Ipv4Addr) -> [(String, &'static str); 2] {
    let why = "no translation any more";
    let delete =
        |map: &str, key: Ipv4Addr| format!("nft delete element ip {TABLE} {map} {}", quoted(&format!("{{ {key} }}")));
    [(delete(IN, outside), why), (delete(OUT, inside), why)]
}

fn send(messages: Messages<'_>, what: &str) -> Result<()> {
    Netlink::netfilter()?.send(&messages.end()).map_err(|failure| match failure.errno {
        libc::EEXIST => Error::Refused(format!("cannot {what}: it is there already")),
        _ => failure.into_error(what),
    })
}
