//! Results and their renderings. [`schema`] is the contract; everything else only reads it.
pub mod schema;
