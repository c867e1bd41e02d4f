//! The JSON Schema of the scenario language, generated from [`crate::ast`].

use crate::ast::Scenario;

/// The schema that `scenario.json` holds for editors and the loader validates against.
#[must_use]
pub fn scenario_schema() -> serde_json::Value {
    schemars::schema_for!(Scenario).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed file; `MMUSIM_BLESS=1` in the environment of the test rewrites it.
    #[test]
    fn committed_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/scenario.json");
        let now = serde_json::to_string_pretty(&scenario_schema()).expect("a schema is JSON") + "\n";
        if std::env::var_os("MMUSIM_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(path, &now).expect("the schema file can be written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            committed, now,
            "schema/scenario.json is out of date: run the tests with MMUSIM_BLESS=1"
        );
    }
}
