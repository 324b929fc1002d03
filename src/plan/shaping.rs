//! Traffic classes: what makes `--net-cls` hold for packets, not only for sockets.

use netsetup::{Endpoint, Network};
use runtime::cgroup::ClassWay;

use crate::op::Op;
use crate::request::network::NetworkMode;

/// Who sees to the class of the container's packets. `carried`: it has cards of ours.
pub fn class_way(mode: &NetworkMode, carried: bool) -> ClassWay {
    match mode {
        NetworkMode::Host => ClassWay::Packets,
        _ if carried => ClassWay::Carried,
        _ => ClassWay::NetCls,
    }
}

/// Gives what leaves by this card its class on the host.
pub fn class(network: &Network, endpoint: &Endpoint, class: Option<u32>) -> Vec<Op> {
    // The packets of a macvlan or ipvlan never come by the host's routes.
    let class = class.filter(|_| network.driver == netsetup::Driver::Bridge);
    let ops = class.map(|class| netsetup::plan_class(network, endpoint, class));
    ops.into_iter().flatten().map(Op::Net).collect()
}
