//! The scenario language, its checker, the builder of simulated worlds, and importers.
pub mod ast;
pub mod check;
pub mod diagnostic;
pub mod import;
pub mod load;
pub mod run;
pub mod schema;
