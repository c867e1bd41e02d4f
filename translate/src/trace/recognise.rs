//! Which format a recording has, by its first bytes.

use super::Format;
use super::champsim;
use super::compact;
use super::input::Input;
use super::lackey;
use super::memtrace;
use crate::source::SourceError;

/// Bytes looked at: 64 instructions of a ChampSim trace.
const HEAD: usize = 4096;

const KNOWN: &str = "known are lackey (text of `valgrind --tool=lackey --trace-mem=yes`), memtrace (DynamoRIO's \
                     final traces), champsim (64 bytes an instruction) and this project's compact form; if it \
                     is one of them, name the format";

/// The format, or why there is none.
pub(super) fn format(input: &mut Input) -> Result<Format, SourceError> {
    let length = input.fill(HEAD)?.min(HEAD);
    let head = &input.bytes()[..length];
    if compact::begins(head) {
        Ok(Format::Compact)
    } else if memtrace::begins(head) {
        Ok(Format::Memtrace)
    } else if lackey::begins(head) {
        Ok(Format::Lackey)
    } else if let Some((problem, remedy)) = refusal(head) {
        Err(input.defect(None, problem, remedy))
    } else if champsim::begins(head) {
        Ok(Format::ChampSim)
    } else {
        Err(input.defect(None, "this is no recording of a known format", KNOWN))
    }
}

/// What is recognised and cannot be read.
fn refusal(head: &[u8]) -> Option<(&'static str, &'static str)> {
    if head.is_empty() {
        Some(("the file is empty", "record it again"))
    } else {
        memtrace::refusal(head).or_else(|| champsim::refusal(head))
    }
}
