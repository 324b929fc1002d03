//! A namespace's box: its links on top, where the cables end, and below them what is to be known of it.

use std::net::IpAddr;

use netsetup::PortMapping;
use netsetup::survey::{Link, Namespace};

use super::ink::{
    ALARM, CONTAINER, Colours, HAND, HOST, LETTER, MONO, ROUTER, Style, badge, clipped, letters, limited, rectangle,
    wrapped, write_text,
};
use crate::graph::model::{self, Owner, Picture};

pub(super) const LINE: f64 = 17.0;
pub(super) const PAD: f64 = 14.0;
/// Longest line in a box, in letters.
const NARROW: usize = 38;

/// A namespace's box before it has a place.
pub(super) struct Card<'a> {
    pub namespace: &'a Namespace,
    pub title: String,
    pub colours: Colours,
    pub links: Vec<&'a Link>,
    pub lines: Vec<(Style, String)>,
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl<'a> Card<'a> {
    pub fn new(picture: &'a Picture, namespace: &'a Namespace) -> Card<'a> {
        let (subtitle, colours) = match picture.owner(namespace) {
            Owner::Host(_) => ("this host".to_owned(), HOST),
            Owner::Container(state) => (format!("container of {}", state.image), CONTAINER),
            Owner::Router(router, _) => (format!("router of network {}", router.inside.network), ROUTER),
            Owner::Hand => ("not minidock's".to_owned(), HAND),
        };
        let mut lines = vec![(Style::Small, subtitle)];
        if let Owner::Container(state) = picture.owner(namespace) {
            let ports = state.attachments.iter().flat_map(|attachment| &attachment.ports);
            lines.extend(limited(ranges(ports), 6).map(|text| (Style::Port, text)));
        }
        let routes = namespace.routes.iter().filter(|route| route.destination.1 == 0 || route.gateway.is_some());
        lines.extend(
            limited(routes.map(|route| model::route(namespace, route)).collect(), 4).map(|text| (Style::Mono, text)),
        );
        lines.extend(floating(picture, namespace).into_iter().map(|text| (Style::Port, text)));
        if !matches!(picture.owner(namespace), Owner::Router(..)) {
            lines.extend(limited(model::translations(namespace), 4).map(|text| (Style::Mono, text)));
        }
        lines.extend(shaping(namespace).into_iter().map(|text| (Style::Mono, text)));
        let links: Vec<&Link> = namespace.links.iter().filter(|link| link.name != "lo").collect();
        for difference in picture.differences_of(namespace) {
            lines.extend(wrapped(difference, NARROW).into_iter().map(|text| (Style::Alarm, text)));
        }
        let links_width = links.iter().map(|link| link_width(link) + 8.0).sum::<f64>() + 12.0;
        let longest = lines
            .iter()
            .map(|(style, text)| letters(text, NARROW) * if *style == Style::Small { LETTER } else { MONO })
            .fold(letters(&picture.title(namespace), NARROW) * 9.0, f64::max);
        let links_height = links.iter().map(|link| link_height(link) + 8.0).fold(0.0, f64::max);
        Card {
            namespace,
            title: picture.title(namespace),
            colours,
            width: (longest + 2.0 * PAD).max(150.0).max(links_width),
            height: links_height + 34.0 + lines.len() as f64 * LINE + PAD,
            links,
            lines,
            x: 0.0,
            y: 0.0,
        }
    }

    /// Where the links stand, side by side: index, left edge, width.
    fn places(&self) -> impl Iterator<Item = (&'a Link, f64, f64)> {
        let all: f64 = self.links.iter().map(|link| link_width(link)).sum();
        let gaps = 8.0 * (self.links.len().max(1) - 1) as f64;
        let stretch = (self.width - 20.0 - gaps) / all.max(1.0);
        let mut x = self.x + 10.0;
        self.links.iter().map(move |link| {
            let (left, width) = (x, link_width(link) * stretch);
            x += width + 8.0;
            (*link, left, width)
        })
    }

    /// The middle of a link's upper edge: where its cable ends.
    pub fn plug(&self, index: u32) -> (f64, f64) {
        let place = self.places().find(|(link, _, _)| link.index == index);
        (place.map_or(self.x, |(_, left, width)| left + width / 2.0), self.y + 10.0)
    }

    pub fn draw(&self, out: &mut String) {
        let (border, background, dark) = self.colours;
        rectangle(out, self.x, self.y, self.width, self.height, 12.0, background, border, 1.6);
        let mut y = self.y + 10.0;
        let mut tallest: f64 = 0.0;
        for (link, left, width) in self.places() {
            let height = link_height(link);
            let (fill, edge) = if link.up { ("#ffffff", border) } else { ("#f3d9d6", ALARM) };
            rectangle(out, left, y, width, height, 6.0, fill, edge, 1.0);
            for (number, text) in link_texts(link).iter().enumerate() {
                let (weight, colour) = if number == 0 { ("bold", dark) } else { ("normal", "#333b48") };
                let baseline = y + 16.0 + number as f64 * 15.0;
                write_text(out, left + width / 2.0, baseline, "m", weight, colour, "middle", &clipped(text, NARROW));
            }
            tallest = tallest.max(height + 8.0);
        }
        y += tallest;
        write_text(out, self.x + PAD, y + 16.0, "t", "bold", dark, "start", &clipped(&self.title, NARROW));
        y += 30.0;
        for (style, text) in &self.lines {
            let (class, weight, colour) = style.look();
            write_text(out, self.x + PAD, y + 6.0, class, weight, colour, "start", &clipped(text, NARROW));
            y += LINE;
        }
        if self.lines.iter().any(|(style, _)| *style == Style::Alarm) {
            badge(out, self.x + self.width, self.y);
        }
    }
}

/// Published ports as a person would have asked for them: neighbours as a range, both IP versions as one.
fn ranges<'p>(ports: impl Iterator<Item = &'p PortMapping>) -> Vec<String> {
    let mut runs: Vec<(&PortMapping, u16)> = Vec::new();
    let mut ports: Vec<&PortMapping> = ports.collect();
    ports.sort_by_key(|port| (port.protocol.to_string(), port.host_address, port.host_port));
    for port in ports {
        let goes_on = |(first, count): &(&PortMapping, u16)| {
            (first.host_address, first.protocol) == (port.host_address, port.protocol)
                && first.host_port.checked_add(*count) == Some(port.host_port)
                && first.container_port.checked_add(*count) == Some(port.container_port)
        };
        match runs.last_mut() {
            Some(run) if goes_on(run) => run.1 += 1,
            _ => runs.push((port, 1)),
        }
    }
    let mut texts: Vec<String> = Vec::new();
    for (first, count) in runs {
        let span = |start: u16| match count {
            1 => start.to_string(),
            _ => format!("{start}-{}", start.saturating_add(count - 1)),
        };
        let address = match first.host_address {
            address if address.is_unspecified() => String::new(),
            IpAddr::V6(address) => format!("[{address}]:"),
            IpAddr::V4(address) => format!("{address}:"),
        };
        let text = format!("-p {address}{}:{}/{}", span(first.host_port), span(first.container_port), first.protocol);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// One-to-one addresses of a router, as the lecture draws them.
fn floating(picture: &Picture, namespace: &Namespace) -> Vec<String> {
    match picture.owner(namespace) {
        Owner::Router(router, floating) => {
            let rest = format!("SNAT the rest -> {}", router.outside.address);
            floating
                .iter()
                .map(|one| format!("{} <-> {} ({})", one.outside, one.inside, one.name))
                .chain([rest])
                .collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn shaping(namespace: &Namespace) -> Vec<String> {
    let lines = namespace.qdiscs.iter().flat_map(|qdisc| {
        let link = namespace.link(qdisc.link).map(|link| link.name.clone()).unwrap_or_default();
        let classes = qdisc.classes.iter().map(|class| format!("· {} {}", class.id, model::rate(class.rate_bits)));
        std::iter::once(format!("{link}: {} {}", qdisc.kind, qdisc.handle)).chain(classes).collect::<Vec<_>>()
    });
    limited(lines.collect(), 8).collect()
}

pub(super) fn link_texts(link: &Link) -> Vec<String> {
    let kind = if link.kind.is_empty() || link.kind == "veth" { String::new() } else { format!(" ({})", link.kind) };
    let down = if link.up { "" } else { " DOWN" };
    std::iter::once(format!("{}{kind}{down}", link.name)).chain(model::addresses(link)).collect()
}

pub(super) fn link_width(link: &Link) -> f64 {
    link_texts(link).iter().map(|text| letters(text, NARROW)).fold(0.0, f64::max) * MONO + 20.0
}

pub(super) fn link_height(link: &Link) -> f64 {
    link_texts(link).len() as f64 * 15.0 + 8.0
}
