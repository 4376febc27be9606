//! What host endpoints say of a flow: which of them it passes, where, and in which order.
//!
//! Source: the table "Which policy sees which flow" of Calico's host endpoints.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::matching::{Side, Sides};
use super::{Half, Judge, Scope, carries, is_discovery, is_router_message};
use crate::flow::{Direction, Flow, Origin, Payload};
use crate::model::{
    Attachment, Bucket, Endpoint, EndpointId, EndpointKind, FailsafePort, Node, WorkloadToHost,
};
use crate::net::Family;
use crate::verdict::{Explanation, HostJudgement, Packet, Reason, Verdict};

/// Where an end of a flow is.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// In a workload of a node.
    Workload { node: &'a str, endpoint: &'a Endpoint },
    /// In a process of a node itself.
    Process { node: &'a Node },
    /// Somewhere that no node of ours is.
    Outside,
}

impl<'a> Place<'a> {
    fn node(self) -> Option<&'a str> {
        match self {
            Self::Workload { node, .. } => Some(node),
            Self::Process { node } => Some(&node.name),
            Self::Outside => None,
        }
    }

    const fn workload(self) -> Option<&'a Endpoint> {
        match self {
            Self::Workload { endpoint, .. } => Some(endpoint),
            Self::Process { .. } | Self::Outside => None,
        }
    }
}

/// One policy set that the packets of a flow meet.
struct Meeting<'a> {
    endpoint: &'a Endpoint,
    bucket: Bucket,
    direction: Direction,
}

/// Which host endpoints are asked.
#[derive(Clone, Copy)]
enum Asked<'a> {
    /// All, about the replies too.
    All,
    /// Those of one node.
    OfNode(&'a str),
}

/// What a flow is judged as by host endpoints: before destination NAT it can have been another.
pub(super) struct Passage<'a> {
    pub(super) sides: &'a Sides<'a>,
    pub(super) before_nat: &'a Sides<'a>,
}

impl Passage<'_> {
    /// Returns whether an endpoint talks to an address of its own, which is no Service's: that passes no interface.
    fn stays_in_workload(&self) -> bool {
        let owner = |it: &Side<'_>| it.owner.map(|endpoint| endpoint.id.clone());
        let (source, asked) = (owner(&self.sides.source), owner(&self.before_nat.destination));
        source.is_some() && source == asked
    }
}

impl<'a> Judge<'a> {
    /// Returns what the host endpoints say that a flow passes, in order, up to the first that denies.
    pub(super) fn judge_hosts(&self, passage: &Passage<'_>, scope: Scope) -> Vec<HostJudgement> {
        self.ask_hosts(passage, scope, Asked::All)
    }

    fn ask_hosts(
        &self,
        passage: &Passage<'_>,
        scope: Scope,
        asked: Asked<'_>,
    ) -> Vec<HostJudgement> {
        let flow = &passage.sides.flow;
        if flow.origin == Origin::OwnNode || passage.stays_in_workload() {
            return Vec::new();
        }
        let (mut judgements, mut untracked) = (Vec::new(), Vec::new());
        let mut settled = BTreeSet::new();
        for meeting in self.meetings_on_way(passage) {
            let is_asked = match asked {
                Asked::All => true,
                Asked::OfNode(node) => meeting.is_at(node),
            };
            if !is_asked || settled.contains(&meeting.endpoint.id) {
                continue;
            }
            let explanation = self.judge_meeting(&meeting, passage, scope);
            let by_rule = matches!(explanation.reason, Reason::Rule(_));
            if by_rule && matches!(meeting.bucket, Bucket::Untracked | Bucket::PreDnat) {
                settled.insert(&meeting.endpoint.id);
            }
            let denied = explanation.verdict == Verdict::Deny;
            if by_rule && !denied && meeting.bucket == Bucket::Untracked {
                untracked.push(meeting.answered());
            }
            judgements.push(meeting.says(explanation, Packet::Request));
            if denied {
                return judgements;
            }
        }
        if matches!(asked, Asked::All) {
            self.add_replies(&mut judgements, &untracked, passage, scope);
        }
        judgements
    }

    /// Judges the replies, at each node on their way: where the flow is not tracked as flows of their own, as nothing knows
    /// that they are replies, and elsewhere by the policy for what is not tracked, which they meet too.
    fn add_replies(
        &self,
        judgements: &mut Vec<HostJudgement>,
        untracked: &[Meeting<'_>],
        passage: &Passage<'_>,
        scope: Scope,
    ) {
        let sides = passage.sides.reversed(self.inputs, &self.owners);
        let back = Passage { sides: &sides, before_nat: &sides };
        let [from, to] = self.places(&sides).map(Place::node);
        for node in [from, to.filter(|_| from != to)].into_iter().flatten() {
            let mut untracked = untracked.iter().filter(|it| it.is_at(node)).peekable();
            if untracked.peek().is_none() {
                judgements.extend(self.judge_tracked_reply(&back, scope, node));
            }
            for meeting in untracked {
                judgements.push(meeting.says(self.judge_reply(&back, scope, node), Packet::Reply));
            }
            if judgements.last().is_some_and(|it| it.explanation.verdict == Verdict::Deny) {
                return;
            }
        }
    }

    /// Judges the reply to what a node tracks. A rule there for what is not tracked keeps it from being known as a reply.
    fn judge_tracked_reply(
        &self,
        back: &Passage<'_>,
        scope: Scope,
        node: &str,
    ) -> Option<HostJudgement> {
        let meetings = self.meetings_of(back.sides).into_iter();
        for meeting in meetings.filter(|it| it.is_at(node) && it.bucket == Bucket::Untracked) {
            let explanation = self.judge_meeting(&meeting, back, scope);
            if let (Reason::Rule(_), verdict) = (&explanation.reason, explanation.verdict) {
                let explanation = match verdict {
                    Verdict::Deny => explanation,
                    Verdict::Allow => self.judge_reply(back, scope, node),
                };
                return Some(meeting.says(explanation, Packet::Reply));
            }
        }
        None
    }

    /// Returns whether the settings keep a workload from its own host.
    pub(super) fn denies_own_host(&self, sides: &Sides<'_>) -> bool {
        let [source, destination] = self.places(sides);
        self.settings.workload_to_host == WorkloadToHost::Deny
            && matches!(destination, Place::Process { .. })
            && source.workload().is_some()
            && source.node() == destination.node()
    }

    fn place(&self, address: IpAddr, owner: Option<&'a Endpoint>) -> Place<'a> {
        if let Some(endpoint) = owner {
            return match &endpoint.node {
                Some(node) => Place::Workload { node, endpoint },
                None => Place::Outside,
            };
        }
        let mut nodes = self.inputs.nodes.values();
        let node = nodes.find(|node| addresses_of(node).any(|own| own == address));
        node.map_or(Place::Outside, |node| Place::Process { node })
    }

    fn places(&self, sides: &Sides<'a>) -> [Place<'a>; 2] {
        [&sides.source, &sides.destination].map(|side| self.place(side.address, side.owner))
    }

    fn meetings_of(&self, sides: &Sides<'a>) -> Vec<Meeting<'a>> {
        let [source, destination] = self.places(sides);
        self.meetings(source, destination, &sides.flow)
    }

    /// Returns the policy sets that a flow meets, in order: those of a node too that only translates it and sends it on.
    fn meetings_on_way(&self, passage: &Passage<'a>) -> Vec<Meeting<'a>> {
        use Bucket::{Forward, PreDnat, Untracked};
        use Direction::{Egress, Ingress};
        let mut meetings = self.meetings_of(passage.sides);
        let [source, destination] = self.places(passage.sides).map(Place::node);
        let asked = &passage.before_nat.destination;
        if let Place::Process { node } = self.place(asked.address, asked.owner)
            && ![source, destination].contains(&Some(&node.name))
        {
            let family = passage.sides.flow.family();
            let uplink = self.at_uplink(&node.name, Some(asked.address), family);
            let there = |endpoint| {
                [(Untracked, Ingress), (PreDnat, Ingress), (Forward, Ingress), (Forward, Egress)]
                    .map(|(bucket, direction)| Meeting { endpoint, bucket, direction })
            };
            let left = |it: &Meeting<'_>| source.is_none_or(|source| !it.is_at(source));
            let index = meetings.iter().position(left).unwrap_or(meetings.len());
            meetings.splice(index..index, uplink.into_iter().flat_map(there));
        }
        meetings
    }

    /// Returns the policy sets that a flow between two places meets, in order.
    fn meetings(&self, source: Place<'a>, destination: Place<'a>, flow: &Flow) -> Vec<Meeting<'a>> {
        use Bucket::{Forward, Normal, PreDnat, Untracked};
        use Direction::{Egress, Ingress};
        let is_local = source.node().is_some() && source.node() == destination.node();
        let mut meetings = Vec::new();
        let mut meet = |endpoint: Option<&'a Endpoint>, at: &[(Bucket, Direction)]| {
            meetings.extend(endpoint.into_iter().flat_map(|endpoint| {
                at.iter().map(move |&(bucket, direction)| Meeting { endpoint, bucket, direction })
            }));
        };
        match source {
            Place::Workload { node, endpoint } => {
                let own = self.at_workload(node, endpoint);
                meet(own, &[(PreDnat, Ingress)]);
                match destination {
                    // Nobody can tell before its destination is translated, but afterwards it is outside of policy.
                    Place::Workload { endpoint: receiver, .. } if receiver.id == endpoint.id => {
                        return meetings;
                    }
                    Place::Process { .. } if is_local => {
                        if self.settings.workload_to_host == WorkloadToHost::Judge {
                            meet(own, &[(Normal, Ingress)]);
                        }
                    }
                    _ => {
                        meet(own, &[(Forward, Ingress)]);
                        if !is_local {
                            meet(self.at_uplink(node, None, flow.family()), &[(Forward, Egress)]);
                        }
                    }
                }
            }
            Place::Process { node } if !is_local => {
                let uplink = self.at_uplink(&node.name, Some(flow.source), flow.family());
                meet(uplink, &[(Untracked, Egress), (Normal, Egress)]);
            }
            Place::Process { .. } | Place::Outside => {}
        }
        match destination {
            Place::Workload { node, endpoint } => {
                let own = self.at_workload(node, endpoint);
                if !is_local {
                    let uplink = self.at_uplink(node, None, flow.family());
                    meet(uplink, &[(Untracked, Ingress), (PreDnat, Ingress), (Forward, Ingress)]);
                }
                if source.workload().is_some() || !is_local {
                    meet(own, &[(Forward, Egress)]);
                }
            }
            Place::Process { node } if !is_local => {
                let uplink = self.at_uplink(&node.name, Some(flow.destination), flow.family());
                meet(uplink, &[(Untracked, Ingress), (PreDnat, Ingress), (Normal, Ingress)]);
            }
            Place::Process { .. } | Place::Outside => {}
        }
        meetings
    }

    fn host_endpoints(&self, node: &str) -> impl Iterator<Item = &'a Endpoint> {
        let of_node = move |it: &&Endpoint| it.node.as_deref() == Some(node);
        // In the order of their names, so the first that fits is the one that counts.
        self.inputs.endpoints().filter(|it| it.id.kind == EndpointKind::Host).filter(of_node)
    }

    /// Returns the host endpoint of a workload's interface.
    fn at_workload(&self, node: &str, workload: &Endpoint) -> Option<&'a Endpoint> {
        let named = |it: &&Endpoint| match (&it.attachment, &workload.attachment) {
            (Attachment::Interface(one), Attachment::Interface(other)) => one == other,
            _ => false,
        };
        self.host_endpoints(node).find(named).or_else(|| self.of_other_interfaces(node))
    }

    /// Returns the host endpoint of the interface of a node to the outside: the one with `address`, or else with the
    /// first of the node's addresses of the family.
    fn at_uplink(
        &self,
        node: &str,
        address: Option<IpAddr>,
        family: Family,
    ) -> Option<&'a Endpoint> {
        let known = self.inputs.nodes.get(node);
        let mut listed = known.into_iter().flat_map(addresses_of);
        let address = address.or_else(|| listed.find(|it| Family::of(*it) == family));
        let has = |addresses: &[IpAddr]| address.is_some_and(|it| addresses.contains(&it));
        let mut interfaces = known.into_iter().flat_map(|it| &it.interfaces);
        let interface = interfaces.find(|it| has(&it.addresses));
        let names = |it: &&Endpoint| match (&it.attachment, interface) {
            (Attachment::Interface(name), Some(interface)) => *name == interface.name,
            _ => false,
        };
        let has_address = |it: &&Endpoint| {
            let of_interface = |own| interface.is_some_and(|at| at.addresses.contains(own));
            it.attachment == Attachment::Address && it.addresses.iter().any(of_interface)
        };
        let mut endpoints =
            [self.host_endpoints(node).find(names), self.host_endpoints(node).find(has_address)];
        endpoints.iter_mut().find_map(Option::take).or_else(|| self.of_other_interfaces(node))
    }

    fn of_other_interfaces(&self, node: &str) -> Option<&'a Endpoint> {
        self.host_endpoints(node).find(|it| it.attachment == Attachment::OtherInterfaces)
    }

    fn judge_meeting(
        &self,
        meeting: &Meeting<'_>,
        passage: &Passage<'_>,
        scope: Scope,
    ) -> Explanation {
        let sides =
            if meeting.bucket <= Bucket::PreDnat { passage.before_nat } else { passage.sides };
        if let Some(known) = self.before_host_policy(meeting, &sides.flow) {
            return known;
        }
        let half = Half {
            endpoint: meeting.endpoint,
            direction: meeting.direction,
            bucket: meeting.bucket,
            sides,
        };
        self.ask_tiers(&half, scope)
    }

    /// Judges a reply as a flow of its own, by what is at a node.
    fn judge_reply(&self, back: &Passage<'_>, scope: Scope, node: &str) -> Explanation {
        let is_there = |it: &&Endpoint| it.node.as_deref() == Some(node);
        let replier = back.sides.source.owner.filter(is_there);
        let receiver = back.sides.destination.owner.filter(is_there);
        let egress = self.judge_half(replier, Direction::Egress, back.sides, scope);
        let ingress = self.judge_half(receiver, Direction::Ingress, back.sides, scope);
        let hosts = self.ask_hosts(back, scope, Asked::OfNode(node));
        let mut explanations = hosts.iter().map(|it| &it.explanation).chain([&egress, &ingress]);
        if explanations.any(|it| it.verdict == Verdict::Deny) {
            Explanation::at_once(Verdict::Deny, Reason::UntrackedReply)
        } else {
            Explanation::at_once(Verdict::Allow, Reason::DefaultVerdict)
        }
    }

    /// Answers what no policy of a host endpoint has a say in.
    fn before_host_policy(&self, meeting: &Meeting<'_>, flow: &Flow) -> Option<Explanation> {
        let allow = |reason| Some(Explanation::at_once(Verdict::Allow, reason));
        if is_discovery(flow) || is_router_message(flow) {
            return allow(Reason::NeighbourDiscovery);
        }
        if meeting.bucket == Bucket::Forward {
            return None;
        }
        if self.is_tunnel(flow) {
            return allow(Reason::Tunnel);
        }
        let (inbound, outbound) =
            (&self.settings.failsafe_inbound, &self.settings.failsafe_outbound);
        let (ports, answered, other) = match meeting.direction {
            Direction::Ingress => (inbound, outbound, flow.source),
            Direction::Egress => (outbound, inbound, flow.destination),
        };
        let Payload::Ports { transport, source, destination } = flow.payload else { return None };
        let leaves_open = |it: &FailsafePort, port: u16| {
            it.transport == transport
                && it.port == port
                && it.net.is_none_or(|net| net.contains(other))
        };
        // What is not tracked is an answer if it looks like one.
        let is_answer = meeting.bucket == Bucket::Untracked
            && answered.iter().any(|it| leaves_open(it, source));
        if is_answer || ports.iter().any(|it| leaves_open(it, destination)) {
            return allow(Reason::Failsafe);
        }
        None
    }

    fn is_tunnel(&self, flow: &Flow) -> bool {
        let is_node =
            |address| self.inputs.nodes.values().any(|node| node.addresses.contains(&address));
        is_node(flow.source) && is_node(flow.destination) && carries(flow, &self.settings.tunnels)
    }
}

/// Returns the addresses that a node reports, and those of its interfaces.
fn addresses_of(node: &Node) -> impl Iterator<Item = IpAddr> {
    let of_interfaces = node.interfaces.iter().flat_map(|it| &it.addresses);
    node.addresses.iter().chain(of_interfaces).copied()
}

impl Meeting<'_> {
    fn is_at(&self, node: &str) -> bool {
        self.endpoint.node.as_deref() == Some(node)
    }

    /// Returns where the replies are met.
    fn answered(&self) -> Self {
        let direction = match self.direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        Self { direction, ..*self }
    }

    fn says(&self, explanation: Explanation, packet: Packet) -> HostJudgement {
        let Self { endpoint, bucket, direction } = self;
        let endpoint = EndpointId::clone(&endpoint.id);
        HostJudgement { endpoint, bucket: *bucket, direction: *direction, packet, explanation }
    }
}
