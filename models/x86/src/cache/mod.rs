//! The caches between the page walker and memory.

mod geometry;

pub use geometry::{CacheArray, CacheGeometry, Inclusion, LINE_BYTES, LastLevel};
