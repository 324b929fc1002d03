//! One small blocking netlink socket for rtnetlink and nfnetlink.
//!
//! A batch is one buffer with N messages, sent by one sendmsg. The kernel works on it inside that call, so every answer
//! is waiting when it returns: answers are read until the queue is empty, and nothing ever blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::NetlinkSerializable;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols};

use crate::sys::Sender;
use crate::{Error, Result};

/// Length of struct nlmsghdr.
const HEADER: usize = 16;
/// Dumps come in pieces of at most 32 KiB (netlink_dump in net/netlink/af_netlink.c).
const RECEIVE_BYTES: usize = 64 * 1024;
/// More than this needs a larger send buffer than the default (net.core.wmem_default).
const SEND_BYTES: usize = 128 * 1024;
/// Attributes of an extended ack (include/uapi/linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// One netlink socket, bound to the network namespace in which it was opened.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A message of a batch was refused.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Which message of the batch; None when the whole batch failed.
    pub index: Option<usize>,
    pub errno: i32,
    /// The kernel's own words.
    pub text: Option<String>,
}

impl Failure {
    /// The failure as an error about `what`.
    pub fn into_error(self, what: impl Into<String>) -> Error {
        Error::System { what: what.into(), source: io::Error::from_raw_os_error(self.errno), detail: self.text }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure { index: None, errno: error.raw_os_error().unwrap_or(libc::EIO), text: None }
    }
}

/// An answer that carries data: which message it answers, its type, its bytes after the nlmsghdr.
#[derive(Debug)]
pub(crate) struct Answer {
    pub index: usize,
    pub kind: u16,
    pub payload: Vec<u8>,
}

impl Netlink {
    /// A socket for links, addresses, routes and neighbours.
    pub fn route() -> Result<Netlink> {
        let netlink = Netlink::open(protocols::NETLINK_ROUTE)?;
        // Strict checking makes the kernel honour the filters of a dump.
        let _ = netlink.socket.set_netlink_get_strict_chk(true);
        Ok(netlink)
    }

    /// A socket for nftables and conntrack.
    pub fn netfilter() -> Result<Netlink> {
        Netlink::open(protocols::NETLINK_NETFILTER)
    }

    fn open(protocol: isize) -> Result<Netlink> {
        let connect = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Both are courtesies of the kernel: without them errors are only vaguer.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            Ok(socket)
        };
        let socket = connect().map_err(|error| Error::system("open a netlink socket", error))?;
        Ok(Netlink { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Sends the batch; fails with the first message that the kernel refused. (In rtnetlink the messages before and
    /// after it have been carried out, nftables does all or nothing.)
    pub fn send(&mut self, batch: &Batch) -> std::result::Result<(), Failure> {
        let (_, failures) = self.exchange(batch)?;
        match failures.into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    /// Sends the batch; gives back every answer with data, and every refusal.
    pub fn exchange(&mut self, batch: &Batch) -> std::result::Result<(Vec<Answer>, Vec<Failure>), Failure> {
        let mut answers = Vec::new();
        let failures = self.exchange_each(batch, |answer| answers.push(answer))?;
        Ok((answers, failures))
    }

    /// As [`Netlink::exchange`], but gives each answer away as it comes: of a dump without a bound, the kernel writes the
    /// next piece when the one before has been read.
    pub fn exchange_each(
        &mut self,
        batch: &Batch,
        mut each: impl FnMut(Answer),
    ) -> std::result::Result<Vec<Failure>, Failure> {
        let (first, bytes) = self.numbered(batch);
        self.socket.send(&bytes, 0)?;
        self.answers(first, batch.count, &mut each)
    }

    /// Sends the batch while we do other things; [`Netlink::collect`] takes its answers.
    pub fn post(&mut self, batch: &Batch) -> std::result::Result<Posted, Failure> {
        let (first, bytes) = self.numbered(batch);
        let sender = Sender::start(self.as_fd(), bytes)?;
        Ok(Posted { sender, first, count: batch.count })
    }

    /// Waits for a batch that was posted; as [`Netlink::send`].
    pub fn collect(&mut self, posted: Posted) -> std::result::Result<(), Failure> {
        posted.sender.finish()?;
        let failures = self.answers(posted.first, posted.count, &mut drop)?;
        match failures.into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    /// The number of a batch's first message, and its bytes.
    fn numbered(&mut self, batch: &Batch) -> (u32, Vec<u8>) {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(batch.count as u32);
        let bytes = batch.numbered(first);
        if bytes.len() > SEND_BYTES {
            let _ = nix::sys::socket::setsockopt(self, nix::sys::socket::sockopt::SndBufForce, &(bytes.len() * 2));
        }
        (first, bytes)
    }

    fn answers(
        &mut self,
        first: u32,
        count: usize,
        each: &mut dyn FnMut(Answer),
    ) -> std::result::Result<Vec<Failure>, Failure> {
        let (mut failures, mut overflow) = (Vec::new(), false);
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(0) => break,
                Ok(_) => read_datagram(&self.buffer, first, count, each, &mut failures),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    Some(libc::EINTR) => continue,
                    // Some answers did not fit the receive buffer; the first refusals did, and they suffice.
                    Some(libc::ENOBUFS) => overflow = true,
                    _ => return Err(error.into()),
                },
            }
        }
        if overflow && failures.is_empty() {
            return Err(Failure { index: None, errno: libc::ENOBUFS, text: None });
        }
        Ok(failures)
    }
}

/// A batch that is being sent by another process. Nothing else may be sent on its socket until it has been collected.
pub(crate) struct Posted {
    sender: Sender,
    first: u32,
    count: usize,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

/// Messages to be sent together, in their order.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    count: usize,
}

impl Batch {
    /// Appends a message; `body` writes what follows the nlmsghdr. Gives back the message's index.
    pub fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        body(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 4..start + 6].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[start + 6..start + 8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.starts.push(start);
        self.count += 1;
        self.count - 1
    }

    /// Appends an rtnetlink message. Gives back the message's index.
    pub fn push_route(&mut self, message: RouteNetlinkMessage, flags: u16) -> usize {
        self.push(message.message_type(), flags, |body| {
            let start = body.len();
            body.resize(start + message.buffer_len(), 0);
            message.serialize(&mut body[start..]);
        })
    }

    /// The number of messages.
    pub fn len(&self) -> usize {
        self.count
    }

    fn numbered(&self, first: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (index, start) in self.starts.iter().enumerate() {
            bytes[start + 8..start + 12].copy_from_slice(&first.wrapping_add(index as u32).to_ne_bytes());
        }
        bytes
    }
}

/// Sorts the messages of one received datagram into answers and failures.
fn read_datagram(bytes: &[u8], first: u32, count: usize, each: &mut dyn FnMut(Answer), failures: &mut Vec<Failure>) {
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let length = u32_at(rest, 0) as usize;
        if length < HEADER || length > rest.len() {
            return;
        }
        let (message, payload) = (&rest[..length], &rest[HEADER..length]);
        let kind = u16_at(message, 4);
        let index = u32_at(message, 8).wrapping_sub(first) as usize;
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        if index >= count {
            continue; // an answer to an earlier batch that was given up
        }
        match i32::from(kind) {
            libc::NLMSG_ERROR if payload.len() >= 4 => {
                let errno = -(u32_at(payload, 0) as i32);
                if errno != 0 {
                    failures.push(Failure { index: Some(index), errno, text: extended_ack(message) });
                }
            }
            libc::NLMSG_DONE if payload.len() >= 4 && (u32_at(payload, 0) as i32) < 0 => {
                let errno = -(u32_at(payload, 0) as i32);
                failures.push(Failure { index: Some(index), errno, text: None });
            }
            libc::NLMSG_NOOP | libc::NLMSG_ERROR | libc::NLMSG_DONE => {}
            _ => each(Answer { index, kind, payload: payload.to_vec() }),
        }
    }
}

/// The text of an extended ack. With NETLINK_CAP_ACK the refused message's header, but not its body, comes before.
fn extended_ack(message: &[u8]) -> Option<String> {
    const NLM_F_CAPPED: u16 = 0x100;
    const NLM_F_ACK_TLVS: u16 = 0x200;
    let flags = u16_at(message, 6);
    if flags & NLM_F_ACK_TLVS == 0 || message.len() < HEADER + 4 + HEADER {
        return None;
    }
    let original = if flags & NLM_F_CAPPED != 0 { HEADER } else { u32_at(message, HEADER + 4) as usize };
    let start = (HEADER + 4).checked_add(original.checked_next_multiple_of(4)?)?;
    let (_, text) = attributes(message.get(start..)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    Some(text_of(text))
}

/// The attributes in `bytes` (struct nlattr), their type without the nested and byte order flags. Stops at damage.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.len() < 4 {
            return None;
        }
        let length = usize::from(u16_at(rest, 0));
        if length < 4 || length > rest.len() {
            return None;
        }
        let item = (u16_at(rest, 2) & 0x3fff, &rest[4..length]);
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some(item)
    })
}

/// The first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A string attribute, without its NUL.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A u32 in host byte order; 0 where the bytes end too early.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A u16 in host byte order; 0 where the bytes end too early.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_answers_end_the_reading_without_a_panic() {
        let mut batch = Batch::default();
        batch.push(16, 0, |body| body.extend_from_slice(&[1, 2, 3]));
        let whole = batch.numbered(7);
        assert_eq!(whole.len(), 20);
        for length in 0..whole.len() {
            for byte in 0..length {
                let mut bytes = whole[..length].to_vec();
                bytes[byte] = 0xff;
                read_datagram(&bytes, 7, 1, &mut drop, &mut Vec::new());
                let _ = extended_ack(&bytes);
                attributes(&bytes).for_each(drop);
            }
        }
    }

    #[test]
    fn the_kernel_names_the_refused_message() {
        let mut netlink = Netlink::route().unwrap();
        let mut batch = Batch::default();
        for _ in 0..2 {
            // RTM_GETLINK of an index that no link has
            batch.push(18, 0, |body| {
                body.extend_from_slice(&[0; 4]);
                body.extend_from_slice(&0x7fff_fff0_u32.to_ne_bytes());
                body.extend_from_slice(&[0; 8]);
            });
        }
        let (answers, failures) = netlink.exchange(&batch).unwrap();
        assert!(answers.is_empty());
        assert_eq!(
            failures.iter().map(|failure| (failure.index, failure.errno)).collect::<Vec<_>>(),
            [(Some(0), libc::ENODEV), (Some(1), libc::ENODEV)]
        );
    }
}
