//! nf_tables messages: the few expressions, sets and elements that the table needs, as bytes.
//!
//! Numbers and layouts: include/uapi/linux/netfilter/nf_tables.h; user data: include/udata.h of libnftnl.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::netlink::Batch;

pub(super) const NEWTABLE: u16 = 0;
pub(super) const GETTABLE: u16 = 1;
pub(super) const DELTABLE: u16 = 2;
pub(super) const NEWCHAIN: u16 = 3;
pub(super) const GETCHAIN: u16 = 4;
pub(super) const DELCHAIN: u16 = 5;
pub(super) const NEWRULE: u16 = 6;
pub(super) const GETRULE: u16 = 7;
pub(super) const DELRULE: u16 = 8;
pub(super) const NEWSET: u16 = 9;
pub(super) const NEWSETELEM: u16 = 12;
pub(super) const GETSETELEM: u16 = 13;
pub(super) const DELSETELEM: u16 = 14;

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NESTED: u16 = 0x8000;

/// Register 1, of 16 bytes; its first word is register 8.
pub(super) const REG_1: u32 = 1;
const REG_VERDICT: u32 = 0;

/// The register of 4 bytes that begins at this word: what a key of several values is put together in.
pub(super) const fn word(number: u32) -> u32 {
    8 + number
}

/// The protocol family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames on bridges.
    Bridge,
}

impl Family {
    /// As nft writes it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Bridge => "bridge",
        }
    }

    /// The family of that name.
    pub fn of(name: &str) -> Option<Family> {
        [Family::Ip, Family::Ip6, Family::Bridge].into_iter().find(|family| family.name() == name)
    }

    /// NFPROTO_*
    fn number(self) -> u8 {
        match self {
            Family::Ip => 2,
            Family::Bridge => 7,
            Family::Ip6 => 10,
        }
    }
}

/// One expression of a rule.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    /// A property of the packet: NFT_META_*.
    Meta { key: u32, register: u32 },
    /// Bytes of the packet, counted from NFT_PAYLOAD_*.
    Payload { base: u32, offset: u32, length: u32, register: u32 },
    /// Goes on when register 1 equals the value.
    Equal(Vec<u8>),
    /// Goes on when register 1 differs from the value.
    Differ(Vec<u8>),
    /// Register 1 and-ed with a mask.
    Mask(Vec<u8>),
    /// A property of the connection: NFT_CT_*, into register 1.
    Ct { key: u32 },
    /// The type of the destination's route, into register 1; perhaps as seen from the incoming link.
    FibDestinationType { by_link: bool },
    /// Goes on when register 1 (and following) is in the set, or when it isn't.
    InSet { set: &'static str, inverted: bool },
    /// Looks register 1 (and following) up in the map, the found data into register 1.
    Map { map: &'static str },
    /// Rewrites the destination to the address in register 1, and to the port in the word behind it.
    Dnat { family: Family, port: bool },
    /// Rewrites the source to the outgoing link's address.
    Masquerade,
    /// Gives the packet the priority in register 1: the class of a queueing discipline.
    SetPriority,
    /// Accepts the packet as far as this table goes.
    Accept,
    /// Drops the packet.
    Drop,
    /// Goes to a chain and comes back.
    Jump(&'static str),
}

pub(super) mod meta {
    pub const PROTOCOL: u32 = 1;
    pub const IIFNAME: u32 = 6;
    pub const OIFNAME: u32 = 7;
    pub const L4PROTO: u32 = 16;
    pub const IIFGROUP: u32 = 21;
}

pub(super) mod payload {
    pub const LINK: u32 = 0;
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;
}

pub(super) mod ct {
    pub const STATE: u32 = 0;
    pub const STATUS: u32 = 2;
}

/// A value's type in a set's key or data: nft's name, number, length in bytes, byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Protocol,
    Address,
    Address6,
    Port,
    Link,
    Mac,
    /// A traffic class of tc(8).
    Class,
    /// The address that a neighbour advertisement is about, which nft 1.0 knows only as 16 bytes of the ICMPv6 header.
    Target,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Type::Protocol => "inet_proto",
            Type::Address => "ipv4_addr",
            Type::Address6 => "ipv6_addr",
            Type::Port => "inet_service",
            Type::Link => "ifname",
            Type::Mac => "ether_addr",
            Type::Class => "classid",
            Type::Target => "@th,64,128",
        }
    }

    /// enum datatypes in nft's datatype.h, and the length.
    fn number_and_length(self) -> (u32, u32) {
        match self {
            Type::Target => (4, 16),
            Type::Address => (7, 4),
            Type::Address6 => (8, 16),
            Type::Mac => (9, 6),
            Type::Protocol => (12, 1),
            Type::Port => (13, 2),
            Type::Class => (23, 4),
            Type::Link => (41, 16),
        }
    }
}

/// What nft notes of a set declared by `typeof iifname . @th,64,128`: byte order, and the two expressions.
const TARGETS: [u8; 72] = [
    0, 4, 0, 0, 0, 0, 3, 0x40, 0, 4, 0x0d, 0, 0, 0, 1, 0x38, 0, 0x0e, 0, 4, 9, 0, 0, 0, 1, 6, 0, 4, 6, 0, 0, 0, 1,
    0x26, 0, 4, 7, 0, 0, 0, 1, 0x1e, 0, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 2, 4, 3, 0, 0, 0, 3, 4, 0x40, 0, 0, 0, 4, 4,
    0x80, 0, 0, 0,
];

/// The number and length of several types in a row: six bits each, padded to words.
fn concatenated(types: &[Type]) -> (u32, u32) {
    match types {
        [one] => one.number_and_length(),
        types => types.iter().fold((0, 0), |(number, length), one| {
            let (its_number, its_length) = one.number_and_length();
            (number << 6 | its_number, length + its_length.next_multiple_of(4))
        }),
    }
}

/// nft notes the byte order of a set's key in its user data, and needs it to print a link's name.
fn byte_order(types: &[Type]) -> u32 {
    match types {
        [Type::Link | Type::Class] => 1, // the host's
        [_] => 2,                        // the network's
        _ => 0,                          // each its own
    }
}

/// A link's name as the kernel compares it: 16 bytes.
pub(super) fn link_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

/// A key or data of several values, each padded to a word.
pub(super) fn words(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub set: &'static str,
    pub key: Vec<u8>,
    /// The last key of an interval, in a set whose keys are several values.
    pub key_end: Option<Vec<u8>>,
    pub data: Option<Vec<u8>>,
    /// The first key after an interval.
    pub interval_end: bool,
    pub comment: Option<String>,
}

/// Messages about one table, for a batch.
pub(super) struct Table<'a> {
    pub batch: &'a mut Batch,
    pub name: &'a str,
    pub family: Family,
}

impl Table<'_> {
    /// Starts a transaction.
    pub fn begin(&mut self) {
        self.batch.push(BATCH_BEGIN, 0, |out| header(out, 0, SUBSYSTEM));
    }

    /// Ends the transaction: without it the kernel only checks.
    pub fn end(&mut self) {
        self.batch.push(BATCH_END, 0, |out| header(out, 0, SUBSYSTEM));
    }

    /// A message whose first attribute is the table's name (number 1 in every kind of message).
    fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) -> usize {
        let (name, family) = (self.name, self.family.number());
        self.batch.push(SUBSYSTEM << 8 | kind, flags, |out| {
            header(out, family, 0);
            text(out, 1, name);
            body(out);
        })
    }

    pub fn table(&mut self, kind: u16, flags: u16) -> usize {
        self.push(kind, flags, |_| {})
    }

    /// A chain without a hook (when asking for one, too).
    pub fn chain(&mut self, kind: u16, flags: u16, name: &str) -> usize {
        self.push(kind, flags, |out| text(out, 3, name))
    }

    /// Lists the rules of a chain.
    pub fn rules(&mut self, chain: &str) -> usize {
        self.push(GETRULE, libc::NLM_F_DUMP as u16, |out| text(out, 2, chain))
    }

    /// A chain that the kernel calls: `kind` is `filter` or `nat`.
    pub fn base_chain(&mut self, flags: u16, name: &str, kind: &str, hook: u32, priority: i32) -> usize {
        const NF_ACCEPT: u32 = 1;
        self.push(NEWCHAIN, flags, |out| {
            text(out, 3, name);
            text(out, 7, kind);
            number(out, 5, NF_ACCEPT);
            nested(out, 4, |out| {
                number(out, 1, hook);
                number(out, 2, priority as u32);
            });
        })
    }

    /// A set, or a map when it has data types.
    pub fn set(&mut self, flags: u16, id: u32, name: &str, key: &[Type], data: &[Type], interval: bool) -> usize {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const CONCATENATED: u32 = 0x80;
        let fields = interval && key.len() > 1;
        self.push(NEWSET, flags, |out| {
            text(out, 2, name);
            let flag = |on: bool, flag: u32| if on { flag } else { 0 };
            number(out, 3, flag(interval, INTERVAL) | flag(!data.is_empty(), MAP) | flag(fields, CONCATENATED));
            let (key_type, key_length) = concatenated(key);
            number(out, 4, key_type);
            number(out, 5, key_length);
            let mut user_data = vec![0, 4];
            user_data.extend_from_slice(&byte_order(key).to_ne_bytes());
            if !data.is_empty() {
                let (data_type, data_length) = concatenated(data);
                number(out, 6, data_type);
                number(out, 7, data_length);
                user_data.extend_from_slice(&[1, 4]);
                user_data.extend_from_slice(&byte_order(data).to_ne_bytes());
            }
            if fields {
                // NFTA_SET_DESC_CONCAT, with NFTA_SET_FIELD_LEN for each
                nested(out, 9, |out| {
                    nested(out, 2, |out| {
                        for one in key {
                            nested(out, 1, |out| number(out, 1, one.number_and_length().1));
                        }
                    });
                });
            }
            number(out, 10, id);
            bytes(out, 13, if key.contains(&Type::Target) { &TARGETS } else { &user_data });
        })
    }

    /// Appends a rule.
    pub fn rule(&mut self, chain: &str, expressions: &[Expression], comment: &str) -> usize {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
        self.push(NEWRULE, flags, |out| {
            text(out, 2, chain);
            nested(out, 4, |out| expressions.iter().for_each(|expression| expression.write(out)));
            bytes(out, 7, &comment_data(comment));
        })
    }

    /// Removes every rule of every chain of the table.
    pub fn flush(&mut self) -> usize {
        self.push(DELRULE, 0, |_| {})
    }

    pub fn element(&mut self, kind: u16, flags: u16, element: &Element) -> usize {
        const INTERVAL_END: u32 = 1;
        self.push(kind, flags, |out| {
            text(out, 2, element.set);
            nested(out, 3, |out| {
                nested(out, 1, |out| {
                    if element.interval_end {
                        number(out, 3, INTERVAL_END);
                    }
                    nested(out, 1, |out| bytes(out, 1, &element.key));
                    if let Some(last) = &element.key_end {
                        nested(out, 10, |out| bytes(out, 1, last));
                    }
                    if let (Some(data), NEWSETELEM) = (&element.data, kind) {
                        nested(out, 2, |out| bytes(out, 1, data));
                    }
                    if let (Some(comment), NEWSETELEM) = (&element.comment, kind) {
                        bytes(out, 6, &comment_data(comment));
                    }
                });
            });
        })
    }

    /// Asks for all elements of a set.
    pub fn elements(&mut self, set: &str) -> usize {
        self.push(GETSETELEM, libc::NLM_F_DUMP as u16, |out| text(out, 2, set))
    }
}

impl Expression {
    fn write(&self, out: &mut Vec<u8>) {
        nested(out, 1, |out| {
            text(out, 1, self.name());
            nested(out, 2, |out| self.attributes(out));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Expression::Meta { .. } | Expression::SetPriority => "meta",
            Expression::Payload { .. } => "payload",
            Expression::Equal(_) | Expression::Differ(_) => "cmp",
            Expression::Mask(_) => "bitwise",
            Expression::Ct { .. } => "ct",
            Expression::FibDestinationType { .. } => "fib",
            Expression::InSet { .. } | Expression::Map { .. } => "lookup",
            Expression::Dnat { .. } => "nat",
            Expression::Masquerade => "masq",
            Expression::Accept | Expression::Drop | Expression::Jump(_) => "immediate",
        }
    }

    fn attributes(&self, out: &mut Vec<u8>) {
        match self {
            Expression::Meta { key, register } => {
                number(out, 2, *key);
                number(out, 1, *register);
            }
            Expression::Payload { base, offset, length, register } => {
                for (kind, value) in [(1, *register), (2, *base), (3, *offset), (4, *length)] {
                    number(out, kind, value);
                }
            }
            Expression::Equal(value) => compare(out, 0, value),
            Expression::Differ(value) => compare(out, 1, value),
            Expression::Mask(mask) => {
                for (kind, value) in [(1, REG_1), (2, REG_1), (3, mask.len() as u32)] {
                    number(out, kind, value);
                }
                nested(out, 4, |out| bytes(out, 1, mask));
                nested(out, 5, |out| bytes(out, 1, &vec![0; mask.len()]));
            }
            Expression::Ct { key } => {
                number(out, 2, *key);
                number(out, 1, REG_1);
            }
            Expression::FibDestinationType { by_link } => {
                const RESULT_ADDRTYPE: u32 = 3;
                const F_DADDR: u32 = 2;
                const F_IIF: u32 = 8;
                let flags = F_DADDR | if *by_link { F_IIF } else { 0 };
                for (kind, value) in [(1, REG_1), (2, RESULT_ADDRTYPE), (3, flags)] {
                    number(out, kind, value);
                }
            }
            Expression::InSet { set, inverted } => {
                number(out, 2, REG_1);
                text(out, 1, set);
                number(out, 5, u32::from(*inverted));
            }
            Expression::Map { map } => {
                number(out, 2, REG_1);
                number(out, 3, REG_1);
                text(out, 1, map);
            }
            Expression::Dnat { family, port } => {
                const NFT_NAT_DNAT: u32 = 1;
                for (kind, value) in [(1, NFT_NAT_DNAT), (2, u32::from(family.number())), (3, REG_1)] {
                    number(out, kind, value);
                }
                if *port {
                    number(out, 5, word(if *family == Family::Ip { 1 } else { 4 }));
                }
            }
            Expression::SetPriority => {
                const NFT_META_PRIORITY: u32 = 2;
                number(out, 2, NFT_META_PRIORITY);
                number(out, 3, REG_1); // NFTA_META_SREG
            }
            Expression::Masquerade => {}
            Expression::Accept => verdict(out, 1, None),
            Expression::Drop => verdict(out, 0, None),
            Expression::Jump(chain) => verdict(out, -3, Some(chain)),
        }
    }
}

fn compare(out: &mut Vec<u8>, operator: u32, value: &[u8]) {
    number(out, 1, REG_1);
    number(out, 2, operator);
    nested(out, 3, |out| bytes(out, 1, value));
}

fn verdict(out: &mut Vec<u8>, code: i32, chain: Option<&str>) {
    number(out, 1, REG_VERDICT);
    nested(out, 2, |out| {
        nested(out, 2, |out| {
            number(out, 1, code as u32);
            if let Some(chain) = chain {
                text(out, 2, chain);
            }
        });
    });
}

/// A comment in user data: type 0, length, text with its NUL. nft prints at most 127 bytes.
fn comment_data(comment: &str) -> Vec<u8> {
    let comment = &comment.as_bytes()[..comment.len().min(127)];
    let mut data = vec![0, comment.len() as u8 + 1];
    data.extend_from_slice(comment);
    data.push(0);
    data
}

/// struct nfgenmsg
pub(crate) fn header(out: &mut Vec<u8>, family: u8, resource: u16) {
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
}

/// An attribute with these bytes.
pub(crate) fn bytes(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A string with its NUL.
fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    let mut with_nul = value.as_bytes().to_vec();
    with_nul.push(0);
    bytes(out, kind, &with_nul);
}

/// A number in network byte order, as all of netfilter's are.
pub(crate) fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    bytes(out, kind, &value.to_be_bytes());
}

/// An attribute that holds attributes.
pub(crate) fn nested(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(kind | NESTED).to_ne_bytes());
    body(out);
    let length = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

/// An address and a port, the data of the port maps.
pub(super) fn destination(address: IpAddr, port: u16) -> Vec<u8> {
    words(&[&octets(address), &port.to_be_bytes()])
}

/// An address's bytes: 4 or 16.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
