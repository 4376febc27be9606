//! A dataplane that enforces netpol programs with eBPF.

#![doc(test(attr(deny(warnings))))]

mod bpf_fs;
mod config;
mod dataplane;
mod denial;
mod error;
mod ids;
mod maps;
mod namespace;
mod pins;
mod programs;
mod render;
mod state;
mod sys;

pub use self::bpf_fs::PrivateBpfFs;
pub use self::config::{Capacity, EbpfConfig, ForeignSources, Hook};
pub use self::dataplane::EbpfDataplane;
pub use self::denial::{Denial, DenialReason};
pub use self::error::EbpfError;
pub use netpol_ebpf_abi::Statistic;

#[cfg(test)]
mod tests;
