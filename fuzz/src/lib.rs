//! What holds for every input: each target takes arbitrary bytes and panics where something does not hold.
//!
//! The targets of cargo-fuzz call these functions, and so do the tests that replay the corpus on a stable compiler.

pub mod cidr;
pub mod documents;
pub mod selector;
