//! Whether a scenario that has the right shape makes sense: names that exist, sizes that fit,
//! scripts that can be run. Runs nothing.

mod address;
mod expect;
mod facts;
mod filemap;
mod huge;
mod memory;
mod path;
mod script;
mod world;

use std::collections::BTreeSet;

use crate::ast::Scenario;
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Label};
use crate::load::Loaded;
use crate::load::source::Part;

pub use address::{AddressError, PAGE, Release, USER_END, parse_address, parse_release};
pub(crate) use script::changes_process;
pub use script::{MAX_ACCESSES, MAX_CHASE, MAX_OPS};
pub use world::{MAX_CPUS, MAX_MAPS, MAX_SHADOWED};

/// Partition of a process that names none.
pub const DEFAULT_PARTITION: &str = "host";

/// What the checker must know of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineFacts {
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in pages.
    pub memory_pages: u64,
    /// Whether it has EPT or NPT.
    pub nested_paging: bool,
}

/// Names that a scenario may use.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Machine presets.
    pub machines: &'a [(&'a str, MachineFacts)],
    /// Reads the machine file at a path; `None` if the name is no path.
    pub machine_file: fn(&str) -> Option<Result<MachineFacts, String>>,
    /// Kernel profiles.
    pub kernels: &'a [&'a str],
    /// Notifier designs, long and short names.
    pub designs: &'a [&'a str],
}

/// Checks the meaning of a scenario; the result holds errors and warnings.
#[must_use]
pub fn check(loaded: &Loaded, known: &Known<'_>) -> Diagnostics {
    let scenario = &loaded.scenario;
    let preset = known.machines.iter().find(|(name, _)| *name == scenario.machine);
    let (machine, machine_error) = match preset {
        Some((_, facts)) => (Some(*facts), None),
        None => match (known.machine_file)(&scenario.machine) {
            Some(Ok(facts)) => (Some(facts), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        },
    };
    let cpus = scenario
        .cpus
        .filter(|cpus| *cpus > 0)
        .or(machine.map(|machine| machine.cpus));
    // What the scenario says of memory replaces what the machine has.
    let machine = machine.map(|machine| MachineFacts {
        memory_pages: scenario
            .memory
            .map_or(machine.memory_pages, |memory| memory.pages),
        ..machine
    });
    let mut checker = Checker {
        loaded,
        scenario,
        known: *known,
        machine,
        machine_error,
        cpus,
        facts: facts::Facts::gather(scenario),
        forked: BTreeSet::new(),
        found: Diagnostics::new(),
    };
    checker.head();
    checker.memory_and_swap();
    checker.huge_pages();
    checker.mappings();
    checker.processes();
    checker.expectations();
    checker.found
}

/// A check in progress.
struct Checker<'a> {
    loaded: &'a Loaded,
    scenario: &'a Scenario,
    known: Known<'a>,
    machine: Option<MachineFacts>,
    /// What is wrong with the machine file, if the machine is one.
    machine_error: Option<String>,
    cpus: Option<u32>,
    facts: facts::Facts<'a>,
    /// Children whose `fork` was seen.
    forked: BTreeSet<&'a str>,
    found: Diagnostics,
}

impl Checker<'_> {
    fn place(&self, at: &path::At<'_>, part: Part) -> crate::load::source::Place {
        let segments = at.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        self.loaded.map.locate(&segments, part)
    }

    fn diagnostic(
        &self,
        code: Code,
        at: &path::At<'_>,
        part: Part,
        message: impl Into<String>,
    ) -> Diagnostic {
        self.loaded.map.diagnose(code, self.place(at, part), message)
    }

    fn label(&self, at: &path::At<'_>, message: &str) -> Label {
        self.loaded.map.label(self.place(at, Part::Value), message)
    }

    /// An error at a value.
    fn error(&mut self, code: Code, at: &path::At<'_>, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = self.diagnostic(code, at, Part::Value, message).with_help(help);
        self.found.push(diagnostic);
    }

    /// A warning at a value.
    fn warn(&mut self, code: Code, at: &path::At<'_>, message: impl Into<String>, help: impl Into<String>) {
        self.error(code, at, message, help);
    }

    /// A warning at the key of a member.
    fn warn_key(
        &mut self,
        code: Code,
        at: &path::At<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let diagnostic = self.diagnostic(code, at, Part::Key, message).with_help(help);
        self.found.push(diagnostic);
    }
}
