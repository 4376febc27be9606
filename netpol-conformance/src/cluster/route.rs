//! The ways of packets: which nodes they pass, and what these make of them.

use std::net::{IpAddr, SocketAddr};

use netpol_core::{Flow, Origin, Payload, SourceView};

use super::Cluster;
use crate::scenario::Attempt;
use crate::topology::{Frontend, Host, Rewrite, Transport};

/// Most nodes on a way. Two nodes that send a packet to each other are no scenario.
const MOST_LEGS: usize = 8;

/// What a node does with the first packet of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Leg {
    /// The node.
    pub node: String,
    /// Where the packet comes in; `None` if a process of the node sends it.
    pub input: Option<Link>,
    /// Where it goes out; `None` if a process of the node receives it.
    pub output: Option<Link>,
    /// The packet as it came.
    pub before_nat: Flow,
    /// The packet with the destination that the node gives it. This is what the policy of its sender is about.
    pub flow: Flow,
    /// The same with the source that ingress is judged on.
    pub entering: Flow,
}

/// What a packet passes on its way into a node, or out of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "nodes have no others")]
pub enum Link {
    /// That of the pod with this id.
    Pod(String),
    /// That to everything but its own pods.
    Uplink,
}

/// Who receives a packet in the end.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Receiver {
    /// The host.
    pub host: Host,
    /// The packet as it arrives, but for its source.
    pub flow: Flow,
}

/// A packet at a node.
struct Packet {
    node: String,
    input: Option<Link>,
    flow: Flow,
}

impl Cluster {
    /// Returns who may receive a packet, which is for `host` if nobody translates it. Nobody does if it is for a Service
    /// without backends, and `None` is returned if it is for a Service that has no such port.
    pub(crate) fn receivers(
        &self,
        source: &Host,
        flow: Flow,
        host: Option<Host>,
    ) -> Option<Vec<Receiver>> {
        let mut at = if self.translates() { self.first(source, flow) } else { None };
        for _ in 0..MOST_LEGS {
            let Some(packet) = at else { break };
            if let Some(rewrite) = self.rewrite(&packet) {
                let translated = |to: &SocketAddr| Receiver {
                    host: self.owner(to.ip()).unwrap_or(Host::External(to.ip())),
                    flow: to_socket(flow, *to),
                };
                return Some(rewrite.to.iter().map(translated).collect());
            }
            at = self.next(&packet, packet.flow);
        }
        Some(vec![Receiver { host: host?, flow }])
    }

    /// Returns what the nodes on the way of an attempt's first packet to one of those who may receive it do with it, in
    /// order. There are none if it does not leave its host.
    #[must_use]
    pub fn legs(&self, attempt: &Attempt, receiver: &Receiver) -> Vec<Leg> {
        let Attempt { source, flow, .. } = attempt;
        let flow = *flow;
        let mut legs = Vec::new();
        let stays = *source == receiver.host && flow == receiver.flow;
        let mut at = if stays { None } else { self.first(source, flow) };
        while let Some(packet) = at
            && legs.len() < MOST_LEGS
        {
            let rewrite = self.rewrite(&packet).filter(|it| !it.to.is_empty());
            let mut flow = packet.flow;
            let mut masqueraded = flow;
            let meets_itself = flow.source == receiver.flow.destination;
            if let Some(rewrite) = rewrite {
                flow = with_destination(flow, &receiver.flow);
                masqueraded = flow;
                let own = self.nodes.get(&packet.node).and_then(|it| it.address(flow.family()));
                if let Some(own) = own.filter(|_| rewrite.masquerade || meets_itself) {
                    masqueraded.source = own;
                }
            }
            let output = self.output(&packet.node, flow.destination);
            let origin = match (&packet.input, &output) {
                (None, Some(Link::Pod(_))) => Origin::OwnNode,
                (Some(Link::Uplink), _) => Origin::Forwarded,
                _ => Origin::Endpoint,
            };
            let entering = match self.reading.source_view {
                // What comes back to its sender is known to, whatever its source is by then.
                Some(SourceView::AfterSourceNat) if !meets_itself => masqueraded,
                _ => flow,
            };
            at = self.next(&packet, masqueraded);
            let Packet { node, input, flow: before_nat } = packet;
            legs.push(Leg {
                node,
                input,
                output,
                before_nat: before_nat.from_origin(origin),
                flow: flow.from_origin(origin),
                entering: entering.from_origin(origin),
            });
        }
        legs
    }

    /// Returns the node through which external hosts reach an address of a Service: the first one, by name, with a backend.
    pub(crate) fn entry(&self, address: IpAddr) -> Option<&str> {
        let serves = |node: &&String| {
            let frontends = self.frontends(node).iter().filter(|it| it.address == address);
            let backends = frontends.flat_map(|it| &it.from_elsewhere.to);
            let mut owners = backends.filter_map(|to| self.owner(to.ip()));
            owners.any(|it| self.node_of(&it) == Some(node))
        };
        let first = self.nodes.keys().next();
        self.nodes.keys().find(serves).or(first).map(String::as_str)
    }

    fn translates(&self) -> bool {
        self.translated.values().any(|it| !it.services.is_empty() || !it.mapped.is_empty())
    }

    fn first(&self, source: &Host, flow: Flow) -> Option<Packet> {
        let (node, input) = match source {
            Host::Pod(id) => (self.pods.get(id)?.node.clone(), Some(Link::Pod(id.clone()))),
            Host::Node(name) => (name.clone(), None),
            Host::External(_) => return self.arrival(flow),
        };
        Some(Packet { node, input, flow })
    }

    /// Returns the packet at the next node, if it goes to one.
    fn next(&self, packet: &Packet, flow: Flow) -> Option<Packet> {
        let output = self.output(&packet.node, flow.destination)?;
        if output == Link::Uplink { self.arrival(flow) } else { None }
    }

    /// Returns a packet as it comes to a node from outside of it.
    fn arrival(&self, flow: Flow) -> Option<Packet> {
        let owner = self.owner(flow.destination);
        let node = match &owner {
            Some(host) => self.node_of(host),
            None if self.is_of_service(flow.destination) => self.entry(flow.destination),
            None => None,
        };
        Some(Packet { node: node?.to_owned(), input: Some(Link::Uplink), flow })
    }

    fn output(&self, node: &str, destination: IpAddr) -> Option<Link> {
        match self.owner(destination) {
            Some(Host::Node(name)) if name == node => None,
            Some(Host::Pod(id)) if self.pods.get(&id).is_some_and(|it| it.node == node) => {
                Some(Link::Pod(id))
            }
            _ => Some(Link::Uplink),
        }
    }

    /// Returns what a node makes of a packet, if it translates that.
    fn rewrite(&self, packet: &Packet) -> Option<&Rewrite> {
        let Payload::Ports { transport, destination, .. } = packet.flow.payload else {
            return None;
        };
        let is_meant = |it: &&Frontend| {
            (it.address, it.transport, it.port)
                == (packet.flow.destination, Transport::from(transport), destination)
        };
        let translated = self.translated.get(&packet.node)?;
        let frontend = translated.services.iter().chain(&translated.mapped).find(is_meant)?;
        Some(match packet.input {
            Some(Link::Pod(_)) => &frontend.from_pods,
            None => &frontend.from_node,
            Some(Link::Uplink) => &frontend.from_elsewhere,
        })
    }
}

fn to_socket(flow: Flow, to: SocketAddr) -> Flow {
    let payload = match flow.payload {
        Payload::Ports { transport, source, .. } => {
            Payload::Ports { transport, source, destination: to.port() }
        }
        other => other,
    };
    Flow { destination: to.ip(), payload, ..flow }
}

fn with_destination(flow: Flow, receiver: &Flow) -> Flow {
    Flow { destination: receiver.destination, payload: receiver.payload, ..flow }
}
