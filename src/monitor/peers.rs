//! Who is connected to a relay: the foreground client, attached clients, and commands that ask something.
//!
//! Every peer has its own bounded queue and is only read and written without waiting. The foreground client is never
//! lost a byte: while its queue is full the program waits. An attached client may hold the program up too, as docker's
//! does, but only for [`STALLED`]: then it misses output, and is told how much.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::control::{Answer, Listener, Request};
use crate::wire;

/// Output that a client hasn't taken yet; beyond it the program waits.
pub const HIGH_WATER: usize = 256 << 10;
/// How long an attached client that takes too little may hold up the program.
pub const STALLED: Duration = Duration::from_secs(10);
/// Callers that ask or are being answered; more are left in the socket's backlog. Who waits or is attached isn't counted:
/// `stop` and `rm` always get through.
const MOST_ASKING: usize = 64;
/// Commands that wait for the end at the same time.
const MOST_WAITING: usize = 256;
/// Attached clients at the same time.
const MOST_ATTACHED: usize = 64;
/// How long a caller may take to put its question, or to read the answer.
const IDLE: Duration = Duration::from_secs(10);
/// The same while there is no place for the next one.
const IDLE_WHEN_FULL: Duration = Duration::from_secs(1);

/// What a peer is.
pub enum Role {
    /// The client that started the program; the program is killed when it vanishes without having detached.
    Owner,
    /// `attach`
    Attached {
        /// When its queue became full.
        full: Option<Instant>,
        /// Bytes that it has missed since it stalled.
        missed: Option<u64>,
    },
    /// A command that asks.
    Asking,
    /// A command that waits for the program's end.
    Waiting,
    /// It gets what is in its queue, and is closed.
    Leaving {
        /// However slow it is: the foreground client.
        patient: bool,
    },
}

/// A connection.
pub struct Peer {
    socket: UnixStream,
    received: Vec<u8>,
    queue: Vec<u8>,
    role: Role,
    /// When it connected, or was last heard.
    heard: Instant,
    gone: bool,
}

/// What a peer wants.
pub enum Wish {
    /// Pass this signal on.
    Signal(i32),
    /// Bytes for the terminal.
    Input(Vec<u8>),
    /// The terminal's rows and columns.
    Resize(u16, u16),
    /// A question; the answer goes to [`Peers::answer`].
    Call(Request),
    /// No more standard input.
    StdinEnd,
    /// The foreground client was killed: its container goes with it.
    OwnerDied,
    /// A client has left a program that lives on, by the detach keys.
    Detached,
}

/// All of them, and the socket that new ones come through.
#[derive(Default)]
pub struct Peers {
    /// None for the relay of `exec`.
    pub listener: Option<Listener>,
    all: Vec<Peer>,
}

impl Peer {
    fn new(socket: UnixStream, role: Role) -> Peer {
        Peer { socket, received: vec![], queue: vec![], role, heard: Instant::now(), gone: false }
    }

    fn sees_output(&self) -> bool {
        matches!(self.role, Role::Owner | Role::Attached { .. })
    }

    /// Whether the program must wait for it.
    fn holds_up(&self) -> bool {
        match self.role {
            Role::Owner | Role::Attached { missed: None, .. } => self.queue.len() >= HIGH_WATER,
            _ => false,
        }
    }

    fn push(&mut self, kind: u8, content: &[u8]) {
        match &mut self.role {
            Role::Attached { missed: Some(missed), .. } => *missed += content.len() as u64,
            _ => wire::push(&mut self.queue, kind, content),
        }
    }

    /// Sends what it takes now.
    fn write(&mut self) {
        if !self.queue.is_empty() {
            match rustix::net::send(&self.socket, &self.queue, SendFlags::NOSIGNAL) {
                Ok(written) => {
                    self.queue.drain(..written);
                    self.heard = Instant::now();
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // An owner's death is noticed by reading, after what it has sent before.
                Err(_) if matches!(self.role, Role::Owner) => {}
                Err(_) => self.gone = true,
            }
        }
        if !self.queue.is_empty() {
            return;
        }
        if let Role::Attached { missed: missed @ Some(_), .. } = &mut self.role {
            let text = missed_note(missed.take().unwrap_or_default());
            wire::push(&mut self.queue, wire::NOTE, text.as_bytes());
        }
        if matches!(self.role, Role::Leaving { .. }) {
            self.gone = true;
        }
    }
}

fn missed_note(bytes: u64) -> String {
    format!("\nminidock: {bytes} bytes of output are missing here: this client took too long to read them\n")
}

impl Peers {
    /// Only a foreground client.
    pub fn owner(client: Option<UnixStream>) -> Peers {
        // fcntl(2) can't refuse that for a socket.
        let owner = client.filter(|client| client.set_nonblocking(true).is_ok());
        Peers { listener: None, all: owner.map(|owner| Peer::new(owner, Role::Owner)).into_iter().collect() }
    }

    /// Whether more output may be read from the program.
    pub fn have_room(&self) -> bool {
        !self.all.iter().any(Peer::holds_up)
    }

    /// Descriptors to poll: an index for [`Peers::serve`], or none for the listener.
    pub fn watch(&self, input_has_room: bool) -> impl Iterator<Item = (Option<usize>, BorrowedFd<'_>, PollFlags)> {
        let listener = self.listener.as_ref().filter(|_| !self.is_full());
        let listener = listener.map(|listener| (None, listener.as_fd(), PollFlags::IN));
        let peers = self.all.iter().enumerate().map(move |(index, peer)| {
            let mut events = PollFlags::empty();
            // A caller that doesn't read its answers isn't listened to.
            events.set(PollFlags::IN, if peer.sees_output() { input_has_room } else { peer.queue.is_empty() });
            events.set(PollFlags::OUT, !peer.queue.is_empty());
            (Some(index), peer.socket.as_fd(), events)
        });
        listener.into_iter().chain(peers)
    }

    /// When [`Peers::tidy`] is wanted even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let idle = self.idle();
        let of = |peer: &Peer| match peer.role {
            Role::Attached { full: Some(full), missed: None } => Some(full + STALLED),
            Role::Asking => Some(peer.heard + idle),
            Role::Leaving { patient: false } => Some(peer.heard + IDLE),
            _ => None,
        };
        self.all.iter().filter_map(of).min()
    }

    /// Lets new callers in.
    pub fn accept(&mut self) {
        while !self.is_full()
            && let Some(socket) = self.listener.as_ref().and_then(Listener::accept)
        {
            self.all.push(Peer::new(socket, Role::Asking));
        }
    }

    /// Reads and writes what a peer is ready for.
    pub fn serve(&mut self, index: usize, events: PollFlags) -> Vec<Wish> {
        let Some(peer) = self.all.get_mut(index) else { return vec![] };
        if events.contains(PollFlags::OUT) {
            peer.write();
        }
        if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) { read(peer) } else { vec![] }
    }

    /// Answers a call; a peer that has gone meanwhile isn't missed.
    pub fn answer(&mut self, index: usize, answer: &Answer) {
        let Some(peer) = self.all.get_mut(index) else { return };
        let mut content = serde_json::to_vec(answer).unwrap_or_default();
        if content.len() > wire::MAX_FRAME {
            let error = Some("the container's monitor has an answer that is too long to be sent".to_string());
            content = serde_json::to_vec(&Answer { ok: None, error }).unwrap_or_default();
        }
        wire::push(&mut peer.queue, wire::ANSWER, &content);
        peer.heard = Instant::now();
        peer.write();
    }

    /// Makes a caller a client that sees the output from here on, and answers it. `stdin` goes to it with the answer.
    pub fn attach(&mut self, index: usize, answer: &Answer, stdin: Option<BorrowedFd<'_>>) {
        let Some(peer) = self.all.get_mut(index) else { return };
        let mut frame = Vec::new();
        wire::push(&mut frame, wire::ANSWER, &serde_json::to_vec(answer).unwrap_or_default());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = stdin.as_slice();
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        // Nothing else is on its way to a caller, so that a few bytes are taken whole, or it's no caller of ours.
        let sent = sendmsg(&peer.socket, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL);
        peer.gone |= sent != Ok(frame.len());
        peer.role = Role::Attached { full: None, missed: None };
    }

    /// Bytes of the program's output.
    pub fn output(&mut self, stream: usize, bytes: &[u8]) {
        let kind = if stream == 0 { wire::STDOUT } else { wire::STDERR };
        for peer in self.all.iter_mut().filter(|peer| peer.sees_output()) {
            peer.push(kind, bytes);
            peer.write(); // at once: a turn of the loop less on the way
        }
    }

    /// minidock's own words, for those who see the output.
    pub fn note(&mut self, text: &str) {
        for peer in self.all.iter_mut().filter(|peer| peer.sees_output()) {
            peer.push(wire::NOTE, text.as_bytes());
        }
    }

    /// Once a turn: gives up on those who stall, and forgets those who are gone.
    pub fn tidy(&mut self) {
        let (now, idle) = (Instant::now(), self.idle());
        for peer in &mut self.all {
            let is_full = peer.queue.len() >= HIGH_WATER;
            match &mut peer.role {
                Role::Attached { full, missed: missed @ None } => match full {
                    Some(since) if is_full && now - *since >= STALLED => (*full, *missed) = (None, Some(0)),
                    Some(_) if is_full => {}
                    _ => *full = is_full.then_some(now),
                },
                Role::Asking if now - peer.heard >= idle => peer.gone = true,
                Role::Leaving { patient: false } if now - peer.heard >= IDLE => peer.gone = true,
                _ => {}
            }
        }
        self.all.retain(|peer| !peer.gone);
    }

    /// The program has ended: everyone who saw its output is told its exit code, at once unless they are slow.
    pub fn end(&mut self, code: i32) {
        let waiting = |peer: &&mut Peer| matches!(peer.role, Role::Waiting);
        let answer = Answer { ok: Some(code.into()), error: None };
        let answer = serde_json::to_vec(&answer).unwrap_or_default();
        for peer in self.all.iter_mut().filter(waiting) {
            wire::push(&mut peer.queue, wire::ANSWER, &answer);
            peer.role = Role::Leaving { patient: false };
            peer.heard = Instant::now();
            peer.write();
        }
        for peer in self.all.iter_mut().filter(|peer| peer.sees_output()) {
            if let Role::Attached { missed: missed @ Some(_), .. } = &mut peer.role {
                let text = missed_note(missed.take().unwrap_or_default());
                wire::push(&mut peer.queue, wire::NOTE, text.as_bytes());
            }
            wire::push(&mut peer.queue, wire::EXIT, &code.to_le_bytes());
            peer.role = Role::Leaving { patient: matches!(peer.role, Role::Owner) };
            peer.heard = Instant::now();
            peer.write();
        }
        self.all.retain(|peer| !peer.gone);
    }

    /// A peer is answered when the program ends. The error: too many wait already.
    pub fn wait(&mut self, index: usize) -> Result<(), String> {
        if self.count(|role| matches!(role, Role::Waiting)) >= MOST_WAITING {
            return Err(format!("{MOST_WAITING} commands wait for this container's end already: end some of them"));
        }
        if let Some(peer) = self.all.get_mut(index) {
            peer.role = Role::Waiting;
        }
        Ok(())
    }

    /// The error: too many are attached already.
    pub fn may_attach(&self) -> Result<(), String> {
        match self.count(|role| matches!(role, Role::Attached { .. })) >= MOST_ATTACHED {
            true => Err(format!("{MOST_ATTACHED} clients are attached to this container already: detach some of them")),
            false => Ok(()),
        }
    }

    fn count(&self, is_meant: impl Fn(&Role) -> bool) -> usize {
        self.all.iter().filter(|peer| is_meant(&peer.role)).count()
    }

    fn is_full(&self) -> bool {
        self.count(|role| matches!(role, Role::Asking)) >= MOST_ASKING
    }

    fn idle(&self) -> Duration {
        if self.is_full() { IDLE_WHEN_FULL } else { IDLE }
    }

    /// Hands over what is left, the last frame included: to the foreground client however slow it is, to others as long
    /// as they take something every now and then.
    pub fn flush(&mut self) {
        self.listener = None;
        self.all.retain(|peer| !peer.queue.is_empty());
        while !self.all.is_empty() {
            let now = Instant::now();
            let left = self.deadline().map(|deadline| deadline.saturating_duration_since(now));
            let timeout = left.map(super::relay::timespec);
            let mut fds: Vec<_> =
                self.all.iter().map(|peer| rustix::event::PollFd::new(&peer.socket, PollFlags::OUT)).collect();
            if !matches!(rustix::event::poll(&mut fds, timeout.as_ref()), Ok(_) | Err(rustix::io::Errno::INTR)) {
                return;
            }
            let events: Vec<PollFlags> = fds.iter().map(rustix::event::PollFd::revents).collect();
            for (peer, events) in self.all.iter_mut().zip(events) {
                peer.gone |= events.intersects(PollFlags::HUP | PollFlags::ERR);
                peer.write();
                peer.gone |= peer.queue.is_empty();
            }
            self.tidy();
        }
    }
}

fn read(peer: &mut Peer) -> Vec<Wish> {
    let mut chunk = [0u8; wire::MAX_FRAME];
    let gone = match rustix::io::read(&peer.socket, &mut chunk) {
        Ok(0) => true,
        Ok(count) => {
            peer.received.extend_from_slice(&chunk[..count]);
            false
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
        Err(_) => true,
    };
    let Peer { received, role, heard, .. } = peer;
    let (mut wishes, mut detached, mut nonsense) = (Vec::new(), false, false);
    let takes_part = matches!(role, Role::Owner | Role::Attached { .. });
    let damaged = wire::drain(received, |kind, content| match kind {
        wire::CALL if !takes_part => match serde_json::from_slice(content) {
            Ok(request) => {
                *heard = Instant::now();
                wishes.push(Wish::Call(request));
            }
            Err(_) => nonsense = true,
        },
        _ if !takes_part => nonsense = true,
        wire::SIGNAL => wishes.push(Wish::Signal(wire::number(content))),
        wire::INPUT => wishes.push(Wish::Input(content.to_vec())),
        wire::RESIZE if content.len() >= 4 => {
            let word = |at: usize| u16::from_le_bytes([content[at], content[at + 1]]);
            wishes.push(Wish::Resize(word(0), word(2)));
        }
        wire::STDIN_END => wishes.push(Wish::StdinEnd),
        wire::DETACH => {
            detached = true;
            wishes.push(Wish::Detached);
        }
        _ => {}
    })
    .is_err();
    if matches!(role, Role::Owner) && (gone || damaged) && !detached {
        wishes.push(Wish::OwnerDied);
    }
    peer.gone |= gone || damaged || detached || nonsense;
    wishes
}
