//! `network create`, `ls`, `inspect`, `rm`, `prune`, `connect`, `disconnect`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use super::{Engine, each};
use crate::cli::{
    NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkInspectArgs, NetworkLsArgs, NetworkPruneArgs,
    NetworkRmArgs,
};
use crate::containers;
use crate::error;
use crate::events::{self, Event};
use crate::facts::DEFAULT_NETWORK;
use crate::format;
use crate::format::networks::{Filter, Filtering, Member, NetworkFacts, PoolFacts};
use crate::monitor::control::call::call;
use crate::network::definition::{self, Definition};
use crate::network::obstacles::{Noted, noted};
use crate::network::options::Driver;
use crate::network::{catalog, create, joining, remove};
use crate::recover::{self, Claim};
use crate::request::RunRequest;
use crate::request::attach::{self, Attach};
use crate::request::network::NetworkMode;
use crate::request::network_create::NewNetwork;
use crate::roots::Roots;
use crate::state::State;
use crate::view;

/// Makes a network and prints its id.
pub fn create(engine: &Engine, args: &NetworkCreateArgs) -> Result<u8> {
    let definition = create::create(engine, NewNetwork::from_args(args)?)?;
    note(engine, "create", &definition);
    println!("{}", definition.id);
    Ok(0)
}

fn note(engine: &Engine, action: &str, definition: &Definition) {
    let mut event = Event::new("network", action, &definition.id);
    event.attributes.insert("name".to_owned(), definition.name.clone());
    event.attributes.insert("type".to_owned(), definition.driver.name().to_owned());
    events::note(&engine.roots, event);
}

/// Brings back rules that somebody has removed, and prints whose they were. 1 when a container stays cut off.
pub fn repair(engine: &Engine) -> Result<u8> {
    for name in crate::network::repair::all(engine)? {
        println!("{name}");
    }
    let cut_off = crate::network::repair::cut_off(engine)?;
    for one in &cut_off {
        let (container, network) = (&one.container, &one.network);
        eprintln!("minidock: {container} is cut off from network {network}: {}; {}", one.why, one.remedy());
    }
    Ok(u8::from(!cut_off.is_empty()))
}

/// Lists networks.
pub fn ls(engine: &Engine, args: &NetworkLsArgs) -> Result<u8> {
    let filter = Filter::parse(&args.filter, Filtering::Ls, |_| None).map_err(|why| anyhow!(why))?;
    let mut members = members(&engine.roots);
    let mut facts: Vec<NetworkFacts> = catalog::all(engine)
        .into_iter()
        .map(|one| facts(&one, members.remove(&one.name).unwrap_or_default()))
        .collect();
    facts.retain(|network| filter.fits(network));
    print!("{}", format::networks::print(&facts, args.format.as_deref(), args.quiet, args.no_trunc)?);
    // Monitors have noted what came into the way; what is still there is said.
    let names = facts.iter().filter(|_| !args.quiet).map(|network| network.name.as_str());
    let noted: Vec<(&str, Noted)> = names.map(|name| (name, noted(&engine.roots, name))).collect();
    for (name, one) in &noted {
        if let Noted::NotJudged(why) = one {
            eprintln!("WARNING: network {name}: {why}");
        }
    }
    if noted.iter().any(|(_, one)| *one == Noted::Something) {
        warn_of_obstacles(engine, |name| facts.iter().any(|network| network.name == name));
    }
    Ok(0)
}

/// On the error output, and not in a document, which is docker's.
fn warn_of_obstacles(engine: &Engine, wanted: impl Fn(&str) -> bool) {
    let Ok(mut host) = netsetup::Host::open() else { return };
    for (name, obstacle) in crate::network::obstacles(engine, &mut host).iter().filter(|(name, _)| wanted(name)) {
        eprintln!("WARNING: network {name}: {obstacle}");
    }
}

/// Prints everything known of networks.
pub fn inspect(engine: &Engine, args: &NetworkInspectArgs) -> Result<u8> {
    let mut members = members(&engine.roots);
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for wanted in &args.networks {
        match catalog::find(engine, wanted) {
            Ok(definition) => {
                let members = members.remove(&definition.name).unwrap_or_default();
                found.push(format::networks::document(&facts(&definition, members)));
            }
            Err(problem) => problems.push(problem),
        }
    }
    print!("{}", format::inspect::print(&found, args.format.as_deref())?);
    if !found.is_empty() {
        warn_of_obstacles(engine, |name| args.networks.iter().any(|one| one == name));
    }
    for problem in &problems {
        eprintln!("minidock: {}", error::text(problem));
    }
    Ok(u8::from(!problems.is_empty()))
}

fn facts(definition: &Definition, containers: BTreeMap<String, Member>) -> NetworkFacts {
    let text = |value: Option<String>| value.unwrap_or_default();
    NetworkFacts {
        id: definition.id.clone(),
        name: definition.name.clone(),
        created: view::nanoseconds(&definition.created),
        driver: definition.driver.name().to_owned(),
        ipv4: definition.ipv4,
        ipv6: definition.ipv6,
        internal: definition.internal,
        attachable: definition.attachable,
        pools: definition
            .pools
            .iter()
            .map(|pool| PoolFacts {
                subnet: pool.subnet.to_string(),
                range: text(pool.range.map(|range| range.to_string())),
                gateway: text(pool.gateway.map(|gateway| gateway.to_string())),
                auxiliary: pool.auxiliary.iter().map(|(name, one)| (name.clone(), one.to_string())).collect(),
            })
            .collect(),
        options: definition.options.clone(),
        labels: definition.labels.clone(),
        containers,
    }
}

/// The running containers of each network.
fn members(roots: &Roots) -> BTreeMap<String, BTreeMap<String, Member>> {
    let mut all: BTreeMap<String, BTreeMap<String, Member>> = BTreeMap::new();
    for state in containers::all(roots).into_iter().filter(|state| state.is_alive()) {
        for attachment in &state.attachments {
            let address = |place: Option<netsetup::Place>| {
                place.map_or(String::new(), |place| format!("{}/{}", place.address, place.prefix_len))
            };
            let member = Member {
                name: state.name.clone(),
                endpoint_id: definition::endpoint_id(&state.id, &attachment.network),
                mac: attachment.mac.map(|byte| format!("{byte:02x}")).join(":"),
                ipv4: address(attachment.ipv4),
                ipv6: address(attachment.ipv6),
            };
            all.entry(attachment.network.clone()).or_default().insert(state.id.clone(), member);
        }
    }
    all
}

/// Removes networks.
pub fn rm(engine: &Engine, args: &NetworkRmArgs) -> Result<u8> {
    each(&args.networks, |wanted| {
        let definition = match catalog::find(engine, wanted) {
            Ok(definition) => definition,
            Err(error) if args.force && error.to_string().contains("not found") => return Ok(()),
            Err(error) => return Err(error),
        };
        if matches!(definition.driver, Driver::Host | Driver::Null) {
            bail!("{} is a pre-defined network and cannot be removed", definition.name);
        }
        remove::remove(engine, &definition)?;
        if definition.name != DEFAULT_NETWORK {
            note(engine, "destroy", &definition);
        }
        println!("{wanted}");
        Ok(())
    })
}

/// Removes all networks that no container uses, a stopped one included.
pub fn prune(engine: &Engine, args: &NetworkPruneArgs) -> Result<u8> {
    let filter = Filter::parse(&args.filter, Filtering::Prune, until).map_err(|why| anyhow!(why))?;
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if !super::filter::confirmed(warning, args.force) {
        return Ok(0);
    }
    let (mut removed, mut code) = (Vec::new(), 0);
    for definition in definition::all(&engine.roots) {
        let used = !remove::users(&engine.roots, &definition.name).is_empty()
            || !remove::stopped_users(&engine.roots, &definition).is_empty();
        if used || !filter.fits(&facts(&definition, BTreeMap::new())) {
            continue;
        }
        match remove::remove(engine, &definition) {
            Ok(()) => {
                note(engine, "destroy", &definition);
                removed.push(definition.name);
            }
            Err(problem) => {
                eprintln!("minidock: {}", error::text(&problem));
                code = 1;
            }
        }
    }
    if !removed.is_empty() {
        println!("Deleted Networks:\n{}\n", removed.join("\n"));
    }
    Ok(code)
}

/// A time as docker's filters take it: RFC 3339, seconds since 1970, or a duration before now.
fn until(text: &str) -> Option<u64> {
    let seconds = text.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
    seconds.or_else(|| view::nanoseconds(text)).or_else(|| {
        let (number, unit) = text.split_at(text.len().checked_sub(1)?);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return None,
        };
        let ago = number.parse::<u64>().ok()?.checked_mul(seconds * 1_000_000_000)?;
        view::now().checked_sub(ago)
    })
}

/// Connects a container to a network.
pub fn connect(engine: &Engine, args: &NetworkConnectArgs) -> Result<u8> {
    let roots = &engine.roots;
    let definition = catalog::find(engine, &args.network)?;
    let wish = wish(args, &definition)?;
    let state = containers::find(roots, &args.container)?;
    check_mode(&view::request(&state)?, &definition)?;
    change(engine, &state.id, "network-connect", &json!({ "wish": wish }), |request| {
        if request.network.attach.iter().any(|one| one.network == definition.name) {
            bail!("endpoint with name {} already exists in network {}", state.name, definition.name);
        }
        joining::check(&definition, &wish)?;
        request.network.attach_to(wish.clone());
        Ok(())
    })
}

fn wish(args: &NetworkConnectArgs, definition: &Definition) -> Result<Attach> {
    let mut wish = Attach::to(&definition.name);
    wish.gateway_priority = args.gw_priority.unwrap_or(0);
    for option in &args.driver_opt {
        wish.set_driver_option(option).map_err(|why| anyhow!(why))?;
    }
    let beside = attach::BesideFlags {
        aliases: &args.alias,
        ipv4: args.ip.as_deref(),
        ipv6: args.ip6.as_deref(),
        link_local: &args.link_local_ip,
        mac: None,
    };
    beside.apply(&mut wish)?;
    if wish.is_default() {
        attach::check_default(&wish)?;
    }
    Ok(wish)
}

/// docker's words.
fn check_mode(request: &RunRequest, definition: &Definition) -> Result<()> {
    match definition.driver {
        Driver::Host => {
            bail!("cannot connect container to host network - container must be created in host network mode")
        }
        Driver::Null => {
            bail!("container cannot be connected to multiple networks with one of the networks in private (none) mode")
        }
        _ => {}
    }
    match request.network.mode {
        NetworkMode::Bridge => Ok(()),
        NetworkMode::None => {
            bail!("container cannot be connected to multiple networks with one of the networks in private (none) mode")
        }
        NetworkMode::Host | NetworkMode::Container(_) | NetworkMode::Namespace(_) => {
            bail!(
                "container sharing network namespace with another container or host cannot be connected to any other \
                 network"
            )
        }
    }
}

/// Disconnects a container from a network.
pub fn disconnect(engine: &Engine, args: &NetworkDisconnectArgs) -> Result<u8> {
    let roots = &engine.roots;
    let definition = catalog::find(engine, &args.network)?;
    let state = containers::find(roots, &args.container)?;
    if definition.driver == Driver::Host {
        bail!("cannot disconnect container from host network - container was created in host network mode");
    }
    let name = definition.name.clone();
    let missing = || anyhow!("container {} is not connected to network {name}", state.id);
    let request = view::request(&state)?;
    let connected = match request.network.attach.is_empty() && !request.network.alone {
        true => name == DEFAULT_NETWORK,
        false => request.network.attach.iter().any(|one| one.network == name || one.network == definition.id),
    };
    if request.network.mode != NetworkMode::Bridge || !connected {
        return if args.force { Ok(0) } else { Err(missing()) };
    }
    change(engine, &state.id, "network-disconnect", &json!({ "network": name }), |request| {
        match request.network.detach_from(&name) {
            true => Ok(()),
            false => Err(missing()),
        }
    })
}

/// Asks the monitor of a container that runs, and changes the state of one that doesn't.
fn change(
    engine: &Engine,
    id: &str,
    kind: &str,
    body: &serde_json::Value,
    stopped: impl FnOnce(&mut RunRequest) -> Result<()>,
) -> Result<u8> {
    let roots = &engine.roots;
    match recover::claim(roots, id, PATIENCE)? {
        Claim::Running(_) => call(roots, id, kind, body).map(|_| 0),
        Claim::Gone => bail!("{}{}", containers::NO_SUCH, recover::short(id)),
        Claim::Ours(journal) => {
            recover::settle(roots, id, &journal)?;
            let Some(mut state) = State::read(&roots.container(id))? else {
                bail!("{}{}", containers::NO_SUCH, recover::short(id));
            };
            let mut request = view::request(&state)?;
            stopped(&mut request)?;
            state.request = serde_json::to_value(&request)?;
            state.write(roots)?;
            Ok(0)
        }
    }
}

/// How long a container that is just being started or ended may take.
const PATIENCE: Duration = Duration::from_secs(20);
