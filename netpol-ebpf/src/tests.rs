//! Tests on the real kernel, each in a network namespace of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

pub(crate) mod agreement;
mod crash;
mod deltas;
mod encapsulation;
pub(crate) mod history;
mod lifecycle;
mod measure;
mod object;
mod packet;
mod paths;
mod services;
mod unknown;
mod wire;
pub(crate) mod world;
