//! Running a scenario: resolve its choices, build the world, let the threads run, collect the result.
//!
//! The order is fixed. Preparation first: address spaces, initial mappings, population, attachments;
//! then everything counted so far is forgotten, all threads start at the same moment, and what they do
//! is measured. A run ends when the last thread has ended; then the books are audited.

mod attach;
mod exec;
mod pattern;
mod prepare;
mod process;
mod resolve;
mod result;
mod world;

use std::fmt;
use std::path::Path;

use mm::KernelProfile;
use mm::notifier::Design;
use reports::schema::RunResult;
use reports::trace::TraceEvent;
use x86::Machine;

use crate::ast::{self, Op, Pattern, Scenario};
use crate::check::{Known, MachineFacts};

pub use resolve::Resolved;

/// Choices that the caller makes instead of the scenario.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Notifier design, long or short name.
    pub design: Option<String>,
    /// Kernel profile.
    pub kernel: Option<String>,
    /// CONFIG_PREEMPT.
    pub preempt: Option<ast::Switch>,
    /// Seed.
    pub seed: Option<u64>,
    /// What to do with MMUs the design cannot carry.
    pub unsupported: Option<ast::Unsupported>,
    /// CPUs of each kernel.
    pub cpus: Option<u32>,
}

/// What to run.
pub struct Request<'a> {
    /// The scenario, checked.
    pub scenario: &'a Scenario,
    /// Its file name, without folder.
    pub file: &'a str,
    /// Choices of the caller.
    pub overrides: Overrides,
    /// Whether to keep the full event log.
    pub logging: sim::Logging,
    /// Give up after so many events.
    pub max_events: Option<u64>,
}

/// What came out.
pub struct Outcome {
    /// The result.
    pub result: RunResult,
    /// The event log, if asked for.
    pub events: Vec<TraceEvent>,
}

/// Why a scenario cannot be run. Anything that can be known beforehand is the checker's business;
/// what is left is a choice that cannot be resolved, or an operation that makes no sense when its
/// time comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for RunError {}

/// Runs a scenario.
///
/// # Errors
/// When a choice cannot be resolved or an operation makes no sense; see [`RunError`].
pub fn run(request: &Request<'_>) -> Result<Outcome, RunError> {
    let resolved = resolve::resolve(request)?;
    let world = world::WorldBuilder::new(request, resolved).build()?;
    world.run(request)
}

/// Whether a scenario draws random numbers: only then do several seeds tell more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Randomness {
    /// Same result for every seed.
    None,
    /// The seed matters.
    Draws,
}

/// Whether a scenario draws random numbers.
#[must_use]
pub fn randomness(scenario: &Scenario) -> Randomness {
    fn draws(op: &Op) -> bool {
        match op {
            Op::Access(a) => {
                let random = matches!(
                    a.pattern,
                    Pattern::Uniform | Pattern::Zipf(_) | Pattern::PointerChase
                );
                random || (a.write_percent > 0 && a.write_percent < 100)
            }
            Op::Repeat(r) => r.script.iter().any(draws),
            _ => false,
        }
    }
    let mut scripts = scenario.processes.values().flat_map(|p| p.threads.values());
    if scripts.any(|t| t.script.iter().any(draws)) {
        Randomness::Draws
    } else {
        Randomness::None
    }
}

/// The names a scenario may use.
pub struct KnownNames {
    machines: Vec<(&'static str, MachineFacts)>,
    kernels: Vec<&'static str>,
    designs: Vec<&'static str>,
}

/// All machines, kernel profiles and notifier designs that come with the simulator.
#[must_use]
pub fn known() -> KnownNames {
    let facts = |name: &&'static str| {
        let machine = Machine::preset(name).expect("a listed preset exists");
        (*name, machine_facts(&machine))
    };
    KnownNames {
        machines: Machine::presets().iter().map(facts).collect(),
        kernels: KernelProfile::ALL.iter().map(|p| p.name).collect(),
        designs: Design::ALL.iter().flat_map(|d| [d.id, d.short]).collect(),
    }
}

fn machine_facts(machine: &Machine) -> MachineFacts {
    MachineFacts {
        cpus: machine.cpus(),
        memory_pages: machine.memory_pages,
        nested_paging: machine.nested_paging.is_available(),
    }
}

fn machine_file(name: &str) -> Option<Result<MachineFacts, String>> {
    Machine::is_path(name).then(|| {
        let machine = Machine::load(Path::new(name)).map_err(|error| error.to_string())?;
        Ok(machine_facts(&machine))
    })
}

impl KnownNames {
    /// As the checker wants it.
    #[must_use]
    pub fn as_known(&self) -> Known<'_> {
        Known {
            machines: &self.machines,
            machine_file,
            kernels: &self.kernels,
            designs: &self.designs,
        }
    }
}
