//! A container's state file as the plain data that `ps` and `inspect` print.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::format::human::Nanoseconds;
use crate::format::view::{HealthView, ProbeView};
use crate::format::{
    ConfigView, ContainerView, MountView, NetworkView, OverlayView, PlaceView, SizeView, StateView, Status,
};
use crate::health;
use crate::network::definition;
use crate::plan::paths::ContainerFolder;
use crate::request::RunRequest;
use crate::request::attach::{self, Attach};
use crate::request::mounts::Mount;
use crate::request::network::NetworkMode;
use crate::request::signal::Signal;
use crate::roots::Roots;
use crate::state::{self, State};

/// What the user asked for, as the state file has it.
pub fn request(state: &State) -> Result<RunRequest> {
    serde_json::from_value(state.request.clone())
        .with_context(|| format!("the state of container {} is damaged", state.name))
}

/// The view. `request` is [`request`] of the same state.
pub fn of<'a>(roots: &Roots, state: &State, request: &'a RunRequest) -> ContainerView<'a> {
    let folder = ContainerFolder::new(&roots.container(&state.id));
    let etc = folder.clone();
    ContainerView {
        id: state.id.clone(),
        name: state.name.clone(),
        created: nanoseconds(&state.created).unwrap_or(0),
        path: state.args.first().cloned().unwrap_or_default(),
        args: state.args.iter().skip(1).cloned().collect(),
        state: state_view(state),
        image_id: state.image_id.clone(),
        image_name: state.image.clone(),
        request,
        config: config(state),
        network: network(roots, state, request),
        mounts: mounts(state, request),
        overlay: (!state.layers.is_empty()).then(|| OverlayView {
            lower: state.layers.clone(),
            upper: folder.upper(),
            work: folder.work(),
            merged: folder.merged(),
        }),
        size: None,
        restarts: state.restart_count,
        log_path: if folder.log().exists() { folder.log() } else { PathBuf::new() },
        hostname_path: etc.hostname(),
        hosts_path: etc.hosts(),
        resolv_conf_path: etc.resolv_conf(),
    }
}

/// Nanoseconds since 1970 of an RFC 3339 time; `None` for an empty or odd text.
pub fn nanoseconds(text: &str) -> Option<Nanoseconds> {
    let time: jiff::Timestamp = text.parse().ok()?;
    time.as_nanosecond().try_into().ok()
}

/// The present time.
pub fn now() -> Nanoseconds {
    jiff::Timestamp::now().as_nanosecond().try_into().unwrap_or(0)
}

fn state_view(state: &State) -> StateView {
    let alive = state.is_alive();
    // The state of a container whose monitor has just been killed still says "running".
    let killed = matches!(state.status, state::Status::Running | state::Status::Paused) && !alive;
    StateView {
        status: match state.status {
            state::Status::Created => Status::Created,
            state::Status::Paused if alive => Status::Paused,
            state::Status::Restarting if alive => Status::Restarting,
            state::Status::Dead => Status::Dead,
            state::Status::Removing => Status::Removing,
            _ if alive => Status::Running,
            _ => Status::Exited,
        },
        pid: state.process.filter(|_| alive).map_or(0, |process| process.pid),
        exit_code: if killed { 137 } else { state.exit_code },
        error: state.error.clone(),
        oom_killed: state.oom_killed,
        started: nanoseconds(&state.started),
        finished: nanoseconds(&state.finished),
        health: state.health.as_ref().map(|health| HealthView {
            status: health.status.name().to_string(),
            failing_streak: health.failing_streak,
            log: health.log.iter().map(probe).collect(),
        }),
    }
}

/// How many bytes it has written, and those of its image. Walks the container's own files.
pub fn size(roots: &Roots, state: &State) -> SizeView {
    let own = if state.layers.is_empty() {
        0
    } else {
        crate::sizes::of_folder(&ContainerFolder::new(&roots.container(&state.id)).upper())
    };
    let store = images::Store::open(&roots.root);
    let image = store.and_then(|store| store.find(&state.image_id)).map_or(0, |image| image.size_bytes);
    SizeView { own, image }
}

fn probe(probe: &health::Probe) -> ProbeView {
    let health::Probe { start, end, exit_code, output } = probe.clone();
    ProbeView { start, end, exit_code, output }
}

fn config(state: &State) -> ConfigView {
    let config = &state.config;
    ConfigView {
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        user: config.user.clone(),
        env: config.env.clone(),
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        working_dir: config.working_dir.clone(),
        volumes: state.volumes.iter().map(|volume| volume.target.display().to_string()).collect(),
        labels: config.labels.clone(),
        stop_signal: match config.stop_signal_text.as_str() {
            "" => Signal(config.stop_signal).to_string(),
            text => text.to_owned(),
        },
        healthcheck: config.health.clone(),
        exposed: config
            .exposed
            .iter()
            .filter_map(|text| {
                let (port, protocol) = text.split_once('/')?;
                Some((port.parse().ok()?, protocol.parse().ok()?))
            })
            .collect(),
    }
}

fn network(roots: &Roots, state: &State, request: &RunRequest) -> NetworkView {
    let fixed = |name: &str| definition::fixed_id(&roots.root, name);
    let bare = |name: &str| PlaceView { network: name.to_owned(), network_id: fixed(name), ..PlaceView::default() };
    match request.network.mode {
        NetworkMode::Bridge => {}
        NetworkMode::None => return NetworkView { places: vec![bare("none")], ..NetworkView::default() },
        NetworkMode::Host => return NetworkView { places: vec![bare("host")], ..NetworkView::default() },
        NetworkMode::Container(_) | NetworkMode::Namespace(_) => return NetworkView::default(),
    }
    if !state.is_alive() {
        let default = [Attach::to(attach::DEFAULT)];
        let bare = request.network.attach.is_empty() && !request.network.alone;
        let wishes = if bare { &default[..] } else { &request.network.attach };
        let places = wishes.iter().map(|wish| PlaceView {
            network: wish.network.clone(),
            network_id: if wish.is_default() { fixed(attach::DEFAULT) } else { String::new() },
            aliases: wish.aliases.clone(),
            gateway_priority: wish.gateway_priority,
            wished: wished(wish),
            ..PlaceView::default()
        });
        return NetworkView { places: places.collect(), ..NetworkView::default() };
    }
    let address = |place: Option<netsetup::Place>| place.map(|place| (place.address, place.prefix_len));
    let places = state.attachments.iter().map(|one| PlaceView {
        network: one.network.clone(),
        network_id: if one.network_id.is_empty() { fixed(&one.network) } else { one.network_id.clone() },
        endpoint_id: definition::endpoint_id(&state.id, &one.network),
        ipv4: address(one.ipv4),
        ipv6: address(one.ipv6),
        gateways: one.gateways.clone(),
        mac: Some(one.mac),
        aliases: one.aliases.clone(),
        dns_names: match one.network.as_str() {
            attach::DEFAULT => vec![],
            _ => {
                let short = state.id.get(..12).unwrap_or(&state.id).to_owned();
                std::iter::once(state.name.clone()).chain(one.aliases.iter().cloned()).chain([short]).collect()
            }
        },
        gateway_priority: one.gateway_priority,
        wished: request.network.attach.iter().find(|wish| wish.network == one.network).map(wished).unwrap_or_default(),
    });
    NetworkView {
        ports: state.ports().copied().collect(),
        places: places.collect(),
        sandbox_key: PathBuf::from("/run/netns").join(&state.name),
    }
}

fn wished(wish: &Attach) -> Vec<(&'static str, String)> {
    let ipv4 = wish.ipv4.map(|address| ("IPv4Address", address.to_string()));
    let ipv6 = wish.ipv6.map(|address| ("IPv6Address", address.to_string()));
    ipv4.into_iter().chain(ipv6).collect()
}

fn mounts(state: &State, request: &RunRequest) -> Vec<MountView> {
    let binds = request.mounts.iter().chain(&state.inherited).filter_map(|mount| match mount {
        Mount::Bind { source, target, read_only, propagation, create_source, .. } => Some(MountView {
            kind: "bind".to_string(),
            source: source.clone(),
            destination: target.clone(),
            // What stood behind the colon of -v.
            mode: if *read_only && *create_source { "ro".to_string() } else { String::new() },
            read_only: *read_only,
            propagation: propagation.name().to_string(),
            ..MountView::default()
        }),
        Mount::Tmpfs { target, options, by_mount: true } => Some(MountView {
            kind: "tmpfs".to_string(),
            destination: target.clone(),
            read_only: options.iter().any(|option| option == "ro"),
            ..MountView::default()
        }),
        _ => None,
    });
    let volumes = state.volumes.iter().map(|volume| MountView {
        kind: "volume".to_string(),
        name: match &volume.name[..] {
            // An older version's, in the container's folder.
            "" => volume.source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            name => name.to_string(),
        },
        source: volume.source.clone(),
        destination: volume.target.clone(),
        mode: match (volume.read_only, volume.anonymous || volume.name.is_empty()) {
            (true, _) => "ro".to_string(),
            // docker says so of every named volume, whatever the host knows of labels.
            (false, false) => "z".to_string(),
            (false, true) => String::new(),
        },
        read_only: volume.read_only,
        ..MountView::default()
    });
    binds.chain(volumes).collect()
}
