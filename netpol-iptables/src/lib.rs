//! A dataplane that enforces netpol programs with iptables and ipset.
//!
//! It owns chains and sets whose names begin with `NP` and `np`, and jumps to them in the built-in chains, and touches
//! nothing else. Endpoints are found by interface or by address, and judged by chains that are shared by all endpoints
//! with equal policy. A verdict to allow returns, so that other owners' rules still judge the packet. It works with both
//! flavours of iptables, and never with both at once.
//!
//! It does not decide what policy means: that is the work of [`netpol_core`].
//!
//! - [`IptablesDataplane`] is the [`Dataplane`]; [`IptablesConfig`] says what it is called and where it stands among
//!   others.
//! - [`IptablesError`] says why it could not be opened or could not do something.
//!
//! # Enforcing
//!
//! ```no_run
//! use netpol_core::{Dataplane, Engine, NodeConfig};
//! use netpol_iptables::{IptablesConfig, IptablesDataplane};
//!
//! let mut dataplane = IptablesDataplane::open(IptablesConfig::default())?;
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
//! # Ok::<(), netpol_iptables::IptablesError>(())
//! ```
//!
//! # Guarantees
//!
//! - The chains of a family change in one step. What they need is made before, what is left over is removed after. Every
//!   step is idempotent.
//! - Members of sets change in place where a packet meets the old ones or the new ones; otherwise the sets are made anew and
//!   switched together with the chains. A delta of members that can change in place is one run of `ipset`; any other is
//!   applied as its whole program.
//! - What fails before the sweep is taken back.
//! - Names and comments of our objects are digests. A process that starts finds what an earlier one left, and changes
//!   only what differs; packets are judged all the while. It waits for tools that outlive an earlier process.
//! - What tenants name never reaches a command line, a script or the kernel. Log messages carry ids of rules ([`Logging`]).
//! - What comes in on an endpoint's interface and does not carry one of its addresses is dropped, in every state of a flow.
//!   ICMP errors that it sends are taken for a part of a flow only if it is an end of that flow.
//! - What policy denies is dropped, or answered if the program wants that, in the table `filter`: TCP with a reset, all
//!   else with ICMP. What isolated endpoints send, forged sources, and what policy of host endpoints denies before
//!   destination NAT are always dropped.
//!
//! # Limits
//!
//! - iptables 1.8 with `iptables-save` and `iptables-restore` of the flavour in use, ipset 7, and the kernel's set,
//!   conntrack, multiport, limit and NFLOG matches, and its `REJECT` if denials are answered. The legacy flavour needs
//!   `CAP_NET_RAW` beside `CAP_NET_ADMIN`, and a writable `/run/xtables.lock`, or another file named by `XTABLES_LOCKFILE`.
//! - IPv4 and IPv6 are two tables, which change one after the other. So are `raw` and `mangle`, where policy of host
//!   endpoints judges untracked packets, and before destination NAT: while they change, a packet may meet one bucket of the
//!   old policy and another one of the new. They are used only if there is such policy, and need the kernel's `CT` and `MARK`
//!   targets; the mark is a bit that nobody else may use ([`IptablesConfig::mark`]).
//! - Host endpoints need [`TableName::Filter`]. An interface of the host whose name iptables does not take is an error, as
//!   no chain could close it.
//! - In the table `filter`, the first packet of the node itself to an unknown interface passes if it goes by way of a Service's
//!   address: the hook still sees the interface that was chosen before. No answer passes where such interfaces are closed.
//! - A rule of ours that somebody changes is noticed by its comment, sets and target; another change of it is not.
//! - The first packet of a flow meets about as many rules of other endpoints as four times the square root of their number;
//!   how many depends on the names of interfaces. A policy set has at most 10 chains in a row: the nft flavour follows no
//!   more than 15 below a built-in one.
//! - An endpoint that is known by its address can forge that of another one.
//! - Endpoints in audit mode pass; their verdicts are not reported.
//! - Established flows go on when policy changes, unless the program has those stop that it denies: their replies are then
//!   looked for in conntrack's zone 28272, which nobody else may use. They end when their endpoint goes, is isolated, or
//!   loses its address to another; of what changed while no process was running, only new flows notice.
//! - IP protocol 0 and ICMP type 255 cannot be matched; endpoints whose policy names them are isolated.
//!
//! # Features and versions
//!
//! There are no features. Rust 1.95 or later. How it fits together is told in `ARCHITECTURE.md` in the repository.

#![forbid(unsafe_code)]
#![doc(test(attr(deny(warnings))))]

mod dataplane;
mod enforced;
mod error;
mod name;
mod observe;
mod plan;
mod probe;
mod render;
mod restore;
mod ruleset;
mod transport;

pub use self::dataplane::{IptablesConfig, IptablesDataplane};
pub use self::error::IptablesError;
pub use self::name::{Owner, OwnerError};
pub use netpol_netfilter::{LogPrefix, LogPrefixError, LogRate, LogRateError, Logging, Period};

pub use self::probe::{Flavour, PodNetwork, TableName};

#[cfg(test)]
mod tests;
#[cfg(doc)]
use netpol_core::Dataplane;
