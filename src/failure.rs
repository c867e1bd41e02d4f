//! Errors of usage, of scenarios and of files. All of them end the program with
//! [`crate::exit::USAGE`].

use std::fmt::Display;
use std::io;
use std::path::Path;

use scenarios::diagnostic::Diagnostics;

/// Why there is no verdict.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Said in one sentence.
    Plain(String),
    /// Findings about scenario files.
    Findings(Box<Diagnostics>),
    /// Was reported already.
    Reported,
}

impl Failure {
    /// A failure in one sentence.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure::Plain(message.into())
    }

    /// A file that cannot be used.
    pub(crate) fn file(path: &Path, what: impl Display) -> Failure {
        Failure::Plain(format!("{}: {what}", path.display()))
    }
}

impl From<Diagnostics> for Failure {
    fn from(found: Diagnostics) -> Failure {
        Failure::Findings(Box::new(found))
    }
}

/// An input or output error in words, without the operating system's error number.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "a part of the path is not a directory".to_owned(),
        io::ErrorKind::StorageFull => "no space is left on the device".to_owned(),
        _ => error.to_string(),
    }
}
