//! The text of valgrind's lackey.
//!
//! `valgrind --tool=lackey --trace-mem=yes` writes one line an access (the valgrind
//! manual on lackey, and what valgrind 3.19 writes):
//!
//! ```text
//! I  04001092,3          an instruction fetch: address in hexadecimal, bytes in decimal
//!  L 1ffeffe7e8,8        a load
//!  S 1ffeffe7e0,8        a store
//!  M 0421c7cc,4          a modify: a load and a store of the same place
//! ==1234== ...           what valgrind says about itself
//! ```
//!
//! Threads are not told apart. A modify is two references.

use x86::{Access, Reference};

use super::input::Input;
use super::intake::{Intake, LARGEST, ROOM};
use super::summary::{Reason, Summary};
use super::{Format, Recording};
use crate::source::{Batch, Place, Source, SourceError, ThreadId};

/// Bytes that hold any record: 3 of the kind, 16 digits, a comma, 5 digits and the end of the line.
const LONGEST_RECORD: usize = 32;

/// Longest line of any kind: a message of valgrind can quote a command.
const LONGEST_LINE: usize = 64 << 10;

/// Characters of a bad line that a message repeats.
const QUOTED: usize = 40;

/// Whether a recording begins like this format.
pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(b"==") || parse(head).is_some()
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    One(Access),
    Modify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    kind: Kind,
    address: u64,
    size: u64,
    /// Bytes of the line, with its end.
    length: usize,
}

/// A recording by lackey.
pub(super) struct Lackey {
    input: Input,
    intake: Intake,
    /// Lines read.
    lines: u64,
}

impl Lackey {
    pub(super) fn new(input: Input) -> Self {
        let mut intake = Intake::default();
        intake.summary.threads = 1;
        Lackey {
            input,
            intake,
            lines: 0,
        }
    }

    /// Takes records as long as they are well-formed, complete and have room.
    fn take_records(&mut self, out: &mut Vec<Reference>) -> Result<(), SourceError> {
        let Lackey { input, intake, lines } = self;
        input.fill(LONGEST_RECORD)?;
        let window = input.bytes();
        let mut done = 0;
        while out.len() <= ROOM
            && let Some(record) = parse(&window[done..])
        {
            done += record.length;
            *lines += 1;
            intake.summary.records += 1;
            let Record {
                kind, address, size, ..
            } = record;
            let place = || Place::Line(*lines);
            match kind {
                Kind::One(access) => intake.take(access, address, size, place, out),
                Kind::Modify => {
                    intake.take(Access::Read, address, size, place, out);
                    intake.take(Access::Write, address, size, place, out);
                }
            }
        }
        input.consume(done);
        Ok(())
    }

    /// Passes a line that is no record.
    fn take_other(&mut self) -> Result<(), SourceError> {
        self.input.fill(LONGEST_LINE)?;
        let window = self.input.bytes();
        let end = window.iter().position(|byte| *byte == b'\n');
        let line = &window[..end.unwrap_or(window.len())];
        let length = (line.len() + 1).min(window.len());
        self.lines += 1;
        let place = Place::Line(self.lines);
        if !line.starts_with(b"==") {
            let cut = line.len().min(QUOTED);
            let text = line[..cut].escape_ascii().to_string();
            return Err(self.input.defect(
                Some(place),
                format!("`{text}` is no record of lackey, such as ` L 1ffeffe7e8,8`"),
                "keep the program's own output apart with `--log-file=FILE`; a last line cut short can be deleted",
            ));
        }
        self.intake.summary.records += 1;
        self.intake.summary.skip(Reason::ToolOutput, place);
        self.input.consume(length);
        Ok(())
    }
}

/// The record at the start of `text`, if there is a whole one.
#[inline]
fn parse(text: &[u8]) -> Option<Record> {
    let kind = match text.first_chunk()? {
        b"I  " => Kind::One(Access::Fetch),
        b" L " => Kind::One(Access::Read),
        b" S " => Kind::One(Access::Write),
        b" M " => Kind::Modify,
        _ => return None,
    };
    let (address, comma) = hexadecimal(text, 3)?;
    if text.get(comma) != Some(&b',') {
        return None;
    }
    let (size, end) = decimal(text, comma + 1)?;
    let length = match (text.get(end), text.get(end + 1)) {
        (Some(b'\n'), _) => end + 1,
        (Some(b'\r'), Some(b'\n')) => end + 2,
        _ => return None,
    };
    (size <= LARGEST).then_some(Record {
        kind,
        address,
        size,
        length,
    })
}

/// The number in hexadecimal that begins at a place, and where it ends.
#[inline]
fn hexadecimal(text: &[u8], start: usize) -> Option<(u64, usize)> {
    const MOST_DIGITS: usize = 16;
    let mut number = 0;
    let mut at = start;
    while let Some(digit) = text.get(at).and_then(|byte| nibble(*byte)) {
        number = number << 4 | digit;
        at += 1;
    }
    (at > start && at <= start + MOST_DIGITS).then_some((number, at))
}

#[inline]
fn nibble(byte: u8) -> Option<u64> {
    /// What is no digit.
    const NONE: u8 = u8::MAX;
    const NIBBLES: [u8; 256] = {
        let mut table = [NONE; 256];
        let digits = *b"0123456789abcdefABCDEF";
        let mut at = 0;
        while at < digits.len() {
            table[digits[at] as usize] = if at < 16 { at as u8 } else { at as u8 - 6 };
            at += 1;
        }
        table
    };
    let nibble = NIBBLES[usize::from(byte)];
    (nibble != NONE).then_some(u64::from(nibble))
}

/// The number in decimal that begins at a place, and where it ends.
#[inline]
fn decimal(text: &[u8], start: usize) -> Option<(u64, usize)> {
    const MOST_DIGITS: usize = 5;
    let mut number = 0;
    let mut at = start;
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        if at - start == MOST_DIGITS {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
        at += 1;
    }
    (at > start).then_some((number, at))
}

impl Source for Lackey {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        batch.thread = ThreadId(0);
        batch.references.clear();
        while batch.references.len() <= ROOM {
            let before = self.lines;
            self.take_records(&mut batch.references)?;
            if self.lines == before {
                if self.input.fill(1)? == 0 {
                    break;
                }
                self.take_other()?;
            }
        }
        Ok(())
    }
}

impl Recording for Lackey {
    fn format(&self) -> Format {
        Format::Lackey
    }

    fn summary(&self) -> &Summary {
        &self.intake.summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_with_its_line() {
        let record = parse(b" M 1FFEffe7e8,16\r\nI  ").unwrap();
        assert_eq!(
            record,
            Record {
                kind: Kind::Modify,
                address: 0x1f_feff_e7e8,
                size: 16,
                length: 18,
            }
        );
    }

    #[test]
    fn what_is_not_quite_a_record_is_none() {
        for text in [
            &b"I  04,3"[..],
            b"I  04\n",
            b"I  ,3\n",
            b"I  04,\n",
            b"I 04,3\n",
            b"J  04,3\n",
            b"I  0g,3\n",
            b"I  04,70000\n",
            b"I  04,99999999999999999999999\n",
            b"I  00000000000000001,3\n",
            b"",
        ] {
            assert_eq!(parse(text), None, "{}", text.escape_ascii());
        }
    }
}
