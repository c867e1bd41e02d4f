//! Machine files as text: JSON with comments, trailing commas and hexadecimal numbers, every value
//! knowing where it was written, and files laid over one another.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

/// A file that has been read.
#[derive(Debug)]
pub(super) struct SourceText {
    /// What messages call it.
    pub(super) name: String,
    /// What it says.
    pub(super) text: String,
}

/// A place in one of the files read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the file.
    pub(super) file: usize,
    offset: usize,
}

impl Place {
    /// Line and column, both from 1; the column counts characters.
    pub(super) fn line_column(self, text: &str) -> (usize, usize) {
        let before = text.get(..self.offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value. The only numbers in machine files are whole and not negative.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<Member>),
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
}

/// What is wrong, where in the values, and where in the text.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    /// Keys and indices that lead there, as in `tlb.l2[0]`; empty for the whole file.
    pub(super) path: String,
    pub(super) place: Option<Place>,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Fault {
            what: what.into(),
            path: String::new(),
            place: None,
        }
    }

    /// The same inside `segment` of an outer value; a place that is known already is nearer.
    pub(super) fn inside(mut self, segment: &Segment<'_>, place: Place) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = match segment {
            Segment::Key(key) => format!("{key}{joint}{}", self.path),
            Segment::Index(index) => format!("[{index}]{joint}{}", self.path),
        };
        self.place.get_or_insert(place);
        self
    }
}

/// A step from a value to one inside it.
pub(super) enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

impl Node {
    /// Reads a text; `file` is its number.
    pub(super) fn parse(file: usize, text: &str) -> Result<Node, Fault> {
        let options = ParseOptions {
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
        };
        let at = |offset| Place { file, offset };
        let parsed = parse_to_ast(text, &CollectOptions::default(), &options).map_err(|error| Fault {
            what: in_lower_case(&error.kind().to_string()),
            path: String::new(),
            place: Some(at(error.range().start)),
        })?;
        let value = parsed.value.ok_or_else(|| Fault {
            what: "the file holds no value: a machine is an object".to_owned(),
            path: String::new(),
            place: Some(at(0)),
        })?;
        node(file, &value)
    }

    /// The member of an object.
    pub(super) fn member(&self, key: &str) -> Option<&Member> {
        match &self.value {
            Value::Object(members) => members.iter().find(|member| member.key == key),
            _ => None,
        }
    }

    /// Takes a member out of an object.
    pub(super) fn take(&mut self, key: &str) -> Option<Member> {
        let Value::Object(members) = &mut self.value else {
            return None;
        };
        let at = members.iter().position(|member| member.key == key)?;
        Some(members.remove(at))
    }

    /// The place of the value a path leads to, or of the last value on the way that exists.
    pub(super) fn locate(&self, path: &str) -> Place {
        let mut at = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match (&at.value, step.strip_suffix(']')) {
                (Value::Array(items), Some(index)) => index.parse().ok().and_then(|i: usize| items.get(i)),
                _ => at.member(step).map(|member| &member.value),
            };
            match next {
                Some(node) => at = node,
                None => break,
            }
        }
        at.place
    }

    /// This value with another one laid over it: objects key by key, `null` takes a key away,
    /// everything else replaces.
    pub(super) fn overlaid(self, over: Node) -> Node {
        let (mut members, news) = match (self.value, over.value) {
            (Value::Object(members), Value::Object(news)) => (members, news),
            (_, value) => {
                return Node {
                    place: over.place,
                    value,
                };
            }
        };
        for new in news {
            let old = members.iter().position(|member| member.key == new.key);
            match (old, &new.value.value) {
                (Some(at), Value::Null) => {
                    members.remove(at);
                }
                (Some(at), _) => {
                    let member = &mut members[at];
                    let base = std::mem::replace(&mut member.value.value, Value::Null);
                    let base = Node {
                        place: member.value.place,
                        value: base,
                    };
                    member.value = base.overlaid(new.value);
                    member.key_place = new.key_place;
                }
                (None, Value::Null) => {}
                (None, _) => members.push(new),
            }
        }
        Node {
            place: over.place,
            value: Value::Object(members),
        }
    }
}

fn node(file: usize, value: &ast::Value<'_>) -> Result<Node, Fault> {
    let at = |offset| Place { file, offset };
    let place = at(value.range().start);
    let value = match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(literal) => Value::Bool(literal.value),
        ast::Value::StringLit(literal) => Value::Text(literal.value.clone().into_owned()),
        ast::Value::NumberLit(literal) => {
            let text = literal.value;
            Value::Number(number(text).ok_or_else(|| Fault {
                what: format!("{text} is not a whole number from 0 to {}", u64::MAX),
                path: String::new(),
                place: Some(place),
            })?)
        }
        ast::Value::Array(array) => {
            let items = array.elements.iter().enumerate().map(|(index, item)| {
                node(file, item).map_err(|fault| fault.inside(&Segment::Index(index), place))
            });
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        ast::Value::Object(object) => {
            let mut members: Vec<Member> = Vec::with_capacity(object.properties.len());
            for property in &object.properties {
                let key = property.name.as_str();
                let key_place = at(property.name.range().start);
                let inside = |fault: Fault| fault.inside(&Segment::Key(key), key_place);
                if members.iter().any(|member| member.key == key) {
                    return Err(inside(Fault::new("this key stands here for the second time")));
                }
                let value = node(file, &property.value).map_err(inside)?;
                members.push(Member {
                    key: key.to_owned(),
                    key_place,
                    value,
                });
            }
            Value::Object(members)
        }
    };
    Ok(Node { place, value })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn in_lower_case(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
            Value::Text(value) => format!("{value:?}"),
            Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Value::Object(members) => {
                let members = members.iter().map(|m| format!("{}:{}", m.key, show(&m.value)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
        }
    }

    fn parse(text: &str) -> Node {
        Node::parse(0, text).unwrap()
    }

    #[test]
    fn comments_trailing_commas_and_hexadecimal_numbers_are_read() {
        let text = "// a\n{\"a\": [1, 0x10,], /* b */ \"b\": null, \"c\": true, \"d\": \"x\"}";
        assert_eq!(show(&parse(text)), r#"{a:[1,16],b:null,c:true,d:"x"}"#);
    }

    #[test]
    fn objects_merge_key_by_key_and_everything_else_replaces() {
        let base = parse(r#"{"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": 2}"#);
        let over = parse(r#"{"a": {"y": [3]}, "b": {"z": 1}, "c": null, "d": null, "e": 5}"#);
        assert_eq!(show(&base.overlaid(over)), "{a:{x:1,y:[3]},b:{z:1},e:5}");
    }

    #[test]
    fn faults_name_path_line_and_column() {
        let text = "{\n  \"a\": [1,\n    {\"b\": -1}]\n}";
        let fault = Node::parse(0, text).unwrap_err();
        assert_eq!(fault.path, "a[1].b");
        assert_eq!(fault.place.unwrap().line_column(text), (3, 11));
        assert_eq!(
            fault.what,
            "-1 is not a whole number from 0 to 18446744073709551615"
        );
        let twice = Node::parse(0, r#"{"a": 1, "a": 2}"#).unwrap_err();
        assert_eq!((twice.path.as_str(), twice.place.unwrap().offset), ("a", 9));
        assert!(Node::parse(0, "").is_err());
        assert!(Node::parse(0, "{\"a\" 1}").is_err());
    }

    #[test]
    fn paths_lead_to_places() {
        let text = "{\"a\": [1, {\"b\": 7}]}";
        let tree = parse(text);
        assert_eq!(tree.locate("a[1].b").offset, 16);
        assert_eq!(tree.locate("a[1].c").offset, 10);
        assert_eq!(tree.locate("").offset, 0);
    }
}
