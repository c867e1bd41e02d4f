//! The one place that touches the runner of scenarios.

mod stub;

use std::sync::LazyLock;

use scenarios::check::Known;
use sim::MetricDef;

pub(crate) use stub::{Overrides, Randomness, Request, RunError, randomness, run};

/// Names scenarios may use.
pub(crate) fn known() -> Known<'static> {
    static KNOWN: LazyLock<stub::KnownLists> = LazyLock::new(stub::known);
    KNOWN.as_known()
}

/// Scalar metrics that results can hold.
pub(crate) fn metrics() -> Vec<&'static MetricDef> {
    let mut all: Vec<&MetricDef> = mm::MmMetrics::DEFS.iter().collect();
    all.sort_by_key(|def| def.name);
    all
}
