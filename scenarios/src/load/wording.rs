//! How the validator calls types and values in its messages.

use crate::diagnostic::suggest::{self, quote};

/// What to call a value; made into text only when there is something to say.
#[derive(Clone, Copy)]
pub(super) enum Noun<'a> {
    /// A type of the language.
    Type(&'a str),
    /// The value of a key.
    Key(&'a str),
    /// An element of an array.
    Element,
}

impl std::fmt::Display for Noun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Noun::Type(name) => f.write_str(&noun(name)),
            Noun::Key(key) => f.write_str(&quote(key)),
            Noun::Element => f.write_str("element"),
        }
    }
}

pub(super) fn article(name: &str) -> &'static str {
    match name {
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "an array",
        "object" => "an object",
        "null" => "null",
        _ => "a value",
    }
}

/// The types in words; `null` is left out, nobody means it.
pub(super) fn expected(types: &[&str]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for name in types.iter().filter(|name| **name != "null") {
        if !words.contains(&article(name)) {
            words.push(article(name));
        }
    }
    words.join(" or ")
}

pub(super) fn one_of(names: &[&str]) -> String {
    format!("write one of: {}", suggest::list(names))
}

pub(super) fn looks_numeric(text: &str) -> bool {
    text.starts_with("0x") || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn first_sentence(text: &str) -> String {
    let line = text.replace('\n', " ");
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}

/// The noun after "unknown".
pub(super) struct Bare<'a>(pub(super) Noun<'a>);

impl std::fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Noun::Key(_) => write!(f, "value of {}:", self.0),
            _ => self.0.fmt(f),
        }
    }
}

/// What a type of the language is called in messages.
pub(super) fn noun(name: &str) -> String {
    let known = match name {
        "Op" => "operation",
        "AttachDef" => "secondary MMU",
        "Pattern" => "access pattern",
        "MapDef" => "mapping",
        "Prot" => "protection",
        "KernelChoice" | "KernelDef" => "kernel profile",
        "NotifierChoice" | "NotifierDef" => "notifier design",
        "KvmDef" => "`kvm`",
        "GruDef" => "`gru`",
        "XpmemDef" => "`xpmem`",
        "AttachRef" => "reference to a secondary MMU",
        "Expect" => "expectation",
        "Unsupported" => "rule for unsupported secondary MMUs",
        "GruMiss" => "service of GRU misses",
        "AccessKind" => "kind of access",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    if let Some(op) = name.strip_suffix("Op") {
        return format!("`{}`", op.to_ascii_lowercase());
    }
    let name = name.trim_end_matches("Def").trim_end_matches("Knob");
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}
