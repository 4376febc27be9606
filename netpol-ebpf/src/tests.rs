//! Tests on the real kernel, each in a network namespace of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod agreement;
mod crash;
mod lifecycle;
mod measure;
mod object;
mod packet;
mod paths;
mod wire;
pub(crate) mod world;
