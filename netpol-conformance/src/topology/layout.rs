//! The description of a topology.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use netpol_core::net;

/// Everything that a topology consists of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Layout {
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// The pods that run; each on one of the nodes.
    pub pods: Vec<PodSpec>,
    /// Hosts that are neither node nor pod.
    pub externals: Vec<ExternalSpec>,
}

/// A node: a namespace that routes for its pods.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeSpec {
    /// The name.
    pub name: String,
    /// The addresses; the first of each family is the one that the node speaks from.
    pub addresses: Vec<IpAddr>,
    /// What the node listens on, at all its addresses.
    pub listeners: BTreeSet<Listener>,
    /// How its pods are connected.
    pub pods: PodLinks,
}

/// How the pods of a node are connected with it and each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a pod's packets are routed or bridged by its node")]
pub enum PodLinks {
    /// The node routes between them: every packet of a pod comes in on the pod's own interface.
    #[default]
    Routed,
    /// They are ports of one bridge, which shows their packets to netfilter (`bridge-nf-call-iptables`) as its own.
    Bridged,
}

/// A pod: a namespace behind a node.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PodSpec {
    /// The id, usually `namespace/name`.
    pub id: String,
    /// The node that it runs on.
    pub node: String,
    /// The addresses; the first of each family is the one that the pod speaks from.
    pub addresses: Vec<IpAddr>,
    /// What the pod listens on, at all its addresses.
    pub listeners: BTreeSet<Listener>,
}

/// A host outside of the cluster, known by its address.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ExternalSpec {
    /// The address.
    pub address: IpAddr,
    /// What it listens on.
    pub listeners: BTreeSet<Listener>,
}

/// A port of a node that leads to one of a pod.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a protocol and two ports")]
pub struct PortMapping {
    /// The protocol.
    pub transport: Transport,
    /// The port of the node, at all its addresses.
    pub node_port: u16,
    /// The port of the pod.
    pub pod_port: u16,
}

/// A port that a host listens on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a protocol with ports and a port")]
pub struct Listener {
    /// The protocol.
    pub transport: Transport,
    /// The port.
    pub port: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the protocols that policies can name ports of")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, spoken over raw sockets.
    Sctp,
}

/// The identity of a host.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a topology has no other hosts")]
pub enum Host {
    /// The pod with this id.
    Pod(String),
    /// The node with this name.
    Node(String),
    /// The external host with this address.
    External(IpAddr),
}

impl Layout {
    /// Returns a layout of these hosts.
    #[must_use]
    pub fn new(nodes: Vec<NodeSpec>, pods: Vec<PodSpec>, externals: Vec<ExternalSpec>) -> Self {
        Self { nodes, pods, externals }
    }
}

impl NodeSpec {
    /// Returns a node that listens on nothing.
    pub fn new(name: impl Into<String>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            name: name.into(),
            addresses: addresses.into_iter().collect(),
            listeners: BTreeSet::new(),
            pods: PodLinks::default(),
        }
    }

    /// Returns the node with its pods connected like this.
    #[must_use]
    pub const fn with_pods(mut self, pods: PodLinks) -> Self {
        self.pods = pods;
        self
    }

    /// Returns the node with one more listener.
    #[must_use]
    pub fn listening(mut self, transport: Transport, port: u16) -> Self {
        self.listeners.insert(Listener { transport, port });
        self
    }
}

impl PodSpec {
    /// Returns a pod on `node` that listens on nothing.
    pub fn new(
        id: impl Into<String>,
        node: impl Into<String>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let addresses = addresses.into_iter().collect();
        Self { id: id.into(), node: node.into(), addresses, listeners: BTreeSet::new() }
    }

    /// Returns the pod with one more listener.
    #[must_use]
    pub fn listening(mut self, transport: Transport, port: u16) -> Self {
        self.listeners.insert(Listener { transport, port });
        self
    }
}

impl ExternalSpec {
    /// Returns a host that listens on nothing.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self { address, listeners: BTreeSet::new() }
    }

    /// Returns the host with one more listener.
    #[must_use]
    pub fn listening(mut self, transport: Transport, port: u16) -> Self {
        self.listeners.insert(Listener { transport, port });
        self
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.transport, self.port)
    }
}

impl Transport {
    /// Returns the word for it in the tools of netfilter and in CNI.
    pub(super) const fn keyword(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl From<net::Transport> for Transport {
    fn from(transport: net::Transport) -> Self {
        match transport {
            net::Transport::Tcp => Self::Tcp,
            net::Transport::Udp => Self::Udp,
            net::Transport::Sctp => Self::Sctp,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(id) => f.write_str(id),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::External(address) => write!(f, "{address}"),
        }
    }
}
