//! Tests of the whole crate: on fake tools, and on the real ones in network namespaces of their own.

mod fake;
mod flows;
mod kernel;
mod laws;
mod meaning;
pub(crate) mod program;
