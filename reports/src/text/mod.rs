//! Results for a terminal, or for pasting into a mail. The text is for people and may change;
//! machines read JSON, NDJSON or CSV.

mod compare;
mod run;
mod table;
mod translate;

pub use compare::compare_text;
pub use run::run_text;
pub use translate::translate_text;

use crate::figures;
pub use crate::headline::Detail;
use crate::schema::{RunResult, ViolationRow};
pub(crate) use table::clip;
use table::{MIN_WIDTH, Style, wrap};

/// Whether to colour the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Plain bytes.
    Never,
    /// With ANSI escapes.
    Always,
}

/// How to lay text out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextOptions {
    /// Columns of the terminal; no line is longer. Less than 40 is treated as 40.
    pub width: usize,
    /// Colour.
    pub color: Color,
    /// How many rows.
    pub detail: Detail,
}

impl TextOptions {
    fn width(&self) -> usize {
        self.width.max(MIN_WIDTH)
    }

    /// A paragraph in one style.
    fn paragraph(&self, text: &str, style: Style) -> String {
        wrap(text, self.width(), "", "")
            .lines()
            .map(|l| style.paint(l, self.color) + "\n")
            .collect()
    }

    /// A heading with a blank line before it.
    fn heading(&self, text: &str) -> String {
        format!("\n{}", self.paragraph(text, Style::Bold))
    }
}

/// A violation with everything known about it.
fn violation_card(number: usize, run: &RunResult, row: &ViolationRow, o: &TextOptions) -> String {
    let width = o.width();
    let head = format!("violation {number}: {} ({})", row.kind, run.label);
    let mut out = o.paragraph(&head, Style::Red);
    out += &wrap(&row.summary, width, "  ", "  ");
    let place = format!(
        "at {} (cycle {}), cpu {}, task {}",
        figures::duration(row.time_cycles as f64, run.cycle_ps),
        figures::grouped(row.time_cycles),
        row.cpu,
        row.task
    );
    out += &wrap(&place, width, "  ", "  ");
    if !row.stack.is_empty() {
        out += &wrap(&row.stack.join(" > "), width, "  in    ", "        ");
    }
    for held in &row.held {
        out += &wrap(held, width, "  held  ", "        ");
    }
    if !row.history.is_empty() {
        out += "  history, oldest first:\n";
        for event in &row.history {
            out += &wrap(event, width, "    ", "      ");
        }
    }
    out
}
