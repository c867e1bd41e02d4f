//! Configurations for a reader: what columns share, where they differ, and a short form of those
//! that were made from a long recording.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A configuration longer than this as JSON is shown in its short form.
const LIMIT: usize = 150_000;

/// Lists of operations shorter than this stay as they are in the short form.
const SHORT_SCRIPT: usize = 12;

/// A value that fits in this many characters is written on one line.
const LINE: usize = 110;

/// A configuration as shown, and whether it is the short form.
pub(crate) fn shown(config: &Value) -> (Value, bool) {
    if config.to_string().len() <= LIMIT {
        return (config.clone(), false);
    }
    let mut short = config.clone();
    shorten(&mut short);
    (short, true)
}

/// Replaces long scripts by the numbers of their operations.
fn shorten(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Value::Array(script) if name == "script" && script.len() > SHORT_SCRIPT => {
                        *member = operations(script);
                    }
                    other => shorten(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

/// Number of operations by kind.
fn operations(script: &[Value]) -> Value {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for op in script {
        let kind = match op {
            Value::Object(tagged) => tagged.keys().next().map(String::as_str),
            other => other.as_str(),
        };
        *kinds.entry(kind.unwrap_or("other")).or_default() += 1;
    }
    json!({ "operations": script.len(), "by_kind": kinds })
}

/// Members that differ between two configurations, as JSON pointers with the value of `other`
/// (null where it lacks the member).
pub(crate) fn differences(base: &Value, other: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    differ(base, other, &mut String::new(), &mut found);
    found
}

fn differ(base: &Value, other: &Value, at: &mut String, found: &mut Map<String, Value>) {
    let (Value::Object(a), Value::Object(b)) = (base, other) else {
        if base != other {
            found.insert(at.clone(), other.clone());
        }
        return;
    };
    let more = b.keys().filter(|k| !a.contains_key(*k));
    for key in a.keys().chain(more) {
        let length = at.len();
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        let (left, right) = (a.get(key), b.get(key));
        differ(
            left.unwrap_or(&Value::Null),
            right.unwrap_or(&Value::Null),
            at,
            found,
        );
        at.truncate(length);
    }
}

/// JSON with what fits on a line on one line.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, 0, &mut out);
    out
}

fn write(value: &Value, depth: usize, used: usize, out: &mut String) {
    let flat = value.to_string();
    if depth * 2 + used + flat.len() <= LINE {
        out.push_str(&flat);
        return;
    }
    let inner = depth + 1;
    let open = |first: bool, out: &mut String| {
        out.push_str(if first { "\n" } else { ",\n" });
        out.push_str(&"  ".repeat(inner));
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('{');
            for (n, (name, member)) in members.iter().enumerate() {
                open(n == 0, out);
                let name = format!("{}: ", Value::from(name.as_str()));
                out.push_str(&name);
                write(member, inner, name.len(), out);
            }
            out.push_str(&format!("\n{}}}", "  ".repeat(depth)));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                open(n == 0, out);
                write(item, inner, 0, out);
            }
            out.push_str(&format!("\n{}]", "  ".repeat(depth)));
        }
        _ => out.push_str(&flat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_scripts_become_counts() {
        let script: Vec<Value> = (0..9000).map(|n| json!({ "touch": { "map": n } })).collect();
        let config =
            json!({ "title": "t", "processes": { "p": { "threads": { "t": { "script": script } } } } });
        let (short, is_short) = shown(&config);
        assert!(is_short);
        assert_eq!(short["title"], "t");
        let counted = &short["processes"]["p"]["threads"]["t"]["script"];
        assert_eq!(counted["by_kind"]["touch"], 9000);
        assert!(!shown(&short).1);
    }

    #[test]
    fn differences_are_pointers() {
        let a = json!({ "a": 1, "b": { "c/d": 2, "e": 3 }, "f": [1] });
        let b = json!({ "a": 1, "b": { "c/d": 4 }, "f": [1], "g": true });
        let found = Value::from(differences(&a, &b));
        assert_eq!(found, json!({ "/b/c~1d": 4, "/b/e": null, "/g": true }));
        assert!(differences(&a, &a).is_empty());
    }

    #[test]
    fn pretty_is_the_same_value_in_lines() {
        let value = json!({ "short": [1, 2], "long": vec!["x".repeat(60); 3], "empty": {}, "deep": { "k": vec![0; 90] } });
        let text = pretty(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.contains("\"short\": [1,2]"), "{text}");
    }
}
