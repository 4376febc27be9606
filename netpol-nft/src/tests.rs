//! Tests of the whole crate: on a fake kernel, and on the real one in network namespaces of their own.

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
mod host_meaning;
#[expect(clippy::unwrap_used, clippy::panic, reason = "test code")]
#[path = "../../netpol-core/tests/support/hosts.rs"]
mod hosts;
mod kernel;
mod laws;
mod logging;
mod meaning;
mod on_the_way;
pub(crate) mod program;
mod reject;
#[expect(clippy::unwrap_used, reason = "test code")]
#[path = "../../netpol-core/tests/support/unknown.rs"]
mod unknown;

use self::hosts as host_support;
