//! Importers: recordings of real programs become scenarios.
//!
//! An importer understands what a model of memory management can replay, and counts what it
//! leaves out: its summary accounts for every call of the log, and its assumptions travel in the
//! notes of the scenario.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

pub mod strace;

/// Opens a log, decompressing it when it begins with gzip's magic number, whatever its name.
///
/// # Errors
///
/// When the file cannot be opened or its first bytes cannot be read.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut plain = BufReader::new(File::open(path)?);
    let packed = plain.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    Ok(if packed {
        Box::new(BufReader::new(MultiGzDecoder::new(plain)))
    } else {
        Box::new(plain)
    })
}
