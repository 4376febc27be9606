//! Tests of the whole crate: on a fake kernel, and on the real one in network namespaces of their own.

mod fake;
mod flows;
mod kernel;
mod laws;
mod meaning;
pub(crate) mod program;
