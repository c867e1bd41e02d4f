//! The one place that touches the runner of scenarios.

use std::sync::LazyLock;

use scenarios::check::Known;
use scenarios::run::KnownNames;
use sim::MetricDef;

pub(crate) use scenarios::run::{Overrides, Randomness, Request, RunError, randomness, run};

/// Names scenarios may use.
pub(crate) fn known() -> Known<'static> {
    static KNOWN: LazyLock<KnownNames> = LazyLock::new(scenarios::run::known);
    KNOWN.as_known()
}

/// Scalar metrics that results can hold, sorted by name.
pub(crate) fn metrics() -> Vec<&'static MetricDef> {
    let host = mm::MmMetrics::DEFS.iter();
    let devices = kvm::KvmMetrics::DEFS
        .iter()
        .chain(gru::GruMetrics::DEFS)
        .chain(xpmem::XpmemMetrics::DEFS);
    let mut all: Vec<&MetricDef> = host.chain(devices).collect();
    all.sort_by_key(|def| def.name);
    all.dedup_by_key(|def| def.name);
    all
}
