//! The picture as an image: what is outside on top, the host with its bridges in the middle, containers and routers below,
//! each under its bridge, joined by cables. No script, no outside font: it can be pasted into slides.

use std::collections::BTreeMap;
use std::fmt::Write;

use netsetup::survey::{Link, Namespace};

use super::model::{self, Owner, Picture};

const MARGIN: f64 = 28.0;
const GAP: f64 = 26.0;
const LINE: f64 = 17.0;
const PAD: f64 = 14.0;
/// Width of a letter in the two fonts, for finding out how wide a box must be.
const LETTER: f64 = 7.0;
const MONO: f64 = 6.7;
/// Boxes in one row under a bridge.
const ROW: usize = 5;
/// Longest line in a box of a namespace, and in the host's panel, in letters.
const NARROW: usize = 38;
const WIDE: usize = 128;
/// Most lines of one kind in a box.
const MOST_LINES: usize = 12;

/// Colours: border, background, title.
const HOST: (&str, &str, &str) = ("#3b5b92", "#f4f7fc", "#27406b");
const CONTAINER: (&str, &str, &str) = ("#2f8f5b", "#f2faf5", "#1d6640");
const ROUTER: (&str, &str, &str) = ("#b7791f", "#fdf8ee", "#8a5a12");
const HAND: (&str, &str, &str) = ("#7b8494", "#f7f8fa", "#4c5566");
const ALARM: &str = "#c0392b";

/// A kind of line in a box.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    Small,
    Mono,
    Port,
    Alarm,
}

/// A namespace's box before it has a place.
struct Card<'a> {
    namespace: &'a Namespace,
    title: String,
    colours: (&'static str, &'static str, &'static str),
    links: Vec<&'a Link>,
    lines: Vec<(Style, String)>,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl<'a> Card<'a> {
    fn new(picture: &'a Picture, namespace: &'a Namespace) -> Card<'a> {
        let (subtitle, colours) = match picture.owner(namespace) {
            Owner::Host(_) => ("this host".to_owned(), HOST),
            Owner::Container(state) => (format!("container of {}", state.image), CONTAINER),
            Owner::Router(router, _) => (format!("router of network {}", router.inside.network), ROUTER),
            Owner::Hand => ("not minidock's".to_owned(), HAND),
        };
        let mut lines = vec![(Style::Small, subtitle)];
        if let Owner::Container(state) = picture.owner(namespace) {
            let ports = state.attachments.iter().flat_map(|attachment| &attachment.ports);
            lines.extend(limited(ports.map(|port| format!("-p {port}")).collect(), 6).map(|text| (Style::Port, text)));
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
    fn plug(&self, index: u32) -> (f64, f64) {
        let place = self.places().find(|(link, _, _)| link.index == index);
        (place.map_or(self.x, |(_, left, width)| left + width / 2.0), self.y + 10.0)
    }

    fn draw(&self, out: &mut String) {
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
            let (class, colour) = match style {
                Style::Small => ("s", "#6b7482"),
                Style::Mono => ("m", "#333b48"),
                Style::Port => ("m", "#8e3b9c"),
                Style::Alarm => ("m", ALARM),
            };
            write_text(out, self.x + PAD, y + 6.0, class, "normal", colour, "start", &clipped(text, NARROW));
            y += LINE;
        }
        if self.lines.iter().any(|(style, _)| *style == Style::Alarm) {
            badge(out, self.x + self.width, self.y);
        }
    }
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

fn shaping(namespace: &Namespace) -> Vec<String> {
    let lines = namespace.qdiscs.iter().flat_map(|qdisc| {
        let link = namespace.link(qdisc.link).map(|link| link.name.clone()).unwrap_or_default();
        let classes = qdisc.classes.iter().map(|class| format!("· {} {}", class.id, model::rate(class.rate_bits)));
        std::iter::once(format!("{link}: {} {}", qdisc.kind, qdisc.handle)).chain(classes).collect::<Vec<_>>()
    });
    limited(lines.collect(), 8).collect()
}

fn link_texts(link: &Link) -> Vec<String> {
    let kind = if link.kind.is_empty() || link.kind == "veth" { String::new() } else { format!(" ({})", link.kind) };
    let down = if link.up { "" } else { " DOWN" };
    std::iter::once(format!("{}{kind}{down}", link.name)).chain(model::addresses(link)).collect()
}

fn link_width(link: &Link) -> f64 {
    link_texts(link).iter().map(|text| letters(text, NARROW)).fold(0.0, f64::max) * MONO + 20.0
}

fn link_height(link: &Link) -> f64 {
    link_texts(link).len() as f64 * 15.0 + 8.0
}

/// The whole image.
pub fn render(picture: &Picture) -> String {
    let Some(host) = picture.host() else { return String::new() };
    let mut layout = Layout::new(picture, host);
    layout.arrange();
    layout.draw()
}

/// A bridge of the host, and which boxes hang below it.
struct Bridge<'a> {
    link: &'a Link,
    below: Vec<usize>,
    x: f64,
    width: f64,
}

struct Layout<'a> {
    picture: &'a Picture,
    host: &'a Namespace,
    cards: Vec<Card<'a>>,
    above: Vec<usize>,
    loose: Vec<usize>,
    bridges: Vec<Bridge<'a>>,
    /// The host's links that are in no bridge and are none.
    cards_of_host: Vec<&'a Link>,
    panel: Vec<(Style, String)>,
    host_top: f64,
    host_height: f64,
    bar_top: f64,
    width: f64,
    height: f64,
}

const BAR: f64 = 50.0;
const OWN_CARD: f64 = 170.0;

impl<'a> Layout<'a> {
    fn new(picture: &'a Picture, host: &'a Namespace) -> Layout<'a> {
        let cards: Vec<Card> =
            picture.namespaces.iter().filter(|one| !one.is_host).map(|one| Card::new(picture, one)).collect();
        let mut bridges: Vec<Bridge> = host
            .links
            .iter()
            .filter(|link| link.kind == "bridge")
            .map(|link| Bridge { link, below: Vec::new(), x: 0.0, width: 0.0 })
            .collect();
        let (mut above, mut loose) = (Vec::new(), Vec::new());
        for (at, card) in cards.iter().enumerate() {
            let ends: Vec<&Link> = card
                .links
                .iter()
                .filter_map(|link| {
                    picture.peer(link).filter(|(there, _)| there.inode == host.inode).map(|(_, end)| end)
                })
                .collect();
            let in_bridge = ends.iter().find_map(|end| bridges.iter().position(|one| one.link.index == end.master));
            match in_bridge {
                Some(bridge) => bridges[bridge].below.push(at),
                None if !ends.is_empty() => above.push(at),
                None => loose.push(at),
            }
        }
        for bridge in &mut bridges {
            // A router stands beside the other bridge that it leads to.
            bridge.below.sort_by_key(|at| cards[*at].links.len() < 2);
        }
        let cards_of_host =
            host.links.iter().filter(|link| link.master == 0 && link.kind != "bridge" && link.name != "lo").collect();
        let mut layout = Layout {
            picture,
            host,
            cards,
            above,
            loose,
            bridges,
            cards_of_host,
            panel: Vec::new(),
            host_top: 0.0,
            host_height: 0.0,
            bar_top: 0.0,
            width: 0.0,
            height: 0.0,
        };
        layout.panel = layout.host_panel();
        layout
    }

    fn host_panel(&self) -> Vec<(Style, String)> {
        let host = self.host;
        let mut lines = Vec::new();
        let published = model::published(host).into_iter().map(|(at, to, whose)| {
            let whose = if whose.is_empty() { String::new() } else { format!("  # {whose}") };
            format!("{at} -> {to}{whose}")
        });
        lines.extend(limited(published.collect(), MOST_LINES).map(|text| (Style::Port, text)));
        lines.extend(limited(model::translations(host), MOST_LINES).map(|text| (Style::Mono, text)));
        let routes = host.routes.iter().map(|route| model::route(host, route)).collect();
        lines.extend(limited(routes, MOST_LINES).map(|text| (Style::Mono, text)));
        lines.extend(shaping(host).into_iter().map(|text| (Style::Mono, text)));
        for difference in self.picture.differences_of(host) {
            lines.extend(wrapped(difference, WIDE).into_iter().map(|text| (Style::Alarm, text)));
        }
        lines
    }

    /// Gives everything its place.
    fn arrange(&mut self) {
        // Above the host: what hangs on a card of its own.
        let mut x = MARGIN;
        let mut top: f64 = MARGIN + 24.0;
        for at in self.above.clone() {
            let card = &mut self.cards[at];
            (card.x, card.y) = (x, MARGIN + 24.0);
            x += card.width + GAP;
            top = top.max(card.y + card.height + 46.0);
        }
        self.host_top = top;
        let widest_above = x - GAP;
        // The host: its own cards left, the panel right, the bridges' bars at the bottom.
        let panel_lines = self.panel.len() as f64 * LINE + 12.0;
        let cards_height = self.cards_of_host.iter().map(|link| link_height(link) + 8.0).sum::<f64>();
        self.bar_top = self.host_top + 44.0 + panel_lines.max(cards_height) + 14.0;
        self.host_height = self.bar_top - self.host_top + if self.bridges.is_empty() { 0.0 } else { BAR + 18.0 };
        let below = self.host_top + self.host_height + 56.0;
        let mut bottom = below;
        let mut x = MARGIN + PAD;
        for number in 0..self.bridges.len() {
            let start = x;
            let members = self.bridges[number].below.clone();
            let mut widest: f64 = 0.0;
            let mut y = below;
            for row in members.chunks(ROW) {
                let mut across = start;
                let mut tallest: f64 = 0.0;
                for at in row {
                    let card = &mut self.cards[*at];
                    (card.x, card.y) = (across, y);
                    across += card.width + GAP;
                    tallest = tallest.max(card.height);
                }
                widest = widest.max(across - GAP - start);
                y += tallest + 40.0;
            }
            bottom = bottom.max(y - 40.0);
            let title =
                bar_text(self.picture, self.bridges[number].link).chars().count() as f64 * (MONO + 0.6) + 2.0 * PAD;
            let bridge = &mut self.bridges[number];
            (bridge.x, bridge.width) = (start, widest.max(title).max(180.0));
            x += bridge.width + GAP;
        }
        let panel_width = self.panel.iter().map(|(_, text)| letters(text, WIDE) * MONO).fold(0.0, f64::max);
        let inside = (x - GAP + PAD).max(MARGIN + OWN_CARD + panel_width + 4.0 * PAD).max(620.0);
        self.width = inside.max(widest_above) + MARGIN;
        if bottom == below {
            bottom = self.host_top + self.host_height;
        }
        // What hangs on nothing that is drawn so far.
        let mut x = MARGIN;
        let y = bottom + 40.0;
        for at in self.loose.clone() {
            let width = self.width;
            let card = &mut self.cards[at];
            if x + card.width > width && x > MARGIN {
                x = MARGIN; // rare enough not to be worth a better row
            }
            (card.x, card.y) = (x, y);
            x += card.width + GAP;
            bottom = bottom.max(card.y + card.height);
            self.width = self.width.max(x - GAP + MARGIN);
        }
        self.height = bottom + MARGIN + 22.0;
    }

    fn draw(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0}\" height=\"{1:.0}\" viewBox=\"0 0 {0:.0} {1:.0}\">\n\
             <style>text{{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'DejaVu Sans',sans-serif}} \
             .t{{font-size:15px}} .s{{font-size:12px}} \
             .m{{font-size:11px;font-family:'JetBrains Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}}</style>\n",
            self.width, self.height
        );
        let _ = writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
        let (border, background, dark) = HOST;
        let host_width = self.width - 2.0 * MARGIN;
        rectangle(&mut out, MARGIN, self.host_top, host_width, self.host_height, 14.0, background, border, 2.0);
        write_text(&mut out, MARGIN + PAD, self.host_top + 26.0, "t", "bold", dark, "start", "host");
        let forward = if self.host.ip_forward { "ip_forward on" } else { "ip_forward OFF" };
        let colour = if self.host.ip_forward { "#6b7482" } else { ALARM };
        write_text(&mut out, MARGIN + PAD + 44.0, self.host_top + 26.0, "s", "normal", colour, "start", forward);
        let plugs = self.draw_own_cards(&mut out);
        let x = MARGIN + OWN_CARD + 3.0 * PAD;
        let mut y = self.host_top + 48.0;
        for (style, text) in &self.panel {
            let colour = match style {
                Style::Port => "#8e3b9c",
                Style::Alarm => ALARM,
                _ => "#333b48",
            };
            write_text(&mut out, x, y + 6.0, "m", "normal", colour, "start", &clipped(text, WIDE));
            y += LINE;
        }
        if self.panel.iter().any(|(style, _)| *style == Style::Alarm) {
            badge(&mut out, MARGIN + host_width, self.host_top);
        }
        for bridge in &self.bridges {
            let fill = if bridge.link.up { "#dfe9f8" } else { "#f3d9d6" };
            rectangle(&mut out, bridge.x, self.bar_top, bridge.width, BAR, 8.0, fill, border, 1.4);
            write_text(
                &mut out,
                bridge.x + PAD,
                self.bar_top + 20.0,
                "m",
                "bold",
                dark,
                "start",
                &bar_text(self.picture, bridge.link),
            );
        }
        let tabs = self.draw_tabs(&mut out);
        self.draw_cables(&mut out, &plugs, &tabs);
        for card in &self.cards {
            card.draw(&mut out);
        }
        let count = self.picture.differences.len();
        let (text, colour) = match count {
            0 => ("as the kernel has it, and as minidock thinks".to_owned(), "#8a94a6"),
            1 => ("as the kernel has it; 1 difference from what minidock thinks is red".to_owned(), ALARM),
            _ => (format!("as the kernel has it; {count} differences from what minidock thinks are red"), ALARM),
        };
        write_text(&mut out, MARGIN, self.height - 14.0, "s", "normal", colour, "start", &text);
        out.push_str("</svg>\n");
        out
    }

    /// The host's links that are in no bridge; where their cables begin.
    fn draw_own_cards(&self, out: &mut String) -> BTreeMap<u32, (f64, f64)> {
        let (border, _, dark) = HOST;
        let mut plugs = BTreeMap::new();
        let mut y = self.host_top + 44.0;
        for link in &self.cards_of_host {
            let height = link_height(link);
            let (fill, edge) = if link.up { ("#ffffff", border) } else { ("#f3d9d6", ALARM) };
            rectangle(out, MARGIN + PAD, y, OWN_CARD, height, 6.0, fill, edge, 1.0);
            for (number, text) in link_texts(link).iter().enumerate() {
                let weight = if number == 0 { "bold" } else { "normal" };
                let baseline = y + 16.0 + number as f64 * 15.0;
                write_text(
                    out,
                    MARGIN + PAD + OWN_CARD / 2.0,
                    baseline,
                    "m",
                    weight,
                    dark,
                    "middle",
                    &clipped(text, 24),
                );
            }
            plugs.insert(link.index, (MARGIN + PAD + OWN_CARD - 18.0, y));
            y += height + 8.0;
        }
        plugs
    }

    /// The ports of the bridges as small tabs on the lower edges of their bars; where their cables begin.
    fn draw_tabs(&self, out: &mut String) -> BTreeMap<u32, (f64, f64)> {
        let (border, _, dark) = HOST;
        let mut tabs = BTreeMap::new();
        for bridge in &self.bridges {
            let ports: Vec<&Link> = self.host.links.iter().filter(|link| link.master == bridge.link.index).collect();
            // Above the box that it leads to, if it can be; the others where there is room.
            let mut placed: Vec<(f64, &Link)> = ports
                .iter()
                .map(|port| {
                    let there = self.picture.peer(port).and_then(|(namespace, end)| {
                        let card = self.cards.iter().find(|card| card.namespace.inode == namespace.inode)?;
                        Some(card.plug(end.index).0)
                    });
                    (there.unwrap_or(f64::MAX), *port)
                })
                .collect();
            placed.sort_by(|a, b| a.0.total_cmp(&b.0));
            let size = ((bridge.width - 12.0) / placed.len().max(1) as f64 - 4.0).clamp(6.0, 104.0);
            let mut places: Vec<f64> = Vec::new();
            let mut free = bridge.x + 6.0;
            for (wanted, _) in &placed {
                let x = (wanted - size / 2.0).min(bridge.x + bridge.width - size - 6.0).max(free);
                free = x + size + 4.0;
                places.push(x);
            }
            let mut end = bridge.x + bridge.width - 2.0;
            for x in places.iter_mut().rev() {
                *x = x.min(end - size - 4.0);
                end = *x;
            }
            for ((_, port), x) in placed.into_iter().zip(places) {
                let (fill, edge) = if port.up { ("#ffffff", border) } else { ("#f3d9d6", ALARM) };
                let y = self.bar_top + BAR - 20.0;
                rectangle(out, x, y, size, 20.0, 4.0, fill, edge, 1.0);
                if size > 60.0 {
                    let name = clipped(&port.name, (size / MONO) as usize);
                    write_text(out, x + size / 2.0, y + 14.0, "m", "normal", dark, "middle", &name);
                }
                tabs.insert(port.index, (x + size / 2.0, y + 20.0));
            }
        }
        tabs
    }

    /// Each cable once: from the host's end down to the box, up to what is outside, or from box to box.
    fn draw_cables(&self, out: &mut String, plugs: &BTreeMap<u32, (f64, f64)>, tabs: &BTreeMap<u32, (f64, f64)>) {
        for card in &self.cards {
            for link in &card.links {
                let Some((there, other)) = self.picture.peer(link) else { continue };
                let end = card.plug(link.index);
                let whole = link.up && other.up;
                if there.inode == self.host.inode {
                    match (tabs.get(&other.index), plugs.get(&other.index)) {
                        (Some(start), _) => cable(out, *start, end, card.colours.0, whole),
                        (None, Some(start)) => {
                            cable(out, (end.0, card.y + card.height), *start, card.colours.0, whole);
                        }
                        _ => {}
                    }
                } else if (card.namespace.inode, link.index) < (there.inode, other.index)
                    && let Some(far) = self.cards.iter().find(|one| one.namespace.inode == there.inode)
                {
                    cable(out, end, far.plug(other.index), card.colours.0, whole);
                }
            }
        }
    }
}

fn bar_text(picture: &Picture, link: &Link) -> String {
    let mut text = match picture.network_of(link) {
        Some(network) => format!("{} (bridge of network {network})", link.name),
        None => format!("{} (bridge)", link.name),
    };
    for address in model::addresses(link) {
        text += &format!("  {address}");
    }
    text
}

fn cable(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, whole: bool) {
    let middle = (from.1 + to.1) / 2.0;
    let dash = if whole { "" } else { " stroke-dasharray=\"5 5\"" };
    let _ = writeln!(
        out,
        "<path d=\"M{:.1} {:.1} C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"2.4\" stroke-linecap=\"round\"{dash}/>",
        from.0, from.1, from.0, to.0, to.0, to.1
    );
}

#[allow(clippy::too_many_arguments, reason = "an SVG rectangle has these")]
fn rectangle(
    out: &mut String,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    radius: f64,
    fill: &str,
    edge: &str,
    line: f64,
) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{radius}\" fill=\"{fill}\" \
         stroke=\"{edge}\" stroke-width=\"{line}\"/>"
    );
}

#[allow(clippy::too_many_arguments, reason = "an SVG text has these")]
fn write_text(out: &mut String, x: f64, y: f64, class: &str, weight: &str, colour: &str, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" font-weight=\"{weight}\" fill=\"{colour}\" \
         text-anchor=\"{anchor}\">{}</text>",
        match text.split_once("  # ") {
            Some((rule, why)) => {
                format!("{}<tspan fill=\"#8a94a6\" dx=\"10\"># {}</tspan>", escaped(rule), escaped(why))
            }
            None => escaped(text),
        }
    );
}

fn badge(out: &mut String, x: f64, y: f64) {
    let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\" fill=\"{ALARM}\"/>");
    write_text(out, x, y + 5.0, "t", "bold", "#ffffff", "middle", "!");
}

/// Names come from outside; what XML can't hold becomes a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

fn letters(text: &str, most: usize) -> f64 {
    text.chars().count().min(most) as f64
}

fn clipped(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// The first few lines, and how many are left out.
fn limited(lines: Vec<String>, most: usize) -> impl Iterator<Item = String> {
    let more = lines.len().saturating_sub(most);
    let rest = (more > 0).then(|| format!("… and {more} more"));
    lines.into_iter().take(most).chain(rest)
}

/// Lines of at most this many letters, broken at spaces.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::from("! ")];
    for word in text.split(' ') {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 2 && last + 1 + word.chars().count() > most {
            lines.push(String::from("  "));
        }
        if let Some(line) = lines.last_mut() {
            if !line.ends_with(' ') {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_outside_cannot_leave_their_element() {
        assert_eq!(escaped("a<b>&\"\u{1}"), "a&lt;b&gt;&amp;&quot;?");
        assert_eq!(clipped("abcdef", 4), "abc…");
        assert_eq!(wrapped("one two three", 9), ["! one two", "  three"]);
        assert_eq!(limited(vec!["a".into(), "b".into(), "c".into()], 1).collect::<Vec<_>>(), ["a", "… and 2 more"]);
    }
}
