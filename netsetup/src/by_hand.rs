//! How a person takes away by hand what an operation has left: commands that do no harm when it is gone already.

use crate::Command;
use crate::shell::quoted;
use crate::tc;
use crate::undo::Residue;

impl Residue {
    /// The commands, and why; none for what goes with another thing.
    pub fn explain(&self) -> Vec<Command> {
        let one = |command: String, why: &str| vec![(command, why.to_owned())];
        match self {
            Residue::Link { name, .. } => {
                let name = quoted(name);
                one(
                    format!("if ip link show {name} >/dev/null 2>&1; then ip link del {name}; fi"),
                    "the cable, with both ends",
                )
            }
            Residue::ParentLink { name, .. } | Residue::Bridge { name } => {
                let name = quoted(name);
                one(
                    format!(
                        "if ip link show {name} >/dev/null 2>&1 && ! ip -o link show master {name} | grep -q .; then ip link del {name}; fi"
                    ),
                    "unless others use it by now",
                )
            }
            Residue::BridgeAddress { bridge, address, prefix_len } => one(
                format!("ip addr del {address}/{prefix_len} dev {} 2>/dev/null || :", quoted(bridge)),
                "the host's address in the network",
            ),
            Residue::NftTable { family, name } => one(
                format!("nft delete table {family} {name} 2>/dev/null || :"),
                "the table, with all that is in it; leave this out where others use it by now",
            ),
            Residue::NftElements { family, table, elements } => {
                let command = |element: &crate::firewall::element::Element| {
                    let (set, text) = (element.set(), element.text(None));
                    let command = format!("nft delete element {family} {table} {set} '{{ {text} }}' 2>/dev/null || :");
                    (command, "the container's entry".to_owned())
                };
                elements.iter().map(command).collect()
            }
            Residue::IptablesRule { v6, table, chain, rule } => {
                let rule = rule.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
                one(format!("{} -t {table} -D {chain} {rule} 2>/dev/null || :", iptables(*v6)), "the rule")
            }
            Residue::IptablesChain { v6, table, chain } => one(
                format!("{0} -t {table} -F {chain} 2>/dev/null && {0} -t {table} -X {chain} || :", iptables(*v6)),
                "the chain, if nothing leads to it any more",
            ),
            // It goes by itself where nobody else has anything in it: an empty table of iptables-nft.
            Residue::IptablesTable { .. } => vec![],
            Residue::NetnsName { name, .. } | Residue::Netns { name, .. } => {
                one(format!("rm -f /var/run/netns/{}", quoted(name)), "the name for ip netns")
            }
            Residue::TcClass { link, class, .. } => {
                let (link, class) = (quoted(link), tc::class_text(*class));
                let major = class.split(':').next().unwrap_or_default();
                one(
                    format!(
                        "tc class del dev {link} classid {class} 2>/dev/null; tc class show dev {link} | grep -q . || tc qdisc del dev {link} root handle {major}: 2>/dev/null || :"
                    ),
                    "the container's class, and the tree with the last one",
                )
            }
            Residue::Names { folder, id } => one(
                format!("rm -f {}", quoted(&folder.join(id).display().to_string())),
                "nobody finds it by name any more",
            ),
            Residue::Sysctl { key, old, .. } => {
                one(format!("if [ -e /proc/sys/{key} ]; then echo {old} > /proc/sys/{key}; fi"), "as it was before")
            }
            // Of routers, which are no container's.
            Residue::OvsPort { .. } | Residue::Floating { .. } | Residue::DefaultRoute { .. } => vec![],
        }
    }
}

fn iptables(v6: bool) -> &'static str {
    if v6 { "ip6tables" } else { "iptables" }
}
