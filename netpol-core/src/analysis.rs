//! What the policies of a whole cluster come to: who reaches whom, what a change changes, and which rules do nothing.
//!
//! The answers are taken from the flat form of the program that the compiler makes of the inputs, so what is analysed is what
//! is enforced. Addresses that policy treats alike are one [`Class`], and an answer holds for all members of its classes.
//! Nothing is sampled or approximated: where an answer cannot be exact there is an [`AnalysisError`]. A flow that stands for an
//! answer can be given to the [judge](crate::eval::Judge), which shares no code with this and says why.
//!
//! Flows are new ones, after destination NAT: a Service's own address is one that no endpoint has. What no policy of workloads
//! is asked about is in no answer:
//!
//! * neighbour and multicast listener discovery, and router messages (ICMPv6 types 130 to 137 and 143);
//! * traffic between an endpoint and itself, and traffic of an endpoint's own node;
//! * what policy of host endpoints and settings of nodes say: here, host endpoints are peers only, and host-network pods are
//!   their node's addresses.

mod classes;
mod diff;
mod idle;
mod reach;
mod state;
#[cfg(test)]
mod tests;
mod traffic;

use alloc::boxed::Box;
use core::net::IpAddr;

pub use self::classes::{Class, Member};
pub use self::diff::{Diff, Difference, Example, diff, with_staged};
pub use self::idle::{Idle, IdleRule, idle_rules};
pub use self::reach::{Cell, Reachability, reachability};
pub use self::traffic::{Traffic, TrafficPart};
use crate::engine::EngineError;
use crate::flat::{CapacityError, Unclassified};
use crate::flow::{Direction, Flow, Origin};
use crate::model::EndpointId;
use crate::net::Family;

/// Why there is no analysis.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The compiler refuses an object.
    #[error("an object cannot be enforced")]
    Refused(#[from] EngineError),
    /// The rules in force for an endpoint cannot be analysed.
    #[error("the rules in force for {direction} of `{endpoint}` cannot be analysed")]
    Rules {
        /// An endpoint for which they are in force.
        endpoint: EndpointId,
        /// The direction.
        direction: Direction,
        /// Why not.
        source: Box<Unclassified>,
    },
    /// There is too much of everything.
    #[error("the cluster is too large to be analysed")]
    Capacity(#[from] CapacityError),
    /// The judge disagrees about a flow that stands for an answer. One of the two is wrong, so there is no answer.
    #[error("compiler and judge disagree about the flow {flow}")]
    Disagreement {
        /// The flow.
        flow: Flow,
    },
}

/// Returns one flow for each part of some traffic from an address to an address, as far as policy is asked about it.
fn flow_with(
    traffic: &Traffic,
    source: IpAddr,
    destination: IpAddr,
) -> impl Iterator<Item = Flow> + '_ {
    let family = Family::of(destination);
    let asked = match family {
        Family::V4 => traffic.clone(),
        Family::V6 => traffic.difference(&Traffic::discovery()),
    };
    let parts: alloc::vec::Vec<_> = asked.parts(family).collect();
    parts.into_iter().map(move |part| Flow {
        source,
        destination,
        payload: part.example(family),
        origin: Origin::Endpoint,
    })
}
