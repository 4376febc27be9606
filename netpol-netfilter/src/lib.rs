//! What the dataplanes that stand on netfilter share: flows that must end although policy keeps established ones,
//! how Log rules log, and when sets may change in place.
//!
//! When an endpoint goes, or its address passes to another one, or it is isolated, its flows are forgotten. Otherwise
//! the rule that lets established flows pass would let them reach the next owner of the address.
//!
//! - [`EndingFlows`] knows which flows must end with an update, and keeps them until they have.
//! - [`Holders`] knows who had which address.
//! - [`Logging`] says what Log rules write, and how often.
//! - [`Lookups`] says when sets may change in place, so that packets on their way meet the old policy or the new one.
//! - [`Grace`] says when packets are gone that may still meet what is no longer needed.
//! - [`Conntrack`] forgets tracked flows, and stops those that a program denies, over netlink.

#![forbid(unsafe_code)]

mod conntrack;
mod ending;
mod grace;
mod holders;
mod local;
mod logging;
mod lookups;
mod message;
mod reevaluate;
mod tuple;

pub use self::conntrack::Conntrack;
pub use self::ending::EndingFlows;
pub use self::grace::{Grace, wait_for_packets};
pub use self::holders::Holders;
pub use self::logging::{LogPrefix, LogPrefixError, LogRate, LogRateError, Logging, Period};
pub use self::lookups::{Effect, Lookups, Way};
