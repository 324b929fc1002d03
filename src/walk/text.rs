//! The report for a terminal.

use std::fmt::Write;

use netsetup::shell::printable;

use super::{Hop, Report};

/// Numbered stations, the way back where it matters, the end, and what to do.
pub fn render(report: &Report) -> String {
    let mut text = format!("{} probe from {} ({}) to {}\n", report.protocol, report.from, report.source, report.target);
    for note in report.note.iter().flat_map(|note| note.lines()) {
        let _ = writeln!(text, "  {note}");
    }
    text.push('\n');
    stations(&mut text, &report.hops);
    if !report.back.is_empty() {
        text.push_str("\nand back:\n\n");
        stations(&mut text, &report.back);
    }
    for (question, answer) in &report.conntrack {
        let _ = writeln!(text, "\nconntrack remembers {question}; an answer is {answer}");
    }
    let mark = if report.outcome.reached { "reached" } else { "NOT REACHED" };
    let _ = writeln!(text, "\n{mark} ({}): {}", report.outcome.answer, printable(&report.outcome.text));
    if let Some(remedy) = &report.outcome.remedy {
        let _ = writeln!(text, "  -> {}", printable(remedy));
    }
    text
}

fn stations(text: &mut String, hops: &[Hop]) {
    let width = |get: fn(&Hop) -> &str| hops.iter().map(|hop| get(hop).chars().count()).max().unwrap_or(0).min(28);
    let (places, ats) = (width(|hop| &hop.place), width(|hop| &hop.at));
    let indent = 4 + places + 2 + ats + 2;
    for (number, hop) in hops.iter().enumerate() {
        let what = match &hop.rule {
            Some(rule) if rule.handle == 0 => rule.text.clone(),
            Some(rule) => format!("{} => {}", rule.text, rule.verdict),
            None => hop.what.clone(),
        };
        let _ = writeln!(
            text,
            "{:>2}  {:places$}  {:ats$}  {}",
            number + 1,
            printable(&hop.place),
            printable(&hop.at),
            printable(&what)
        );
        for detail in [&hop.rewrite, &hop.why].into_iter().flatten() {
            let _ = writeln!(text, "{:indent$}{}", "", printable(detail));
        }
    }
}
