//! From text to the tree of located values.

use std::collections::BTreeMap;

use jsonc_parser::ast::Value;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::MAX_DEPTH;
use super::source::{Member, Node, NodeKind, Number, Place, SourceFile, diagnose, label};
use crate::diagnostic::suggest::quote;
use crate::diagnostic::{Code, Diagnostic, Diagnostics};

/// Comments, trailing commas and hexadecimal numbers; nothing else beyond JSON.
fn options() -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_hexadecimal_numbers: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// Parses `files[index]`. All duplicate keys are reported; a syntax error ends the parse.
pub(super) fn parse(files: &[SourceFile], index: u32) -> Result<Node, Diagnostics> {
    let file = &files[index as usize];
    let collect = CollectOptions::default();
    let parsed = parse_to_ast(file.text(), &collect, &options())
        .map_err(|error| Diagnostics::from(syntax(files, index, &error)))?;
    let Some(value) = parsed.value else {
        let message = format!("{} holds no value", quote(&file.name));
        return Err(Diagnostic::new(Code::Empty, file.name.clone(), message)
            .with_help("a scenario is an object with at least a `title` and `processes`")
            .into());
    };
    let mut reader = Reader {
        files,
        index,
        found: Diagnostics::new(),
    };
    let node = reader.node(&value, 0);
    if reader.found.has_errors() {
        return Err(reader.found);
    }
    Ok(node)
}

struct Reader<'a> {
    files: &'a [SourceFile],
    index: u32,
    found: Diagnostics,
}

impl Reader<'_> {
    fn place(&self, range: Range) -> Place {
        place(self.index, range)
    }

    fn node(&mut self, value: &Value<'_>, depth: usize) -> Node {
        let place = self.place(value.range());
        let nests = matches!(value, Value::Array(_) | Value::Object(_));
        if nests && depth >= MAX_DEPTH {
            self.found.push(too_deep(self.files, place));
            return Node {
                place,
                kind: NodeKind::Null,
            };
        }
        let kind = match value {
            Value::NullKeyword(_) => NodeKind::Null,
            Value::BooleanLit(literal) => NodeKind::Bool(literal.value),
            Value::StringLit(literal) => NodeKind::Text(literal.value.clone().into_owned()),
            Value::NumberLit(literal) => NodeKind::Number(number(literal.value)),
            Value::Array(array) => NodeKind::Array(
                array
                    .elements
                    .iter()
                    .map(|item| self.node(item, depth + 1))
                    .collect(),
            ),
            Value::Object(object) => NodeKind::Object(self.members(object, depth)),
        };
        Node { place, kind }
    }

    fn members(&mut self, object: &jsonc_parser::ast::Object<'_>, depth: usize) -> Vec<Member> {
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        let mut members = Vec::with_capacity(object.properties.len());
        for property in &object.properties {
            let key = property.name.as_str();
            let key_place = self.place(property.name.range());
            if let Some(&first) = seen.get(key) {
                let message = format!("key {} occurs twice in one object", quote(key));
                let mut diagnostic = diagnose(self.files, Code::DuplicateKey, key_place, message)
                    .with_help("keep one of the two, or give them different names");
                diagnostic.labels.push(label(self.files, first, "first here"));
                self.found.push(diagnostic);
                continue;
            }
            seen.insert(key, key_place);
            let value = self.node(&property.value, depth + 1);
            members.push(Member {
                key: key.to_owned(),
                key_place,
                value,
            });
        }
        members
    }
}

fn place(file: u32, range: Range) -> Place {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Place {
        file,
        start: offset(range.start),
        end: offset(range.end),
    }
}

fn number(text: &str) -> Number {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let whole = match hex {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse::<u64>(),
    };
    match whole {
        Ok(value) if !negative || value == 0 => Number::Unsigned(value),
        Ok(value) => Number::Negative(-Number::Unsigned(value).as_f64()),
        Err(_) if hex.is_some() => sign(negative, f64::MAX),
        Err(_) => {
            let value = text.parse::<f64>().unwrap_or(f64::INFINITY);
            if digits.bytes().all(|b| b.is_ascii_digit()) {
                sign(negative, value.abs())
            } else {
                Number::Real(value)
            }
        }
    }
}

fn sign(negative: bool, magnitude: f64) -> Number {
    if negative {
        Number::Negative(-magnitude)
    } else {
        Number::Huge(magnitude)
    }
}

fn too_deep(files: &[SourceFile], place: Place) -> Diagnostic {
    let message = format!("values are nested more than {MAX_DEPTH} deep");
    diagnose(files, Code::TooDeep, place, message)
        .with_help("flatten the structure; `repeat` inside `repeat` multiplies")
}

fn syntax(files: &[SourceFile], index: u32, error: &ParseError) -> Diagnostic {
    let place = place(index, error.range());
    let kind = error.kind();
    if matches!(kind, ParseErrorKind::NestingDepthExceeded) {
        return too_deep(files, place);
    }
    let (message, help) = explain(kind);
    let diagnostic = diagnose(files, Code::Syntax, place, message);
    match help {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

/// What is wrong and what would be right.
fn explain(kind: &ParseErrorKind) -> (String, Option<&'static str>) {
    use ParseErrorKind as K;
    let (message, help) = match kind {
        K::BareDecimalPointNumbersNotAllowed => (
            "number starts or ends with the decimal point",
            "write a digit on both sides, as in `0.5`",
        ),
        K::ExpectedColonAfterObjectKey => ("key without a value", "write `:` and a value after the key"),
        K::ExpectedObjectValue => ("the file ends where a value must follow", "complete the file"),
        K::ExpectedStringObjectProperty => (
            "key without quotes",
            "write keys in double quotes, as in `\"title\": ...`",
        ),
        K::ExpectedComma => ("comma is missing", "write `,` between members and elements"),
        K::MultipleRootJsonValues => (
            "text after the end of the scenario",
            "a file holds one object; remove the rest",
        ),
        K::NonFiniteNumbersNotAllowed => (
            "number is not finite",
            "write a number that can be written in digits",
        ),
        K::SingleQuotedStringsNotAllowed => ("string in single quotes", "write strings in double quotes"),
        K::UnaryPlusNumbersNotAllowed => ("number with a plus sign", "leave the sign out"),
        K::UnexpectedWord | K::UnexpectedToken | K::UnexpectedTokenInObject => (
            "neither a value nor a key",
            "keys and strings stand in double quotes; other words are `true`, `false` and `null`",
        ),
        K::UnexpectedCloseBrace => ("`}` without a matching `{`", "check the brackets before it"),
        K::UnexpectedCloseBracket => ("`]` without a matching `[`", "check the brackets before it"),
        K::UnexpectedColon => ("`:` where a value is needed", "only a key is followed by `:`"),
        K::UnexpectedComma => ("`,` where a value is needed", "remove it, or write the value"),
        K::UnterminatedArray => ("array is not closed", "the file ends before its `]`"),
        K::UnterminatedObject => ("object is not closed", "the file ends before its `}`"),
        K::UnterminatedCommentBlock => ("comment is not closed", "the file ends before its `*/`"),
        other => {
            let text = other.to_string();
            let mut chars = text.chars();
            let lower = chars.next().map(|c| c.to_ascii_lowercase());
            return (lower.into_iter().chain(chars).collect(), None);
        }
    };
    (message.to_owned(), Some(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("18446744073709551615"), Number::Unsigned(u64::MAX));
        assert_eq!(number("0xffffffffffffffff"), Number::Unsigned(u64::MAX));
        assert!(matches!(number("18446744073709551616"), Number::Huge(_)));
        assert!(matches!(number("0x10000000000000000"), Number::Huge(_)));
        assert_eq!(number("-3"), Number::Negative(-3.0));
        assert_eq!(number("-0x10"), Number::Negative(-16.0));
        assert_eq!(number("-0"), Number::Unsigned(0));
        assert_eq!(number("1e3"), Number::Real(1000.0));
        assert_eq!(number("0.99"), Number::Real(0.99));
    }
}
