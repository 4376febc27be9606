//! Flows: what a verdict is about.

use core::fmt;
use core::net::IpAddr;

use crate::net::{Family, Protocol, Transport};

/// A direction of traffic, seen from an endpoint.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "traffic enters an endpoint or leaves it")]
pub enum Direction {
    /// Into the endpoint.
    Ingress,
    /// Out of the endpoint.
    Egress,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// Where a flow comes from, as the node that judges it knows without looking at an address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "an endpoint, the node itself, or elsewhere")]
pub enum Origin {
    /// An endpoint of this node sent it.
    Endpoint,
    /// A process of this node itself sent it (a kubelet, say): outside of policy.
    OwnNode,
    /// It came to this node from elsewhere.
    Forwarded,
}

/// What follows the IP header.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    clippy::exhaustive_enums,
    reason = "policy matches ports, ICMP types, or the protocol alone"
)]
pub enum Payload {
    /// A transport with ports.
    Ports {
        /// TCP, UDP or SCTP.
        transport: Transport,
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// ICMP of the flow's family: ICMP over IPv4, ICMPv6 over IPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Any other protocol.
    Other(Protocol),
}

/// One attempt to communicate: the first packet of a connection, after destination NAT where nothing else is said.
///
/// Addresses are as in the packet: an IPv4-mapped IPv6 address here is not the IPv4 address.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "callers build flows from packets")]
pub struct Flow {
    /// Who sends.
    pub source: IpAddr,
    /// Who is to receive.
    pub destination: IpAddr,
    /// Protocol, and ports or ICMP type.
    pub payload: Payload,
    /// Where the packet came from.
    pub origin: Origin,
}

impl Flow {
    /// The source port of flows for which the caller names none: the first ephemeral port (RFC 6335, section 6).
    pub const EPHEMERAL: u16 = 49_152;

    /// Returns a flow of a transport to a port, from [`Self::EPHEMERAL`].
    #[must_use]
    pub const fn to_port(
        source: IpAddr,
        destination: IpAddr,
        transport: Transport,
        port: u16,
    ) -> Self {
        let payload = Payload::Ports { transport, source: Self::EPHEMERAL, destination: port };
        Self { source, destination, payload, origin: Origin::Endpoint }
    }

    /// Returns an echo request of the destination's family (RFC 792 type 8, RFC 4443 type 128).
    #[must_use]
    pub const fn ping(source: IpAddr, destination: IpAddr) -> Self {
        let kind = match Family::of(destination) {
            Family::V4 => 8,
            Family::V6 => 128,
        };
        Self {
            source,
            destination,
            payload: Payload::Icmp { kind, code: 0 },
            origin: Origin::Endpoint,
        }
    }

    /// Returns the same flow with another origin.
    #[must_use]
    pub const fn from_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Returns the family of the packets: that of the destination.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// Returns the IP protocol number.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match (self.payload, self.family()) {
            (Payload::Ports { transport, .. }, _) => transport.protocol(),
            (Payload::Icmp { .. }, Family::V4) => Protocol::ICMP,
            (Payload::Icmp { .. }, Family::V6) => Protocol::ICMPV6,
            (Payload::Other(protocol), _) => protocol,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination, protocol) = (self.source, self.destination, self.protocol());
        match self.payload {
            Payload::Ports { source: from, destination: to, .. } => {
                write!(f, "{protocol} {source} port {from} -> {destination} port {to}")
            }
            Payload::Icmp { kind, code } => {
                write!(f, "{protocol} {source} -> {destination} type {kind} code {code}")
            }
            Payload::Other(_) => write!(f, "protocol {protocol} {source} -> {destination}"),
        }
    }
}
