//! The meaning of the host endpoints of a program.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::host::{HostEndpoint, Interfaces, Passage};
use super::interp::{Walk, tunnel_of};
use super::{Outcome, Program};
use crate::flow::{Direction, Flow, Payload};
use crate::model::{Bucket, FailsafePort, WorkloadToHost};
use crate::net::Family;
use crate::verdict::{Explanation, HostJudgement, Packet, Reason, Verdict};

impl Program {
    /// Returns what a node that enforces this program does with a new flow whose way is known: at [unknown
    /// interfaces](Self::unknown_outcome) too, and where settings keep workloads from their own host. What host endpoints
    /// say comes [besides](Self::host_judgements).
    #[must_use]
    pub fn outcome_of(&self, passage: &Passage<'_>) -> Outcome {
        let (mut outcome, unknown) = (self.outcome(&passage.flow), self.unknown_outcome(passage));
        // Whoever knows frontends judges before the node translates.
        if self.frontends.backends_for(&passage.before_nat).is_some() {
            outcome.egress = self.outcome(&passage.before_nat).egress;
        }
        outcome.egress = outcome.egress.or(unknown.egress);
        outcome.ingress = outcome.ingress.or(unknown.ingress);
        let to_own_host =
            passage.output.is_none() && passage.input.is_some_and(|it| self.is_of_workload(it));
        if to_own_host
            && self.hosts.settings.workload_to_host == WorkloadToHost::Deny
            && let Some(egress) = &mut outcome.egress
            && egress.verdict == Verdict::Allow
            && egress.reason != Reason::NeighbourDiscovery
        {
            (egress.verdict, egress.reason) = (Verdict::Deny, Reason::OwnHost);
        }
        outcome
    }

    /// Returns what the host endpoints of the node say of a new flow, in the order of the hooks, up to the first that
    /// denies.
    #[must_use]
    pub fn host_judgements(&self, passage: &Passage<'_>) -> Vec<HostJudgement> {
        let mut said = self.judgements(passage);
        let is_denied =
            |said: &[HostJudgement]| said.iter().any(|it| it.explanation.verdict == Verdict::Deny);
        let untracked: Vec<_> = said.iter().filter(|it| is_untracked(it)).cloned().collect();
        for judgement in &untracked {
            if !is_denied(&said) {
                said.push(self.explain_reply(judgement, passage));
            }
        }
        if untracked.is_empty() && !is_denied(&said) {
            said.extend(self.explain_tracked_reply(passage));
        }
        said
    }

    /// Judges the replies to what is tracked: they too come by policy on what is not tracked. A rule there that allows
    /// them keeps conntrack from knowing them.
    fn explain_tracked_reply(&self, passage: &Passage<'_>) -> Option<HostJudgement> {
        let back = reply_to(passage);
        let untracked =
            self.hooks(&back).into_iter().filter(|(_, bucket, _)| *bucket == Bucket::Untracked);
        for (endpoint, bucket, direction) in untracked {
            let explanation = self.explain_host(endpoint, bucket, direction, &back.flow);
            if matches!(explanation.reason, Reason::Rule(_)) {
                let said = judgement(endpoint, bucket, direction, Packet::Reply, explanation);
                let is_denied = said.explanation.verdict == Verdict::Deny;
                return Some(if is_denied { said } else { self.explain_reply_of(said, &back) });
            }
        }
        None
    }

    fn judgements(&self, passage: &Passage<'_>) -> Vec<HostJudgement> {
        let mut said = Vec::new();
        let mut settled = Vec::new();
        for (endpoint, bucket, direction) in self.hooks(passage) {
            if settled.contains(&&endpoint.id) {
                continue;
            }
            let flow = match bucket {
                Bucket::Untracked | Bucket::PreDnat => &passage.before_nat,
                Bucket::Forward | Bucket::Normal => &passage.flow,
            };
            let explanation = self.explain_host(endpoint, bucket, direction, flow);
            let by_rule = matches!(explanation.reason, Reason::Rule(_));
            let verdict = explanation.verdict;
            said.push(judgement(endpoint, bucket, direction, Packet::Request, explanation));
            if verdict == Verdict::Deny {
                break;
            }
            if by_rule && matches!(bucket, Bucket::Untracked | Bucket::PreDnat) {
                settled.push(&endpoint.id);
            }
        }
        said
    }

    /// Returns the policy sets that a passage meets.
    fn hooks(&self, passage: &Passage<'_>) -> Vec<(&HostEndpoint, Bucket, Direction)> {
        use Direction::{Egress, Ingress};
        let mut hooks = Vec::new();
        let to_itself = passage.input == passage.output
            && passage.input.is_some_and(|it| self.workload_at(it).is_some());
        if let Some((input, endpoint)) = passage.input.and_then(|it| Some((it, self.host_at(it)?)))
        {
            let of_workload = self.is_of_workload(input);
            if !of_workload {
                hooks.push((endpoint, Bucket::Untracked, Ingress));
            }
            hooks.push((endpoint, Bucket::PreDnat, Ingress));
            match passage.output {
                Some(_) if to_itself => {}
                Some(_) => hooks.push((endpoint, Bucket::Forward, Ingress)),
                None if !of_workload
                    || self.hosts.settings.workload_to_host == WorkloadToHost::Judge =>
                {
                    hooks.push((endpoint, Bucket::Normal, Ingress));
                }
                None => {}
            }
        }
        if let Some((output, endpoint)) =
            passage.output.filter(|_| !to_itself).and_then(|it| Some((it, self.host_at(it)?)))
        {
            if passage.input.is_some() {
                hooks.push((endpoint, Bucket::Forward, Egress));
            } else if !self.is_of_workload(output) {
                hooks.push((endpoint, Bucket::Untracked, Egress));
                hooks.push((endpoint, Bucket::Normal, Egress));
            }
        }
        hooks
    }

    /// Returns whether an interface is a workload's, or looks like it.
    fn is_of_workload(&self, interface: &str) -> bool {
        self.unknown.look_like(interface) || self.workload_at(interface).is_some()
    }

    fn host_at(&self, interface: &str) -> Option<&HostEndpoint> {
        let endpoints = &self.hosts.endpoints;
        let names = |it: &&HostEndpoint| matches!(&it.interfaces, Interfaces::Named(names) if names.contains(interface));
        let others = |it: &&HostEndpoint| it.interfaces == Interfaces::Other;
        endpoints.iter().find(names).or_else(|| endpoints.iter().find(others))
    }

    fn explain_host(
        &self,
        endpoint: &HostEndpoint,
        bucket: Bucket,
        direction: Direction,
        flow: &Flow,
    ) -> Explanation {
        if let Some(known) = self.before_host_policy(bucket, direction, flow) {
            return known;
        }
        let go_on = Explanation::at_once(Verdict::Allow, Reason::DefaultVerdict);
        endpoint.policy_set(bucket, direction).map_or(go_on, |id| match self.policy_sets.get(&id) {
            Some(set) => Walk { program: self, direction, flow, steps: Vec::new() }.policy_set(set),
            None => Explanation::at_once(Verdict::Deny, Reason::Isolated),
        })
    }

    /// Judges the replies to what is not tracked: they are flows of their own.
    fn explain_reply(&self, untracked: &HostJudgement, passage: &Passage<'_>) -> HostJudgement {
        let direction = match untracked.direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let reply = HostJudgement { direction, packet: Packet::Reply, ..untracked.clone() };
        self.explain_reply_of(reply, &reply_to(passage))
    }

    fn explain_reply_of(&self, reply: HostJudgement, back: &Passage<'_>) -> HostJudgement {
        let hosts = self.judgements(back);
        let denied = hosts.iter().any(|it| it.explanation.verdict == Verdict::Deny)
            || self.outcome(&back.flow).verdict() == Verdict::Deny
            || self.unknown_outcome(back).verdict() == Verdict::Deny;
        let explanation = if denied {
            Explanation::at_once(Verdict::Deny, Reason::UntrackedReply)
        } else {
            Explanation::at_once(Verdict::Allow, Reason::DefaultVerdict)
        };
        HostJudgement { explanation, ..reply }
    }

    /// Answers what no policy of a host endpoint has a say in.
    fn before_host_policy(
        &self,
        bucket: Bucket,
        direction: Direction,
        flow: &Flow,
    ) -> Option<Explanation> {
        let allow = |reason| Some(Explanation::at_once(Verdict::Allow, reason));
        if let Payload::Icmp { kind: 130..=137 | 143, .. } = flow.payload
            && flow.family() == Family::V6
        {
            return allow(Reason::NeighbourDiscovery);
        }
        if bucket == Bucket::Forward {
            return None;
        }
        let settings = &self.hosts.settings;
        let nodes = self.hosts.nodes.and_then(|id| self.address_sets.get(&id));
        let between_nodes = nodes.is_some_and(|nodes| {
            nodes.members.contains(flow.source) && nodes.members.contains(flow.destination)
        });
        let is_tunnel = tunnel_of(flow).is_some_and(|it| settings.tunnels.contains(&it));
        if between_nodes && is_tunnel {
            return allow(Reason::Tunnel);
        }
        let Payload::Ports { transport, source, destination } = flow.payload else { return None };
        let (failsafe, answered, other) = match direction {
            Direction::Ingress => {
                (&settings.failsafe_inbound, &settings.failsafe_outbound, flow.source)
            }
            Direction::Egress => {
                (&settings.failsafe_outbound, &settings.failsafe_inbound, flow.destination)
            }
        };
        let has = |ports: &BTreeSet<FailsafePort>, port: u16| {
            ports.iter().any(|it| {
                (it.transport, it.port) == (transport, port)
                    && it.net.is_none_or(|net| net.contains(other))
            })
        };
        // Nothing else knows that it is an answer.
        let is_answer = bucket == Bucket::Untracked && has(answered, source);
        let is_open = has(failsafe, destination) || is_answer;
        if is_open { allow(Reason::Failsafe) } else { None }
    }
}

fn judgement(
    endpoint: &HostEndpoint,
    bucket: Bucket,
    direction: Direction,
    packet: Packet,
    explanation: Explanation,
) -> HostJudgement {
    HostJudgement { endpoint: endpoint.id.clone(), bucket, direction, packet, explanation }
}

/// Returns whether a rule keeps conntrack from knowing the flow.
fn is_untracked(judgement: &HostJudgement) -> bool {
    let HostJudgement { bucket, packet, explanation, .. } = judgement;
    (*bucket, *packet) == (Bucket::Untracked, Packet::Request)
        && explanation.verdict == Verdict::Allow
        && matches!(explanation.reason, Reason::Rule(_))
}

/// Returns the way of the packet that answers a flow.
fn reply_to<'a>(passage: &Passage<'a>) -> Passage<'a> {
    let flow = answer(&passage.flow);
    Passage { input: passage.output, output: passage.input, flow, before_nat: flow }
}

/// Returns the packet that answers a flow.
fn answer(flow: &Flow) -> Flow {
    let payload = match (flow.payload, flow.family()) {
        (Payload::Ports { transport, source, destination }, _) => {
            Payload::Ports { transport, source: destination, destination: source }
        }
        (Payload::Icmp { kind: 8, code }, Family::V4) => Payload::Icmp { kind: 0, code },
        (Payload::Icmp { kind: 128, code }, Family::V6) => Payload::Icmp { kind: 129, code },
        (other, _) => other,
    };
    Flow { source: flow.destination, destination: flow.source, payload, ..*flow }
}
