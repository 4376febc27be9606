//! Rules and what they match.

use alloc::collections::BTreeSet;

use alloc::string::String;
use serde::{Deserialize, Serialize};

use super::domain::DomainPattern;
use super::http::HttpMatch;
use super::service::ServiceName;
use crate::dataplane::Capabilities;
use crate::net::{Family, IcmpMatch, PortSet, PrefixSet, Protocol, Transport};
use crate::selector::Selector;
use crate::verdict::Shortfall;

/// What a rule does with a flow that it matches.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "every evaluator handles each action")]
pub enum Action {
    /// The flow passes; no later rule or tier is asked.
    Allow,
    /// The flow is denied; no later rule or tier is asked.
    Deny,
    /// The rest of the tier is skipped.
    Pass,
    /// The flow is recorded, and the next rule is asked.
    Log,
}

/// One rule of a policy.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rule {
    /// The index of the wire object's rule that this one comes from, from 0.
    pub index: usize,
    /// The rule's name, where its API has names.
    pub name: Option<String>,
    /// What is done.
    pub action: Action,
    /// Which flows it is done with.
    pub matches: RuleMatch,
    /// Part of the rule could not be read, and [`matches`](Self::matches) is only the part that could.
    pub degraded: bool,
}

impl Rule {
    /// Returns a rule that was read completely.
    #[must_use]
    pub const fn new(index: usize, action: Action, matches: RuleMatch) -> Self {
        Self { index, name: None, action, matches, degraded: false }
    }

    /// Returns what the rule does on a dataplane with these capabilities; `None` if it has no effect.
    ///
    /// A rule that is degraded, or that the dataplane cannot express, never widens what passes: an Allow or Log has
    /// no effect; a Deny or Pass denies all that its readable part covers.
    #[must_use]
    pub fn effective_action(&self, capabilities: &Capabilities) -> Option<Action> {
        match (self.shortfall(capabilities), self.action) {
            (None, action) => Some(action),
            (Some(_), Action::Allow | Action::Log) => None,
            (Some(_), Action::Deny | Action::Pass) => Some(Action::Deny),
        }
    }

    /// Returns why the rule does something else than it says on a dataplane with these capabilities; `None` if it does
    /// what it says.
    #[must_use]
    pub fn shortfall(&self, capabilities: &Capabilities) -> Option<Shortfall> {
        if self.degraded {
            Some(Shortfall::Unreadable)
        } else if self.matches.http.is_some() && !(capabilities.http && self.admits_connections()) {
            Some(Shortfall::Http)
        } else if self.action == Action::Log && !capabilities.log {
            Some(Shortfall::Log)
        } else {
            None
        }
    }

    /// Returns whether the rule can admit connections whose requests are judged one by one: an Allow of TCP.
    fn admits_connections(&self) -> bool {
        let is_tcp = match &self.matches.l4 {
            L4Match::Is(protocol) => *protocol == Protocol::TCP,
            L4Match::Ports { transport, .. } => *transport == Transport::Tcp,
            L4Match::Any | L4Match::IsNot(_) | L4Match::Icmp { .. } => false,
        };
        self.action == Action::Allow && is_tcp
    }
}

/// The conditions of a rule; a flow must meet all of them. The default matches every flow.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "front ends fill every condition they know")]
pub struct RuleMatch {
    /// The address family; `None` matches both.
    pub family: Option<Family>,
    /// The protocol, and its ports or types.
    pub l4: L4Match<PortMatch>,
    /// Who sends.
    pub source: EntityMatch,
    /// Who is to receive.
    pub destination: EntityMatch,
    /// Which HTTP requests; `None` for every one, and for what is no HTTP. Only an Allow of TCP can ask for it: no
    /// dataplane can express any other rule that does.
    pub http: Option<HttpMatch>,
}

/// A condition on what follows the IP header. `P` says how a list of ports is written.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "every evaluator and backend handles each form")]
pub enum L4Match<P> {
    /// Every protocol, ICMP and those without ports included.
    #[default]
    Any,
    /// One protocol.
    Is(Protocol),
    /// Every protocol but these.
    IsNot(BTreeSet<Protocol>),
    /// A transport, with conditions on its ports.
    Ports {
        /// The transport.
        transport: Transport,
        /// The condition on the source port.
        source: PortConstraint<P>,
        /// The condition on the destination port.
        destination: PortConstraint<P>,
    },
    /// The ICMP of one family.
    Icmp {
        /// Says which ICMP, and restricts the rule to that family.
        family: Family,
        /// The type must be this.
        is: Option<IcmpMatch>,
        /// The type must not be this.
        is_not: Option<IcmpMatch>,
    },
}

/// A condition on one port.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a list that must hold the port and one that must not"
)]
pub struct PortConstraint<P> {
    /// The port must be one of these; `None` for no such condition.
    pub any_of: Option<P>,
    /// The port must be none of these; `None` for no such condition.
    pub none_of: Option<P>,
}

impl<P> Default for PortConstraint<P> {
    fn default() -> Self {
        Self { any_of: None, none_of: None }
    }
}

/// A list of ports as users write it: numbers and names.
///
/// A name stands for the ports that the endpoint on this side of the flow gives it. Where the side's
/// [`peers`](EntityMatch::peers) restrict the endpoints, only theirs count. It never matches an address that no
/// endpoint owns. A Service stands for the ports that its backends have, each only together with its address.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a port is written as a number, as a name or as one of a Service"
)]
pub struct PortMatch {
    /// The numbers.
    pub numbers: PortSet,
    /// The names.
    pub names: BTreeSet<String>,
    /// The Service whose backends have the port.
    pub backends_of: Option<ServiceName>,
}

/// Conditions on one side of a flow; all of them must hold. The default holds for every address.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "front ends fill every condition they know")]
pub struct EntityMatch {
    /// The address belongs to one of these.
    pub peers: Option<Peers>,
    /// The address does not belong to an endpoint or network set that this selects. Addresses that belong to nothing
    /// meet the condition.
    pub not_peers: Option<Selector>,
    /// The address is one of these. `Some` of an empty set matches nothing.
    pub nets: Option<PrefixSet>,
    /// The address is none of these.
    pub not_nets: PrefixSet,
}

/// A group of owners of addresses.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "every evaluator handles each group")]
pub enum Peers {
    /// Endpoints and network sets that the selector selects.
    Endpoints(Selector),
    /// Nodes that the selector selects by their own labels, by all addresses they report.
    Nodes(Selector),
    /// Endpoints and network sets in a namespace that stands so to the one of the endpoint that the rule is asked for. An
    /// endpoint in no namespace has none.
    Tenants {
        /// Selects them.
        endpoints: Selector,
        /// How the two namespaces stand to each other.
        tenancy: Tenancy,
    },
    /// The addresses that names of one of these patterns [stand for](super::DomainAddress), whoever owns them.
    DomainNames(BTreeSet<DomainPattern>),
    /// The addresses that [slices](super::EndpointSlice) list for a Service, whoever owns them.
    BackendsOf(ServiceName),
}

/// How the labels of two namespaces compare. It never holds without keys, nor if one of the namespaces lacks one of the keys.
///
/// Labels are those that selectors see of what is in the namespaces.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "values are compared or not at all")]
pub enum Tenancy {
    /// They have the same value for each of these keys.
    Same(BTreeSet<String>),
    /// They differ in the value of at least one of these keys.
    NotSame(BTreeSet<String>),
}
