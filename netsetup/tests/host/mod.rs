//! A test host: the calling thread in network and mount namespaces of its own, with an `outside` machine on a wire.
//!
//! Everything goes with the thread and the `sleep` processes that hold the namespaces; nothing touches the real host.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netsetup::{
    Backend, Endpoint, Facts, Host, Live, NewNetns, Op, Place, PortMapping, Protocol, PublishMode, Residue, Subnet,
    Undone, apply, plan_endpoint, plan_network, undo,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

/// A network namespace with a process in it, as a container's.
pub struct Machine {
    pub netns: NewNetns,
    pub init: Child,
}

impl Machine {
    pub fn new() -> Machine {
        let netns = NewNetns::create().unwrap();
        let path = format!("--net=/proc/{}/fd/{}", std::process::id(), netns.fd().as_raw_fd());
        let init = Command::new("nsenter").args([&path, "sleep", "1000"]).spawn().unwrap();
        let machine = Machine { netns, init };
        let ours = ns_of("self/task").unwrap_or_default();
        let there = || ns_of(&machine.init.id().to_string());
        let inside = machine.within(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        wait_for("the process to be in its namespace", || {
            there().is_some_and(|ns| ns != ours && ns == inside.to_string_lossy())
        });
        machine
    }

    pub fn pid(&self) -> u32 {
        self.init.id()
    }

    /// Runs something with the thread in this namespace.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        within(self.netns.fd(), work)
    }

    pub fn sh(&self, script: &str) -> String {
        self.within(|| sh(script))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

fn ns_of(task: &str) -> Option<String> {
    std::fs::read_link(format!("/proc/{task}/ns/net")).ok().map(|path| path.to_string_lossy().into_owned())
}

pub fn within<T>(netns: BorrowedFd, work: impl FnOnce() -> T) -> T {
    let own: OwnedFd = std::fs::File::open("/proc/thread-self/ns/net").unwrap().into();
    setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
    let result = work();
    setns(own.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
    result
}

/// The thread's own host with an outside machine behind eth1.
pub struct TestHost {
    pub host: Host,
    pub outside: Machine,
    pub network: netsetup::Network,
    /// For the next containers.
    pub may_spoof: bool,
    /// Residues of the network, in the order made.
    pub journal: Vec<Residue>,
}

impl TestHost {
    pub fn new(backend: Backend) -> TestHost {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
        // The VM's guest has no link /var/run -> /run.
        if !std::fs::symlink_metadata("/var/run").unwrap().is_symlink() {
            mount(Some("/run"), "/var/run", none, MsFlags::MS_BIND, none).unwrap();
        }
        let outside = Machine::new();
        sh(&format!(
            "set -e; ip link set lo up
             ip link add eth1 type veth peer name eth0 netns {pid}
             ip addr add {HOST}/24 dev eth1; ip link set eth1 up",
            pid = outside.pid()
        ));
        outside.sh(&format!("set -e; ip link set lo up; ip addr add {OUTSIDE}/24 dev eth0; ip link set eth0 up"));
        wait_for("the wire to the outside", || sh("cat /sys/class/net/eth1/operstate").trim() == "up");
        let ipv4 = Some(Subnet::new(GATEWAY, 16));
        let network = netsetup::Network { ipv4, backend, ..netsetup::Network::new("bridge", "docker0") };
        TestHost { host: Host::open().unwrap(), outside, network, may_spoof: false, journal: Vec::new() }
    }

    pub fn facts(&mut self) -> Facts {
        Facts::read(&mut self.host, &self.network).unwrap()
    }

    /// Brings up what the network lacks; gives back the ops.
    pub fn up(&mut self) -> Vec<Op> {
        let facts = self.facts();
        let ops = plan_network(&self.network, &facts).unwrap();
        self.journal.extend(ops.iter().filter_map(|op| op.residue(None)));
        apply(&ops, &mut Live { host: &mut self.host, netns: None, init_pid: None }).unwrap();
        ops
    }

    pub fn endpoint(&mut self, number: u8, ports: &[PortMapping]) -> Endpoint {
        Endpoint {
            owner: format!("{number:02x}").repeat(32),
            name: format!("c{number}"),
            host_link: format!("veth{}", format!("{number:02x}").repeat(3)),
            inside_link: "eth0".into(),
            mac: [2, 0x42, 172, 17, 0, number],
            ipv4: self.network.ipv4.as_ref().map(|subnet| place(subnet, number)),
            ipv6: self.network.ipv6.as_ref().map(|subnet| place(subnet, number)),
            extra_addresses: vec![],
            may_spoof: self.may_spoof,
            first: true,
            mtu: self.network.mtu,
            bridge: self.network.bridge.clone(),
            hairpin: self.facts().bridge_netfilter,
            ports: ports.to_vec(),
        }
    }

    /// A container with the address 172.17.0.NUMBER.
    pub fn container(&mut self, number: u8, ports: &[PortMapping]) -> Container {
        self.try_container(number, ports).unwrap()
    }

    pub fn try_container(&mut self, number: u8, ports: &[PortMapping]) -> netsetup::Result<Container> {
        self.up();
        let endpoint = self.endpoint(number, ports);
        self.start(endpoint)
    }

    pub fn start(&mut self, endpoint: Endpoint) -> netsetup::Result<Container> {
        let mut machine = Machine::new();
        let ops = plan_endpoint(&self.network, &endpoint);
        let pid = machine.pid();
        let journal: Vec<Residue> = ops.iter().filter_map(|op| op.residue(Some(pid))).collect();
        let result =
            apply(&ops, &mut Live { host: &mut self.host, netns: Some(&mut machine.netns), init_pid: Some(pid) });
        let container = Container { machine, address: endpoint.places().next().unwrap().address, ops, journal };
        match result {
            Ok(()) => Ok(container),
            Err(error) => {
                self.remove(container);
                Err(error)
            }
        }
    }

    /// The process dies, then the journal is undone.
    pub fn remove(&mut self, container: Container) -> Vec<Undone> {
        let Container { machine, journal, .. } = container;
        drop(machine);
        let journal: Vec<Residue> = journal.into_iter().rev().collect();
        undo(&journal, &mut self.host).into_iter().map(|result| result.unwrap()).collect()
    }

    pub fn down(&mut self) -> Vec<Undone> {
        let journal: Vec<Residue> = std::mem::take(&mut self.journal).into_iter().rev().collect();
        undo(&journal, &mut self.host).into_iter().map(|result| result.unwrap()).collect()
    }
}

/// The NUMBERth address of a subnet.
fn place(subnet: &Subnet, number: u8) -> Place {
    let address: IpAddr = match subnet.gateway {
        IpAddr::V4(gateway) => (gateway.to_bits() & !0xff | u32::from(number)).to_be_bytes().into(),
        IpAddr::V6(gateway) => (gateway.to_bits() & !0xff | u128::from(number)).to_be_bytes().into(),
    };
    Place { address, prefix_len: subnet.prefix_len, gateway: Some(subnet.gateway) }
}

pub struct Container {
    pub machine: Machine,
    pub address: IpAddr,
    pub ops: Vec<Op>,
    pub journal: Vec<Residue>,
}

pub fn tcp(host_address: &str, host_port: u16, container_port: u16) -> PortMapping {
    let host_address: IpAddr = host_address.parse().unwrap();
    PortMapping { protocol: Protocol::Tcp, host_address, host_port, container_port, mode: PublishMode::Dnat }
}

pub fn udp(host_address: &str, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { protocol: Protocol::Udp, ..tcp(host_address, host_port, container_port) }
}

/// Runs a script in the thread's namespaces; panics with its output when it fails.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}\n{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "waited 10 s for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// A server in the thread's namespace that answers every client with the client's address.
pub fn serve_tcp(port: u16) {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

/// As [`serve_tcp`], a datagram for each.
pub fn serve_udp(port: u16) {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
        }
    });
}

/// Asks a server from the thread's namespace: the address that it saw us with.
pub fn ask_tcp(address: impl Into<IpAddr>, port: u16, patience_ms: u64) -> io::Result<String> {
    let patience = Duration::from_millis(patience_ms);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address.into(), port), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub fn ask_udp(address: impl Into<IpAddr>, port: u16, patience_ms: u64) -> io::Result<String> {
    let address = address.into();
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    ask_udp_on(&UdpSocket::bind((any, 0))?, address, port, patience_ms)
}

pub fn ask_udp_on(socket: &UdpSocket, address: impl Into<IpAddr>, port: u16, patience_ms: u64) -> io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_millis(patience_ms)))?;
    socket.send_to(b"who am I?", (address.into(), port))?;
    let mut bytes = [0; 64];
    let (length, _) = socket.recv_from(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Patience where an answer must come, and where none may come.
pub const COMES: u64 = 5000;
pub const NEVER: u64 = 400;
