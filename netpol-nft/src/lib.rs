//! A dataplane that enforces netpol programs with nf_tables, over netlink.
//!
//! It owns one table of family `inet` and touches nothing else. Endpoints are found with a map lookup, by interface or
//! by address, and judged by chains that are shared by all endpoints with equal policy. A verdict to allow returns, so
//! that other tables still judge the packet. It does not decide what policy means: that is the work of
//! [`netpol_core`].
//!
//! - [`NftDataplane`] is the [`Dataplane`].
//! - [`NftConfig`] says what it is called, where it stands among others, and how pods are connected ([`PodNetwork`]).
//! - [`NftError`] says why it could not be opened or could not do something.
//!
//! # Enforcing
//!
//! ```no_run
//! use netpol_core::{Dataplane, Engine, NodeConfig};
//! use netpol_nft::{NftConfig, NftDataplane};
//!
//! let mut dataplane = NftDataplane::open(NftConfig::default())?;
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
//! # Ok::<(), netpol_nft::NftError>(())
//! ```
//!
//! # Beside others, and behind a bridge
//!
//! ```no_run
//! use netpol_nft::{NftConfig, NftDataplane, Owner, PodNetwork};
//!
//! let mut config = NftConfig::default();
//! config.owner = Owner::new("netpol-sandboxes")?;
//! config.pods = PodNetwork::Bridged;
//! NftDataplane::open(config)?; // an error where bridges do not call netfilter
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Repairing what somebody else changed, and leaving
//!
//! ```no_run
//! # use netpol_core::{Dataplane, Engine, NodeConfig, Program};
//! # use netpol_nft::{NftConfig, NftDataplane};
//! # let mut dataplane = NftDataplane::open(NftConfig::default())?;
//! # let mut engine = Engine::new(NodeConfig::new("node-a"), dataplane.capabilities());
//! # let program = Program::default();
//! if !dataplane.audit(&program)?.is_none() {
//!     engine.resync(); // the next update is a full one
//! }
//! dataplane.remove()?; // everything that is ours, nothing else
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Logging
//!
//! A Log rule writes to an NFLOG group, with a prefix and at a rate that [`Logging`] says. Names are never logged: a reader
//! finds the policy by the rule's id, in the program that is in force.
//!
//! ```
//! use netpol_core::Program;
//! use netpol_nft::{LogRate, Period, NftConfig};
//!
//! let mut config = NftConfig::default();
//! config.logging.prefix = "netpol %d %i: ".parse()?;
//! config.logging.rate = LogRate::new(100, Period::Minute)?;
//!
//! /// Returns the rule that wrote a message.
//! fn origin(message: &str, program: &Program) -> Option<String> {
//!     let id = message.strip_suffix(": ")?.rsplit(' ').next()?;
//!     Some(program.rule(id.parse().ok()?)?.origin.to_string())
//! }
//! # assert_eq!(origin("netpol in 000000000000000000000000: ", &Program::default()), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - An update is one transaction for everything that packets can meet; what it needs is made before, what it leaves is
//!   removed after. One that is too large for the socket is made in several, each endpoint and direction within one.
//! - A packet that is on its way during an update meets the old policy of an endpoint and direction or the new one: where
//!   sets that change could show it something else, they are made anew and switched to. What it may still meet is not
//!   removed before it is gone, which takes 10 to 30 ms; after a delta nobody waits for that.
//! - A delta costs what it names, not what there is: it is rendered alone, and nothing is read from the kernel.
//! - Names and comments of our objects are digests. A process that starts finds what an earlier one left, and changes
//!   only what differs; packets are judged all the while.
//! - What tenants name never reaches the kernel.
//! - Updates of other owners of nf_tables are no conflict.
//! - What policy denies is dropped, or answered if the program wants that: TCP with a reset, all else with ICMP. What isolated
//!   endpoints send, forged sources, and what policy of host endpoints denies before destination NAT are always dropped.
//!
//! # Limits
//!
//! - Linux 5.10 or later, nf_tables with the `inet` family and conntrack; no more than 4096 endpoints. Log rules need the
//!   kernel's `limit` and `log`, and denials that are answered its `reject` (`CONFIG_NFT_REJECT_INET`).
//! - An endpoint that is known by its address can forge that of another one, and so get around its own policy. Its router
//!   advertisements are dropped only if they carry an address of an endpoint.
//! - What an endpoint that is known by its interface sends from addresses that are not its own is dropped; to the node
//!   itself, addresses of the link and none at all pass too. ICMP errors about flows of others are judged by policy. An
//!   endpoint without any address is not held to one.
//! - Endpoints in audit mode pass; their verdicts are not reported.
//! - Established flows go on when policy changes, unless the program has those stop that it denies: their replies are then
//!   looked for in conntrack's zone 28272, which nobody else may use. They end when their endpoint goes, is isolated, or
//!   loses its address to another; of what changed while no process was running, only new flows notice.
//!
//! # Features and versions
//!
//! There are no features. Building needs Rust 1.95 or later, libmnl, libnftnl 1.2.0 or later and pkg-config. How it fits
//! together is told in `ARCHITECTURE.md` in the repository.

#![doc(test(attr(deny(warnings))))]

mod attribute;
mod dataplane;
mod encode;
mod enforced;
mod error;
mod expression;
mod name;
mod observe;
mod operation;
mod plan;
mod probe;
mod render;
mod ruleset;
mod sys;
mod transport;

pub use self::dataplane::{NftConfig, NftDataplane};
pub use self::error::NftError;
pub use self::name::{Owner, OwnerError};
pub use self::probe::PodNetwork;
pub use netpol_netfilter::{LogPrefix, LogPrefixError, LogRate, LogRateError, Logging, Period};

#[cfg(test)]
mod tests;
#[cfg(doc)]
use netpol_core::Dataplane;
