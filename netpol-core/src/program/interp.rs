//! The meaning of a program: what a node that enforces it does with a flow.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Address, Endpoint, PolicySet, Ports, Program, Rule, Stage, StageEnd};
use crate::flow::{Direction, Flow, Origin, Payload};
use crate::model::{Action, L4Match, Mode, PortConstraint, Tunnel};
use crate::net::Transport;
use crate::verdict::{Explanation, Reason, Step, Verdict};

/// What one node does with a flow: its halves as far as the node has an endpoint at that end.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// The verdict on the way out of the source, if that is an endpoint of the node.
    pub egress: Option<Explanation>,
    /// The verdict on the way into the destination, if that is an endpoint of the node.
    pub ingress: Option<Explanation>,
}

impl Outcome {
    /// Returns whether the flow passes this node.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let denied = [&self.egress, &self.ingress]
            .into_iter()
            .flatten()
            .any(|it| it.verdict == Verdict::Deny);
        if denied { Verdict::Deny } else { Verdict::Allow }
    }

    pub(crate) fn set(&mut self, direction: Direction, explanation: Explanation) {
        match direction {
            Direction::Ingress => self.ingress = Some(explanation),
            Direction::Egress => self.egress = Some(explanation),
        }
    }
}

impl Program {
    /// Returns what a node that enforces this program does with a new flow. Endpoints are found by their addresses.
    #[must_use]
    pub fn outcome(&self, flow: &Flow) -> Outcome {
        let half = |direction, address: IpAddr| {
            let endpoint = self.endpoints.iter().find(|it| it.addresses.contains(&address))?;
            Some(self.explain(endpoint, direction, flow))
        };
        let leaves_here = flow.origin == Origin::Endpoint;
        Outcome {
            egress: if leaves_here { half(Direction::Egress, flow.source) } else { None },
            ingress: half(Direction::Ingress, flow.destination),
        }
    }

    /// Returns the verdict on a new flow in one direction of one endpoint.
    #[must_use]
    pub fn explain(&self, endpoint: &Endpoint, direction: Direction, flow: &Flow) -> Explanation {
        if let Some(known) = self.before_policy(endpoint, direction, flow) {
            return known;
        }
        let Some(set) = self.policy_set(endpoint, direction) else {
            return Explanation::at_once(Verdict::Deny, Reason::Isolated);
        };
        let ask = |flow: &Flow, steps: Vec<Step>| {
            Walk { program: self, direction, flow, steps }.policy_set(set)
        };
        match self.frontends.backends_for(flow) {
            Some(backends) if direction == Direction::Egress && !set.stages.is_empty() => {
                let asked = backends.iter().map(|backend| {
                    ask(&backend.translated(flow), Vec::from([Step::Backend(*backend)]))
                });
                of_all(asked)
            }
            _ => ask(flow, Vec::new()),
        }
    }

    /// Returns whether a flow is of packets that carry others, which workloads may not send.
    pub(super) fn denies_to_send(&self, flow: &Flow) -> bool {
        let denied = &self.hosts.settings.denied_encapsulation;
        tunnel_of(flow).is_some_and(|it| denied.contains(&it))
    }

    /// Answers what no policy has a say in.
    fn before_policy(
        &self,
        endpoint: &Endpoint,
        direction: Direction,
        flow: &Flow,
    ) -> Option<Explanation> {
        let at_once = |verdict, reason| Some(Explanation::at_once(verdict, reason));
        if let Some(known) = discovery(direction, flow) {
            return Some(known);
        }
        if endpoint.mode == Mode::Isolate {
            return at_once(Verdict::Deny, Reason::Isolated);
        }
        if direction == Direction::Egress && self.denies_to_send(flow) {
            return at_once(Verdict::Deny, Reason::Encapsulated);
        }
        if direction == Direction::Ingress && flow.origin == Origin::OwnNode {
            return at_once(Verdict::Allow, Reason::OwnNode);
        }
        let [from_it, to_it] =
            [flow.source, flow.destination].map(|it| endpoint.addresses.contains(&it));
        if from_it && to_it {
            return at_once(Verdict::Allow, Reason::SameEndpoint);
        }
        (endpoint.mode == Mode::Audit)
            .then(|| Explanation::at_once(Verdict::Allow, Reason::Audited))
    }
}

/// Returns what holds for a frontend, of whose backends this was said.
fn of_all(mut asked: impl Iterator<Item = Explanation>) -> Explanation {
    let Some(first) = asked.next() else {
        return Explanation::at_once(Verdict::Deny, Reason::NoBackends);
    };
    if first.verdict == Verdict::Deny {
        return first;
    }
    asked.find(|it| it.verdict == Verdict::Deny).unwrap_or(first)
}

/// Returns the tunnel that a flow belongs to, if its packets carry others.
pub(super) fn tunnel_of(flow: &Flow) -> Option<Tunnel> {
    match flow.payload {
        Payload::Other(protocol) if protocol.number() == 4 => Some(Tunnel::IpInIp),
        Payload::Ports { transport: Transport::Udp, destination, .. } => {
            Some(Tunnel::Udp(destination))
        }
        _ => None,
    }
}

/// Answers what is neighbour or listener discovery.
pub(super) fn discovery(direction: Direction, flow: &Flow) -> Option<Explanation> {
    let Payload::Icmp { kind, .. } = flow.payload else { return None };
    let (verdict, reason) = match (kind, direction) {
        _ if flow.destination.is_ipv4() => return None,
        (134 | 137, Direction::Egress) => (Verdict::Deny, Reason::RouterMessage),
        (130..=137 | 143, _) => (Verdict::Allow, Reason::NeighbourDiscovery),
        _ => return None,
    };
    Some(Explanation::at_once(verdict, reason))
}

/// One flow on its way through a policy set.
pub(super) struct Walk<'a> {
    pub(super) program: &'a Program,
    pub(super) direction: Direction,
    pub(super) flow: &'a Flow,
    pub(super) steps: Vec<Step>,
}

impl Walk<'_> {
    pub(super) fn policy_set(mut self, set: &PolicySet) -> Explanation {
        for stage in &set.stages {
            if let Some((verdict, reason)) = self.stage(stage) {
                return Explanation { verdict, reason, steps: self.steps };
            }
        }
        Explanation { verdict: set.default, reason: Reason::DefaultVerdict, steps: self.steps }
    }

    /// Returns the stage's verdict, `None` if the next stage is to be asked.
    fn stage(&mut self, stage: &Stage) -> Option<(Verdict, Reason)> {
        for rule in &stage.rules {
            if !self.rule_matches(rule) {
                continue;
            }
            let origin = rule.origin.clone();
            match rule.action {
                Action::Allow => return Some((Verdict::Allow, Reason::Rule(origin))),
                Action::Deny => return Some((Verdict::Deny, Reason::Rule(origin))),
                Action::Pass => {
                    self.steps.push(Step::Passed(origin));
                    return None;
                }
                // What is one rule to its author can be several here; it is logged once.
                Action::Log if self.steps.last() == Some(&Step::Logged(origin.clone())) => {}
                Action::Log => self.steps.push(Step::Logged(origin)),
            }
        }
        match stage.end {
            StageEnd::Deny => {
                let (tier, policies) = (stage.tier.clone(), stage.policies.clone());
                Some((Verdict::Deny, Reason::NoMatch { tier, policies }))
            }
            StageEnd::Next => {
                self.steps.push(Step::TierEnded { tier: stage.tier.clone() });
                None
            }
        }
    }

    fn rule_matches(&self, rule: &Rule) -> bool {
        let (remote, local) = match self.direction {
            Direction::Ingress => (self.flow.source, self.flow.destination),
            Direction::Egress => (self.flow.destination, self.flow.source),
        };
        rule.family.is_none_or(|family| family == self.flow.family())
            && self.l4_matches(&rule.l4)
            && self.address_matches(&rule.remote, remote)
            && rule.local.as_ref().is_none_or(|condition| self.address_matches(condition, local))
    }

    fn l4_matches(&self, condition: &L4Match<Ports>) -> bool {
        match (condition, self.flow.payload) {
            (L4Match::Any, _) => true,
            (L4Match::Is(protocol), _) => self.flow.protocol() == *protocol,
            (L4Match::IsNot(protocols), _) => !protocols.contains(&self.flow.protocol()),
            (
                L4Match::Ports { transport, source, destination },
                Payload::Ports { transport: of_flow, source: from, destination: to },
            ) => {
                *transport == of_flow
                    && self.port_matches(source, self.flow.source, from)
                    && self.port_matches(destination, self.flow.destination, to)
            }
            (L4Match::Icmp { family, is, is_not }, Payload::Icmp { kind, code }) => {
                *family == self.flow.family()
                    && is.is_none_or(|it| it.matches(kind, code))
                    && is_not.is_none_or(|it| !it.matches(kind, code))
            }
            _ => false,
        }
    }

    fn port_matches(&self, constraint: &PortConstraint<Ports>, address: IpAddr, port: u16) -> bool {
        let listed = |ports: &Ports| {
            ports.numbers.contains(port)
                || ports.sets.iter().any(|id| {
                    self.program
                        .address_sets
                        .get(id)
                        .is_some_and(|set| set.members.contains_port(address, port))
                })
        };
        constraint.any_of.as_ref().is_none_or(listed)
            && !constraint.none_of.as_ref().is_some_and(listed)
    }

    fn address_matches(&self, condition: &Address, address: IpAddr) -> bool {
        let in_set =
            |id| self.program.address_sets.get(id).is_some_and(|set| set.members.contains(address));
        condition.in_set.as_ref().is_none_or(in_set)
            && !condition.not_in_set.as_ref().is_some_and(in_set)
            && condition.nets.as_ref().is_none_or(|nets| nets.contains(address))
            && !condition.not_nets.contains(address)
    }
}
