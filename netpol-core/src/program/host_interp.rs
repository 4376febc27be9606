//! The meaning of the host endpoints of a program.

use alloc::vec::Vec;

use super::host::{HostEndpoint, Interfaces, Passage};
use super::interp::Walk;
use super::{Endpoint, Program};
use crate::flow::{Direction, Flow, Payload};
use crate::model::{Attachment, Bucket, Tunnel, WorkloadToHost};
use crate::net::{Family, Transport};
use crate::verdict::{Explanation, HostJudgement, Packet, Reason, Verdict};

impl Program {
    /// Returns what the host endpoints of the node say of a new flow, in the order of the hooks, up to the first that
    /// denies.
    #[must_use]
    pub fn host_judgements(&self, passage: &Passage<'_>) -> Vec<HostJudgement> {
        let mut said = Vec::new();
        let mut settled = Vec::new();
        for (endpoint, bucket, direction) in self.hooks(passage) {
            if settled.contains(&&endpoint.id) {
                continue;
            }
            let flow = match bucket {
                Bucket::Untracked | Bucket::PreDnat if direction == Direction::Ingress => {
                    &passage.before_nat
                }
                _ => &passage.flow,
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
            if by_rule && bucket == Bucket::Untracked {
                let reply = self.explain_reply(endpoint, direction, &passage.flow);
                let denied = reply.explanation.verdict == Verdict::Deny;
                said.push(reply);
                if denied {
                    break;
                }
            }
        }
        said
    }

    /// Returns the policy sets that a passage meets.
    fn hooks(&self, passage: &Passage<'_>) -> Vec<(&HostEndpoint, Bucket, Direction)> {
        use Direction::{Egress, Ingress};
        let mut hooks = Vec::new();
        if let Some((input, endpoint)) = passage.input.and_then(|it| Some((it, self.host_at(it)?)))
        {
            let of_workload = self.workload_at(input).is_some();
            if !of_workload {
                hooks.push((endpoint, Bucket::Untracked, Ingress));
            }
            hooks.push((endpoint, Bucket::PreDnat, Ingress));
            match passage.output {
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
            passage.output.and_then(|it| Some((it, self.host_at(it)?)))
        {
            if passage.input.is_some() {
                hooks.push((endpoint, Bucket::Forward, Egress));
            } else if self.workload_at(output).is_none() {
                hooks.push((endpoint, Bucket::Untracked, Egress));
                hooks.push((endpoint, Bucket::Normal, Egress));
            }
        }
        hooks
    }

    fn workload_at(&self, interface: &str) -> Option<&Endpoint> {
        let is_its = |it: &&Endpoint| matches!(&it.attachment, Attachment::Interface(own) if own == interface);
        self.endpoints.iter().find(is_its)
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

    fn explain_reply(
        &self,
        endpoint: &HostEndpoint,
        direction: Direction,
        flow: &Flow,
    ) -> HostJudgement {
        let direction = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let flow = answer(flow);
        let asked = endpoint
            .policy_set(Bucket::Untracked, direction)
            .and_then(|id| self.policy_sets.get(&id))
            .map(|set| {
                Walk { program: self, direction, flow: &flow, steps: Vec::new() }.policy_set(set)
            });
        let explanation = match asked {
            Some(it) if it.reason != Reason::DefaultVerdict => it,
            other => Explanation {
                verdict: Verdict::Deny,
                reason: Reason::UntrackedReply,
                steps: other.map(|it| it.steps).unwrap_or_default(),
            },
        };
        judgement(endpoint, Bucket::Untracked, direction, Packet::Reply, explanation)
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
        let is_tunnel = match flow.payload {
            Payload::Other(protocol) if protocol.number() == 4 => {
                settings.tunnels.contains(&Tunnel::IpInIp)
            }
            Payload::Ports { transport: Transport::Udp, destination, .. } => {
                settings.tunnels.contains(&Tunnel::Udp(destination))
            }
            _ => false,
        };
        if between_nodes && is_tunnel {
            return allow(Reason::Tunnel);
        }
        let Payload::Ports { transport, destination, .. } = flow.payload else { return None };
        let (failsafe, other) = match direction {
            Direction::Ingress => (&settings.failsafe_inbound, flow.source),
            Direction::Egress => (&settings.failsafe_outbound, flow.destination),
        };
        let is_open = failsafe.iter().any(|it| {
            (it.transport, it.port) == (transport, destination)
                && it.net.is_none_or(|net| net.contains(other))
        });
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
