//! Command line of mmusim.
fn main() {}
