//! nf_tables messages with values that are only known at run time: the router's table and the walk's tracing table. (The
//! big table of published ports is constant data, see [`super::ruleset`].)
//!
//! Numbers and layouts: include/uapi/linux/netfilter/nf_tables.h; user data: include/udata.h of libnftnl.

use super::encode::{bytes, header, nested, number};
use crate::netlink::Batch;

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
pub(crate) const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
pub(crate) const NEWSETELEM: u16 = 12;
pub(crate) const DELSETELEM: u16 = 14;

/// NFPROTO_*
pub(crate) const INET: u8 = 1;
pub(crate) const IPV4: u8 = 2;
pub(crate) const BRIDGE: u8 = 7;

pub(crate) const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// What exists already stays as it is.
pub(crate) const KEEP: u16 = libc::NLM_F_CREATE as u16;

/// Messages about one table, for a batch that takes effect as a whole.
pub(crate) struct Messages<'a> {
    pub batch: Batch,
    pub family: u8,
    pub table: &'a str,
}

impl<'a> Messages<'a> {
    /// Begins the transaction.
    pub fn begin(family: u8, table: &'a str) -> Messages<'a> {
        let mut batch = Batch::default();
        batch.push(BATCH_BEGIN, 0, |out| header(out, 0, SUBSYSTEM));
        Messages { batch, family, table }
    }

    /// The whole transaction: without its end the kernel only checks.
    pub fn end(mut self) -> Batch {
        self.batch.push(BATCH_END, 0, |out| header(out, 0, SUBSYSTEM));
        self.batch
    }

    fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let (family, table) = (self.family, self.table);
        self.batch.push(SUBSYSTEM << 8 | kind, flags, |out| {
            header(out, family, 0);
            text(out, 1, table);
            body(out);
        });
    }

    pub fn table(&mut self, kind: u16, flags: u16) {
        self.push(kind, flags, |_| {});
    }

    /// A table that the kernel removes with the socket that made it, whatever becomes of its process (Linux 5.12).
    pub fn own_table(&mut self) {
        const OWNER: u32 = 2;
        self.push(NEWTABLE, NEW, |out| number(out, 2, OWNER));
    }

    /// A chain that the kernel calls: `kind` is `filter` or `nat`.
    pub fn base_chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        const NF_ACCEPT: u32 = 1;
        self.push(NEWCHAIN, KEEP, |out| {
            text(out, 3, name);
            text(out, 7, kind);
            number(out, 5, NF_ACCEPT);
            nested(out, 4, |out| {
                number(out, 1, hook);
                number(out, 2, priority as u32);
            });
        });
    }

    /// A map from IPv4 addresses to IPv4 addresses.
    pub fn address_map(&mut self, name: &str, id: u32) {
        const MAP: u32 = 8;
        const IPV4_ADDR: u32 = 7; // enum datatypes of nft
        self.push(NEWSET, KEEP, |out| {
            text(out, 2, name);
            for (kind, value) in [(3, MAP), (4, IPV4_ADDR), (5, 4), (6, IPV4_ADDR), (7, 4), (10, id)] {
                number(out, kind, value);
            }
            // nft wants the byte order of key and data: 2, the network's.
            let order = 2_u32.to_ne_bytes();
            bytes(out, 13, &[&[0, 4], &order[..], &[1, 4], &order[..]].concat());
        });
    }

    /// An element of an address map.
    pub fn address(&mut self, kind: u16, flags: u16, map: &str, key: [u8; 4], data: [u8; 4], comment: &str) {
        self.push(kind, flags, |out| {
            text(out, 2, map);
            nested(out, 3, |out| {
                nested(out, 1, |out| {
                    nested(out, 1, |out| bytes(out, 1, &key));
                    if kind == NEWSETELEM {
                        nested(out, 2, |out| bytes(out, 1, &data));
                        bytes(out, 6, &comment_data(comment));
                    }
                });
            });
        });
    }

    /// Appends a rule.
    pub fn rule(&mut self, chain: &str, rule: &Expressions, comment: &str) {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
        self.push(NEWRULE, flags, |out| {
            text(out, 2, chain);
            nested(out, 4, |out| out.extend_from_slice(&rule.0));
            bytes(out, 7, &comment_data(comment));
        });
    }
}

/// The expressions of one rule, already encoded. Values go through register 1.
#[derive(Default)]
pub(crate) struct Expressions(Vec<u8>);

/// NFT_META_*
pub(crate) mod meta {
    pub const OIFNAME: u32 = 7;
    pub const NFTRACE: u32 = 12;
    pub const L4PROTO: u32 = 16;
}

/// NFT_PAYLOAD_*
pub(crate) mod payload {
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;
}

impl Expressions {
    fn one(mut self, name: &str, body: impl FnOnce(&mut Vec<u8>)) -> Expressions {
        nested(&mut self.0, 1, |out| {
            text(out, 1, name);
            nested(out, 2, body);
        });
        self
    }

    fn numbers(self, name: &str, values: &[(u16, u32)]) -> Expressions {
        self.one(name, |out| values.iter().for_each(|(kind, value)| number(out, *kind, *value)))
    }

    /// Loads a property of the packet.
    pub fn meta(self, key: u32) -> Expressions {
        self.numbers("meta", &[(2, key), (1, 1)])
    }

    /// Loads bytes of the packet.
    pub fn payload(self, base: u32, offset: u32, length: u32) -> Expressions {
        self.numbers("payload", &[(1, 1), (2, base), (3, offset), (4, length)])
    }

    /// Goes on when register 1 equals the value.
    pub fn equal(self, value: &[u8]) -> Expressions {
        self.one("cmp", |out| {
            number(out, 1, 1);
            number(out, 2, 0);
            nested(out, 3, |out| bytes(out, 1, value));
        })
    }

    /// Keeps the bits of the mask.
    pub fn mask(self, mask: &[u8]) -> Expressions {
        self.one("bitwise", |out| {
            number(out, 1, 1);
            number(out, 2, 1);
            number(out, 3, mask.len() as u32);
            nested(out, 4, |out| bytes(out, 1, mask));
            nested(out, 5, |out| bytes(out, 1, &vec![0; mask.len()]));
        })
    }

    /// Loads a constant.
    pub fn constant(self, value: &[u8]) -> Expressions {
        self.one("immediate", |out| {
            number(out, 1, 1);
            nested(out, 2, |out| bytes(out, 1, value));
        })
    }

    /// Writes register 1 into a property of the packet.
    pub fn set_meta(self, key: u32) -> Expressions {
        self.numbers("meta", &[(2, key), (3, 1)])
    }

    /// Replaces register 1 by what the map has for it; ends the rule where it has nothing.
    pub fn map(self, name: &str, id: u32) -> Expressions {
        self.one("lookup", |out| {
            number(out, 2, 1);
            number(out, 3, 1);
            text(out, 1, name);
            number(out, 4, id);
        })
    }

    /// Rewrites the source (0) or destination (1) to the IPv4 address in register 1.
    pub fn nat(self, kind: u32) -> Expressions {
        self.numbers("nat", &[(1, kind), (2, u32::from(IPV4)), (3, 1)])
    }
}

/// A string with its NUL.
pub(crate) fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    let mut with_nul = value.as_bytes().to_vec();
    with_nul.push(0);
    bytes(out, kind, &with_nul);
}

/// A comment in user data: type 0, length, text with its NUL; as much of it as nft prints.
fn comment_data(comment: &str) -> Vec<u8> {
    let end = (0..=comment.len().min(127)).rev().find(|end| comment.is_char_boundary(*end)).unwrap_or(0);
    let mut data = vec![0, end as u8 + 1];
    data.extend_from_slice(&comment.as_bytes()[..end]);
    data.push(0);
    data
}
