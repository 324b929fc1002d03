//! DNS messages (RFC 1035, EDNS of RFC 6891), as much as a resolver needs that answers a few names itself and passes the
//! rest on as it came. Every byte read here is a stranger's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of the header.
pub(super) const HEADER: usize = 12;
/// How long our answers may be kept, in seconds: docker's.
const TTL: u32 = 600;
/// The largest datagram for a client that doesn't say what it takes.
const PLAIN_UDP: usize = 512;
/// What we say that we take, and give, by UDP.
const OWN_UDP: u16 = 4096;
const LONGEST_NAME: usize = 255;

pub(super) mod kind {
    pub const A: u16 = 1;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
}
const CLASS_IN: u16 = 1;

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// Flags in the header's second word.
const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const OPCODE: u16 = 0x7800;

/// A question that can be answered or passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub id: u16,
    flags: u16,
    /// In lower case, without the last dot; none when a label has a dot or a byte that isn't printable ASCII.
    pub name: Option<String>,
    pub kind: u16,
    class: u16,
    /// Where the question ends in the message.
    pub end: usize,
    /// The largest datagram that the client takes; none without EDNS.
    edns: Option<u16>,
}

/// Why a message isn't passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reject {
    /// Not a question: an answer could start a quarrel between two servers.
    Silently,
    With(Code),
}

impl Query {
    pub fn read(message: &[u8]) -> Result<Query, Reject> {
        let word = |at| u16_at(message, at).ok_or(Reject::Silently);
        let (id, flags) = (word(0)?, word(2)?);
        let counts = [word(4)?, word(6)?, word(8)?, word(10)?];
        if flags & RESPONSE != 0 {
            return Err(Reject::Silently);
        }
        if flags & OPCODE != 0 {
            return Err(Reject::With(Code::NotImplemented));
        }
        let malformed = || Reject::With(Code::FormatError);
        if counts[0] != 1 {
            return Err(malformed());
        }
        let (name, after) = plain_name(message, HEADER).ok_or_else(malformed)?;
        let (kind, class) =
            (u16_at(message, after).ok_or_else(malformed)?, u16_at(message, after + 2).ok_or_else(malformed)?);
        let end = after + 4;
        let records: usize = counts[1..].iter().map(|count| usize::from(*count)).sum();
        let edns = edns_size(message, end, records).ok_or_else(malformed)?;
        Ok(Query { id, flags, name, kind, class, end, edns })
    }

    /// Whether our own names can answer it.
    pub fn is_internet(&self) -> bool {
        self.class == CLASS_IN
    }

    /// The largest datagram for the answer.
    pub fn most_udp(&self) -> usize {
        self.edns.map_or(PLAIN_UDP, |size| usize::from(size.min(OWN_UDP)).max(PLAIN_UDP))
    }

    /// An answer with these records; cut off and marked so when it's longer than `most` bytes.
    pub fn answer(&self, message: &[u8], code: Code, records: &[Record], most: usize) -> Vec<u8> {
        let flags = RESPONSE | RECURSION_AVAILABLE | self.flags & RECURSION_DESIRED | code as u16;
        let mut out = head(self.id, flags, 1);
        out.extend_from_slice(message.get(HEADER..self.end).unwrap_or_default());
        let room = most.saturating_sub(if self.edns.is_some() { 11 } else { 0 });
        let (mut count, mut truncated) = (0u16, 0u16);
        for record in records {
            let before = out.len();
            record.write(&mut out);
            if out.len() > room || count == u16::MAX {
                out.truncate(before);
                truncated = TRUNCATED;
                break;
            }
            count += 1;
        }
        out[2..4].copy_from_slice(&(flags | truncated).to_be_bytes());
        out[6..8].copy_from_slice(&count.to_be_bytes());
        if self.edns.is_some() {
            out[10..12].copy_from_slice(&1u16.to_be_bytes());
            out.push(0); // the root's name
            out.extend_from_slice(&kind::OPT.to_be_bytes());
            out.extend_from_slice(&OWN_UDP.to_be_bytes());
            out.extend_from_slice(&[0; 6]); // no extended code, version 0, no flags, no options
        }
        out
    }

    /// A server's answer as the client gets it: with its own id, and within what it takes.
    pub fn passed_on(&self, message: &[u8], mut answer: Vec<u8>, most: usize) -> Vec<u8> {
        if answer.len() > most {
            let mut cut = self.answer(message, Code::NoError, &[], most);
            cut[2] |= (TRUNCATED >> 8) as u8;
            return cut;
        }
        answer[..2].copy_from_slice(&self.id.to_be_bytes());
        answer
    }
}

/// The answer to what couldn't be read: a header alone. The message has one.
pub(super) fn rejection(message: &[u8], code: Code) -> Vec<u8> {
    let (id, flags) = (u16_at(message, 0).unwrap_or(0), u16_at(message, 2).unwrap_or(0));
    head(id, RESPONSE | RECURSION_AVAILABLE | flags & (OPCODE | RECURSION_DESIRED) | code as u16, 0)
}

fn head(id: u16, flags: u16, questions: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(PLAIN_UDP);
    [id, flags, questions, 0, 0, 0].iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
    out
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It isn't the answer to our question: somebody else's, or forged.
    Nothing,
    /// An answer: that there's no such name, too.
    Answer,
    /// That it can't or won't: another server may.
    Failure,
}

/// Whether a message answers the question of `query` that was sent with this id.
pub(super) fn response(message: &[u8], id: u16, query: &[u8], question_end: usize) -> Said {
    let (Some(its_id), Some(flags), Some(questions)) = (u16_at(message, 0), u16_at(message, 2), u16_at(message, 4))
    else {
        return Said::Nothing;
    };
    if message.len() < HEADER || its_id != id || flags & RESPONSE == 0 || flags & OPCODE != 0 {
        return Said::Nothing;
    }
    let failed = [Code::FormatError, Code::ServerFailure, Code::NotImplemented, Code::Refused]
        .iter()
        .any(|code| flags & 0xf == *code as u16);
    // Some leave the question out of a refusal.
    if questions == 0 && failed {
        return Said::Failure;
    }
    match (message.get(HEADER..question_end), query.get(HEADER..question_end)) {
        (Some(theirs), Some(ours)) if questions == 1 && theirs.eq_ignore_ascii_case(ours) => {}
        _ => return Said::Nothing,
    }
    if failed { Said::Failure } else { Said::Answer }
}

/// A record about the name in the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(String),
}

impl Record {
    fn write(&self, out: &mut Vec<u8>) {
        let (kind, data) = match self {
            Record::Address(IpAddr::V4(address)) => (kind::A, address.octets().to_vec()),
            Record::Address(IpAddr::V6(address)) => (kind::AAAA, address.octets().to_vec()),
            Record::Name(name) => (kind::PTR, labels(name)),
        };
        out.extend_from_slice(&(0xc000 | HEADER as u16).to_be_bytes()); // the name in the question
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&TTL.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
}

/// A name as labels. What is too long is left out; names have been checked before.
fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
        if out.len() + label.len() + 2 > LONGEST_NAME {
            break;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// The address that a reverse look-up is about: `2.0.17.172.in-addr.arpa`, or 32 digits and `ip6.arpa`.
pub(super) fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut parts: Vec<&str> = octets.split('.').collect();
        parts.reverse();
        return parts.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let (mut bits, mut count) = (0u128, 0);
    for digit in digits.split('.').rev() {
        if digit.len() != 1 || count == 32 {
            return None;
        }
        bits = bits << 4 | u128::from_str_radix(digit, 16).ok()?;
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

/// A name without compression, and where it ends. The question comes first, so it has nothing to point back at.
fn plain_name(message: &[u8], start: usize) -> Option<(Option<String>, usize)> {
    let (mut name, mut at) = (Some(String::new()), start);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > 63 {
            return None;
        }
        let label = message.get(at..at + length)?;
        at += length;
        if at - start >= LONGEST_NAME {
            return None;
        }
        match &mut name {
            Some(text) if label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|byte| byte.to_ascii_lowercase() as char));
            }
            unprintable => *unprintable = None,
        }
    }
}

/// The datagram size in the OPT record among the records after the question; `None` when they are damaged.
fn edns_size(message: &[u8], start: usize, records: usize) -> Option<Option<u16>> {
    let (mut at, mut size) = (start, None);
    for _ in 0..records {
        at = after_name(message, at)?;
        let kind = u16_at(message, at)?;
        if kind == kind::OPT {
            size = Some(u16_at(message, at + 2)?);
        }
        at += 10 + usize::from(u16_at(message, at + 8)?);
        if at > message.len() {
            return None;
        }
    }
    Some(size)
}

/// Where a name ends that may be compressed.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut message = head(id, RECURSION_DESIRED, 1);
        message.extend_from_slice(&labels(name));
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message
    }

    fn with_edns(mut message: Vec<u8>, size: u16) -> Vec<u8> {
        message[11] = 1;
        message.push(0);
        message.extend_from_slice(&kind::OPT.to_be_bytes());
        message.extend_from_slice(&size.to_be_bytes());
        message.extend_from_slice(&[0, 0, 0, 0, 0, 4, 0, 10, 0, 0]); // one empty option
        message
    }

    #[test]
    fn a_question_is_read() {
        let message = question(7, "Web.Example", kind::A);
        let query = Query::read(&message).unwrap();
        assert_eq!((query.id, query.name.as_deref(), query.kind), (7, Some("web.example"), kind::A));
        assert_eq!((query.end, query.most_udp(), query.is_internet()), (message.len(), 512, true));
        assert_eq!(Query::read(&with_edns(message.clone(), 1232)).unwrap().most_udp(), 1232);
        assert_eq!(Query::read(&with_edns(message.clone(), 65000)).unwrap().most_udp(), 4096);
        assert_eq!(Query::read(&with_edns(message, 0)).unwrap().most_udp(), 512);
    }

    #[test]
    fn what_is_no_question_is_rejected() {
        let good = question(7, "a", kind::A);
        let changed = |at: usize, to: u8| {
            let mut message = good.clone();
            message[at] = to;
            Query::read(&message)
        };
        assert_eq!(changed(2, 0x81), Err(Reject::Silently), "an answer");
        assert_eq!(changed(2, 0x29), Err(Reject::With(Code::NotImplemented)), "an update");
        assert_eq!(changed(5, 0), Err(Reject::With(Code::FormatError)), "no question");
        assert_eq!(changed(5, 2), Err(Reject::With(Code::FormatError)), "two");
        assert_eq!(changed(12, 0xc0), Err(Reject::With(Code::FormatError)), "a pointer in the question");
        assert_eq!(changed(11, 1), Err(Reject::With(Code::FormatError)), "a record that isn't there");
        assert_eq!(Query::read(&good[..11]), Err(Reject::Silently), "no whole header");
        assert_eq!(Query::read(&good[..13]), Err(Reject::With(Code::FormatError)), "no whole name");
    }

    #[test]
    fn answers_are_cut_at_what_the_client_takes() {
        let message = question(9, "many", kind::A);
        let query = Query::read(&message).unwrap();
        let records: Vec<Record> = (0..200u8).map(|last| Record::Address(IpAddr::from([172, 17, 0, last]))).collect();
        let small = query.answer(&message, Code::NoError, &records, query.most_udp());
        assert!(small.len() <= 512 && small[2] & 2 != 0, "{} bytes, marked as cut", small.len());
        assert_eq!(u16_at(&small, 6), Some(((512 - message.len()) / 16) as u16));
        let whole = query.answer(&message, Code::NoError, &records, 65535);
        assert_eq!((whole.len(), whole[2] & 2, u16_at(&whole, 6)), (message.len() + 200 * 16, 0, Some(200)));
        let message = with_edns(message, 4096);
        let query = Query::read(&message).unwrap();
        let answer = query.answer(&message, Code::NoError, &records, query.most_udp());
        assert_eq!((u16_at(&answer, 6), u16_at(&answer, 10)), (Some(200), Some(1)), "all, and EDNS is answered");
    }

    #[test]
    fn only_the_answer_to_our_question_counts() {
        let ours = question(1, "example.org", kind::A);
        let answer = |id, name, kind, flags: [u8; 2]| {
            let mut message = question(id, name, kind);
            message[2..4].copy_from_slice(&flags);
            response(&message, 1, &ours, ours.len())
        };
        assert_eq!(answer(1, "example.org", kind::A, [0x81, 0x80]), Said::Answer);
        assert_eq!(answer(1, "EXAMPLE.org", kind::A, [0x81, 0x83]), Said::Answer, "NXDOMAIN is one");
        assert_eq!(answer(1, "example.org", kind::A, [0x81, 0x82]), Said::Failure);
        assert_eq!(answer(2, "example.org", kind::A, [0x81, 0x80]), Said::Nothing, "another id");
        assert_eq!(answer(1, "example.com", kind::A, [0x81, 0x80]), Said::Nothing, "another name");
        assert_eq!(answer(1, "example.org", kind::AAAA, [0x81, 0x80]), Said::Nothing, "another type");
        assert_eq!(answer(1, "example.org", kind::A, [0x01, 0x00]), Said::Nothing, "a question");
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reversed("2.0.17.172.in-addr.arpa"), Some([172, 17, 0, 2].into()));
        let nibbles = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reversed(nibbles), "fd00::2".parse().ok());
        for text in ["17.172.in-addr.arpa", "x.0.17.172.in-addr.arpa", "d.f.ip6.arpa", "in-addr.arpa", "web"] {
            assert_eq!(reversed(text), None, "{text}");
        }
        let message = question(3, "2.0.17.172.in-addr.arpa", kind::PTR);
        let query = Query::read(&message).unwrap();
        let answer = query.answer(&message, Code::NoError, &[Record::Name("web.bridge".into())], 512);
        assert!(answer.ends_with(b"\x03web\x06bridge\0"));
    }

    /// A small generator (xorshift64*): the same bytes at each run.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    #[test]
    fn rubbish_is_survived_and_answers_stay_within_bounds() {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let seed = with_edns(question(1, "a.long.name.of.several.labels", kind::A), 1232);
        for round in 0..60_000 {
            let mut message = match round % 3 {
                0 => (0..noise.next() % 600).map(|_| noise.next() as u8).collect(),
                1 => seed[..(noise.next() as usize % (seed.len() + 1))].to_vec(),
                _ => seed.clone(),
            };
            for _ in 0..noise.next() % 6 {
                if !message.is_empty() {
                    let at = noise.next() as usize % message.len();
                    message[at] = noise.next() as u8;
                }
            }
            let _ = response(&message, 1, &seed, 47);
            match Query::read(&message) {
                Ok(query) => {
                    assert!(query.end <= message.len());
                    let _ = query.name.as_deref().map(reversed);
                    let records = vec![Record::Address([1, 2, 3, 4].into()); noise.next() as usize % 100];
                    let answer = query.answer(&message, Code::NoError, &records, query.most_udp());
                    assert!(answer.len() <= query.most_udp().max(query.end + 11));
                    let passed = query.passed_on(&message, vec![0; 700], query.most_udp());
                    assert!(passed.len() <= query.most_udp().max(query.end + 11));
                }
                Err(Reject::With(code)) => assert_eq!(rejection(&message, code).len(), HEADER),
                Err(Reject::Silently) => {}
            }
        }
    }
}
