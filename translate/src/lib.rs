//! Address translation alone: access streams and recordings through the MMUs of a machine, without
//! an operating system above them.

pub mod source;
pub mod stream;
pub mod trace;

pub use source::{Batch, Source, SourceError, ThreadId};
