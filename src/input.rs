//! From a path to a checked scenario: scenario files, recordings, stdin.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use reports::schema::translate::TRANSLATE_SCHEMA;
use reports::schema::{COMPARE_SCHEMA, RUN_SCHEMA};
use scenarios::ast::Scenario;
use scenarios::check;
use scenarios::diagnostic::Diagnostics;
use scenarios::import::strace::{self, Imported};
use scenarios::load::{self, FileSystem, Loaded, MAX_BYTES, MemoryFiles};

use crate::cli::ImportArgs;
use crate::console::Console;
use crate::engine;
use crate::failure::{Failure, reason};

/// Value of `$schema` in scenarios that are written.
const SCHEMA: &str = "scenario.schema.json";

/// Name that stands for stdin in messages and results.
pub(crate) const STDIN: &str = "stdin";

/// A scenario that can be run.
pub(crate) struct Input {
    /// The scenario.
    pub(crate) scenario: Scenario,
    /// Base name of the file.
    pub(crate) file: String,
}

/// What to look at more closely than the file says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes<'a> {
    /// How a recording becomes a scenario.
    pub(crate) import: Option<&'a ImportArgs>,
    /// CPUs, instead of what the scenario says.
    pub(crate) cpus: Option<u32>,
}

/// Loads and checks. Warnings go to the console, errors end the program.
pub(crate) fn scenario(path: &Path, wishes: Wishes<'_>, console: &Console) -> Result<Input, Failure> {
    let (loaded, found) = examine(path, wishes, console)?;
    if found.has_errors() {
        return Err(found.into());
    }
    console.findings(&found);
    Ok(Input {
        scenario: loaded.scenario,
        file: base_name(path),
    })
}

/// Loads and checks; findings about the meaning are handed over.
pub(crate) fn examine(
    path: &Path,
    wishes: Wishes<'_>,
    console: &Console,
) -> Result<(Loaded, Diagnostics), Failure> {
    let mut loaded = if is_recording(path) {
        let imported = import(path, wishes.import)?;
        if let Some(line) = imported.summary.lines().first() {
            console.note(&format!("imported {}: {line}", base_name(path)));
        }
        for warning in &imported.summary.warnings {
            console.warn(&warning.to_string());
        }
        load::load_str(
            &base_name(path),
            &text(imported.scenario),
            &MemoryFiles::default(),
        )?
    } else {
        refuse_import_flags(path, wishes.import)?;
        load(path)?
    };
    if wishes.cpus.is_some() {
        loaded.scenario.cpus = wishes.cpus;
    }
    let found = check::check(&loaded, &engine::known());
    Ok((loaded, found))
}

fn load(path: &Path) -> Result<Loaded, Failure> {
    let loaded = if is_stdin(path) {
        let mut bytes = Vec::new();
        let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        let read = io::stdin().lock().take(limit).read_to_end(&mut bytes);
        read.map_err(|e| Failure::new(format!("stdin cannot be read: {}", reason(&e))))?;
        load::load_bytes(STDIN, &bytes, &FileSystem)
    } else {
        load::load_file(path)
    };
    loaded.map_err(|found| match saved_result(path) {
        Some(schema) => Failure::file(
            path,
            format!("is a saved result (`{schema}`), not a scenario: use `mmusim report`, or `mmusim compare` with two of them"),
        ),
        None => found.into(),
    })
}

/// The schema a saved result names at its start.
fn saved_result(path: &Path) -> Option<&'static str> {
    let mut start = [0; 128];
    let file = std::fs::File::open(path).ok().filter(|_| !is_stdin(path))?;
    let n = file.take(128).read(&mut start).ok()?;
    let start = String::from_utf8_lossy(&start[..n]).into_owned();
    [RUN_SCHEMA, COMPARE_SCHEMA, TRANSLATE_SCHEMA]
        .into_iter()
        .find(|schema| start.contains(&format!("\"{schema}\"")))
}

/// Imports a recording.
pub(crate) fn import(path: &Path, wishes: Option<&ImportArgs>) -> Result<Imported, Failure> {
    let reader: Box<dyn BufRead> = if is_stdin(path) {
        Box::new(BufReader::new(io::stdin()))
    } else if path.is_dir() {
        return Err(Failure::file(path, "is a directory, not a recording"));
    } else {
        let opened = scenarios::import::open(path);
        opened.map_err(|e| Failure::file(path, format!("cannot be read: {}", reason(&e))))?
    };
    let mut options = strace::Options::default();
    if let Some(wishes) = wishes {
        options.touch = wishes.touch.unwrap_or(options.touch);
        options.attach.clone_from(&wishes.attach);
        options.secondary_accesses = wishes.accesses.unwrap_or(options.secondary_accesses);
    }
    strace::import(reader, &base_name(path), &options).map_err(|e| Failure::new(e.to_string()))
}

/// A scenario as the text of a file.
pub(crate) fn text(mut scenario: Scenario) -> String {
    scenario.schema = Some(SCHEMA.to_owned());
    let mut out = serde_json::to_string_pretty(&scenario).expect("a scenario is JSON");
    out.push('\n');
    out
}

fn refuse_import_flags(path: &Path, wishes: Option<&ImportArgs>) -> Result<(), Failure> {
    let flag = match wishes {
        Some(wishes) if wishes.touch.is_some() => "--touch",
        Some(wishes) if !wishes.attach.is_empty() => "--attach",
        Some(wishes) if wishes.accesses.is_some() => "--accesses",
        _ => return Ok(()),
    };
    let why = format!("{flag} is for recordings (*.strace, *.strace.gz); a scenario says so itself");
    Err(Failure::file(path, why))
}

/// Whether a path names a recording rather than a scenario.
pub(crate) fn is_recording(path: &Path) -> bool {
    let name = base_name(path);
    name.ends_with(".strace") || name.contains(".strace.")
}

/// Whether a path stands for stdin.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Name of a file without its folder.
pub(crate) fn base_name(path: &Path) -> String {
    if is_stdin(path) {
        return STDIN.to_owned();
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_are_told_by_their_name() {
        for name in ["a.strace", "dir/a.strace.gz", "a.strace.1234"] {
            assert!(is_recording(Path::new(name)), "{name}");
        }
        for name in ["a.jsonc", "strace.json", "-", "a.strace.d/b.json"] {
            assert!(!is_recording(Path::new(name)), "{name}");
        }
    }
}
