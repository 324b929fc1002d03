//! `router create ls inspect rm` and `router floating add rm ls`.

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::{Engine, each};
use crate::cli::{Floating, RouterCreateArgs, RouterFloatingArgs, RouterInspectArgs, RouterLsArgs, RouterRmArgs};
use crate::explain::{self, Command};
use crate::format::document;
use crate::format::template::Template;
use crate::roots::Roots;
use crate::router::{self, Definition, Request, Side};

/// `router create`
pub fn create(engine: &Engine, args: &RouterCreateArgs) -> Result<u8> {
    let request = Request { name: args.name.clone(), inside: args.inside.clone(), outside: args.outside.clone() };
    if args.dry_run {
        print!("#!/bin/sh -eu\n{}", explain::script(&router::dry_run(engine, &request)?));
        return Ok(0);
    }
    router::create(engine, &request, &mut say(args.explain))?;
    println!("{}", args.name);
    Ok(0)
}

/// Prints operations on stderr, when that is wanted.
fn say(wanted: bool) -> impl FnMut(&[Command]) {
    move |commands| {
        if wanted {
            eprint!("{}", explain::script(commands));
        }
    }
}

/// Routers from before a reboot are made again by the first command that asks for routers.
pub fn wake(engine: &Engine) {
    for problem in router::wake(engine) {
        eprintln!("minidock: warning: {}", crate::error::text(&problem));
    }
}

/// `router ls`
pub fn ls(roots: &Roots, args: &RouterLsArgs) -> Result<u8> {
    let routers = router::all(roots);
    if args.quiet {
        routers.iter().for_each(|router| println!("{}", router.name));
        return Ok(0);
    }
    let rows = routers.iter().map(|router| {
        let side = |side: &Side| format!("{}/{}", side.address, side.prefix_len);
        vec![
            router.name.clone(),
            router.inside.network.clone(),
            side(&router.inside),
            router.outside.bridge.clone(),
            side(&router.outside),
            router.gateway.to_string(),
            router.floating(roots).len().to_string(),
        ]
    });
    print!(
        "{}",
        columns(&["NAME", "NETWORK", "INSIDE", "BRIDGE", "OUTSIDE", "GATEWAY", "FLOATING"], &rows.collect::<Vec<_>>())
    );
    Ok(0)
}

/// Text in columns, three spaces apart, as docker's tables.
fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &&Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

/// `router inspect`
pub fn inspect(roots: &Roots, args: &RouterInspectArgs) -> Result<u8> {
    let documents: Result<Vec<Value>> =
        args.names.iter().map(|name| Ok(document(roots, &router::find(roots, name)?))).collect();
    let documents = documents?;
    match args.format.as_deref() {
        None => println!("{}", serde_json::to_string_pretty(&documents)?),
        Some("json") => println!("{}", serde_json::to_string(&documents)?),
        Some(text) => {
            let template = Template::parse(text)?;
            for document in documents {
                println!("{}", template.render(document::value(&document))?);
            }
        }
    }
    Ok(0)
}

fn document(roots: &Roots, router: &Definition) -> Value {
    let side = |side: &Side| {
        json!({
            "Network": side.network,
            "Bridge": side.bridge,
            "Interface": side.link,
            "HostInterface": side.host_link,
            "Address": side.address,
            "PrefixLen": side.prefix_len,
            "MacAddress": side.mac.map(|byte| format!("{byte:02x}")).join(":"),
            "MTU": side.mtu,
        })
    };
    let floating: Vec<Value> = router
        .floating(roots)
        .iter()
        .map(|one| json!({"Outside": one.outside, "Inside": one.inside, "Container": one.container, "Name": one.name}))
        .collect();
    json!({
        "Name": router.name,
        "Created": router.created,
        "Namespace": format!("/run/netns/{}", router.name),
        "Firewall": router.backend.to_string(),
        "Switch": router.switch,
        "Inside": side(&router.inside),
        "Outside": side(&router.outside),
        "Gateway": router.gateway,
        "Floating": floating,
    })
}

/// `router rm`
pub fn rm(roots: &Roots, args: &RouterRmArgs) -> Result<u8> {
    each(&args.names, |name| {
        router::remove(roots, name)?;
        println!("{name}");
        Ok(())
    })
}

/// `router floating`
pub fn floating(roots: &Roots, args: &RouterFloatingArgs) -> Result<u8> {
    match args.action().map_err(|why| anyhow!(why))? {
        Floating::Add { router, outside, container } => {
            let warning = router::add_floating(roots, &router, outside, &container, &mut say(args.explain))?;
            if let Some(warning) = warning {
                eprintln!("WARNING: {warning}");
            }
            println!("{outside}");
        }
        Floating::Rm { router, outside } => {
            router::remove_floating(roots, &router, outside, &mut say(args.explain))?;
            println!("{outside}");
        }
        Floating::Ls { router } => {
            let routers = match router {
                Some(name) => vec![router::find(roots, &name)?],
                None => router::all(roots),
            };
            let rows: Vec<Vec<String>> = routers
                .iter()
                .flat_map(|router| router.floating(roots).into_iter().map(|one| (router.name.clone(), one)))
                .map(|(router, one)| vec![router, one.outside.to_string(), one.inside.to_string(), one.name])
                .collect();
            print!("{}", columns(&["ROUTER", "OUTSIDE", "INSIDE", "CONTAINER"], &rows));
        }
    }
    Ok(0)
}
