//! Conversion of any recording into the compact form.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::compact::CompactWriter;
use super::summary::Summary;
use super::{Format, Recording, open, open_as};
use crate::source::{Batch, Defect, SourceError};

/// Converts a recording into the compact form; its format is recognised unless the caller knows it.
///
/// The result appears under its name when it is complete, and not at all if something goes wrong.
///
/// # Errors
/// If the recording cannot be read, or the result cannot be written.
pub fn import(from: &Path, format: Option<Format>, to: &Path) -> Result<Summary, SourceError> {
    refuse_same(from, to)?;
    let mut recording = match format {
        Some(format) => open_as(from, format)?,
        None => open(from)?,
    };
    let partial = partial(to);
    let written = write(&mut *recording, &partial)
        .and_then(|()| fs::rename(&partial, to).map_err(|error| SourceError::file("write", to, error)));
    if let Err(error) = written {
        // What went wrong first is what matters; a partial file that stays behind says so by its name.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    Ok(recording.summary().clone())
}

fn write(recording: &mut dyn Recording, to: &Path) -> Result<(), SourceError> {
    let unwritable = |error| SourceError::file("write", to, error);
    let file = File::create(to).map_err(unwritable)?;
    let mut writer = CompactWriter::new(file).map_err(unwritable)?;
    let mut batch = Batch::default();
    loop {
        recording.next_batch(&mut batch)?;
        if batch.references.is_empty() {
            writer.finish().map_err(unwritable)?;
            return Ok(());
        }
        writer.write(&batch).map_err(unwritable)?;
    }
}

/// Where the result grows.
fn partial(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn refuse_same(from: &Path, to: &Path) -> Result<(), SourceError> {
    let same = matches!((from.canonicalize(), to.canonicalize()), (Ok(from), Ok(to)) if from == to);
    if same {
        return Err(Defect {
            path: to.to_owned(),
            place: None,
            problem: "this is the recording that is being converted".into(),
            remedy: "write to another file".into(),
        }
        .into());
    }
    Ok(())
}
