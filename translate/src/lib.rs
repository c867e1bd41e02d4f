//! Address translation alone: access streams and recordings through the MMUs of a machine, without
//! an operating system above them.

mod ahead;
pub mod describe;
pub mod engine;
pub mod frames;
pub mod mapping;
pub mod pages;
mod portions;
pub mod result;
pub mod reuse;
pub mod source;
pub mod stream;
pub mod tally;
pub mod trace;
pub mod translator;

pub use source::{Batch, Source, SourceError, ThreadId};
pub use translator::{Reuse, Task, TranslateError, Translator, Unsupported};
