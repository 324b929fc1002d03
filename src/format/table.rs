//! Columns as Go's tabwriter lays them out for docker: at least 10 wide, 3 spaces between.

/// Least width of a column.
const LEAST: usize = 10;
/// Spaces after the widest cell.
const PADDING: usize = 3;

/// Lays out lines whose cells end with tabs. What follows a line's last tab is not part of a column.
pub(super) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
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
    fn columns_are_at_least_ten_wide() {
        assert_eq!(align("A\tB\tC\nlonger than\tx\ty\n"), "A             B         C\nlonger than   x         y\n");
        assert_eq!(align("one line"), "one line");
        assert_eq!(align("a\tb\n\nlonger text\tc\n"), "a         b\n\nlonger text   c\n");
        assert_eq!(align("é…\tx\nab\ty"), "é…        x\nab        y");
    }
}
