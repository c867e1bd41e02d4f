//! The copy of the result inside a report, without what it would say twice.
//!
//! It has the members of the result as `--json` writes it, except that
//! - units, kinds and descriptions stand only in the first run;
//! - the other runs leave out metrics of value 0, and their `config` says where it differs from
//!   the first run's: `{"same_as": label, "but": {pointer: value}}`;
//! - rows that are 0 in every column are left out;
//! - a very long configuration has the numbers of its operations in place of its scripts.

use minijinja::Value as Markup;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config;
use crate::schema::translate::TranslateResult;
use crate::schema::{CompareResult, RunResult};

/// Said in the copy itself.
const ABOUT: &str = "shortened copy; --json writes the whole result";

/// One run.
pub(super) fn run(result: &RunResult) -> Markup {
    let mut value = plain(result);
    shorten_config(&mut value, result);
    value["about"] = ABOUT.into();
    markup(&value)
}

/// A comparison.
pub(super) fn comparison(result: &CompareResult) -> Markup {
    let mut value = plain(result);
    value["about"] = ABOUT.into();
    for (n, run) in result.runs.iter().enumerate() {
        let copy = &mut value["runs"][n];
        if n == 0 {
            shorten_config(copy, run);
        } else {
            refer(copy, run, &result.runs[0]);
        }
    }
    let rows = result
        .rows
        .iter()
        .filter(|r| r.cells.iter().any(|c| c.mean != 0.0));
    value["rows"] = rows.map(plain).collect();
    markup(&value)
}

/// A translation, whole.
pub(super) fn translation(result: &TranslateResult) -> Markup {
    markup(&plain(result))
}

fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("results have string keys and finite numbers")
}

/// JSON that no HTML parser can leave: `<` only occurs inside strings there.
fn markup(value: &Value) -> Markup {
    Markup::from_safe_string(value.to_string().replace('<', "\\u003c"))
}

fn shorten_config(copy: &mut Value, run: &RunResult) {
    copy["config"] = config::shown(&run.config).0;
}

/// Leaves out of a later run what the first one says.
fn refer(copy: &mut Value, run: &RunResult, first: &RunResult) {
    let but = config::differences(&first.config, &run.config);
    copy["config"] = json!({ "same_as": first.label, "but": but });
    let described = |name: &str, list: &str| match list {
        "metrics" => first.metrics.iter().any(|m| m.name == name),
        "histograms" => first.histograms.iter().any(|h| h.name == name),
        _ => first.breakdown.iter().any(|b| b.account == name),
    };
    for (list, key) in [
        ("metrics", "name"),
        ("histograms", "name"),
        ("breakdown", "account"),
    ] {
        let Some(rows) = copy[list].as_array_mut() else {
            continue;
        };
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            let known = row
                .get(key)
                .and_then(Value::as_str)
                .is_some_and(|n| described(n, list));
            row.retain(|member, _| !known || !["unit", "kind", "description"].contains(&member.as_str()));
        }
        rows.retain(|row| row["value"] != 0 || row.get("description").is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn nothing_is_said_twice_and_nothing_lost() {
        let result = sample::comparison();
        let copy: Value = serde_json::from_str(&comparison(&result).to_string()).unwrap();
        for (n, run) in result.runs.iter().enumerate() {
            let there = &copy["runs"][n];
            for metric in run.metrics.iter().filter(|m| m.value > 0) {
                let found = there["metrics"].as_array().unwrap();
                assert!(
                    found
                        .iter()
                        .any(|m| m["name"] == *metric.name && m["value"] == metric.value),
                    "{}",
                    metric.name
                );
            }
            assert_eq!(there["locks"], plain(&run.locks));
            assert_eq!(n == 0, there["config"].get("same_as").is_none());
        }
        for row in copy["rows"].as_array().unwrap() {
            assert!(result.rows.iter().any(|r| plain(r) == *row));
        }
    }

    #[test]
    fn one_run_is_whole() {
        let result = sample::run(2, 1);
        let copy = run(&result).to_string();
        assert_eq!(serde_json::from_str::<RunResult>(&copy).unwrap(), result);
    }
}
