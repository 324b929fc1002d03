//! Columns as Go's tabwriter lays them out for docker: at least 10 wide, 3 spaces between.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Least width of a column.
const LEAST: usize = 10;
/// Spaces after the widest cell.
const PADDING: usize = 3;

/// The columns of the terminal that tables have to fit; 0: any width.
static WIDTH: AtomicUsize = AtomicUsize::new(0);
/// Cells are cut to the first of these, and to the second only where that isn't enough. The first column is the id's,
/// which people copy: it stays.
const LEAST_CELLS: [usize; 2] = [12, 8];

/// From now on tables fit so many columns. For the terminal's width; not called where output goes elsewhere.
pub fn set_width(columns: usize) {
    WIDTH.store(columns, Ordering::Relaxed);
}

/// Cuts the widest cells of a table (all lines with the same number of cells) until its lines fit.
fn fit(text: &str, width: usize) -> String {
    let mut lines: Vec<Vec<String>> = text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    let count = lines.first().map_or(0, Vec::len);
    if width == 0 || lines.iter().any(|cells| cells.len() != count) {
        return text.to_owned();
    }
    let length = |cell: &String| cell.chars().count();
    let mut widths: Vec<usize> =
        (0..count).map(|at| lines.iter().map(|cells| length(&cells[at])).max().unwrap_or(0)).collect();
    let taken = |widths: &[usize]| -> usize {
        widths
            .iter()
            .enumerate()
            .map(|(at, cell)| if at + 1 == count { *cell } else { (cell + PADDING).max(LEAST) })
            .sum()
    };
    for least in LEAST_CELLS {
        while taken(&widths) > width {
            match widths.iter().enumerate().skip(1).max_by_key(|(_, cell)| **cell) {
                Some((at, cell)) if *cell > least => widths[at] -= 1,
                _ => break,
            }
        }
    }
    for cells in &mut lines {
        for (cell, width) in cells.iter_mut().zip(&widths) {
            if length(cell) > *width {
                *cell = super::human::ellipsis(cell, *width);
            }
        }
    }
    let mut text = lines.iter().map(|cells| cells.join("\t")).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

/// Lays out lines whose cells end with tabs. What follows a line's last tab is not part of a column.
pub(super) fn align(text: &str) -> String {
    let fitted = fit(text, WIDTH.load(Ordering::Relaxed));
    let lines: Vec<Vec<&str>> = fitted.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len().saturating_sub(1)]).collect();
    column(&lines, &mut widths, 0, lines.len(), 0);
    let mut out = String::with_capacity(text.len() * 2);
    for (nth, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if nth > 0 {
            out.push('\n');
        }
        for (at, cell) in cells.iter().enumerate() {
            out += cell;
            if let Some(width) = widths.get(at) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
    }
    out
}

/// As docker's `top`: columns at least twenty wide, three spaces between, the last cell as it is.
pub fn align_wide<'a>(rows: impl Iterator<Item = &'a Vec<String>> + Clone) -> String {
    let mut widths: Vec<usize> = vec![];
    for row in rows.clone() {
        for (at, cell) in row.iter().enumerate() {
            if widths.len() <= at {
                widths.push(20);
            }
            widths[at] = widths[at].max(cell.chars().count() + PADDING);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = if at + 1 == row.len() { 0 } else { widths[at] };
            text += &format!("{cell:<width$}");
        }
        text.push('\n');
    }
    text
}

/// A column is a block of consecutive lines that all have a cell there, ended by a tab.
fn column(lines: &[Vec<&str>], widths: &mut [Vec<usize>], from: usize, to: usize, at: usize) {
    let mut line = from;
    while line < to {
        if widths[line].len() <= at {
            line += 1;
            continue;
        }
        let end = (line..to).find(|other| widths[*other].len() <= at).unwrap_or(to);
        let widest = lines[line..end].iter().map(|cells| cells[at].chars().count() + PADDING).max().unwrap_or(0);
        for width in &mut widths[line..end] {
            width[at] = widest.max(LEAST);
        }
        column(lines, widths, line, end, at + 1);
        line = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_cells_are_cut_until_a_line_fits() {
        let text = "ID\tCOMMAND\tNAMES\nabcdefghijkl\ta very long command that goes on\tsome_long_name\n";
        let fitted = fit(text, 50);
        assert_eq!(fitted, "ID\tCOMMAND\tNAMES\nabcdefghijkl\ta very long comma…\tsome_long_name\n");
        assert!(align(&fitted).lines().all(|line| line.chars().count() <= 50), "{}", align(&fitted));
        assert_eq!(fit(text, 0), text);
        assert_eq!(fit(text, 200), text);
        assert!(fit(text, 1).contains("a very …"), "{}", fit(text, 1));
        assert_eq!(fit("a\tb\nno table\n", 3), "a\tb\nno table\n");
    }

    #[test]
    fn columns_are_at_least_ten_wide() {
        assert_eq!(align("A\tB\tC\nlonger than\tx\ty\n"), "A             B         C\nlonger than   x         y\n");
        assert_eq!(align("one line"), "one line");
        assert_eq!(align("a\tb\n\nlonger text\tc\n"), "a         b\n\nlonger text   c\n");
        assert_eq!(align("é…\tx\nab\ty"), "é…        x\nab        y");
    }
}
