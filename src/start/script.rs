//! `--dry-run`: what would happen, as one shell script, with the commands at its end that take everything away again.

use anyhow::Result;
use netsetup::Host;

use super::{Order, exposed, image_facts, places, take_ports};
use crate::explain::{self, Command, quote};
use crate::facts;
use crate::op::Op;
use crate::plan;
use crate::plan::endpoints::Leased;
use crate::reservation::Reservation;
use crate::residue::Residue;
use crate::volume;
use images::Store;

/// How the script's first lines say what it is, and how it finds its own undo.
const HEAD: &str = "#!/bin/sh -eu
# sh -eu SCRIPT: makes the container by hand, one command after the other, and runs its program.
# sh -eu SCRIPT undo: takes all of it away again, by the commands at the end, which begin with \"#undo\".
if [ \"${1-}\" = undo ]; then sed -n 's/^#undo //p' \"$0\" | sh -u; exit; fi
";

/// Takes nothing and changes nothing.
pub fn dry_run(order: &Order) -> Result<String> {
    let (roots, request) = (&order.engine.roots, &order.request);
    let mut host = Host::open()?;
    let image = image_facts(&Store::open(&roots.root)?, request)?;
    let facts = facts::read(&order.engine, request, &mut host, None)?;
    let addresses = facts.networks.iter().map(|joining| {
        let (network, wish) = (&joining.network, &joining.wish);
        let in_use = netsetup::bridge_addresses_in_use(&mut host, network)?;
        let leases = roots.leases(&network.name);
        let free = |subnet| netsetup::lease::candidates(&leases, subnet, &in_use).next();
        Ok(Leased {
            ipv4: wish.ipv4.map(Into::into).or_else(|| network.ipv4.as_ref().and_then(free)),
            ipv6: wish.ipv6.map(Into::into).or_else(|| network.ipv6.as_ref().and_then(free)),
        })
    });
    let addresses = addresses.collect::<Result<_>>()?;
    let (ports, _) = take_ports(&order.engine, request, || exposed(request, &image), &facts.networks)?;
    let name = request.name.clone().unwrap_or_else(|| crate::names::from_id(&order.id, 0));
    let chosen = volume::choose::choose(roots, request, &image)?;
    let reservation =
        Reservation { id: order.id.clone(), folder: roots.container(&order.id), name, addresses, ports, chosen };
    let plan = plan::plan(request, &image, &facts, &reservation, &places(&order.engine))?;
    let (folder, pids) = (quote(&reservation.folder), quote(&reservation.folder.join("pids")));
    let mut commands: Vec<Command> =
        vec![(format!("mkdir -p -m 700 {folder}"), "the container's own folder".to_string())];
    let mut undo: Vec<Command> =
        vec![(format!("rm -rf {folder}"), "the container's own folder, with all that it has written".to_string())];
    for joining in &facts.networks {
        let ops = netsetup::plan_network(&joining.network, &joining.facts)?;
        commands.extend(ops.iter().flat_map(netsetup::Op::explain));
        undo.extend(undo_of(ops.iter().filter_map(|op| op.residue(None)).map(Residue::Net)));
    }
    commands.extend(plan.shared_cgroup.iter().flat_map(runtime::cgroup::Op::explain));
    undo.extend(undo_of(plan.shared_cgroup.iter().filter_map(|op| op.residue().map(Residue::Cgroup))));
    let own = || plan.folders.iter().chain(&plan.files).chain(&plan.cgroup);
    commands.extend(own().flat_map(Op::explain));
    undo.extend(own().flat_map(|op| match op {
        Op::Volume(op) => op.explain_undo(),
        op => undo_of(op.residue(None)),
    }));
    // minidock takes away a container's folder whose journal nobody holds. The process that holds the namespaces inherits
    // the lock, and nobody else: the program would get it otherwise.
    let journal = quote(&reservation.folder.join("journal"));
    commands.push((
        format!("exec 9>{journal}; flock 9"),
        "minidock leaves the folder alone while this is locked".to_string(),
    ));
    commands.extend(plan.init_commands());
    commands
        .push(("exec 9>&-".to_string(), "the process that was just started holds the lock from here on".to_string()));
    commands.push((format!("echo $pid >> {pids}"), "for the undo".to_string()));
    commands.extend(plan.endpoint.iter().flat_map(Op::explain));
    undo.extend(undo_of(plan.endpoint.iter().filter_map(|op| op.residue(Some(1)))));
    commands.extend(plan.commands_after_network(request.detach, Some(&pids)));
    // First of all: what runs. A pid that is another process's by now has another command line.
    undo.push((
        format!(
            "if [ -e {pids} ]; then for pid in $(cat {pids}); do if grep -qs -e 'sleep' -e '-container-ip' /proc/$pid/cmdline; then kill $pid; while [ -e /proc/$pid ]; do sleep 0.05; done; fi; done; fi"
        ),
        "end the proxies, and what holds the namespaces, whose end is that of all in the container".to_string(),
    ));
    undo.reverse();
    let warnings: String = plan.warnings.iter().map(|warning| format!("# WARNING: {warning}\n")).collect();
    let undo: String = undo.iter().map(|(command, why)| format!("# {why}\n#undo {command}\n")).collect();
    Ok(format!("{HEAD}{warnings}{}\n# ---- and back ----\n{undo}", explain::script(&commands)))
}

fn undo_of(residues: impl IntoIterator<Item = Residue>) -> Vec<Command> {
    residues.into_iter().flat_map(|residue| residue.explain()).collect()
}
