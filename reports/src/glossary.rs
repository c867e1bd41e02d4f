//! What the names in a result mean, from the declarations the result carries.

use std::collections::BTreeMap;

use crate::schema::{MetricKind, RunResult};

/// One name explained.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// Metric, distribution or account.
    pub name: String,
    /// `counter`, `gauge`, `distribution` or `account`.
    pub kind: String,
    /// Unit.
    pub unit: String,
    /// One sentence.
    pub description: String,
}

/// Every metric, distribution and cost account that any of the runs declares, each once, sorted by
/// name.
#[must_use]
pub fn glossary(runs: &[RunResult]) -> Vec<Entry> {
    let mut found: BTreeMap<&str, Entry> = BTreeMap::new();
    let add = |name: &str, kind: &str, unit: &str, description: &str| Entry {
        name: name.to_owned(),
        kind: kind.to_owned(),
        unit: unit.to_owned(),
        description: description.to_owned(),
    };
    for run in runs {
        for m in &run.metrics {
            let kind = match m.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            found
                .entry(&m.name)
                .or_insert_with(|| add(&m.name, kind, &m.unit, &m.description));
        }
        for h in &run.histograms {
            found
                .entry(&h.name)
                .or_insert_with(|| add(&h.name, "distribution", &h.unit, &h.description));
        }
        for b in &run.breakdown {
            found
                .entry(&b.account)
                .or_insert_with(|| add(&b.account, "account", "cycles", &b.description));
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn every_declared_name_appears_once() {
        let runs = [sample::run(0, 1), sample::run(3, 1)];
        let entries = glossary(&runs);
        assert!(entries.windows(2).all(|w| w[0].name < w[1].name));
        for m in &runs[0].metrics {
            assert!(entries.iter().any(|e| e.name == m.name && e.unit == m.unit));
        }
        assert!(entries.iter().any(|e| e.kind == "distribution"));
        assert!(
            entries
                .iter()
                .any(|e| e.name == "lock wait" && e.kind == "account")
        );
    }
}
