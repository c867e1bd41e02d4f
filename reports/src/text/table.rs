//! Tables that never exceed a width: what does not fit beside each other is put below, in blocks
//! that repeat the first column.

use super::Color;

/// Smallest width that layouts are made for; less is treated as this.
pub(super) const MIN_WIDTH: usize = 40;
const GAP: usize = 2;
/// The first column may take this much of the line before it is cut.
const NAME_SHARE: usize = 45;

/// How a piece of text looks when coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Style {
    /// The text, with escapes if wanted.
    pub(super) fn paint(self, text: &str, color: Color) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "1;31",
            Self::Green => "32",
            Self::Yellow => "33",
        };
        match color {
            Color::Never => text.to_owned(),
            Color::Always => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// A cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::styled(text, Style::Plain)
    }

    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: printable(&text.into()),
            style,
        }
    }
}

/// Side on which a column is flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

enum Line {
    Cells(Vec<Cell>),
    Section(String),
}

/// A table under construction.
pub(super) struct Table {
    heads: Vec<(String, Align)>,
    lines: Vec<Line>,
}

impl Table {
    /// With a left-aligned first column and right-aligned others.
    pub(super) fn numbers<S: AsRef<str>>(heads: &[S]) -> Self {
        let align = |i| if i == 0 { Align::Left } else { Align::Right };
        let heads = heads
            .iter()
            .enumerate()
            .map(|(i, h)| (printable(h.as_ref()), align(i)))
            .collect();
        Self {
            heads,
            lines: Vec::new(),
        }
    }

    /// Makes the given columns flush left.
    pub(super) fn left(mut self, columns: &[usize]) -> Self {
        for &c in columns {
            self.heads[c].1 = Align::Left;
        }
        self
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.heads.len());
        self.lines.push(Line::Cells(cells));
    }

    pub(super) fn section(&mut self, title: &str) {
        self.lines.push(Line::Section(printable(title)));
    }

    /// Lines of at most `width` characters.
    pub(super) fn render(&self, width: usize, color: Color) -> String {
        let widths = self.widths(width);
        let mut out = String::new();
        for (n, block) in self.blocks(&widths, width).iter().enumerate() {
            if n > 0 {
                out.push('\n');
            }
            self.block(block, &widths, width, color, &mut out);
        }
        out
    }

    fn widths(&self, width: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heads.iter().map(|(h, _)| h.chars().count()).collect();
        for line in &self.lines {
            if let Line::Cells(cells) = line {
                for (w, cell) in widths.iter_mut().zip(cells) {
                    *w = (*w).max(cell.text.chars().count());
                }
            }
        }
        let natural: usize = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
        if natural > width {
            widths[0] = widths[0].min((width * NAME_SHARE / 100).max(12));
            let rest = width - widths[0] - GAP;
            for w in &mut widths[1..] {
                *w = (*w).min(rest);
            }
        }
        widths
    }

    /// Columns beside the first, in groups that fit.
    fn blocks(&self, widths: &[usize], width: usize) -> Vec<Vec<usize>> {
        let mut blocks = vec![Vec::new()];
        let mut used = widths[0];
        for (i, w) in widths.iter().enumerate().skip(1) {
            if used + GAP + w > width && used > widths[0] {
                blocks.push(Vec::new());
                used = widths[0];
            }
            used += GAP + w;
            if let Some(last) = blocks.last_mut() {
                last.push(i);
            }
        }
        blocks
    }

    fn block(&self, columns: &[usize], widths: &[usize], width: usize, color: Color, out: &mut String) {
        let shown: Vec<usize> = std::iter::once(0).chain(columns.iter().copied()).collect();
        let heads: Vec<Cell> = self
            .heads
            .iter()
            .map(|(h, _)| Cell::styled(h.clone(), Style::Bold))
            .collect();
        self.cells(&heads, &shown, widths, color, out);
        let rule = shown.iter().map(|&c| widths[c]).sum::<usize>() + GAP * columns.len();
        out.push_str(&Style::Dim.paint(&"-".repeat(rule), color));
        out.push('\n');
        for line in &self.lines {
            match line {
                Line::Cells(cells) => self.cells(cells, &shown, widths, color, out),
                Line::Section(title) => {
                    out.push_str(&Style::Bold.paint(&clip(title, width), color));
                    out.push('\n');
                }
            }
        }
    }

    fn cells(&self, cells: &[Cell], shown: &[usize], widths: &[usize], color: Color, out: &mut String) {
        let mut line = String::new();
        for (n, &c) in shown.iter().enumerate() {
            let text = clip(&cells[c].text, widths[c]);
            let fill = " ".repeat(widths[c] - text.chars().count());
            let painted = cells[c].style.paint(&text, color);
            if n > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            match self.heads[c].1 {
                Align::Left => line.extend([painted, fill]),
                Align::Right => line.extend([fill, painted]),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// At most `width` characters; the middle goes first, since names differ at their ends.
pub(crate) fn clip(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let keep = width.saturating_sub(2);
    let tail = keep / 2;
    let head: String = text.chars().take(keep - tail).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{head}..{end}").chars().take(width).collect()
}

/// Breaks text at blanks into lines of at most `width` characters, each after `indent`, the first
/// after `first` (of the same length or shorter).
pub(super) fn wrap(text: &str, width: usize, first: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in printable(text).split_whitespace() {
        let mut word = word;
        loop {
            let used = line.chars().count();
            let need = usize::from(!empty) + word.chars().count();
            if used + need <= width {
                if !empty {
                    line.push(' ');
                }
                line.push_str(word);
                empty = false;
                break;
            }
            if empty {
                // longer than a whole line: cut
                let room = width.saturating_sub(used).max(1);
                let at = word.char_indices().nth(room).map_or(word.len(), |(i, _)| i);
                line.push_str(&word[..at]);
                word = &word[at..];
            }
            out.push_str(line.trim_end());
            out.push('\n');
            line = indent.to_owned();
            empty = true;
            if word.is_empty() {
                break;
            }
        }
    }
    if !empty || out.is_empty() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Control characters would escape the layout (and, from a foreign file, drive the terminal).
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_tables_go_into_blocks_that_repeat_the_first_column() {
        let mut table = Table::numbers(&["metric", "first-column", "second-column", "third-column"]);
        table.section("a section");
        table.row(["some.metric.name", "1", "2", "3"].map(Cell::new).to_vec());
        let narrow = table.render(40, Color::Never);
        assert!(narrow.lines().all(|l| l.chars().count() <= 40), "{narrow}");
        assert_eq!(narrow.matches("some.metric.name").count(), 3);
        assert_eq!(
            table.render(80, Color::Never).matches("some.metric.name").count(),
            1
        );
    }

    #[test]
    fn long_words_are_cut_not_lost() {
        let text = "x".repeat(100);
        let wrapped = wrap(&text, 40, "  ", "    ");
        assert_eq!(wrapped.matches('x').count(), 100);
        assert!(wrapped.lines().all(|l| l.chars().count() <= 40));
    }

    #[test]
    fn escapes_in_the_input_do_not_reach_the_terminal() {
        assert!(!wrap("a\u{1b}[31mb", 40, "", "").contains('\u{1b}'));
        assert!(!Cell::new("a\u{1b}[2J").text.contains('\u{1b}'));
    }

    #[test]
    fn clipping_keeps_both_ends() {
        assert_eq!(clip("abcdefghij", 6), "ab..ij");
        assert_eq!(clip("abc", 6), "abc");
    }
}
