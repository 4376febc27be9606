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
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    Cnp,
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy and BaselineAdminNetworkPolicy.
    Anp,
    /// Rules of a ClusterNetworkPolicy that name ports of the destination.
    CnpNamedPort,
    /// Rules of a ClusterNetworkPolicy with something that its API does not know.
    CnpUnknownField,
    /// Objects of `projectcalico.org/v3`.
    Calico,
    /// Tiers, and policies outside of tier `default`.
    Tiers,
    /// Staged policies.
    Staged,
    /// Network sets.
    NetworkSets,
    /// Host endpoints: of all interfaces of a node, or only as peers.
    HostEndpoints,
    /// Host endpoints of named interfaces, or of those with an address.
    HostInterfaces,
    /// Policies for traffic before its destination is translated.
    PreDnat,
    /// Policies for packets of which no connection is kept.
    Untracked,
    /// Services.
    Services,
    /// Ports of nodes that lead to pods.
    Portmap,
    /// Verdicts that depend on it that ingress is judged on the source before source NAT.
    SourceBeforeNat,
    /// Verdicts that depend on it that ingress is judged on the source after source NAT.
    SourceAfterNat,
    /// Verdicts that depend on it that egress is judged on the destination after destination NAT.
    DestinationAfterNat,
    /// ICMP messages other than echo requests.
    IcmpTypes,
    /// Probes from a given port.
    SourcePorts,
    /// Packets of protocols that have a number only.
    ProtocolNumbers,
    /// Reasons of verdicts.
    Reasons,
    /// Verdicts as if staged policies were enforced.
    Pending,
    /// HTTP requests.
    Http,
    /// Virtual machines and sandboxes.
    Vm,
    /// Settings of nodes.
    Settings,
    /// Packets with a source address that is not the sender's.
    ForgedSources,
    /// Pods behind a bridge of their node.
    Bridge,
    /// Pods that no dataplane is told of.
    UnknownInterfaces,
}

/// A feature that this harness does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("requires `{0}`, which this harness does not have")]
#[expect(clippy::exhaustive_structs, reason = "a name")]
pub struct UnknownFeature(pub String);

impl Feature {
    /// Everything that this harness has.
    pub const ALL: [Self; 39] = [
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
        Self::Cnp,
        Self::Anp,
        Self::CnpNamedPort,
        Self::CnpUnknownField,
        Self::Calico,
        Self::Tiers,
        Self::Staged,
        Self::NetworkSets,
        Self::HostEndpoints,
        Self::HostInterfaces,
        Self::PreDnat,
        Self::Untracked,
        Self::Services,
        Self::Portmap,
        Self::SourceBeforeNat,
        Self::SourceAfterNat,
        Self::DestinationAfterNat,
        Self::IcmpTypes,
        Self::SourcePorts,
        Self::ProtocolNumbers,
        Self::Reasons,
        Self::Pending,
        Self::Http,
        Self::Vm,
        Self::Settings,
        Self::ForgedSources,
        Self::Bridge,
        Self::UnknownInterfaces,
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
            Self::Cnp => "cnp",
            Self::Anp => "anp",
            Self::CnpNamedPort => "cnp-named-port",
            Self::CnpUnknownField => "cnp-unknown-field",
            Self::Calico => "calico",
            Self::Tiers => "tiers",
            Self::Staged => "staged",
            Self::NetworkSets => "network-sets",
            Self::HostEndpoints => "host-endpoints",
            Self::HostInterfaces => "host-interfaces",
            Self::PreDnat => "pre-dnat",
            Self::Untracked => "untracked",
            Self::Services => "services",
            Self::Portmap => "portmap",
            Self::SourceBeforeNat => "source-before-nat",
            Self::SourceAfterNat => "source-after-nat",
            Self::DestinationAfterNat => "destination-after-nat",
            Self::IcmpTypes => "icmp-types",
            Self::SourcePorts => "source-ports",
            Self::ProtocolNumbers => "protocol-numbers",
            Self::Reasons => "reasons",
            Self::Pending => "pending",
            Self::Http => "http",
            Self::Vm => "vm",
            Self::Settings => "settings",
            Self::ForgedSources => "forged-sources",
            Self::Bridge => "bridge",
            Self::UnknownInterfaces => "unknown-interfaces",
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
