//! The program: all that one node must enforce, resolved and deterministic.
//!
//! Nothing in a program refers to labels, selectors or names of policies that would still have to be looked up: sets
//! hold addresses, rules come in the order in which they are asked, and ids are digests of what they stand for. Equal
//! inputs give equal programs.

mod addresses;
mod digest;
mod frontends;
mod host;
mod host_interp;
mod interp;
mod policy_set;
mod set;
mod unknown;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

pub use self::addresses::Addresses;
pub(crate) use self::digest::digest_of;
pub use self::digest::{Digest, DigestError};
pub use self::frontends::{Backend, Frontend, Frontends};
pub use self::host::{HostEndpoint, Hosts, Interfaces, Passage};
pub use self::interp::Outcome;
pub use self::policy_set::{Address, PolicySet, PolicySetId, Ports, Rule, RuleId, Stage, StageEnd};
pub(crate) use self::policy_set::{block_digest, policy_set_id, stage_digest};
pub use self::set::{AddressSet, Members, SetDefinition, SetId};
use crate::flow::Direction;
use crate::model::{Attachment, EndpointId, Mode, UnknownInterfaces};

/// All that one node must enforce.
///
/// Invariants: every id that is referred to is in the maps, and everything in the maps is referred to.
///
/// A clone shares the sets, which are copied when one of the two changes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Program {
    /// The endpoints of the node, in the order of their ids.
    pub endpoints: Vec<Endpoint>,
    /// What it enforces on its own interfaces.
    pub hosts: Hosts,
    /// The policy sets that endpoints refer to.
    pub policy_sets: BTreeMap<PolicySetId, Arc<PolicySet>>,
    /// The address sets that rules refer to.
    pub address_sets: BTreeMap<SetId, Arc<AddressSet>>,
    /// The addresses that the node translates after the dataplane has judged; none for a dataplane that judges afterwards
    /// ([`DestinationView`](crate::dataplane::DestinationView)).
    pub frontends: Arc<Frontends>,
    /// What happens to established flows that the program denies.
    pub established: Established,
    /// What becomes of packets at interfaces that look like those of endpoints and belong to none.
    pub unknown: UnknownInterfaces,
    /// What the senders of denied packets hear.
    pub denial: Denial,
}

/// An endpoint of the node.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Which endpoint this is.
    pub id: EndpointId,
    /// How its packets are known.
    pub attachment: Attachment,
    /// The addresses it owns, sorted.
    pub addresses: Vec<IpAddr>,
    /// What is done with its verdicts.
    pub mode: Mode,
    /// What judges traffic into it.
    pub ingress: PolicySetId,
    /// What judges traffic out of it.
    pub egress: PolicySetId,
}

impl Endpoint {
    /// Returns what judges a direction.
    #[must_use]
    pub const fn policy_set(&self, direction: Direction) -> PolicySetId {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// What happens to established flows that a new program denies.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "every dataplane does both")]
pub enum Established {
    /// They go on until they end.
    #[default]
    Keep,
    /// They stop, in both directions: those of workload endpoints. Policy of host endpoints judges new flows only.
    Reevaluate,
}

/// What the sender of a packet hears that policy denies.
///
/// It is about verdicts of policy sets, of endpoints and of host endpoints. All else is dropped silently: what isolated
/// endpoints send and receive, forged sources, packets that carry others, what nobody can read, and what policy of host
/// endpoints denies before conntrack or before destination NAT, where nothing can be answered yet.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a denied packet is answered or it is not")]
pub enum Denial {
    /// Nothing.
    #[default]
    Drop,
    /// A reset, if the packet is TCP; else that ICMP says "administratively prohibited", as often as the kernel lets it.
    Reject,
}

impl Program {
    /// Returns the policy set that judges a direction of an endpoint of this program.
    #[must_use]
    pub fn policy_set(&self, endpoint: &Endpoint, direction: Direction) -> Option<&PolicySet> {
        self.policy_sets.get(&endpoint.policy_set(direction)).map(Arc::as_ref)
    }

    /// Returns the rule with this id, whose [`origin`](Rule::origin) names its policy. It looks at every rule: this is for
    /// people who read logs and counters.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        let stages = self.policy_sets.values().flat_map(|set| &set.stages);
        stages.flat_map(|stage| &stage.rules).map(Arc::as_ref).find(|rule| rule.id == id)
    }
}
