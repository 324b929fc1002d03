//! What the image is drawn with: boxes, texts, cables; and how long texts are.

use std::fmt::Write;

/// Width of a letter in the two fonts, for finding out how wide a box must be.
pub(super) const LETTER: f64 = 7.0;
pub(super) const MONO: f64 = 6.7;

/// Colours: border, background, title.
pub(super) type Colours = (&'static str, &'static str, &'static str);
pub(super) const HOST: Colours = ("#3b5b92", "#f4f7fc", "#27406b");
pub(super) const CONTAINER: Colours = ("#2f8f5b", "#f2faf5", "#1d6640");
pub(super) const ROUTER: Colours = ("#b7791f", "#fdf8ee", "#8a5a12");
pub(super) const HAND: Colours = ("#7b8494", "#f7f8fa", "#4c5566");
pub(super) const ALARM: &str = "#c0392b";

/// A kind of line in a box.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Style {
    Heading,
    Small,
    Mono,
    Port,
    Alarm,
}

impl Style {
    /// Class of the text, weight, colour.
    pub fn look(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Style::Heading => ("s", "bold", "#6b7482"),
            Style::Small => ("s", "normal", "#6b7482"),
            Style::Mono => ("m", "normal", "#333b48"),
            Style::Port => ("m", "normal", "#8e3b9c"),
            Style::Alarm => ("m", "normal", ALARM),
        }
    }
}

pub(super) fn cable(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, whole: bool) {
    let middle = (from.1 + to.1) / 2.0;
    let dash = if whole { "" } else { " stroke-dasharray=\"5 5\"" };
    let _ = writeln!(
        out,
        "<path d=\"M{:.1} {:.1} C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"2.4\" stroke-linecap=\"round\"{dash}/>",
        from.0, from.1, from.0, to.0, to.0, to.1
    );
}

/// A cable between two plugs on upper edges.
pub(super) fn arch(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, whole: bool) {
    let top = from.1.min(to.1) - 36.0;
    let dash = if whole { "" } else { " stroke-dasharray=\"5 5\"" };
    let _ = writeln!(
        out,
        "<path d=\"M{:.1} {:.1} C{:.1} {top:.1} {:.1} {top:.1} {:.1} {:.1}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"2.4\" stroke-linecap=\"round\"{dash}/>",
        from.0, from.1, from.0, to.0, to.0, to.1
    );
}

#[allow(clippy::too_many_arguments, reason = "an SVG rectangle has these")]
pub(super) fn rectangle(
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
pub(super) fn write_text(
    out: &mut String,
    x: f64,
    y: f64,
    class: &str,
    weight: &str,
    colour: &str,
    anchor: &str,
    text: &str,
) {
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

pub(super) fn badge(out: &mut String, x: f64, y: f64) {
    let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\" fill=\"{ALARM}\"/>");
    write_text(out, x, y + 5.0, "t", "bold", "#ffffff", "middle", "!");
}

/// Names come from outside; what XML can't hold becomes a question mark.
pub(super) fn escaped(text: &str) -> String {
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

pub(super) fn letters(text: &str, most: usize) -> f64 {
    text.chars().count().min(most) as f64
}

pub(super) fn clipped(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// The first few lines, and how many are left out.
pub(super) fn limited(lines: Vec<String>, most: usize) -> impl Iterator<Item = String> {
    let more = lines.len().saturating_sub(most);
    let rest = (more > 0).then(|| format!("… and {more} more"));
    lines.into_iter().take(most).chain(rest)
}

/// Lines of at most this many letters, broken at spaces.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<String> {
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
