//! `net graph`: the network as the kernel has it, hand-made parts too, with what minidock thinks beside it, and marks where
//! the two differ.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{Firewall, HOST, OUTSIDE, TestHost};
use serde_json::Value;

/// The part of the text about one namespace.
fn part<'a>(text: &'a str, title: &str) -> &'a str {
    text.split("\n\n").find(|part| part.split_whitespace().next() == Some(title)).unwrap_or_else(|| panic!("{text}"))
}

fn graph(host: &TestHost) -> String {
    host.minidock(&["net", "graph"]).ok().out()
}

#[test]
fn the_text_shows_what_the_kernel_has_with_both_firewalls() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.detached(&["--name", "web", "-p", "10080:80", "-p", "10053:53/udp", "busybox", "sleep", "1000"]);
        host.detached(&["--name", "alone", "--network", "none", "busybox", "sleep", "1000"]);
        host.sh(
            "ip netns add hand; ip link add h0 type veth peer name eth0 netns hand; ip link add br7 type bridge
             ip link set h0 master br7 up; ip -n hand addr add 10.7.0.2/24 dev eth0; ip -n hand link set eth0 up
             ip route add blackhole 10.66.0.0/16
             tc qdisc add dev uplink root handle 1: htb; tc class add dev uplink parent 1: classid 1:10 htb rate 20mbit",
        )
        .ok();
        let text = graph(&host);
        let (on_host, web, hand) = (part(&text, "host"), part(&text, "web"), part(&text, "hand"));
        let card = host.sh("ip -o link show master docker0 | sed 's/^[0-9]*: //; s/@.*//'").ok().out();
        for wanted in [
            "forwards".to_owned(),
            "docker0  bridge  172.17.0.1/16".to_owned(),
            format!("└ {card}  <-> eth0 of web"),
            format!("uplink  {HOST}/24  <-> "),
            "└ h0  <-> eth0 of hand".to_owned(),
            format!("default via {OUTSIDE} dev uplink"),
            "10.66.0.0/16 blackhole".to_owned(),
            "tcp *:10080 -> 172.17.0.2:80".to_owned(),
            "udp *:10053 -> 172.17.0.2:53".to_owned(),
            "class 1:10 rate 20mbit".to_owned(),
        ] {
            assert!(on_host.contains(&wanted), "no {wanted:?} in\n{on_host}");
        }
        let masquerade = match firewall {
            Firewall::Nftables => "masquerade",
            Firewall::Iptables => "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        };
        assert!(on_host.contains(masquerade), "{on_host}");
        assert!(
            web.contains(&format!("eth0  172.17.0.2/16  <-> {card} of host"))
                && web.contains("of busybox, 172.17.0.2 on bridge"),
            "{web}"
        );
        assert!(web.contains("default via 172.17.0.1 dev eth0"), "{web}");
        assert!(hand.contains("not minidock's") && hand.contains("eth0  10.7.0.2/24  <-> h0 of host"), "{hand}");
        assert!(part(&text, "alone").contains("container"), "{text}");
        assert!(!text.contains('!') || !text.contains("\n  ! "), "nothing differs: {text}");

        // The same for programs, against `ip`'s own words.
        let json: Value =
            serde_json::from_str(&host.minidock(&["net", "graph", "--format", "json"]).ok().out()).unwrap();
        let namespaces = json["namespaces"].as_array().unwrap();
        let links: Value = serde_json::from_str(&host.sh("ip -j link").ok().out()).unwrap();
        let of_host = &namespaces.iter().find(|one| one["title"] == "host").unwrap()["kernel"]["links"];
        for link in links.as_array().unwrap() {
            let ours = of_host.as_array().unwrap().iter().find(|one| one["name"] == link["ifname"]);
            let ours = ours.unwrap_or_else(|| panic!("{} is missing", link["ifname"]));
            assert_eq!(
                (&ours["index"], &ours["mtu"], &ours["mac"]),
                (&link["ifindex"], &link["mtu"], &link["address"])
            );
        }
        assert_eq!(namespaces.iter().find(|one| one["title"] == "web").unwrap()["minidock"]["name"], "web");
        assert_eq!(json["differences"], serde_json::json!([]));

        host.remove(&["web", "alone"]);
        host.sh("tc qdisc del dev uplink root; ip route del blackhole 10.66.0.0/16; ip netns del hand; ip link del br7; umount /run/netns || :").ok();
        host.finish();
    }
}

/// Each of these changes by hand is seen, and named with the way out.
#[test]
fn what_differs_from_minidock_s_records_is_marked() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.detached(&["--name", "web", "-p", "10080:80", "busybox", "sleep", "1000"]);
        let card = host.sh("ip -o link show master docker0 | sed 's/^[0-9]*: //; s/@.*//'").ok().out();
        let unpublish = match firewall {
            Firewall::Nftables => "nft flush ruleset",
            Firewall::Iptables => "iptables -t nat -F DOCKER",
        };
        let address = "ip addr add 172.17.0.2/16 dev eth0; ip route add default via 172.17.0.1";
        let cases = [
            (
                "ip netns exec web ip addr flush dev eth0",
                "web",
                "eth0 has no 172.17.0.2",
                format!("ip netns exec web sh -c '{address}'"),
            ),
            (
                "ip netns exec web ip route del default",
                "web",
                "it has no default route",
                "ip netns exec web ip route add default via 172.17.0.1".to_owned(),
            ),
            (
                "ip netns exec web ip route replace default via 172.17.0.9",
                "web",
                "its default route leads to 172.17.0.9",
                "ip netns exec web ip route replace default via 172.17.0.1".to_owned(),
            ),
            (
                "ip netns exec web ip link set eth0 down",
                "web",
                "eth0 is down",
                format!("ip netns exec web sh -c 'ip link set eth0 up; {}'", "ip route add default via 172.17.0.1"),
            ),
            (
                &format!("ip link set {card} down"),
                "host",
                "the cable of web, is down",
                format!("ip link set {card} up"),
            ),
            (
                &format!("ip link set {card} nomaster"),
                "host",
                "in no bridge, not in",
                format!("ip link set {card} master docker0"),
            ),
            (
                "sysctl -qw net.ipv4.ip_forward=0",
                "host",
                "net.ipv4.ip_forward is 0",
                "sysctl -qw net.ipv4.ip_forward=1".to_owned(),
            ),
            (
                "ip link add strange type bridge; ip link add s0 type veth peer name s1; ip link set s0 master docker0",
                "host",
                "s0 is in docker0, and minidock doesn't know it",
                "ip link del s0; ip link del strange".to_owned(),
            ),
        ];
        assert!(!graph(&host).contains("\n  ! "));
        for (change, place, wanted, back) in cases {
            host.sh(change).ok();
            let text = graph(&host);
            let marked: Vec<&str> = part(&text, place).lines().filter(|line| line.starts_with("  ! ")).collect();
            assert!(marked.iter().any(|line| line.contains(wanted)), "after {change}: no {wanted:?} in\n{text}");
            assert!(host.minidock(&["net", "graph", "--format", "svg"]).ok().out().contains("red"));
            host.sh(&back).ok();
            assert!(!graph(&host).contains("\n  ! "), "after {back}: {}", graph(&host));
        }
        // Last: what is gone would be made anew by the watcher of the firewall within a second. It is stopped.
        let monitor = host.monitor("web");
        host.sh(&format!("kill -STOP {monitor}; {unpublish}")).ok();
        let text = graph(&host);
        host.sh(&format!("kill -CONT {monitor}")).ok();
        assert!(text.contains("! the rule for 0.0.0.0:10080->80/tcp of web is gone"), "{text}");
        host.remove(&["web"]);
        host.discard();
    }
}

/// Ranges of ports, and cards that have no other end.
#[test]
fn ranges_and_macvlan_are_shown_as_they_are() {
    let host = TestHost::new();
    host.minidock(&["network", "create", "-d", "macvlan", "--subnet", "10.99.0.0/24", "-o", "parent=uplink", "lan"])
        .ok();
    host.detached(&["--name", "web", "-p", "9000-9010:9000-9010", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "printer", "--network", "lan", "--ip", "10.99.0.77", "busybox", "sleep", "1000"]);
    let text = graph(&host);
    assert!(part(&text, "host").contains("tcp *:9000-9010 -> 172.17.0.2"), "{text}");
    assert!(part(&text, "printer").contains("eth0  macvlan  10.99.0.77/24"), "{text}");
    assert!(!text.contains("\n  ! "), "nothing differs: {text}");
    // The image says it as a person would.
    let svg = host.minidock(&["net", "graph", "--format", "svg"]).ok().out();
    for wanted in [">-p 9000-9010:9000-9010/tcp<", ">published<", ">routes<", "eth0 (macvlan)"] {
        assert!(svg.contains(wanted), "no {wanted}:\n{svg}");
    }
    host.remove(&["web", "printer"]);
    host.minidock(&["network", "rm", "lan"]).ok();
    host.finish();
}

/// What a proxy serves is published, though no rule of the firewall says so.
#[test]
fn ports_that_a_proxy_serves_are_shown() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        let ports = ["-p", "10080:80", "-p", "127.0.0.1:9000-9004:9000-9004/udp"];
        host.detached(
            &[&["--name", "web", "--publish-mode", "proxy"], &ports[..], &["busybox", "sleep", "1000"]].concat(),
        );
        host.detached(&["--name", "db", "-p", "10081:81", "busybox", "sleep", "1000"]);
        let (web, db) = (host.address("web"), host.address("db"));
        let text = graph(&host);
        let published = |line: String| assert!(part(&text, "host").contains(&line), "no {line:?} in\n{text}");
        published(format!("tcp *:10080 -> {web}:80   (web, by its proxy)"));
        published(format!("udp 127.0.0.1:9000-9004 -> {web}:9000-9004   (web, by its proxy)"));
        published(format!("tcp *:10081 -> {db}:81"));
        assert!(!text.contains("tcp *:10081 -> {db}:81   (db, by its proxy)"), "{text}");
        for format in ["svg", "dot"] {
            let image = host.minidock(&["net", "graph", "--format", format]).ok().out();
            let line = format!("tcp *:10080 -> {web}:80");
            let found = image.contains(&line) || image.contains(&line.replace("->", "-&gt;"));
            assert!(found, "no {line:?} in\n{image}");
        }
        host.remove(&["web", "db"]);
        host.finish();
    }
}

/// The image is well-formed XML whatever names things have, and has every namespace, bridge and address in it.
#[test]
fn the_image_is_well_formed_and_complete() {
    let host = TestHost::new();
    for name in ["web", "db"] {
        host.detached(&["--name", name, "-p", "80", "busybox", "sleep", "1000"]);
    }
    host.sh(r#"ip netns add 'a<b&"c'; ip link add "x<&y" type bridge; ip link set 'x<&y' up"#).ok();
    let svg = host.minidock(&["net", "graph", "--format", "svg"]).ok().out();
    for wanted in [
        "a&lt;b&amp;&quot;c",
        "x&lt;&amp;y",
        ">web<",
        ">db<",
        "docker0 (bridge of network bridge)  172.17.0.1/16",
        "172.17.0.2/16",
        "172.17.0.3/16",
    ] {
        assert!(svg.contains(wanted), "no {wanted}:\n{svg}");
    }
    let mut open = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("a tag isn't closed: {piece}"));
        assert!(!text.contains('&') || text.matches('&').count() == text.matches(';').count(), "{text}");
        match tag {
            tag if tag.starts_with('/') => assert_eq!(open.pop().as_deref(), tag.strip_prefix('/')),
            tag if tag.ends_with('/') => {}
            tag => open.push(tag.split(' ').next().unwrap().to_owned()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "a place can't be computed");
    assert_eq!(svg.matches("<path ").count(), 2, "the cables of both containers");

    let dot = host.minidock(&["net", "graph", "--format", "dot"]).ok().out();
    assert!(
        dot.starts_with("graph minidock {") && dot.matches("subgraph").count() >= 4 && dot.contains(r#"a<b&\"c"#),
        "{dot}"
    );
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    host.minidock(&["net", "graph", "--format", "png"]).exits(125).says(&["use text, svg, dot or json"]);
    host.remove(&["web", "db"]);
    host.sh(r#"ip netns del 'a<b&"c'; ip link del 'x<&y'; umount /run/netns || :"#).ok();
    host.finish();
}

/// A card on a parent has no other end; the line leads to the parent.
#[test]
fn a_macvlan_s_card_is_drawn_on_its_parent() {
    let host = TestHost::new();
    let segment = "--subnet 10.99.0.0/24 --ip-range 10.99.0.64/26 --gateway 10.99.0.2";
    let create: Vec<&str> = "network create -d macvlan -o parent=uplink".split(' ').chain(segment.split(' ')).collect();
    host.minidock(&[&create[..], &["pub"]].concat()).ok();
    host.detached(&["--name", "box", "--network", "pub", "busybox", "sleep", "1000"]);
    let graph = |format: &str| host.minidock(&["net", "graph", "--format", format]).ok().out();
    assert!(graph("text").contains("on uplink of host"), "{}", graph("text"));
    let dot = graph("dot");
    assert_eq!(dot.lines().filter(|line| line.contains("style=dashed") && line.contains(" -- ")).count(), 1, "{dot}");
    let cables = || graph("svg").matches("stroke-linecap=\"round\"").count();
    let before = cables();
    assert!(before >= 1, "a line to the parent");
    host.remove(&["box"]);
    assert_eq!(cables(), before - 1);
    host.minidock(&["network", "rm", "pub"]).ok();
    host.finish();
}
