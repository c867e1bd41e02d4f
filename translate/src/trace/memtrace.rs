//! The final traces of DynamoRIO's drmemtrace.
//!
//! A row of packed, little-endian entries of 12 bytes, `{type: u16, size: u16, address: u64}`
//! (`_trace_entry_t` in `clients/drcachesim/common/trace_entry.h`, DynamoRIO/dynamorio 4f0e90ba522f,
//! format version 5), as `drraw2trace` and the offline mode of drmemtrace write them, plain or with gzip:
//!
//! * A header with the version comes first, a footer last. Markers say what the file is like.
//! * An instruction is fetched from its address; a bundle adds up to 8 that follow it, one length a byte.
//! * Loads, stores and prefetches follow the instruction that makes them.
//! * A thread entry says who makes what follows.
//! * Encodings, process ids, and most markers say nothing about references.
//! * Types that later versions may have added are skipped and counted.
//!
//! A software prefetch walks the page tables as a load does, so it is delivered as a load. Prefetches of
//! instructions and by hardware are skipped.
//!
//! Not read: the raw files that the tracer leaves behind in offline mode, archives, recordings of 32-bit
//! programs (8 bytes an entry). Each is recognised and refused with what to do.

use std::collections::BTreeMap;

use x86::{Access, Reference};

use super::input::Input;
use super::intake::{Intake, ROOM};
use super::summary::{Reason, Remark, Summary};
use super::{Format, Recording};
use crate::source::{Batch, Place, Source, SourceError, ThreadId};

/// Bytes of an entry.
const ENTRY: usize = 12;

/// Numbers of `trace_type_t` and `trace_marker_type_t` (same file).
mod number {
    use std::ops::RangeInclusive;

    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    /// General, then x86 `prefetcht0` to `prefetchnta`, then ARM loads and stores.
    pub(super) const PREFETCH_DATA: RangeInclusive<u16> = 2..=8;
    pub(super) const PREFETCH_INSTR: u16 = 9;
    /// Plain, and the kinds of jumps.
    pub(super) const INSTR: RangeInclusive<u16> = 10..=16;
    pub(super) const INSTR_BUNDLE: u16 = 17;
    pub(super) const FLUSH: RangeInclusive<u16> = 18..=21;
    pub(super) const THREAD: u16 = 22;
    pub(super) const THREAD_EXIT: u16 = 23;
    pub(super) const PID: u16 = 24;
    pub(super) const HEADER: u16 = 25;
    pub(super) const FOOTER: u16 = 26;
    pub(super) const HARDWARE_PREFETCH: u16 = 27;
    pub(super) const MARKER: u16 = 28;
    pub(super) const INSTR_NO_FETCH: u16 = 29;
    pub(super) const INSTR_MAYBE_FETCH: u16 = 30;
    pub(super) const INSTR_SYSENTER: u16 = 31;
    pub(super) const PREFETCH_READ_NT: RangeInclusive<u16> = 32..=34;
    pub(super) const PREFETCH_INSTR_LEVELS: RangeInclusive<u16> = 35..=40;
    pub(super) const PREFETCH_WRITE_LEVELS: RangeInclusive<u16> = 41..=46;
    pub(super) const ENCODING: u16 = 47;
    /// Conditional jumps, taken and not taken.
    pub(super) const INSTR_JUMPS: RangeInclusive<u16> = 48..=49;

    /// In the size field of a marker: the address field holds bits of `offline_file_type_t`.
    pub(super) const MARKER_FILETYPE: u16 = 9;
}

/// Bits of `offline_file_type_t` (same file).
mod file_type {
    /// Filtered, in general, by instructions, and by data.
    pub(super) const FILTERED: u64 = 0x01 | 0x80 | 0x100;
    pub(super) const INSTRUCTION_ONLY: u64 = 0x04;
    pub(super) const AARCH64: u64 = 0x08;
}

/// Types from here on have never been given: the file is damaged. Below, a newer DynamoRIO may have
/// given them.
const NEVER_GIVEN: u16 = 256;

/// Versions the header may name, with room for those to come.
const VERSIONS: std::ops::RangeInclusive<u64> = 1..=255;

const CONVERT: &str = "convert it with `drraw2trace -indir DIR -compress gzip`, and read what that writes";

/// Whether a recording begins like this format.
pub(super) fn begins(head: &[u8]) -> bool {
    let first = head.first_chunk().map(Entry::new);
    first.is_some_and(|entry| {
        entry.kind == number::HEADER && VERSIONS.contains(&entry.address) && !has_short_entries(head)
    })
}

/// With entries of 8 bytes the second begins where those of 12 have the upper half of the version.
fn has_short_entries(head: &[u8]) -> bool {
    const SHORT: usize = 8;
    let second = head.get(SHORT..).and_then(<[u8]>::first_chunk);
    second.is_some_and(|kind| u16::from_le_bytes(*kind) == number::MARKER)
}

/// What is recognised and cannot be read.
pub(super) fn refusal(head: &[u8]) -> Option<(&'static str, &'static str)> {
    if head.starts_with(&number::HEADER.to_le_bytes()) && has_short_entries(head) {
        return Some((
            "this is DynamoRIO's trace of a 32-bit program, which is not read",
            "record a 64-bit program",
        ));
    }
    // A raw file begins with an extended entry of 8 bytes: type 6 in the upper 3 bits, and below it the
    // sub-type, 4 for a header, 0 for that of older versions (`offline_entry_t`, same file). The version
    // is the byte below or the lowest; neither has reached 16.
    const EXTENDED: u8 = 6 << 5;
    const VERSIONS: std::ops::RangeInclusive<u8> = 1..=15;
    let raw = match head {
        [.., _] if head.len() < 8 => false,
        [_, _, _, _, _, _, version, kind, ..] if *kind == EXTENDED | 4 => VERSIONS.contains(version),
        [version, _, _, _, _, _, _, kind, ..] if *kind == EXTENDED => VERSIONS.contains(version),
        _ => false,
    };
    raw.then_some((
        "this is a raw file that DynamoRIO's tracer leaves behind, which is not read",
        CONVERT,
    ))
}

#[derive(Clone, Copy)]
struct Entry {
    kind: u16,
    size: u16,
    address: u64,
}

impl Entry {
    #[inline]
    fn new(bytes: &[u8; ENTRY]) -> Self {
        let [a, b, c, d, address @ ..] = *bytes;
        Entry {
            kind: u16::from_le_bytes([a, b]),
            size: u16::from_le_bytes([c, d]),
            address: u64::from_le_bytes(address),
        }
    }
}

/// What an entry asks of the reader.
enum Next {
    /// The next entry.
    Entry,
    /// The batch first: another thread follows. The entry is read again.
    Batch,
}

/// What is wrong with an entry, and a way out.
type Wrong = (String, &'static str);

/// What the entries so far have said.
#[derive(Default)]
struct State {
    intake: Intake,
    threads: BTreeMap<u64, ThreadId>,
    thread: ThreadId,
    /// The instruction last met in this thread, and where the next one begins.
    instruction: Option<u64>,
    following: u64,
    footer: Option<()>,
}

/// A recording by DynamoRIO.
pub(super) struct Memtrace {
    input: Input,
    state: State,
}

impl Memtrace {
    pub(super) fn new(input: Input) -> Self {
        let mut state = State::default();
        // A recording of a single thread need not name it.
        state.intake.summary.threads = 1;
        Memtrace { input, state }
    }

    /// Takes the entries at hand as long as there is room and the thread stays.
    fn take_entries(&mut self, out: &mut Vec<Reference>) -> Result<Next, SourceError> {
        let Memtrace { input, state } = self;
        let mut done = 0;
        let mut next = Ok(Next::Entry);
        for entry in input.bytes().as_chunks().0 {
            if out.len() > ROOM {
                break;
            }
            next = state.take(Entry::new(entry), || input.place(done), out);
            match next {
                Ok(Next::Entry) => done += ENTRY,
                _ => break,
            }
        }
        input.consume(done);
        next.map_err(|(problem, remedy)| input.defect(Some(input.place(0)), problem, remedy))
    }
}

impl State {
    #[inline]
    fn take(
        &mut self,
        entry: Entry,
        place: impl Fn() -> Place,
        out: &mut Vec<Reference>,
    ) -> Result<Next, Wrong> {
        let Entry { kind, size, address } = entry;
        let bytes = u64::from(size);
        match kind {
            number::READ => self.intake.take(Access::Read, address, bytes, place, out),
            number::WRITE => self.intake.take(Access::Write, address, bytes, place, out),
            _ if number::INSTR.contains(&kind)
                || number::INSTR_JUMPS.contains(&kind)
                || kind == number::INSTR_SYSENTER =>
            {
                self.fetch(address, bytes, place, out);
            }
            number::INSTR_BUNDLE => self.bundle(entry, place, out)?,
            number::THREAD if !out.is_empty() && self.threads.get(&address) != Some(&self.thread) => {
                return Ok(Next::Batch);
            }
            number::THREAD => self.switch(address),
            _ => self.take_rare(entry, place, out)?,
        }
        self.intake.summary.records += 1;
        Ok(Next::Entry)
    }

    fn take_rare(
        &mut self,
        entry: Entry,
        place: impl Fn() -> Place,
        out: &mut Vec<Reference>,
    ) -> Result<(), Wrong> {
        let Entry { kind, size, address } = entry;
        let bytes = u64::from(size);
        match kind {
            number::ENCODING | number::PID | number::THREAD_EXIT | number::HEADER => {}
            number::FOOTER => self.footer = Some(()),
            number::MARKER if size == number::MARKER_FILETYPE => self.remark(address),
            number::MARKER => {}
            number::INSTR_MAYBE_FETCH if self.instruction != Some(address) => {
                self.fetch(address, bytes, place, out);
            }
            number::INSTR_NO_FETCH | number::INSTR_MAYBE_FETCH => {
                self.instruction = Some(address);
                self.following = address.wrapping_add(bytes);
                self.intake.summary.skip(Reason::NotFetched, place());
            }
            number::PREFETCH_INSTR | number::HARDWARE_PREFETCH => {
                self.intake.summary.skip(Reason::Prefetch, place());
            }
            _ if number::PREFETCH_INSTR_LEVELS.contains(&kind) => {
                self.intake.summary.skip(Reason::Prefetch, place());
            }
            _ if number::PREFETCH_DATA.contains(&kind)
                || number::PREFETCH_READ_NT.contains(&kind)
                || number::PREFETCH_WRITE_LEVELS.contains(&kind) =>
            {
                self.intake.take(Access::Read, address, bytes, place, out);
            }
            _ if number::FLUSH.contains(&kind) => self.intake.summary.skip(Reason::CacheFlush, place()),
            NEVER_GIVEN.. => {
                return Err((
                    format!("there is no entry type {kind}"),
                    "the file is damaged from here on, fetch or record it again",
                ));
            }
            _ => self.intake.summary.skip(Reason::UnknownType, place()),
        }
        Ok(())
    }

    fn fetch(&mut self, address: u64, bytes: u64, place: impl FnOnce() -> Place, out: &mut Vec<Reference>) {
        self.instruction = Some(address);
        self.following = address.wrapping_add(bytes);
        // Filtered recordings name the instruction behind a load so, without a fetch.
        if bytes > 0 {
            self.intake.take(Access::Fetch, address, bytes, place, out);
        }
    }

    /// Instructions that follow one another; the address field holds their lengths.
    fn bundle(
        &mut self,
        entry: Entry,
        place: impl Fn() -> Place,
        out: &mut Vec<Reference>,
    ) -> Result<(), Wrong> {
        let lengths = entry.address.to_le_bytes();
        if self.instruction.is_none() || usize::from(entry.size) > lengths.len() {
            return Err((
                format!(
                    "a bundle of {} instructions that follows no instruction or has more than 8",
                    entry.size
                ),
                "the file is damaged here, fetch or record it again",
            ));
        }
        for length in &lengths[..usize::from(entry.size)] {
            self.fetch(self.following, u64::from(*length), &place, out);
        }
        Ok(())
    }

    fn switch(&mut self, tid: u64) {
        let next = ThreadId(self.threads.len() as u32);
        let thread = *self.threads.entry(tid).or_insert(next);
        if thread != self.thread {
            self.instruction = None;
        }
        self.thread = thread;
        self.intake.summary.threads = self.threads.len() as u32;
    }

    fn remark(&mut self, bits: u64) {
        for (mask, remark) in [
            (file_type::FILTERED, Remark::Filtered),
            (file_type::INSTRUCTION_ONLY, Remark::InstructionsOnly),
            (file_type::AARCH64, Remark::NotX86),
        ] {
            if bits & mask != 0 {
                self.intake.summary.remarks.insert(remark);
            }
        }
    }
}

impl Source for Memtrace {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        batch.references.clear();
        while batch.references.len() <= ROOM {
            match self.input.fill(ENTRY)? {
                0 => {
                    if self.state.footer.is_none() {
                        self.state.intake.summary.remarks.insert(Remark::NoEnd);
                    }
                    break;
                }
                1..ENTRY => {
                    return Err(self.input.defect(
                        Some(self.input.place(0)),
                        "the recording ends inside an entry",
                        "entries have 12 bytes: the file was cut short, fetch or record it again",
                    ));
                }
                _ => {}
            }
            if let Next::Batch = self.take_entries(&mut batch.references)? {
                break;
            }
        }
        batch.thread = self.state.thread;
        Ok(())
    }
}

impl Recording for Memtrace {
    fn format(&self) -> Format {
        Format::Memtrace
    }

    fn summary(&self) -> &Summary {
        &self.state.intake.summary
    }
}
