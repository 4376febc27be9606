//! Tests of the whole crate: on fake tools, and on the real ones in network namespaces of their own.

mod kernel;
pub(crate) mod program;
