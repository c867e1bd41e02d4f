//! Holds a tree of located values against the JSON Schema of the language.
//!
//! Covers the part of JSON Schema that `schemars` emits for plain structs, maps, and externally
//! tagged or untagged enums: `type`, `properties`, `additionalProperties`, `required`, `items`,
//! `oneOf`/`anyOf`, `const`, `enum`, `minimum`, `maximum`, `$ref`. Other keywords are ignored, so a
//! richer schema is checked less, never wrongly; deserialisation has the last word.

use serde_json::Value;

use super::source::{Member, Node, NodeKind, Number, SourceFile, diagnose};
use super::wording::{Bare, Noun, article, expected, first_sentence, looks_numeric, one_of};
use crate::diagnostic::suggest::{self, quote};
use crate::diagnostic::{Code, Diagnostics};

/// All errors of shape in a tree.
pub(super) fn validate(schema: &Value, files: &[SourceFile], root: &Node) -> Diagnostics {
    let mut validator = Validator {
        schema,
        files,
        found: Diagnostics::new(),
    };
    validator.value(
        root,
        Typed {
            schema,
            noun: Noun::Type("Scenario"),
        },
    );
    validator.found
}

struct Validator<'a> {
    schema: &'a Value,
    files: &'a [SourceFile],
    found: Diagnostics,
}

/// A schema and what to call a value of it.
#[derive(Clone, Copy)]
struct Typed<'a> {
    schema: &'a Value,
    noun: Noun<'a>,
}

/// An alternative of an externally tagged enum that carries an argument: `{"tag": argument}`.
struct Tagged<'a> {
    tag: &'a str,
    argument: &'a Value,
}

impl<'a> Validator<'a> {
    fn error(&mut self, code: Code, node: &'a Node, message: String, help: String) {
        let diagnostic = diagnose(self.files, code, node.place, message).with_help(help);
        self.found.push(diagnostic);
    }

    fn key_error(&mut self, code: Code, member: &Member, message: String, help: String) {
        let diagnostic = diagnose(self.files, code, member.key_place, message).with_help(help);
        self.found.push(diagnostic);
    }

    /// Follows references; a referenced type brings its own noun.
    fn resolve(&self, mut typed: Typed<'a>) -> Typed<'a> {
        for _ in 0..8 {
            let Some(target) = typed.schema.get("$ref").and_then(Value::as_str) else {
                break;
            };
            let Some(schema) = target.strip_prefix('#').and_then(|p| self.schema.pointer(p)) else {
                break;
            };
            let name = target.rsplit('/').next().unwrap_or_default();
            typed = Typed {
                schema,
                noun: Noun::Type(name),
            };
        }
        typed
    }

    fn value(&mut self, node: &'a Node, typed: Typed<'a>) {
        let typed = self.resolve(typed);
        if let Some(options) = alternatives(typed.schema) {
            self.choice(node, options, &typed);
            return;
        }
        let types = types(typed.schema);
        if !types.is_empty() && !types.iter().any(|name| fits(node, name)) {
            self.wrong_type(node, &types, &typed);
            return;
        }
        match &node.kind {
            NodeKind::Object(members) => self.object(node, members, &typed),
            NodeKind::Array(items) => {
                if let Some(schema) = typed.schema.get("items") {
                    for item in items {
                        self.value(
                            item,
                            Typed {
                                schema,
                                noun: Noun::Element,
                            },
                        );
                    }
                }
            }
            NodeKind::Number(number) => self.number(node, *number, &typed),
            NodeKind::Text(text) => self.text(node, text, &[typed.schema], &typed),
            NodeKind::Null | NodeKind::Bool(_) => {}
        }
    }

    fn object(&mut self, node: &'a Node, members: &'a [Member], typed: &Typed<'a>) {
        let empty = serde_json::Map::new();
        let properties = typed.schema.get("properties").and_then(Value::as_object);
        let known: Vec<&str> = properties
            .map(|map| map.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let extra = typed.schema.get("additionalProperties");
        for member in members {
            let property = properties.and_then(|map| map.get(&member.key));
            match (property, extra) {
                (Some(schema), _) => {
                    let noun = Noun::Key(&member.key);
                    self.value(&member.value, Typed { schema, noun });
                }
                (None, Some(Value::Bool(false))) => {
                    let message = format!("unknown key {} in {}", quote(&member.key), typed.noun);
                    let help = suggest::help("keys allowed here", &member.key, &known);
                    self.key_error(Code::UnknownKey, member, message, help);
                }
                (None, Some(schema @ Value::Object(_))) => {
                    let noun = Noun::Key(&member.key);
                    self.value(&member.value, Typed { schema, noun });
                }
                (None, _) => {}
            }
        }
        let required = typed.schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if node.member(key).is_none() {
                let property = properties.unwrap_or(&empty).get(key).unwrap_or(&Value::Null);
                let message = format!("{} lacks the key `{key}`", typed.noun);
                let help = self.describe_key(key, property);
                self.error(Code::MissingKey, node, message, help);
            }
        }
    }

    /// What a missing key is for.
    fn describe_key(&self, key: &str, schema: &'a Value) -> String {
        let about = schema
            .get("description")
            .and_then(Value::as_str)
            .map(first_sentence);
        let resolved = self.resolve(Typed {
            schema,
            noun: Noun::Element,
        });
        let kind = types(resolved.schema)
            .first()
            .map_or("value", |name| article(name));
        match about {
            Some(about) => format!("add `\"{key}\": ...`, {kind}: {about}"),
            None => format!("add `\"{key}\": ...`, {kind}"),
        }
    }

    fn wrong_type(&mut self, node: &'a Node, types: &[&str], typed: &Typed<'a>) {
        if let NodeKind::Number(number) = node.kind
            && types.contains(&"integer")
        {
            self.whole(node, number, typed);
            return;
        }
        let expected = expected(types);
        let message = format!("{} must be {expected}, not {}", typed.noun, node.describe());
        let help = match &node.kind {
            NodeKind::Text(text) if types.contains(&"integer") && looks_numeric(text) => {
                format!("write the number without quotes: {text}")
            }
            _ => format!("write {expected} here"),
        };
        self.error(Code::WrongType, node, message, help);
    }

    /// A number that is no whole number where one is needed.
    fn whole(&mut self, node: &'a Node, number: Number, typed: &Typed<'a>) {
        let noun = typed.noun;
        let (message, help) = match number {
            Number::Real(value) if value.fract() == 0.0 && value.abs() < 9e15 => (
                format!("{noun} must be a whole number written without fraction or exponent"),
                format!("write {value:.0}"),
            ),
            Number::Real(value) => (
                format!("{noun} must be a whole number, not {value}"),
                format!("write {} or {}", value.floor().max(0.0), value.ceil().max(0.0)),
            ),
            Number::Negative(value) => (
                format!("{noun} must not be negative, but is {value}"),
                "write 0 or a positive whole number".to_owned(),
            ),
            Number::Huge(_) | Number::Unsigned(_) => (
                format!("{noun} is larger than the largest possible number {}", u64::MAX),
                format!("write a whole number up to {}", u64::MAX),
            ),
        };
        self.error(Code::BadNumber, node, message, help);
    }

    fn number(&mut self, node: &'a Node, number: Number, typed: &Typed<'a>) {
        if types(typed.schema).contains(&"integer") {
            let Number::Unsigned(value) = number else {
                self.whole(node, number, typed);
                return;
            };
            let limit = largest(typed.schema);
            if value > limit {
                let message = format!("{} is {value}, but at most {limit} fits", typed.noun);
                self.error(Code::BadNumber, node, message, format!("write 0 to {limit}"));
            }
        } else if !number.as_f64().is_finite() {
            let message = format!("{} is too large for a number", typed.noun);
            self.error(
                Code::BadNumber,
                node,
                message,
                "write a smaller number".to_owned(),
            );
        }
    }

    /// A string against the constants of the alternatives; with no constants, any string fits.
    fn text(&mut self, node: &'a Node, text: &'a str, options: &[&'a Value], typed: &Typed<'a>) {
        let constants: Vec<&str> = options.iter().flat_map(|option| constants(option)).collect();
        if constants.is_empty() || constants.contains(&text) {
            return;
        }
        let help = suggest::help("allowed", text, &constants);
        let message = format!("unknown {} {}", Bare(typed.noun), quote(text));
        self.error(Code::UnknownVariant, node, message, help);
    }

    /// One of several alternatives.
    fn choice(&mut self, node: &'a Node, options: &'a [Value], typed: &Typed<'a>) {
        if let NodeKind::Object(members) = &node.kind
            && let [only] = &members[..]
            && let Some(tagged) = options.iter().find_map(|option| tag(option, &only.key))
        {
            let noun = Noun::Key(tagged.tag);
            let schema = tagged.argument;
            return self.value(&only.value, Typed { schema, noun });
        }
        let options: Vec<Typed<'a>> = options
            .iter()
            .map(|schema| {
                self.resolve(Typed {
                    schema,
                    noun: typed.noun,
                })
            })
            .collect();
        // `anyOf [T, null]` and nested enums: fall through to the one alternative that matters.
        let real: Vec<&Typed<'a>> = options
            .iter()
            .filter(|option| types(option.schema) != ["null"])
            .collect();
        if real.len() < options.len() && matches!(node.kind, NodeKind::Null) {
            return;
        }
        if let [only] = real[..]
            && constants(only.schema).is_empty()
        {
            self.value(node, *only);
            return;
        }
        match &node.kind {
            NodeKind::Object(members) if tags(&real).next().is_some() => {
                self.tagged(node, members, &real, typed);
            }
            NodeKind::Text(text) => self.text_choice(node, text, &real, typed),
            _ => self.plain_choice(node, &real, typed),
        }
    }

    /// A string where strings with and without meaning of their own are among the alternatives.
    fn text_choice(&mut self, node: &'a Node, text: &'a str, real: &[&Typed<'a>], typed: &Typed<'a>) {
        let free = real
            .iter()
            .any(|option| types(option.schema).contains(&"string") && constants(option.schema).is_empty());
        let schemas: Vec<&Value> = real.iter().map(|option| option.schema).collect();
        let words: Vec<&str> = schemas.iter().flat_map(|option| constants(option)).collect();
        let tags: Vec<&str> = tags(real).map(|tagged| tagged.tag).collect();
        if free {
            return;
        }
        if tags.contains(&text) {
            let message = format!("{} {} needs an argument", Bare(typed.noun), quote(text));
            let help = format!("write it as an object: {{\"{text}\": ...}}");
            self.error(Code::BadChoice, node, message, help);
        } else if words.is_empty() && tags.is_empty() {
            self.plain_choice(node, real, typed);
        } else if words.is_empty() {
            let message = format!("{} must be an object, not a string", typed.noun);
            let near = suggest::nearest(text, tags.iter().copied()).unwrap_or(tags[0]);
            let help = format!("write for example {{\"{near}\": {{...}}}}; {}", one_of(&tags));
            self.error(Code::WrongType, node, message, help);
        } else if !words.contains(&text) {
            let all: Vec<&str> = words.into_iter().chain(tags).collect();
            let message = format!("unknown {} {}", Bare(typed.noun), quote(text));
            self.error(
                Code::UnknownVariant,
                node,
                message,
                suggest::help("allowed", text, &all),
            );
        }
    }

    /// `{"tag": argument}`.
    fn tagged(&mut self, node: &'a Node, members: &'a [Member], real: &[&Typed<'a>], typed: &Typed<'a>) {
        let known: Vec<Tagged<'a>> = tags(real).collect();
        let names: Vec<&str> = known.iter().map(|tagged| tagged.tag).collect();
        let noun = Bare(typed.noun);
        let Some(first) = members.first() else {
            let message = format!("empty object where {noun} is needed");
            self.error(Code::BadChoice, node, message, one_of(&names));
            return;
        };
        let found = |member: &&Member| names.contains(&member.key.as_str());
        let Some(member) = members.iter().find(found) else {
            let words: Vec<&str> = real.iter().flat_map(|option| constants(option.schema)).collect();
            if words.contains(&first.key.as_str()) {
                let message = format!("{noun} {} takes no argument", quote(&first.key));
                let help = format!("write it as a string: \"{}\"", first.key);
                self.key_error(Code::BadChoice, first, message, help);
                return;
            }
            let message = format!("unknown {noun} {}", quote(&first.key));
            let help = suggest::help("allowed", &first.key, &names);
            self.key_error(Code::UnknownVariant, first, message, help);
            return;
        };
        for other in members.iter().filter(|other| other.key != member.key) {
            let message = format!(
                "{noun} `{}` beside a second key {}",
                member.key,
                quote(&other.key)
            );
            let help = if found(&other) {
                "an object names one alternative: write two objects".to_owned()
            } else {
                format!(
                    "arguments go inside: {{\"{}\": {{\"{}\": ...}}}}",
                    member.key, other.key
                )
            };
            self.key_error(Code::BadChoice, other, message, help);
        }
        if let Some(tagged) = known.into_iter().find(|tagged| tagged.tag == member.key) {
            let noun = Noun::Key(tagged.tag);
            self.value(
                &member.value,
                Typed {
                    schema: tagged.argument,
                    noun,
                },
            );
        }
    }

    /// An untagged enum: the alternative of the right type decides.
    fn plain_choice(&mut self, node: &'a Node, real: &[&Typed<'a>], typed: &Typed<'a>) {
        let fitting = real.iter().find(|option| {
            types(option.schema).iter().any(|name| fits(node, name))
                || matches!(node.kind, NodeKind::Number(_)) && types(option.schema).contains(&"integer")
        });
        if let Some(option) = fitting {
            let schema = option.schema;
            self.value(
                node,
                Typed {
                    schema,
                    noun: option.noun,
                },
            );
            return;
        }
        let mut types: Vec<&str> = real.iter().flat_map(|option| types(option.schema)).collect();
        types.dedup();
        let expected = expected(&types);
        let message = format!("{} must be {expected}, not {}", typed.noun, node.describe());
        let words: Vec<&str> = real
            .iter()
            .flat_map(|option| constants(option.schema))
            .chain(tags(real).map(|tagged| tagged.tag))
            .collect();
        let help = if words.is_empty() {
            format!("write {expected} here")
        } else {
            one_of(&words)
        };
        self.error(Code::WrongType, node, message, help);
    }
}

fn alternatives(schema: &Value) -> Option<&[Value]> {
    let list = schema.get("oneOf").or_else(|| schema.get("anyOf"))?;
    list.as_array().map(Vec::as_slice)
}

/// The types a schema allows; empty when it says nothing.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The string constants a schema allows; empty when it names none.
fn constants(schema: &Value) -> Vec<&str> {
    let one = schema.get("const").and_then(Value::as_str);
    let many = schema.get("enum").and_then(Value::as_array);
    one.into_iter()
        .chain(many.into_iter().flatten().filter_map(Value::as_str))
        .collect()
}

/// The alternative with this tag: the quick way for a right operation among many.
fn tag<'a>(schema: &'a Value, wanted: &str) -> Option<Tagged<'a>> {
    let (tag, argument) = schema.get("properties")?.as_object()?.get_key_value(wanted)?;
    tagged(schema).is_some().then_some(Tagged { tag, argument })
}

fn tags<'a, 'b>(options: &'b [&'b Typed<'a>]) -> impl Iterator<Item = Tagged<'a>> + 'b {
    options.iter().filter_map(|option| tagged(option.schema))
}

/// The tag of a schema that is an alternative of an externally tagged enum.
fn tagged(schema: &Value) -> Option<Tagged<'_>> {
    let required = schema.get("required")?.as_array()?;
    let properties = schema.get("properties")?.as_object()?;
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    match (&required[..], properties.iter().next()) {
        ([Value::String(only)], Some((tag, argument))) if closed && properties.len() == 1 && only == tag => {
            Some(Tagged { tag, argument })
        }
        _ => None,
    }
}

fn fits(node: &Node, name: &str) -> bool {
    match (&node.kind, name) {
        (NodeKind::Null, "null")
        | (NodeKind::Bool(_), "boolean")
        | (NodeKind::Text(_), "string")
        | (NodeKind::Array(_), "array")
        | (NodeKind::Object(_), "object")
        | (NodeKind::Number(_), "number") => true,
        (NodeKind::Number(number), "integer") => matches!(number, Number::Unsigned(_)),
        _ => false,
    }
}

/// Largest value of an unsigned integer schema.
fn largest(schema: &Value) -> u64 {
    let stated = schema.get("maximum").and_then(Value::as_u64).unwrap_or(u64::MAX);
    match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => stated.min(u8::MAX.into()),
        Some("uint16") => stated.min(u16::MAX.into()),
        Some("uint32") => stated.min(u32::MAX.into()),
        _ => stated,
    }
}
