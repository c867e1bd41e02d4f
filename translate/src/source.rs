//! Where references come from: a synthetic stream or a recording, delivered in batches.

use std::fmt;
use std::io;
use std::path::PathBuf;

use x86::Reference;

/// Number of a thread of the traced program, from 0 in the order of appearance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub u32);

/// References of one thread, in its order. Between batches the thread may change.
#[derive(Debug, Default)]
pub struct Batch {
    /// Who made them.
    pub thread: ThreadId,
    /// The references. A source clears and refills this, and keeps its allocation.
    pub references: Vec<Reference>,
}

/// References a source puts into a batch if it has them: few enough to stay in a host's first-level
/// cache (32 KiB at least; 8 bytes each), many enough that the call is free.
pub const BATCH: usize = 1024;

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file cannot be opened, read, unpacked or written.
    #[error("cannot {action} {}: {error}", path.display())]
    File {
        /// What was tried: a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system, or the decompressor, says.
        error: io::Error,
    },
    /// A recording is not what it claims to be, or is of a kind that cannot be read.
    #[error("{0}")]
    Recording(Box<Defect>),
}

impl SourceError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, error: io::Error) -> Self {
        let path = path.into();
        SourceError::File { action, path, error }
    }
}

impl From<Defect> for SourceError {
    fn from(defect: Defect) -> Self {
        SourceError::Recording(Box::new(defect))
    }
}

/// What is wrong with a recording, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}{problem}; {remedy}", path.display(), At(*place))]
pub struct Defect {
    /// The recording.
    pub path: PathBuf,
    /// Where in it, unless all of it is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub problem: String,
    /// A way out.
    pub remedy: String,
}

/// A place in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line, from 1.
    Line(u64),
    /// A byte of the file, from 0.
    Byte(u64),
    /// A byte of what the compressed file holds, from 0.
    Unpacked(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Byte(byte) => write!(f, "byte {byte}"),
            Place::Unpacked(byte) => write!(f, "byte {byte} of the unpacked contents"),
        }
    }
}

/// The place as the head of a message.
struct At(Option<Place>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |place| write!(f, "{place}: "))
    }
}

/// A supply of references.
pub trait Source {
    /// Replaces the contents of `batch` with the next references, at most [`BATCH`], of one thread.
    /// An empty batch is the end.
    ///
    /// # Errors
    /// If the recording cannot be read or is not what it claims to be.
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError>;
}

impl<S: Source + ?Sized> Source for &mut S {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        (**self).next_batch(batch)
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        (**self).next_batch(batch)
    }
}
