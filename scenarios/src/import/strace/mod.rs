//! Imports logs of strace.
//!
//! The log says which calls a program made, so the scenario makes the same calls, at the same
//! addresses, in the same processes and threads. It does not say which memory the program
//! touched, so that is an assumption ([`Touch`]). Calls that were interrupted by lines of other
//! tasks are joined again; each process has its tables of descriptors, so that a mapping finds
//! its file; threads are kept in the order of the log only where they work on the same addresses.

use std::io::BufRead;

use crate::ast::Scenario;

mod args;
mod attach;
mod error;
mod files;
mod finish;
mod join;
mod line;
mod memory;
mod process;
mod replay;
mod space;
mod summary;

pub use attach::{AttachSpec, AttachSpecError, AttachTarget, MmuKind};
pub use error::{ImportError, RECORD_WITH};
pub use summary::{Summary, Warning};

/// Which pages the program is assumed to touch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Touch {
    /// All pages of writable anonymous memory (stores) and of file mappings (loads), once, when
    /// they are mapped.
    #[default]
    All,
    /// None.
    None,
    /// Evenly spaced pages of them, in thousandths; the distance is a whole number of pages, so
    /// that the share is rounded up to 1000, 500, 333, 250, ...
    Fraction(u32),
}

/// Wishes for an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which pages are touched.
    pub touch: Touch,
    /// Secondary MMUs to attach.
    pub attach: Vec<AttachSpec>,
    /// Accesses of each secondary MMU.
    pub secondary_accesses: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            touch: Touch::All,
            attach: Vec::new(),
            secondary_accesses: 20_000,
        }
    }
}

/// A scenario and the account of how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The scenario.
    pub scenario: Scenario,
    /// What was imported, skipped and assumed.
    pub summary: Summary,
}

/// Imports a log; `name` stands for it in messages and in the title.
///
/// # Errors
///
/// When the log cannot be read, is not strace's, or has no memory to attach a secondary MMU to.
/// Single lines that cannot be used are counted and become warnings.
pub fn import(reader: impl BufRead, name: &str, options: &Options) -> Result<Imported, ImportError> {
    let mut summary = Summary::default();
    let events = join::read(reader, name, &mut summary)?;
    let mut replay = replay::Replay::new(options, name, &mut summary);
    replay.run(&events)?;
    let scenario = finish::finish(replay)?;
    Ok(Imported { scenario, summary })
}
