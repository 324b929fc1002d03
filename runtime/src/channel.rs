//! The one connection between a caller and the process it makes: "go" one way; the terminal, "ready" and one error back.
//!
//! It is a seqpacket socket, closed by execve(2): its end without an error, after "ready", is the success.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::error::{StartError, StartErrorKind};

/// Longer error texts are cut: they may hold names from an image.
const MAX_MESSAGE: usize = 4096;

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What is said.
#[derive(Debug)]
pub(crate) enum Message {
    /// To init: all is ready on the caller's side.
    Go,
    /// From the process: the master of the terminal it made.
    Terminal(OwnedFd),
    /// From exec's helper: the pid, in the caller's namespace, of the process it made.
    Pid(u32),
    /// From the process: execve is next.
    Ready,
    /// From the process: why there will be no program.
    Failed(StartError),
}

impl Channel {
    /// Both ends.
    pub(crate) fn pair() -> Result<(Channel, Channel), Errno> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// Says that all is ready on the caller's side.
    pub(crate) fn go(&self) -> Result<(), Errno> {
        self.send(b"G", None)
    }

    /// Hands the terminal over.
    pub(crate) fn terminal(&self, master: BorrowedFd) -> Result<(), Errno> {
        self.send(b"T", Some(master))
    }

    /// Names a process that was made for the caller.
    pub(crate) fn pid(&self, pid: u32) -> Result<(), Errno> {
        let [a, b, c, d] = pid.to_ne_bytes();
        self.send(&[b'P', a, b, c, d], None)
    }

    /// Says that execve is next.
    pub(crate) fn ready(&self) -> Result<(), Errno> {
        self.send(b"R", None)
    }

    /// Reports why there will be no program.
    pub(crate) fn failed(&self, error: &StartError) {
        let kind = match error.kind {
            StartErrorKind::NotFound => b'N',
            StartErrorKind::NotExecutable => b'X',
            StartErrorKind::Other => b'O',
        };
        let text = error.message.as_bytes();
        let mut message = vec![b'E', kind];
        message.extend_from_slice(&text[..text.len().min(MAX_MESSAGE)]);
        // The other end may be gone: then nobody wants to know.
        let _ = self.send(&message, None);
    }

    /// Waits for a message; None when the other end is closed.
    pub(crate) fn receive(&self) -> Result<Option<Message>, Errno> {
        let mut bytes = [0u8; MAX_MESSAGE + 2];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::INTR) => {}
                result => break result?.bytes,
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(match (&bytes[..received], fd) {
            ([], _) => None,
            ([b'G'], _) => Some(Message::Go),
            ([b'T'], Some(fd)) => Some(Message::Terminal(fd)),
            ([b'R'], _) => Some(Message::Ready),
            ([b'P', a, b, c, d], _) => Some(Message::Pid(u32::from_ne_bytes([*a, *b, *c, *d]))),
            ([b'E', kind, text @ ..], _) => {
                let kind = match kind {
                    b'N' => StartErrorKind::NotFound,
                    b'X' => StartErrorKind::NotExecutable,
                    _ => StartErrorKind::Other,
                };
                Some(Message::Failed(StartError { kind, message: String::from_utf8_lossy(text).into_owned() }))
            }
            _ => return Err(Errno::PROTO),
        })
    }

    /// Waits until the process has said everything: its terminal, if it has made one, on success.
    pub(crate) fn outcome(&self) -> Result<Option<OwnedFd>, StartError> {
        self.outcome_of_helper().0
    }

    /// The same, and the pid of the process that was made for us by another. The two speak at the same time.
    pub(crate) fn outcome_of_helper(&self) -> (Result<Option<OwnedFd>, StartError>, Option<u32>) {
        let (mut terminal, mut pid, mut ready, mut failed) = (None, None, false, None);
        loop {
            match self.receive() {
                Ok(Some(Message::Terminal(fd))) => terminal = Some(fd),
                Ok(Some(Message::Ready)) => ready = true,
                Ok(Some(Message::Failed(error))) => failed = Some(error),
                Ok(Some(Message::Pid(number))) => pid = Some(number),
                Ok(Some(Message::Go)) => {}
                // Its end was closed with our "go" unread. Said once, before what it had sent, which is still to be read.
                Err(Errno::CONNRESET) => {}
                Ok(None) => break,
                Err(error) => {
                    return (Err(StartError::new(format!("cannot hear from the container's process: {error}"))), pid);
                }
            }
        }
        let result = match failed {
            Some(error) => Err(error),
            None if ready => Ok(terminal),
            None => Err(StartError::new(
                "the container's process was killed before its program started; a memory limit that is too small does that",
            )),
        };
        (result, pid)
    }

    fn send(&self, bytes: &[u8], fd: Option<BorrowedFd>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
