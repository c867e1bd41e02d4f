//! From a file to a checked scenario: read, parse, merge with what it extends, hold against the
//! schema, deserialise. Each step reports errors at the place in the file.

mod extends;
mod parse;
pub mod source;
mod validate;
mod wording;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use x86::Machine;

use crate::ast::Scenario;
use crate::diagnostic::suggest::quote;
use crate::diagnostic::{Code, Diagnostic, Diagnostics};

use source::SourceFile;

pub use extends::MAX_EXTENDS;
pub use source::SourceMap;

/// Largest scenario file, in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// Deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 64;

/// A scenario that has the right shape; whether it makes sense is for
/// [`check`](crate::check::check) to say.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The scenario, `extends` resolved; the path of a machine file is seen from the working directory.
    pub scenario: Scenario,
    /// Where each value was written.
    pub map: SourceMap,
    /// The merged file as JSON, without comments and `extends`.
    pub resolved: serde_json::Value,
}

/// Why a [`Resolver`] cannot deliver a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// Kind of failure.
    pub code: Code,
    /// What is wrong, without the name of the file.
    pub message: String,
}

impl ReadError {
    fn new(code: Code, message: impl Into<String>) -> Self {
        ReadError {
            code,
            message: message.into(),
        }
    }
}

/// Finds and reads the files that `extends` names.
pub trait Resolver {
    /// Name of the file that `target` means in the file `from`. Equal files get equal names.
    ///
    /// # Errors
    /// Says why the target cannot be used.
    fn locate(&self, from: &str, target: &str) -> Result<String, String> {
        relative(from, target)
    }

    /// Content of the file of this name.
    ///
    /// # Errors
    /// Says why it cannot be read.
    fn read(&self, name: &str) -> Result<Vec<u8>, ReadError>;
}

/// Reads from the file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileSystem;

impl Resolver for FileSystem {
    fn read(&self, name: &str) -> Result<Vec<u8>, ReadError> {
        read_path(Path::new(name))
    }
}

/// Files held in memory, by name; with none, every `extends` is refused.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(pub BTreeMap<String, Vec<u8>>);

impl Resolver for MemoryFiles {
    fn read(&self, name: &str) -> Result<Vec<u8>, ReadError> {
        let file = self.0.get(name).cloned();
        file.ok_or_else(|| ReadError::new(Code::Unreadable, "there is no such file"))
    }
}

/// Loads a scenario file and what it extends.
///
/// # Errors
/// All errors that can be found in one pass; none of them is about the meaning.
pub fn load_file(path: &Path) -> Result<Loaded, Diagnostics> {
    let name = path.to_string_lossy().into_owned();
    let bytes = read_path(path).map_err(|error| {
        let message = format!("{} cannot be read: {}", quote(&name), error.message);
        let found = Diagnostic::new(error.code, name.clone(), message);
        Diagnostics::from(found.with_help("`mmusim list scenarios FOLDER` names the scenarios of a folder"))
    })?;
    load_bytes(&name, &bytes, &FileSystem)
}

/// Loads a scenario from text; `name` stands for the file in diagnostics and is what the targets
/// of `extends` are relative to.
///
/// # Errors
/// As [`load_file`].
pub fn load_str(name: &str, text: &str, resolver: &dyn Resolver) -> Result<Loaded, Diagnostics> {
    load_bytes(name, text.as_bytes(), resolver)
}

/// Loads a scenario from bytes that need not be text.
///
/// # Errors
/// As [`load_file`].
pub fn load_bytes(name: &str, bytes: &[u8], resolver: &dyn Resolver) -> Result<Loaded, Diagnostics> {
    let text = text_of(name, bytes)?;
    let mut files = vec![SourceFile::new(name, text)];
    let root = extends::resolve(&mut files, resolver)?;
    let found = validate::validate(&crate::schema::scenario_schema(), &files, &root);
    if found.has_errors() {
        return Err(found);
    }
    let resolved = root.to_json();
    let map = SourceMap { files, root };
    match Scenario::deserialize(&resolved) {
        Ok(mut scenario) => {
            if Machine::is_path(&scenario.machine) {
                let place = map.locate(&["machine"], source::Part::Value);
                let from = map.files.get(place.file as usize).map_or(name, |file| &file.name);
                let folder = Path::new(from).parent().unwrap_or(Path::new(""));
                scenario.machine = normalise(&folder.join(&scenario.machine));
            }
            Ok(Loaded {
                scenario,
                map,
                resolved,
            })
        }
        Err(error) => {
            let message = format!("the scenario was refused: {error}");
            Err(map.diagnose(Code::Refused, map.root.place, message).into())
        }
    }
}

/// The text of a file, if it is text and not too much of it.
fn text_of<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Diagnostics> {
    if bytes.len() > MAX_BYTES {
        return Err(Diagnostic::new(Code::TooLarge, name, too_large(name)).into());
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let file = SourceFile::new(name, &good);
        let end = file.text().len();
        let span = file.span(end, end);
        let message = format!(
            "byte 0x{:02x} at offset {} is not UTF-8 text",
            bytes[error.valid_up_to()],
            error.valid_up_to()
        );
        let mut diagnostic = Diagnostic::new(Code::NotUtf8, name, message)
            .with_help("a scenario is a text file in UTF-8; is this one compressed or binary?");
        diagnostic.source_line = Some(file.excerpt(&span));
        diagnostic.span = Some(span);
        diagnostic.into()
    })
}

fn too_large(name: &str) -> String {
    format!("{} is larger than {} MiB", quote(name), MAX_BYTES >> 20)
}

fn read_path(path: &Path) -> Result<Vec<u8>, ReadError> {
    let refused = |error: std::io::Error| ReadError::new(Code::Unreadable, reason(&error));
    let file = std::fs::File::open(path).map_err(refused)?;
    if file.metadata().is_ok_and(|data| data.is_dir()) {
        return Err(ReadError::new(Code::Directory, "it is a directory"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() > MAX_BYTES {
        let message = format!("it is larger than {} MiB", MAX_BYTES >> 20);
        return Err(ReadError::new(Code::TooLarge, message));
    }
    Ok(bytes)
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// `target` seen from the directory of `from`.
fn relative(from: &str, target: &str) -> Result<String, String> {
    if target.is_empty() {
        return Err("`extends` is empty".to_owned());
    }
    if Path::new(target).is_absolute() {
        return Err(format!("{} is not a relative path", quote(target)));
    }
    let base = Path::new(from).parent().unwrap_or(Path::new(""));
    Ok(normalise(&base.join(target)))
}

/// A path with `.` and `..` resolved in the text.
fn normalise(path: &Path) -> String {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_relative_to_the_file() {
        let cases = [
            ("a.jsonc", "b.jsonc", "b.jsonc"),
            ("dir/a.jsonc", "./b.jsonc", "dir/b.jsonc"),
            ("dir/a.jsonc", "../b.jsonc", "b.jsonc"),
            ("a.jsonc", "../b.jsonc", "../b.jsonc"),
            ("../x/a.jsonc", "../../b.jsonc", "../../b.jsonc"),
        ];
        for (from, target, expected) in cases {
            assert_eq!(relative(from, target).as_deref(), Ok(expected), "{from} {target}");
        }
        assert!(relative("a", "/etc/passwd").is_err());
    }
}
