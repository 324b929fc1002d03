//! The picture as an image: what is outside on top, the host with its bridges in the middle, containers and routers below,
//! each under its bridge, joined by cables. No script, no outside font: it can be pasted into slides.

mod card;
mod ink;

use std::collections::BTreeMap;
use std::fmt::Write;

use netsetup::survey::{Link, Namespace};

use self::card::{Card, LINE, PAD, link_height, link_texts, shaping};
use self::ink::{
    ALARM, HOST, MONO, Style, arch, badge, cable, clipped, letters, limited, rectangle, wrapped, write_text,
};
use super::model::{self, Picture};

const MARGIN: f64 = 28.0;
const GAP: f64 = 26.0;
/// Boxes in one row under a bridge.
const ROW: usize = 5;
/// Longest line in a column of the host's panel, in letters.
const WIDE: usize = 140;
/// Most lines of one kind in a box.
const MOST_LINES: usize = 12;

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
    /// Two columns: ports, routes and shaping; what is translated, and what differs.
    panel: [Vec<(Style, String)>; 2],
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
                    let there = picture.leads_to(card.namespace, link);
                    there.filter(|(there, _)| there.inode == host.inode).map(|(_, end)| end)
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
            panel: [Vec::new(), Vec::new()],
            host_top: 0.0,
            host_height: 0.0,
            bar_top: 0.0,
            width: 0.0,
            height: 0.0,
        };
        layout.panel = layout.host_panel();
        // Side by side where the bridges need the width anyway; a small picture stays narrow.
        let row = |bridge: &Bridge| {
            bridge.below.iter().take(ROW).map(|at| layout.cards[*at].width + GAP).sum::<f64>().max(180.0)
        };
        if layout.bridges.iter().map(row).sum::<f64>() < OWN_CARD + layout.panel_width() {
            let [left, right] = &mut layout.panel;
            if !left.is_empty() && !right.is_empty() {
                left.push((Style::Small, String::new()));
            }
            left.append(right);
        }
        layout
    }

    fn host_panel(&self) -> [Vec<(Style, String)>; 2] {
        let host = self.host;
        let [mut left, mut right] = [Vec::new(), Vec::new()];
        let published = model::published(self.picture, host).into_iter().map(|(at, to, whose)| {
            let whose = if whose.is_empty() { String::new() } else { format!("  # {whose}") };
            format!("{at} -> {to}{whose}")
        });
        let routes = host.routes.iter().map(|route| model::route(host, route)).collect();
        section(&mut left, "published", Style::Port, published.collect());
        section(&mut left, "routes", Style::Mono, routes);
        section(&mut left, "shaping", Style::Mono, shaping(host));
        section(&mut right, "translation", Style::Mono, model::translations(host));
        for difference in self.picture.differences_of(host) {
            right.extend(wrapped(difference, WIDE).into_iter().map(|text| (Style::Alarm, text)));
        }
        [left, right]
    }

    /// Where the panel's second column begins, seen from the first.
    fn second_column(&self) -> f64 {
        let widest = self.panel[0].iter().map(|(_, text)| letters(text, WIDE) * MONO).fold(0.0, f64::max);
        if self.panel[0].is_empty() { 0.0 } else { widest + 2.0 * GAP }
    }

    fn panel_width(&self) -> f64 {
        self.second_column() + self.panel[1].iter().map(|(_, text)| letters(text, WIDE) * MONO).fold(0.0, f64::max)
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
        let panel_lines = self.panel.iter().map(Vec::len).max().unwrap_or(0) as f64 * LINE + 12.0;
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
        let panel_width =
            self.second_column() + self.panel[1].iter().map(|(_, text)| letters(text, WIDE) * MONO).fold(0.0, f64::max);
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
        let mut x = MARGIN + OWN_CARD + 3.0 * PAD;
        for column in &self.panel {
            let mut y = self.host_top + 48.0;
            for (style, text) in column {
                let (class, weight, colour) = style.look();
                write_text(&mut out, x, y + 6.0, class, weight, colour, "start", &clipped(text, WIDE));
                y += LINE;
            }
            x += self.second_column();
        }
        if self.panel.iter().flatten().any(|(style, _)| *style == Style::Alarm) {
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
                let Some((there, other)) = self.picture.leads_to(card.namespace, link) else { continue };
                let end = card.plug(link.index);
                let whole = link.up && other.up;
                if there.inode == self.host.inode {
                    match (tabs.get(&other.index), plugs.get(&other.index)) {
                        (Some(start), _) => cable(out, *start, end, card.colours.0, whole),
                        // A box below the host that also sits on one of its cards.
                        (None, Some(start)) if card.y > start.1 => cable(out, *start, end, card.colours.0, whole),
                        (None, Some(start)) => {
                            cable(out, (end.0, card.y + card.height), *start, card.colours.0, whole);
                        }
                        _ => {}
                    }
                } else if (card.namespace.inode, link.index) < (there.inode, other.index)
                    && let Some(far) = self.cards.iter().find(|one| one.namespace.inode == there.inode)
                {
                    // Over the boxes' heads: between two plugs at one height there would be no room for a bow.
                    arch(out, end, far.plug(other.index), card.colours.0, whole);
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

/// Lines under a heading, if there are any.
fn section(lines: &mut Vec<(Style, String)>, title: &str, style: Style, texts: Vec<String>) {
    if texts.is_empty() {
        return;
    }
    if !lines.is_empty() {
        lines.push((Style::Small, String::new()));
    }
    lines.push((Style::Heading, title.to_owned()));
    lines.extend(limited(texts, MOST_LINES).map(|text| (style, text)));
}
