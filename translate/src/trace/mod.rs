//! Recordings: what programs really touched, as other tools write it down.
//!
//! [`open`] recognises the format by its contents, unpacks gzip and xz on the fly, and reads in constant
//! memory. [`import()`] converts any format into the compact one, which is an order of magnitude faster
//! to read. What a format holds and this reader cannot deliver is counted in the [`Summary`]; what makes
//! no sense is an error that says where.

mod champsim;
pub mod compact;
mod import;
mod input;
mod intake;
mod lackey;
mod looped;
mod memtrace;
mod recognise;
mod repeated;
mod summary;

use std::fmt;
use std::io::Read;
use std::path::Path;

pub use compact::CompactWriter;
pub use import::import;
pub use looped::Looped;
pub use repeated::{MOST_KEPT, Repeated};
pub use summary::{Counts, Reason, Remark, Skipped, Summary};

use crate::source::{Source, SourceError};
use input::Input;

/// Formats of recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text of `valgrind --tool=lackey --trace-mem=yes`.
    Lackey,
    /// The final trace of DynamoRIO's drmemtrace.
    Memtrace,
    /// Instructions as ChampSim reads them.
    ChampSim,
    /// This project's own, see [`compact`].
    Compact,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] = [
        Format::Lackey,
        Format::Memtrace,
        Format::ChampSim,
        Format::Compact,
    ];

    /// The name, as on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Lackey => "lackey",
            Format::Memtrace => "memtrace",
            Format::ChampSim => "champsim",
            Format::Compact => "compact",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A recording under way.
pub trait Recording: Source + Send {
    /// Its format.
    fn format(&self) -> Format;

    /// What has been read so far.
    fn summary(&self) -> &Summary;
}

/// Opens a recording of whatever format.
///
/// # Errors
/// If the file cannot be read, or is no recording of a known format.
pub fn open(path: &Path) -> Result<Box<dyn Recording>, SourceError> {
    let mut input = Input::open(path)?;
    let format = recognise::format(&mut input)?;
    reader(input, format)
}

/// Opens a recording of a format that the caller knows.
///
/// # Errors
/// If the file cannot be read.
pub fn open_as(path: &Path, format: Format) -> Result<Box<dyn Recording>, SourceError> {
    reader(Input::open(path)?, format)
}

/// Reads a recording from anywhere, under the name that messages shall give it; the format is recognised
/// unless the caller knows it.
///
/// # Errors
/// If it cannot be read, or is no recording of a known format.
pub fn read(
    name: &Path,
    from: impl Read + Send + 'static,
    format: Option<Format>,
) -> Result<Box<dyn Recording>, SourceError> {
    let mut input = Input::new(name, from)?;
    let format = match format {
        Some(format) => format,
        None => recognise::format(&mut input)?,
    };
    reader(input, format)
}

fn reader(input: Input, format: Format) -> Result<Box<dyn Recording>, SourceError> {
    Ok(match format {
        Format::Lackey => Box::new(lackey::Lackey::new(input)),
        Format::Memtrace => Box::new(memtrace::Memtrace::new(input)),
        Format::ChampSim => Box::new(champsim::ChampSim::new(input)),
        Format::Compact => Box::new(compact::Compact::new(input)?),
    })
}
