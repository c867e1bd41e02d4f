//! What can be wrong with a log or with the wishes of its importer.

use std::io;

/// How a log is recorded.
pub const RECORD_WITH: &str = "record with strace -f -ttt -T -e \
     trace=%memory,%process,ftruncate,truncate,fallocate,openat,close,memfd_create,dup2,dup3 -o FILE PROGRAM";

/// Why a log could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The text is not the output of strace.
    #[error("{file}:{line}: `{text}`: not the output of strace; {RECORD_WITH}")]
    NotStrace {
        /// Name of the log.
        file: String,
        /// First line that could not be understood.
        line: u64,
        /// Its text, shortened.
        text: String,
    },
    /// The compressed log ends in the middle.
    #[error("{file}:{line}: the compressed log ends too early: copy the whole file again")]
    Truncated {
        /// Name of the log.
        file: String,
        /// Line that could not be completed.
        line: u64,
    },
    /// The log could not be read.
    #[error("{file}:{line}: the log cannot be read: {source}")]
    Read {
        /// Name of the log.
        file: String,
        /// Line that could not be read.
        line: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The log holds no process that did anything.
    #[error("{file}: the log holds no call of any process; {RECORD_WITH}")]
    Empty {
        /// Name of the log.
        file: String,
    },
    /// A secondary MMU cannot be attached as wished.
    #[error("{file}: cannot attach `{spec}`: {wrong}")]
    Attach {
        /// Name of the log.
        file: String,
        /// The wish.
        spec: String,
        /// Why not, and what would do.
        wrong: String,
    },
}

/// Shortens a line for a message.
pub(super) fn clip(text: &str) -> String {
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
