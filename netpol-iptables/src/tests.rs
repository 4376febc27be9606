//! Tests of the whole crate: on fake tools, and on the real ones in network namespaces of their own.

mod adoption;
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code, of which those of the core use the rest"
)]
#[path = "../../netpol-core/tests/support/cluster.rs"]
mod cluster;
mod deltas;
mod fake;
mod flows;
#[expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]
#[path = "../../netpol-core/tests/support/history.rs"]
mod history;
mod host_laws;
mod host_meaning;
mod host_packets;
#[expect(clippy::unwrap_used, clippy::panic, reason = "test code")]
#[path = "../../netpol-core/tests/support/hosts.rs"]
mod host_support;
mod host_tables;
mod hosts;
mod kernel;
mod laws;
mod logging;
pub(crate) mod meaning;
pub(crate) mod program;
mod reject;
#[expect(clippy::unwrap_used, reason = "test code")]
#[path = "../../netpol-core/tests/support/unknown.rs"]
mod unknown;
