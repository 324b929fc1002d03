//! Reserved ports that nobody serves from user space, kept from others. Many of them would be many open files: they're
//! sent into a unix socket that nobody reads (SCM_RIGHTS), where the kernel keeps them open until that socket is closed.
//! 10 000 ports are so a few descriptors, and the limit of open files doesn't matter.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

use super::ReservedPort;

/// As many stay open here; then they're parked together. SCM_MAX_FD is 253, and a port may come with its lock.
const BATCH: usize = 120;

/// Ports that are kept from others while this value lives.
#[derive(Debug, Default)]
pub struct Kept {
    open: Vec<ReservedPort>,
    parked: Vec<(OwnedFd, OwnedFd)>,
}

impl Kept {
    /// Keeps one more.
    ///
    /// # Errors
    /// No descriptors or memory left.
    pub fn push(&mut self, port: ReservedPort) -> Result<(), Errno> {
        self.open.push(port);
        if self.open.len() >= BATCH { self.park() } else { Ok(()) }
    }

    /// Keeps another's too.
    pub fn extend(&mut self, other: Kept) {
        self.open.extend(other.open);
        self.parked.extend(other.parked);
    }

    /// Gives all of them back.
    pub fn clear(&mut self) {
        self.open.clear();
        self.parked.clear();
    }

    fn park(&mut self) -> Result<(), Errno> {
        let sockets: Vec<BorrowedFd<'_>> = self
            .open
            .iter()
            .flat_map(|port| std::iter::once(port.fd()).chain(port.lock.as_ref().map(|lock| lock.as_fd())))
            .collect();
        let sent = match self.parked.last() {
            Some((into, _)) => send(into, &sockets),
            None => Err(Errno::AGAIN),
        };
        match sent {
            Err(Errno::AGAIN | Errno::NOBUFS) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let pair = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
                send(&pair.0, &sockets)?;
                self.parked.push(pair);
            }
            other => other?,
        }
        self.open.clear();
        Ok(())
    }
}

fn send(into: &OwnedFd, sockets: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2 * BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(sockets));
    sendmsg(into, &[IoSlice::new(b"p")], &mut control, SendFlags::empty()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::port::{PortError, reserve};

    #[test]
    fn parked_ports_are_kept_and_given_back() {
        let mut kept = Kept::default();
        let mut numbers = Vec::new();
        for _ in 0..1000 {
            let port = reserve(Protocol::Udp, [127, 0, 0, 9], 0).unwrap();
            numbers.push(port.port());
            kept.push(port).unwrap();
        }
        assert!(kept.open.len() < BATCH && !kept.parked.is_empty());
        for number in numbers.iter().step_by(97) {
            let again = reserve(Protocol::Udp, [127, 0, 0, 9], *number);
            assert!(matches!(again, Err(PortError::InUse { .. })), "{number}: {again:?}");
        }
        kept.clear();
        reserve(Protocol::Udp, [127, 0, 0, 9], numbers[0]).unwrap();
    }
}
