//! A dataplane that enforces netpol programs with eBPF.
//!
//! One program for each direction is attached to the host's side of each endpoint's interface: with TCX, or as a filter of
//! clsact where the kernel is older than 6.6. Policy is in maps, in the flat form of [`netpol_core::flat`], so that a packet
//! costs the same whatever the number of rules. Flows are in maps of ours too. It does not decide what policy means: that is the
//! work of [`netpol_core`].
//!
//! - [`EbpfDataplane`] is the [`Dataplane`]; [`EbpfConfig`] says what it is called, how much it holds and how it attaches.
//! - [`Denial`]s tell of dropped packets, [`Statistic`]s of everything else that the programs count.
//! - [`EbpfError`] says why it could not be opened or could not do something.
//!
//! # Enforcing
//!
//! ```no_run
//! use netpol_core::{Dataplane, Engine, NodeConfig};
//! use netpol_ebpf::{EbpfConfig, EbpfDataplane};
//!
//! let mut dataplane = EbpfDataplane::open(EbpfConfig::default())?;
//! let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());
//! // … feed it with endpoints and policies …
//! engine.inputs_complete();
//! while let Some(update) = engine.poll_update() {
//!     let outcome = dataplane.apply(update);
//!     engine.handle_applied(outcome);
//!     if engine.last_error().is_some() {
//!         break; // and try again after a while
//!     }
//! }
//! # Ok::<(), netpol_ebpf::EbpfError>(())
//! ```
//!
//! # Guarantees
//!
//! - An update is written beside what is in force; then each endpoint is switched with one store to memory, both directions
//!   at once. A packet meets the old policy or the new one.
//! - Programs, links and maps are pinned: enforcement goes on while no process runs, and a new process adopts it without a
//!   gap, flows included.
//! - What passes goes on to the next program at the interface; other owners still judge it.
//! - What tenants name never reaches the kernel.
//!
//! # Limits
//!
//! - Linux 5.10 or later, root, and a BPF file system. Tested on 6.1 and 6.18; x86-64 and other little-endian machines.
//! - Endpoints are known by an interface with Ethernet headers. Those that are known by an address are refused.
//! - Packets are judged as they pass the interface: what goes to a Service before the node translates it, a source after
//!   source NAT. So a Service is allowed if policy allows all its backends, and denied where policy applies and it has none;
//!   that goes for a pod that is its own Service's backend, too. Nothing waits to be judged when it has been translated.
//!   What others than Services translate is judged as it stands, and so are node ports of addresses that the Node object
//!   does not list. Log rules are not supported, and denials are
//!   silent.
//! - Nothing judges traffic of the node's own interfaces: an engine refuses host endpoints of its node, and settings that keep
//!   workloads from it, and a program that asks for either is an error ([`EbpfError::Hosts`]).
//! - Workloads can be kept from [four UDP ports](netpol_core::model::HostSettings::denied_encapsulation) of tunnels at most. They are
//!   asked about before a Service's address is translated, so a Service leads to its backends' port of a tunnel.
//! - One process at a time for each owner and network namespace; [`EbpfDataplane::open`] refuses to be the second.
//! - Fragments pass after the first one of their datagram only. Those that the node itself makes without a socket, as of
//!   tunnels, are judged like those of others, because the kernel forgets where fragments came from.
//! - Flows end early when the maps of flows are full: those that were not used for longest are forgotten first. Maps of
//!   another version or [`Capacity`] begin without flows.
//! - Nothing judges the packets of an interface before programs are attached to it. An [unknown interface](netpol_core::model::UnknownInterfaces)
//!   that appears is open until the next update or [`EbpfDataplane::close_unknown`] finds it; an audit tells of it. Whoever adds
//!   interfaces closes that window: tell the engine of the endpoint, and wait for its
//!   [gate](netpol_core::Engine::gate), before the interface is up or has an address.
//! - An endpoint whose interface does not exist is reported and tried again with the next update.
//!
//! # Features and versions
//!
//! There are no features. Rust 1.95 or later; the kernel program comes compiled. How it fits together is told in
//! `ARCHITECTURE.md` in the repository.

#![doc(test(attr(deny(warnings))))]

mod bpf_fs;
mod config;
mod dataplane;
mod denial;
mod error;
mod ids;
mod live;
mod maps;
mod namespace;
mod pins;
mod programs;
mod render;
mod state;
mod sys;

pub use netpol_ebpf_abi::Statistic;

pub use self::bpf_fs::PrivateBpfFs;
pub use self::config::{Capacity, EbpfConfig, ForeignSources, Hook};
pub use self::dataplane::EbpfDataplane;
pub use self::denial::{Denial, DenialReason};
pub use self::error::EbpfError;

#[cfg(test)]
mod tests;
#[cfg(doc)]
use netpol_core::Dataplane;
