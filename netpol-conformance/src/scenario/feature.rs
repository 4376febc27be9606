//! What scenarios can require of a harness.

use std::fmt;
use std::str::FromStr;

/// Something that a scenario needs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Feature {
    /// `networking.k8s.io` NetworkPolicy.
    Np,
    /// Probes over UDP.
    Udp,
    /// Probes over SCTP.
    Sctp,
    /// Echo requests.
    Icmp,
    /// Addresses of IPv6.
    Ipv6,
    /// External hosts.
    External,
    /// Probes from nodes.
    NodeSource,
    /// Probes from a pod to itself.
    Loopback,
    /// Pods in the network of their node.
    HostNetwork,
    /// Peers that select nodes.
    Nodes,
    /// Service accounts.
    ServiceAccounts,
}

/// A feature that this harness does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("requires `{0}`, which this harness does not have")]
#[expect(clippy::exhaustive_structs, reason = "a name")]
pub struct UnknownFeature(pub String);

impl Feature {
    /// Everything that this harness has.
    pub const ALL: [Self; 11] = [
        Self::Np,
        Self::Udp,
        Self::Sctp,
        Self::Icmp,
        Self::Ipv6,
        Self::External,
        Self::NodeSource,
        Self::Loopback,
        Self::HostNetwork,
        Self::Nodes,
        Self::ServiceAccounts,
    ];

    /// Returns the word that stands for it in `requires`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Np => "np",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Ipv6 => "ipv6",
            Self::External => "external",
            Self::NodeSource => "node-source",
            Self::Loopback => "loopback",
            Self::HostNetwork => "host-network",
            Self::Nodes => "nodes",
            Self::ServiceAccounts => "service-accounts",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|it| it.as_str() == text)
            .ok_or_else(|| UnknownFeature(text.to_owned()))
    }
}
