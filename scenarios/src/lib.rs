//! The scenario language, its checker, the builder of simulated worlds, and importers.
pub mod ast;
