//! Source texts, and the tree of located values that a scenario is made of.

use crate::diagnostic::{Code, Diagnostic, Excerpt, Label, Span};

/// Longest printed piece of a source line, in characters.
const EXCERPT: usize = 160;

/// Characters of a cut line printed before the span.
const LEAD: usize = 60;

/// One file of a scenario (there are several when `extends` is used).
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Name as given, or as composed from the `extends` of another file.
    pub name: String,
    text: String,
    lines: Vec<usize>,
}

impl SourceFile {
    /// A file with its text; a byte order mark is dropped.
    #[must_use]
    pub fn new(name: impl Into<String>, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let ends = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        SourceFile {
            name: name.into(),
            text,
            lines,
        }
    }

    /// The text without byte order mark.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The span between two byte offsets; offsets inside a character are moved to its start.
    #[must_use]
    pub fn span(&self, start: usize, end: usize) -> Span {
        let start = self.text.floor_char_boundary(start.min(self.text.len()));
        let end = self.text.floor_char_boundary(end.clamp(start, self.text.len()));
        let line = self.lines.partition_point(|&at| at <= start);
        let column = self.text[self.lines[line - 1]..start].chars().count() + 1;
        Span {
            start,
            end,
            line,
            column,
        }
    }

    /// The source line in which a span starts.
    #[must_use]
    pub fn excerpt(&self, span: &Span) -> Excerpt {
        let from = self.lines[span.line - 1];
        let to = self.lines.get(span.line).copied().unwrap_or(self.text.len());
        let line = self.text[from..to].trim_end_matches(['\n', '\r']);
        let skipped = if line.len() <= EXCERPT {
            0
        } else {
            span.column.saturating_sub(LEAD)
        };
        let text = line.chars().skip(skipped).take(EXCERPT).collect();
        Excerpt {
            text,
            column: skipped + 1,
        }
    }
}

/// A stretch of one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the file in [`SourceMap::files`].
    pub file: u32,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

/// A number as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number from 0 to 2^64 - 1, decimal or hexadecimal.
    Unsigned(u64),
    /// A negative whole number.
    Negative(f64),
    /// A whole number beyond 2^64 - 1.
    Huge(f64),
    /// A number with a fraction or an exponent.
    Real(f64),
}

impl Number {
    /// The value, rounded if it must be.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rounding is what is asked for")]
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Unsigned(value) => value as f64,
            Number::Negative(value) | Number::Huge(value) | Number::Real(value) => value,
        }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: NodeKind,
}

/// The value of a node.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Node>),
    /// An object.
    Object(Vec<Member>),
}

/// A key of an object with its value.
#[derive(Debug, Clone)]
pub struct Member {
    /// The key.
    pub key: String,
    /// Where the key was written, quotes included.
    pub key_place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The member of an object.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&Member> {
        match &self.kind {
            NodeKind::Object(members) => members.iter().find(|member| member.key == key),
            _ => None,
        }
    }

    /// The element of an array, or the member of an object.
    #[must_use]
    pub fn step(&self, segment: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Array(items) => items.get(segment.parse::<usize>().ok()?),
            NodeKind::Object(_) => self.member(segment).map(|member| &member.value),
            _ => None,
        }
    }

    /// What sort of value it is, in words.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            NodeKind::Null => "null",
            NodeKind::Bool(_) => "a boolean",
            NodeKind::Number(Number::Real(_)) => "a number with a fraction or exponent",
            NodeKind::Number(_) => "a number",
            NodeKind::Text(_) => "a string",
            NodeKind::Array(_) => "an array",
            NodeKind::Object(_) => "an object",
        }
    }

    /// The value without places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(value) => Value::Bool(*value),
            NodeKind::Number(Number::Unsigned(value)) => Value::from(*value),
            NodeKind::Number(Number::Negative(value)) if *value >= -9_007_199_254_740_992.0 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
                Value::from(*value as i64)
            }
            NodeKind::Number(number) => Value::from(number.as_f64()),
            NodeKind::Text(text) => Value::String(text.clone()),
            NodeKind::Array(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            NodeKind::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|m| (m.key.clone(), m.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// Where each value of a scenario came from: the files and the merged tree.
#[derive(Debug, Clone)]
pub struct SourceMap {
    /// The file that was asked for, then those it extends.
    pub files: Vec<SourceFile>,
    /// The merged tree.
    pub root: Node,
}

/// Which part of a member a diagnostic points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The value.
    Value,
    /// The key, where there is one.
    Key,
}

impl SourceMap {
    /// Place of the value at a JSON pointer (RFC 6901), or of its nearest ancestor when the value
    /// was left to its default.
    #[must_use]
    pub fn place(&self, pointer: &str) -> Place {
        let segments: Vec<String> = pointer
            .split('/')
            .skip(1)
            .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        self.locate(&segments, Part::Value)
    }

    /// Place of the value (or its key) at a path, or of the nearest ancestor that was written.
    #[must_use]
    pub fn locate(&self, segments: &[&str], part: Part) -> Place {
        let mut node = &self.root;
        for (index, segment) in segments.iter().enumerate() {
            if let (Part::Key, true, Some(member)) = (part, index + 1 == segments.len(), node.member(segment))
            {
                return member.key_place;
            }
            match node.step(segment) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// A diagnostic about a place.
    #[must_use]
    pub fn diagnose(&self, code: Code, place: Place, message: impl Into<String>) -> Diagnostic {
        diagnose(&self.files, code, place, message)
    }

    /// A second place for a diagnostic.
    #[must_use]
    pub fn label(&self, place: Place, message: impl Into<String>) -> Label {
        label(&self.files, place, message)
    }
}

/// A diagnostic about a place in one of the files.
pub(crate) fn diagnose(
    files: &[SourceFile],
    code: Code,
    place: Place,
    message: impl Into<String>,
) -> Diagnostic {
    let file = &files[place.file as usize];
    let span = file.span(place.start as usize, place.end as usize);
    let mut diagnostic = Diagnostic::new(code, file.name.clone(), message);
    diagnostic.source_line = Some(file.excerpt(&span));
    diagnostic.span = Some(span);
    diagnostic
}

/// A label at a place in one of the files.
pub(crate) fn label(files: &[SourceFile], place: Place, message: impl Into<String>) -> Label {
    let file = &files[place.file as usize];
    let span = file.span(place.start as usize, place.end as usize);
    Label {
        file: file.name.clone(),
        source_line: file.excerpt(&span),
        span,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let file = SourceFile::new("a", "\u{feff}ä\n\"é\" x\r\n");
        let span = file.span(8, 9);
        assert_eq!((span.line, span.column), (2, 5));
        assert_eq!(file.excerpt(&span).text, "\"é\" x");
        let end = file.span(99, 99);
        assert_eq!((end.line, end.column), (3, 1));
    }

    #[test]
    fn long_lines_are_cut() {
        let text = "x".repeat(10_000);
        let file = SourceFile::new("a", &text);
        let span = file.span(5_000, 5_003);
        let excerpt = file.excerpt(&span);
        assert_eq!(excerpt.text.len(), EXCERPT);
        assert!(excerpt.column < span.column && span.column < excerpt.column + EXCERPT);
    }
}
