//! Diagnostics as text for a terminal.

use super::{Diagnostic, Excerpt, Severity, Span};

/// Whether escape sequences colour the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Plain text.
    Never,
    /// ANSI colours.
    Always,
}

/// Width of a tabulator in the printed source line.
const TAB: usize = 4;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const RESET: &str = "\x1b[0m";

pub(super) fn render(diagnostic: &Diagnostic, color: Color) -> String {
    let accent = match diagnostic.severity {
        Severity::Error => RED,
        Severity::Warning => YELLOW,
    };
    let pen = Pen {
        color,
        accent,
        margin: margin(diagnostic),
    };
    let mut out = format!(
        "{}{}\n",
        pen.paint(
            accent,
            &format!("{}[{}]", diagnostic.severity.as_str(), diagnostic.code)
        ),
        pen.paint(BOLD, &format!(": {}", printable(&diagnostic.message)))
    );
    match (&diagnostic.span, &diagnostic.source_line) {
        (Some(span), Some(line)) => {
            pen.place(&mut out, "-->", &diagnostic.file, span);
            pen.excerpt(
                &mut out,
                span,
                line,
                Mark {
                    sign: '^',
                    text: "",
                    style: accent,
                },
            );
        }
        _ => out.push_str(&format!(
            "{}{} {}\n",
            " ".repeat(pen.margin),
            pen.paint(BLUE, "-->"),
            printable(&diagnostic.file)
        )),
    }
    for label in &diagnostic.labels {
        pen.place(&mut out, ":::", &label.file, &label.span);
        let mark = Mark {
            sign: '-',
            text: &label.message,
            style: BLUE,
        };
        pen.excerpt(&mut out, &label.span, &label.source_line, mark);
    }
    if let Some(help) = &diagnostic.help {
        let gutter = " ".repeat(pen.margin + 1);
        out.push_str(&format!(
            "{gutter}{} {} {}\n",
            pen.paint(BLUE, "="),
            pen.paint(BOLD, "help:"),
            printable(help)
        ));
    }
    out
}

/// Width of the largest line number.
fn margin(diagnostic: &Diagnostic) -> usize {
    let lines = diagnostic.labels.iter().map(|label| label.span.line);
    let largest = lines
        .chain(diagnostic.span.map(|span| span.line))
        .max()
        .unwrap_or(1);
    largest.to_string().len()
}

/// How a span is underlined.
struct Mark<'a> {
    sign: char,
    text: &'a str,
    style: &'static str,
}

struct Pen {
    color: Color,
    accent: &'static str,
    margin: usize,
}

impl Pen {
    fn paint(&self, style: &str, text: &str) -> String {
        match self.color {
            Color::Never => text.to_owned(),
            Color::Always => format!("{style}{text}{RESET}"),
        }
    }

    fn place(&self, out: &mut String, arrow: &str, file: &str, span: &Span) {
        out.push_str(&format!(
            "{}{} {}:{}:{}\n",
            " ".repeat(self.margin),
            self.paint(BLUE, arrow),
            printable(file),
            span.line,
            span.column
        ));
    }

    fn excerpt(&self, out: &mut String, span: &Span, line: &Excerpt, mark: Mark<'_>) {
        let gutter = " ".repeat(self.margin);
        let bar = self.paint(BLUE, "|");
        let before = span.column.saturating_sub(line.column);
        let marked = line
            .text
            .char_indices()
            .nth(before)
            .map_or("", |(at, _)| &line.text[at..]);
        let marked = clip(marked, span.end.saturating_sub(span.start));
        let indent: usize = line.text.chars().take(before).map(width).sum();
        let length = marked.chars().map(width).sum::<usize>().max(1);
        let mut caret = mark.sign.to_string().repeat(length);
        if !mark.text.is_empty() {
            caret.push(' ');
            caret.push_str(&printable(mark.text));
        }
        let number = format!("{:>1$}", span.line, self.margin);
        out.push_str(&format!(
            "{gutter} {bar}\n{} {bar} {}\n{gutter} {bar} {}{}\n",
            self.paint(BLUE, &number),
            printable(&line.text),
            " ".repeat(indent),
            self.paint(if mark.sign == '^' { self.accent } else { mark.style }, &caret)
        ));
    }
}

/// The first `bytes` bytes of a text, up to a character boundary, without blanks at the end.
fn clip(text: &str, bytes: usize) -> &str {
    text[..text.floor_char_boundary(bytes.min(text.len()))].trim_end()
}

fn width(c: char) -> usize {
    if c == '\t' { TAB } else { 1 }
}

/// Text that cannot disturb the terminal: tabulators as blanks, other controls replaced.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str(&" ".repeat(TAB)),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Code, Label};
    use super::*;

    fn sample() -> Diagnostic {
        let span = Span {
            start: 20,
            end: 27,
            line: 3,
            column: 12,
        };
        let line = Excerpt {
            text: "\t\"heap\": { \"pagse\": 1 }".to_owned(),
            column: 1,
        };
        let mut diagnostic = Diagnostic::new(Code::UnknownKey, "a.jsonc", "unknown key `pagse`")
            .with_help("did you mean `pages`?");
        diagnostic.span = Some(span);
        diagnostic.source_line = Some(line);
        diagnostic
    }

    #[test]
    fn rustc_style() {
        let expected = "error[E0101]: unknown key `pagse`
 --> a.jsonc:3:12
  |
3 |     \"heap\": { \"pagse\": 1 }
  |               ^^^^^^^
  = help: did you mean `pages`?
";
        assert_eq!(sample().render(Color::Never), expected);
    }

    #[test]
    fn labels_follow_and_widen_the_margin() {
        let mut diagnostic = sample();
        diagnostic.labels.push(Label {
            file: "b.jsonc".to_owned(),
            span: Span {
                start: 0,
                end: 2,
                line: 10,
                column: 1,
            },
            source_line: Excerpt {
                text: "{}".to_owned(),
                column: 1,
            },
            message: "first here".to_owned(),
        });
        let text = diagnostic.render(Color::Never);
        assert!(text.contains("\n 3 | "), "{text}");
        assert!(
            text.contains("  ::: b.jsonc:10:1\n   |\n10 | {}\n   | -- first here\n"),
            "{text}"
        );
    }

    #[test]
    fn colours_and_control_characters() {
        let mut diagnostic = sample();
        diagnostic.message = "evil \u{1b}[2J".to_owned();
        let text = diagnostic.render(Color::Always);
        assert!(text.starts_with("\u{1b}[1;31merror[E0101]"), "{text:?}");
        assert!(!text.contains("\u{1b}[2J"), "{text:?}");
    }
}
