//! Tests of the whole crate: on fake tools, and on the real ones in network namespaces of their own.

mod adoption;
mod fake;
mod flows;
mod hosts;
mod kernel;
mod laws;
pub(crate) mod meaning;
pub(crate) mod program;
