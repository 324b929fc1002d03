//! What one bridged container with one published port costs, in this process: facts, plan, namespace, links, firewall,
//! undo. As root: `cargo run --release -p netsetup --example endpoint_cost [COUNT]`. Leaves nothing behind.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netsetup::{
    Endpoint, Facts, Host, Links, Live, Network, NewNetns, Op, Place, PortMapping, Protocol, PublishMode, Subnet,
    apply, lease, mac_of, plan_endpoint, plan_network, undo_with,
};

const STEPS: [&str; 8] = ["facts", "lease", "plan", "namespace", "links", "name", "port", "undo"];

fn main() {
    let count: usize = std::env::args().nth(1).map_or(200, |text| text.parse().unwrap());
    // A network and /run of our own: nothing of the real host is touched.
    let flags = nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_NEWNS;
    nix::sched::unshare(flags).unwrap();
    let none = None::<&str>;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(none, "/", none, private, none).unwrap();
    let no_flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), "/run", Some("tmpfs"), no_flags, none).unwrap();

    let ipv4 = Some(Subnet::new([172, 17, 0, 1], 16));
    let network = Network { ipv4, ..Network::new("bridge", "docker0") };
    let mut host = Host::open().unwrap();
    let facts = Facts::read(&mut host, &network).unwrap();
    let ops = plan_network(&network, &facts).unwrap();
    let mut live = Live { host: &mut host, netns: None, init_pid: None };
    apply(&ops, &mut live).unwrap();

    let mut rows: Vec<Vec<Duration>> = Vec::new();
    for number in 0..count {
        rows.push(one(number, &network));
    }
    println!("{count} containers with one port, µs: min / median");
    for (index, step) in STEPS.iter().enumerate() {
        print_row(step, rows.iter().map(|row| row[index]).collect());
    }
    // The namespace is made while the container's process mounts; undo is after the exit.
    let start = [0, 1, 2, 4, 5, 6];
    print_row(
        "facts + lease + plan + apply",
        rows.iter().map(|row| start.iter().map(|index| row[*index]).sum()).collect(),
    );
    let applied = [2, 4, 5, 6];
    print_row("plan + apply", rows.iter().map(|row| applied.iter().map(|index| row[*index]).sum()).collect());
}

fn print_row(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!("{name:>30} {:8.0} / {:8.0}", micros(times[0]), micros(times[times.len() / 2]));
}

fn one(number: usize, network: &Network) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut clock = Instant::now();
    let mut lap = || {
        times.push(clock.elapsed());
        clock = Instant::now();
    };
    let mut host = Host::open().unwrap();
    let facts = Facts::read(&mut host, network).unwrap();
    lap();
    let id = format!("{number:064x}");
    let subnet = network.ipv4.as_ref().unwrap();
    let address = lease::take("/run/leases".as_ref(), &id, network, subnet, &Default::default(), None).unwrap();
    lap();
    let endpoint = Endpoint {
        owner: id,
        name: format!("c{number}"),
        host_link: format!("veth{number:07x}"),
        inside_link: "eth0".into(),
        mac: mac_of(address),
        ipv4: Some(Place { address, prefix_len: 16, gateway: Some(subnet.gateway) }),
        ipv6: None,
        extra_addresses: vec![],
        may_spoof: false,
        first: true,
        mtu: 1500,
        bridge: network.bridge.clone(),
        hairpin: facts.bridge_netfilter,
        ports: vec![PortMapping {
            protocol: Protocol::Tcp,
            host_address: IpAddr::from([0, 0, 0, 0]),
            host_port: 10000 + number as u16,
            container_port: 80,
            mode: PublishMode::Dnat,
        }],
    };
    let ops = plan_endpoint(network, &endpoint);
    lap();
    let mut netns = NewNetns::create().unwrap();
    lap();
    let family = |wanted: fn(&Op) -> bool| ops.iter().filter(|op| wanted(op)).cloned().collect::<Vec<_>>();
    let mut live = Live { host: &mut host, netns: Some(&mut netns), init_pid: Some(std::process::id()) };
    for stage in [
        family(|op| matches!(op, Op::Link(_))),
        family(|op| matches!(op, Op::Netns(_))),
        family(|op| matches!(op, Op::Firewall(_))),
    ] {
        apply(&stage, &mut live).unwrap();
        lap();
    }
    drop(netns);
    clock = Instant::now();
    let journal: Vec<_> = ops.iter().rev().filter_map(|op| op.residue(Some(std::process::id()))).collect();
    for result in undo_with(&journal, &mut host, Links::Leave) {
        result.unwrap();
    }
    times.push(clock.elapsed());
    times
}
