//! What the tests that run scenarios share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};

use reports::schema::RunResult;
use scenarios::ast::Scenario;
use scenarios::check::check;
use scenarios::import::strace;
use scenarios::load::{Loaded, MemoryFiles, load_file, load_str};
use scenarios::run::{Overrides, Request, known, run};

/// Short names of all designs, as `compare` runs them.
pub(crate) const DESIGNS: [&str; 4] = ["v0", "v1", "v8", "v9"];

/// A folder of this package.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of the library.
pub(crate) fn library(name: &str) -> Scenario {
    load_file(&folder("library").join(name))
        .unwrap_or_else(|found| panic!("{found}"))
        .scenario
}

/// Findings of the checker, errors and warnings.
pub(crate) fn findings(loaded: &Loaded) -> Vec<String> {
    let names = known();
    check(loaded, &names.as_known())
        .items
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A recording with secondary MMUs attached to its largest mapping.
pub(crate) fn recording(name: &str, attach: &[&str]) -> Loaded {
    let options = strace::Options {
        attach: attach
            .iter()
            .map(|spec| spec.parse().expect("an attachment"))
            .collect(),
        ..strace::Options::default()
    };
    let file = scenarios::import::open(&folder("recordings").join(name)).expect("a recording");
    let imported = strace::import(file, name, &options).expect("it can be imported");
    let text = serde_json::to_string(&imported.scenario).expect("plain data");
    load_str(name, &text, &MemoryFiles::default()).unwrap_or_else(|found| panic!("{found}"))
}

/// Recordings that come with the simulator.
pub(crate) const RECORDINGS: [&str; 3] = [
    "gcc.strace.gz",
    "redis-bgsave.strace.gz",
    "sqlite-vacuum.strace.gz",
];

/// One secondary MMU of each kind.
pub(crate) const ALL_MMUS: [&str; 3] = ["kvm:largest", "gru:largest", "xpmem:largest"];

/// Choices: a design, nothing else.
pub(crate) fn under(design: &str) -> Overrides {
    Overrides {
        design: Some(design.to_owned()),
        ..Overrides::default()
    }
}

/// Runs a scenario.
#[track_caller]
pub(crate) fn result(scenario: &Scenario, overrides: Overrides) -> RunResult {
    let request = Request {
        scenario,
        file: "test",
        overrides,
        logging: sim::Logging::Ring,
        max_events: None,
    };
    run(&request)
        .unwrap_or_else(|error| panic!("{}: {error}", scenario.title))
        .result
}

/// The whole result as text.
pub(crate) fn bytes(result: &RunResult) -> String {
    serde_json::to_string(result).expect("plain data")
}

/// A metric that must exist.
#[track_caller]
pub(crate) fn metric(result: &RunResult, name: &str) -> u64 {
    result
        .metric(name)
        .unwrap_or_else(|| panic!("no metric `{name}`"))
}
