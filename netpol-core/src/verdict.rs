//! Verdicts and their reasons: the vocabulary that the judge, the interpreter and the dataplanes share.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::flow::Direction;
use crate::model::{Bucket, EndpointId, PolicyKey};
use crate::program::Backend;
use crate::text::printable;

/// The answer of one direction of one endpoint. It is final.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "a packet passes or it does not")]
pub enum Verdict {
    /// The flow passes.
    Allow,
    /// The flow is dropped.
    Deny,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// Names one rule as its author wrote it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a rule is found by these four and nothing else")]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyKey,
    /// The direction whose list holds the rule.
    pub direction: Direction,
    /// The rule's index in that list of the wire object, from 0. Several rules of the model can come from one.
    pub index: usize,
    /// The rule's name, where its API has names.
    pub name: Option<String>,
}

impl RuleRef {
    /// Returns where the rule is in its policy, as in ``ingress[0] `name` ``.
    #[must_use]
    pub fn place(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| {
            write!(f, "{}[{}]", self.direction, self.index)?;
            match &self.name {
                Some(name) => write!(f, " `{}`", printable(name)),
                None => Ok(()),
            }
        })
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.place())
    }
}

/// Why a verdict is what it is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Reason {
    /// A rule matched.
    Rule(RuleRef),
    /// Policies of a tier apply to the endpoint in this direction, none of their rules matched, and the tier denies at
    /// its end.
    NoMatch {
        /// The tier.
        tier: String,
        /// The policies of the tier that apply, in the order in which they are asked.
        policies: Vec<PolicyKey>,
    },
    /// No policy decided, so the endpoint's default verdict does.
    DefaultVerdict,
    /// The address belongs to no endpoint, so no policy applies to this half.
    NoEndpoint,
    /// Traffic of the endpoint's own node, which is outside of policy.
    OwnNode,
    /// Traffic between the endpoint and itself, which is outside of policy.
    SameEndpoint,
    /// Neighbour discovery (RFC 4861) or multicast listener discovery (RFC 2710, RFC 3810), which always passes.
    NeighbourDiscovery,
    /// A router advertisement or redirect sent by an endpoint, which never passes.
    RouterMessage,
    /// A packet that carries others, which a workload may not send.
    Encapsulated,
    /// The endpoint is isolated: nothing passes.
    Isolated,
    /// The endpoint is in audit mode: everything passes.
    Audited,
    /// No endpoint has the interface, although it looks like that of one.
    Unknown,
    /// A failsafe port of the host, which no policy of a host endpoint closes.
    Failsafe,
    /// Traffic between nodes that carries that of workloads, which no policy of a host endpoint judges.
    Tunnel,
    /// The settings of the node keep its workloads from it.
    OwnHost,
    /// No rule allows the replies to a flow that is not tracked.
    UntrackedReply,
    /// The address is one of a Service without backends, so nobody knows what policy would be asked about.
    NoBackends,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "rule {rule}"),
            Self::NoMatch { tier, policies } => {
                write!(f, "no rule matched in tier `{tier}`; asked: ")?;
                for (index, policy) in policies.iter().enumerate() {
                    write!(f, "{}{policy}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::DefaultVerdict => {
                f.write_str("no policy applies; default verdict of the endpoint")
            }
            Self::NoEndpoint => f.write_str("no endpoint owns the address, so no policy applies"),
            Self::OwnNode => f.write_str("traffic of the endpoint's own node is outside of policy"),
            Self::SameEndpoint => {
                f.write_str("traffic between an endpoint and itself is outside of policy")
            }
            Self::NeighbourDiscovery => f.write_str("neighbour discovery always passes"),
            Self::RouterMessage => {
                f.write_str("an endpoint may not send router advertisements or redirects")
            }
            Self::Encapsulated => f.write_str("an endpoint may not send packets that carry others"),
            Self::Isolated => f.write_str("the endpoint is isolated"),
            Self::Audited => f.write_str("the endpoint is in audit mode"),
            Self::Unknown => {
                f.write_str("no endpoint has the interface, which looks like that of one")
            }
            Self::Failsafe => f.write_str("a failsafe port, which no policy closes"),
            Self::Tunnel => f.write_str("a tunnel between nodes, which no policy closes"),
            Self::OwnHost => f.write_str("the settings of the node keep its workloads from it"),
            Self::NoBackends => f.write_str("the Service has no backends to ask policy about"),
            Self::UntrackedReply => {
                f.write_str("the flow is not tracked, and no rule allows its replies")
            }
        }
    }
}

/// Why a rule does something else than it says.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Shortfall {
    /// Part of it could not be read.
    Unreadable,
    /// It is about HTTP requests, and nothing behind the dataplane judges them.
    Http,
    /// It logs, and the dataplane cannot.
    Log,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "part of it could not be read",
            Self::Http => "it is about HTTP requests, and nothing here judges them",
            Self::Log => "nothing here can log",
        })
    }
}

/// What happened to a flow on its way through the tiers before a verdict fell.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Step {
    /// A Log rule matched; the flow went on.
    Logged(RuleRef),
    /// A Pass rule sent the flow to the next tier.
    Passed(RuleRef),
    /// No rule of the tier's policies matched, and the tier passes at its end.
    TierEnded {
        /// The tier.
        tier: String,
    },
    /// The flow goes to a Service, and policy was asked about this backend of it: the first one that is denied, or the first
    /// one if all are allowed.
    Backend(Backend),
    /// An Allow or Log rule matches the flow as far as it can be read, and is left out. Only the judge knows: programs
    /// do not hold such rules.
    LeftOut(RuleRef, Shortfall),
    /// A Deny or Pass rule denies all that its readable part matches. Only the judge knows.
    Tightened(RuleRef, Shortfall),
    /// A rule about HTTP requests matches the connection; its requests are judged one by one. Only the judge knows.
    Connection(RuleRef),
}

impl Step {
    /// Returns whether programs know of such steps; the others are the judge's alone.
    #[must_use]
    pub const fn is_known_to_programs(&self) -> bool {
        match self {
            Self::Logged(_) | Self::Passed(_) | Self::TierEnded { .. } | Self::Backend(_) => true,
            Self::LeftOut(..) | Self::Tightened(..) | Self::Connection(_) => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logged(rule) => write!(f, "logged by {rule}"),
            Self::Passed(rule) => write!(f, "passed on by {rule}"),
            Self::TierEnded { tier } => {
                write!(f, "no rule matched in tier `{tier}`, which passes at its end")
            }
            Self::Backend(Backend { address, port }) => {
                write!(f, "asked about the Service's backend {address} port {port}")
            }
            Self::LeftOut(rule, why) => write!(f, "{rule} is left out: {why}"),
            Self::Tightened(rule, why) => write!(f, "{rule} denies whatever it may mean: {why}"),
            Self::Connection(rule) => {
                write!(
                    f,
                    "{rule} lets the connection pass; its HTTP requests are judged one by one"
                )
            }
        }
    }
}

/// A verdict with its reason and the way that led to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "verdict, reason and way are all there is to say")]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What happened before, in order.
    pub steps: Vec<Step>,
}

impl Explanation {
    /// Returns a verdict that fell at once.
    #[must_use]
    pub const fn at_once(verdict: Verdict, reason: Reason) -> Self {
        Self { verdict, reason, steps: Vec::new() }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            write!(f, "{step}; ")?;
        }
        write!(f, "{}: {}", self.verdict, self.reason)
    }
}

/// What a host endpoint says of a flow that passes it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct HostJudgement {
    /// The host endpoint.
    pub endpoint: EndpointId,
    /// Where the flow meets its policy.
    pub bucket: Bucket,
    /// Which direction that policy is for.
    pub direction: Direction,
    /// Which of its packets is judged.
    pub packet: Packet,
    /// The verdict. One with the reason [`DefaultVerdict`](Reason::DefaultVerdict) in the buckets
    /// [`Untracked`](Bucket::Untracked) and [`PreDnat`](Bucket::PreDnat) leaves it to those that come after.
    pub explanation: Explanation,
}

/// Which packet of a flow is judged.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "packets go forth and back")]
pub enum Packet {
    /// The one that opens it.
    Request,
    /// The one that answers.
    Reply,
}

impl fmt::Display for HostJudgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, bucket, direction, packet, explanation } = self;
        let packet = match packet {
            Packet::Request => "",
            Packet::Reply => " (the reply)",
        };
        write!(f, "{bucket} {direction} of {endpoint}{packet}: {}", explanation.verdict)?;
        for step in &explanation.steps {
            write!(f, "\n    {step}")?;
        }
        write!(f, "\n    {}", explanation.reason)
    }
}
