//! Traces as ChampSim reads them.
//!
//! One record of 64 bytes an instruction, little-endian (`input_instr` in `inc/trace_instruction.h`,
//! ChampSim/ChampSim b92dc114038e):
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | instruction pointer |
//! | 8, 9 | is a branch, was taken: 0 or 1 |
//! | 10..12, 12..16 | destination and source registers |
//! | 16..32 | destination memory, 2 addresses, 0 for none |
//! | 32..64 | source memory, 4 addresses, 0 for none |
//!
//! There are no sizes, so no access is seen to cross a page; no threads; and no magic number, so a
//! recording is recognised by values that make sense. An instruction is fetched, loads, then stores.
//! The wider records of CloudSuite traces are not read.

use x86::{Access, Reference, Va};

use super::input::Input;
use super::intake::{Intake, ROOM};
use super::summary::Summary;
use super::{Format, Recording};
use crate::source::{Batch, Place, Source, SourceError, ThreadId};

/// Bytes of a record.
const RECORD: usize = 64;
const BRANCH: usize = 8;
const TAKEN: usize = 9;
const STORES: std::ops::Range<usize> = 16..32;
const LOADS: std::ops::Range<usize> = 32..RECORD;

/// Bytes of a record of `cloudsuite_instr`, its padding, and its addresses (same file).
const CLOUDSUITE: usize = 96;
const CLOUDSUITE_PADDING: std::ops::Range<usize> = 18..24;
const CLOUDSUITE_MEMORY: std::ops::Range<usize> = 24..88;

/// Whether a recording begins like this format.
pub(super) fn begins(head: &[u8]) -> bool {
    let mut records = head.chunks_exact(RECORD).peekable();
    records.peek().is_some()
        && records
            .all(|record| is_instruction(record) && addresses(&record[STORES.start..]).all(is_plausible))
}

/// What is recognised and cannot be read.
pub(super) fn refusal(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let mut records = head.chunks_exact(CLOUDSUITE).peekable();
    let cloudsuite = |record: &[u8]| {
        is_instruction(record)
            && record[CLOUDSUITE_PADDING].iter().all(|byte| *byte == 0)
            && addresses(&record[CLOUDSUITE_MEMORY]).all(is_plausible)
    };
    (!begins(head) && records.peek().is_some() && records.all(cloudsuite)).then_some((
        "this looks like a CloudSuite trace, 96 bytes an instruction, which is not read",
        "record with ChampSim's own tracer, 64 bytes an instruction",
    ))
}

fn is_instruction(record: &[u8]) -> bool {
    let pointer = addresses(record).next().unwrap_or(0);
    pointer != 0 && is_plausible(pointer) && record[BRANCH] <= 1 && record[TAKEN] <= record[BRANCH]
}

fn is_plausible(address: u64) -> bool {
    Reference::new(Access::Read, Va::new(address)).is_some()
}

fn addresses(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word))
}

/// A recording for ChampSim.
pub(super) struct ChampSim {
    input: Input,
    intake: Intake,
}

impl ChampSim {
    pub(super) fn new(input: Input) -> Self {
        let mut intake = Intake::default();
        intake.summary.threads = 1;
        ChampSim { input, intake }
    }

    /// Takes the records at hand as long as there is room.
    fn take_records(&mut self, out: &mut Vec<Reference>) {
        let ChampSim { input, intake } = self;
        let mut done = 0;
        for record in input.bytes().chunks_exact(RECORD) {
            if out.len() > ROOM {
                break;
            }
            take(record, intake, || input.place(done), out);
            done += RECORD;
        }
        input.consume(done);
    }

    fn cut_short(&self, missing: usize) -> SourceError {
        self.input.defect(
            Some(self.input.place(0)),
            format!("the recording ends {missing} bytes before its last record does"),
            "a ChampSim trace is a multiple of 64 bytes: it was cut short, or is of another format",
        )
    }
}

fn take(record: &[u8], intake: &mut Intake, place: impl Fn() -> Place, out: &mut Vec<Reference>) {
    /// The recording says no sizes.
    const SIZE: u64 = 1;
    intake.summary.records += 1;
    for pointer in addresses(record).take(1) {
        intake.take(Access::Fetch, pointer, SIZE, &place, out);
    }
    for (memory, access) in [(LOADS, Access::Read), (STORES, Access::Write)] {
        for address in addresses(&record[memory]).filter(|address| *address != 0) {
            intake.take(access, address, SIZE, &place, out);
        }
    }
}

impl Source for ChampSim {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        batch.thread = ThreadId(0);
        batch.references.clear();
        while batch.references.len() <= ROOM {
            let length = self.input.fill(RECORD)?;
            match length {
                0 => break,
                1..RECORD => return Err(self.cut_short(RECORD - length)),
                _ => self.take_records(&mut batch.references),
            }
        }
        Ok(())
    }
}

impl Recording for ChampSim {
    fn format(&self) -> Format {
        Format::ChampSim
    }

    fn summary(&self) -> &Summary {
        &self.intake.summary
    }
}
