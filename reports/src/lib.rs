//! Results and their renderings. [`schema`] is the contract; everything else only reads it.
//!
//! | wanted | function |
//! |---|---|
//! | terminal tables | [`text::run_text`], [`text::compare_text`], [`text::translate_text`] |
//! | one self-contained HTML file | [`html::run_html`], [`html::compare_html`] |
//! | rows for other tools | [`csv`], [`ndjson`] |
//! | side by side with statistics | [`compare::compare`], [`compare::gate`] |
//! | a timeline | [`trace::perfetto`], [`trace::ftrace`] |
//!
//! The crate never prints and never reads a clock: the same result gives the same bytes.
#[cfg(test)]
extern crate self as reports;

pub mod compare;
mod config;
pub mod csv;
mod figures;
mod flat;
pub mod glossary;
mod groups;
mod headline;
pub mod html;
pub mod load;
pub mod ndjson;
pub mod schema;
mod stats;
mod svg;
pub mod text;
pub mod trace;
mod translated;
mod verdict;

pub use flat::figure;

#[cfg(test)]
#[path = "../tests/common/sample.rs"]
mod sample;

#[cfg(test)]
#[path = "../tests/common/translation.rs"]
mod translation;
