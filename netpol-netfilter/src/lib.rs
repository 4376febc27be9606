//! What the dataplanes that stand on netfilter share: flows that must end although policy keeps established ones.
//!
//! When an endpoint goes, or its address passes to another one, or it is isolated, its flows are forgotten. Otherwise
//! the rule that lets established flows pass would let them reach the next owner of the address.
//!
//! - [`Holders`] knows who had which address, and so which flows end with an update.
//! - [`Conntrack`] forgets tracked flows, over netlink.

#![forbid(unsafe_code)]

mod conntrack;
mod holders;
mod message;

pub use self::conntrack::Conntrack;
pub use self::holders::Holders;
