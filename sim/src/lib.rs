//! The simulation engine. Knows nothing of MMUs.
mod time;
pub use time::{CpuId, CpuSet, Cycles, MAX_CPUS};
