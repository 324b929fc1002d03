//! Inside the container: what goes to port 53 of 127.0.0.11 reaches our sockets on another port, and their answers look as
//! if they came from port 53. So a container may have a name server of its own on all its addresses.
//!
//! The ports are rewritten packet by packet, without NAT: connection tracking would cost every packet of the container,
//! and its set-up five times this. Requests are rewritten before connection tracking sees them, answers after it, so a
//! firewall of the container's own sees one connection.

use crate::firewall::encode::{bytes, header, nested, number};
use crate::netlink::{Batch, Failure, Netlink};

use super::{ADDRESS, PORT, TABLE};

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
/// NF_IP_PRI_RAW: before connection tracking.
const PRIORITY: i32 = -300;
const REGISTER: u32 = 1;

/// A direction: its chain, and where addresses and ports are in the packets.
struct Way {
    chain: &'static str,
    hook: u32,
    /// Of our address in the IP header.
    address_at: u32,
    /// Of our port in the UDP or TCP header.
    port_at: u32,
    from: u16,
    to: u16,
}

const WAYS: [Way; 2] = [
    Way { chain: "asked", hook: OUTPUT, address_at: 16, port_at: 2, from: 53, to: PORT },
    Way { chain: "answered", hook: PREROUTING, address_at: 12, port_at: 0, from: PORT, to: 53 },
];

/// Protocol number, and where its header has the checksum.
const PROTOCOLS: [(u8, u32); 2] = [(17, 6), (6, 16)];

/// Makes the table, by a socket of the container's namespace.
pub(super) fn make(netlink: &mut Netlink) -> Result<(), Failure> {
    let mut batch = Batch::default();
    batch.push(BATCH_BEGIN, 0, |out| header(out, 0, SUBSYSTEM));
    push(&mut batch, NEWTABLE, CREATE, |_| {});
    for way in &WAYS {
        push(&mut batch, NEWCHAIN, CREATE, |out| {
            bytes(out, 3, &text(way.chain));
            bytes(out, 7, &text("filter"));
            nested(out, 4, |out| {
                number(out, 1, way.hook);
                number(out, 2, PRIORITY as u32);
            });
        });
        // First what nearly every packet is: not for us.
        rule(&mut batch, way, |out| {
            expression(out, "payload", |out| load(out, 1, way.address_at, 4));
            expression(out, "cmp", |out| compare(out, 1, &ADDRESS.octets()));
            expression(out, "immediate", |out| {
                number(out, 1, 0);
                nested(out, 2, |out| nested(out, 2, |out| number(out, 1, 1))); // NF_ACCEPT
            });
        });
        for (protocol, checksum_at) in PROTOCOLS {
            rule(&mut batch, way, |out| {
                expression(out, "meta", |out| {
                    number(out, 2, 16); // NFT_META_L4PROTO
                    number(out, 1, REGISTER);
                });
                expression(out, "cmp", |out| compare(out, 0, &[protocol]));
                expression(out, "payload", |out| load(out, 2, way.port_at, 2));
                expression(out, "cmp", |out| compare(out, 0, &way.from.to_be_bytes()));
                expression(out, "immediate", |out| {
                    number(out, 1, REGISTER);
                    nested(out, 2, |out| bytes(out, 1, &way.to.to_be_bytes()));
                });
                expression(out, "payload", |out| {
                    // Written from the register; the checksum is an inet one at this place.
                    for (kind, value) in [(5, REGISTER), (2, 2), (3, way.port_at), (4, 2), (6, 1), (7, checksum_at)] {
                        number(out, kind, value);
                    }
                });
            });
        }
    }
    batch.push(BATCH_END, 0, |out| header(out, 0, SUBSYSTEM));
    netlink.send(&batch)
}

/// The same for nft(8).
pub(super) fn script() -> String {
    let chain = |way: &Way, hook: &str, side: &str, port: &str| {
        let rewrite = |protocol: &str| {
            format!("    {protocol} {port} {from} {protocol} {port} set {to}\n", from = way.from, to = way.to)
        };
        format!(
            "  chain {} {{\n    type filter hook {hook} priority raw;\n    ip {side} != {ADDRESS} accept\n{}{}  }}\n",
            way.chain,
            rewrite("udp"),
            rewrite("tcp")
        )
    };
    let [asked, answered] = &WAYS;
    format!(
        "table ip {TABLE} {{\n{}{}}}\n",
        chain(asked, "output", "daddr", "dport"),
        chain(answered, "prerouting", "saddr", "sport")
    )
}

fn push(batch: &mut Batch, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
    const NFPROTO_IPV4: u8 = 2;
    batch.push(SUBSYSTEM << 8 | kind, flags, |out| {
        header(out, NFPROTO_IPV4, 0);
        bytes(out, 1, &text(TABLE));
        body(out);
    });
}

fn rule(batch: &mut Batch, way: &Way, expressions: impl FnOnce(&mut Vec<u8>)) {
    push(batch, NEWRULE, APPEND, |out| {
        bytes(out, 2, &text(way.chain));
        nested(out, 4, expressions);
    });
}

fn expression(out: &mut Vec<u8>, name: &str, attributes: impl FnOnce(&mut Vec<u8>)) {
    nested(out, 1, |out| {
        bytes(out, 1, &text(name));
        nested(out, 2, attributes);
    });
}

/// Bytes of the packet into the register; base 1: from the IP header, 2: from the UDP or TCP header.
fn load(out: &mut Vec<u8>, base: u32, offset: u32, length: u32) {
    for (kind, value) in [(1, REGISTER), (2, base), (3, offset), (4, length)] {
        number(out, kind, value);
    }
}

/// Goes on when the register equals (0) or differs from (1) the value.
fn compare(out: &mut Vec<u8>, operator: u32, value: &[u8]) {
    number(out, 1, REGISTER);
    number(out, 2, operator);
    nested(out, 3, |out| bytes(out, 1, value));
}

fn text(value: &str) -> Vec<u8> {
    let mut with_nul = value.as_bytes().to_vec();
    with_nul.push(0);
    with_nul
}
