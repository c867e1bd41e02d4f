//! Where references come from: a synthetic stream or a recording, delivered in batches.

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
    Io(#[from] std::io::Error),
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
