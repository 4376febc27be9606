//! What is particular to the policy of hosts.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use crate::net::{Prefix, Transport};

/// Where on its way through a host a packet meets a policy set of a host endpoint.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    clippy::exhaustive_enums,
    reason = "every dataplane has a place for each, or says it has not"
)]
pub enum Bucket {
    /// Before its connection is tracked. Each packet is judged.
    Untracked,
    /// When it comes in, before its destination is translated.
    PreDnat,
    /// When it is forwarded.
    Forward,
    /// When a process of the host sends or receives it.
    Normal,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untracked => "untracked",
            Self::PreDnat => "pre-DNAT",
            Self::Forward => "forward",
            Self::Normal => "normal",
        })
    }
}

/// How a node treats traffic of host endpoints that policy must not cut, and traffic of its workloads to itself.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct HostSettings {
    /// Ports of the host that stay reachable whatever the policy of a host endpoint says.
    pub failsafe_inbound: BTreeSet<FailsafePort>,
    /// Ports that processes of the host can reach whatever the policy of a host endpoint says.
    pub failsafe_outbound: BTreeSet<FailsafePort>,
    /// How nodes carry the traffic of workloads to each other; policy of host endpoints does not judge these packets.
    pub tunnels: BTreeSet<Tunnel>,
    /// What workloads may not send, whatever policy says: packets that carry others, of which no policy on the way would
    /// see what they carry. A node that takes them for those of another node would deliver it.
    pub denied_encapsulation: BTreeSet<Tunnel>,
    /// What becomes of traffic of a workload to its own host that its egress policy allows.
    pub workload_to_host: WorkloadToHost,
}

/// A port that policy cannot close.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a port, and the other end that it is kept open for")]
pub struct FailsafePort {
    /// The transport.
    pub transport: Transport,
    /// The number.
    pub port: u16,
    /// The addresses of the other end; `None` for all.
    pub net: Option<Prefix>,
}

impl FailsafePort {
    /// Returns whether this keeps open what another one does.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let nets = match (self.net, other.net) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(one), Some(other)) => one.covers(other),
        };
        nets && (self.transport, self.port) == (other.transport, other.port)
    }
}

impl fmt::Display for FailsafePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.port)?;
        self.net.map_or(Ok(()), |net| write!(f, " for {net}"))
    }
}

/// A way to carry packets in others.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "IP in IP, or in datagrams to a port")]
pub enum Tunnel {
    /// IP in IP (RFC 2003), protocol 4.
    IpInIp,
    /// Datagrams to this UDP port: VXLAN (RFC 7348) or WireGuard.
    Udp(u16),
}

/// What becomes of traffic of a workload to its own host that its egress policy allows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "it is denied, allowed or judged")]
pub enum WorkloadToHost {
    /// It is denied.
    Deny,
    /// It is allowed.
    #[default]
    Allow,
    /// It is judged by the host endpoint of [other interfaces](super::Attachment::OtherInterfaces), if there is one.
    Judge,
}

impl HostSettings {
    /// Returns settings without failsafe ports.
    #[must_use]
    pub fn without_failsafe() -> Self {
        Self {
            failsafe_inbound: BTreeSet::new(),
            failsafe_outbound: BTreeSet::new(),
            tunnels: [Tunnel::IpInIp, Tunnel::Udp(4789), Tunnel::Udp(51820), Tunnel::Udp(51821)]
                .into(),
            denied_encapsulation: [Tunnel::IpInIp, Tunnel::Udp(4789)].into(),
            workload_to_host: WorkloadToHost::default(),
        }
    }
}

impl Default for HostSettings {
    /// SSH, DHCP, DNS, BGP, etcd, the API server and Typha stay reachable. Workloads may not send VXLAN and IP in IP.
    ///
    /// Source: Calico, `FailsafeInboundHostPorts`, `FailsafeOutboundHostPorts`, `AllowVXLANPacketsFromWorkloads`,
    /// `AllowIPIPPacketsFromWorkloads` and `VXLANPort` in `felix/config/config_params.go`.
    fn default() -> Self {
        const BOTH: [u16; 7] = [179, 2379, 2380, 5473, 6443, 6666, 6667];
        let port = |transport| move |port| FailsafePort { transport, port, net: None };
        let (tcp, udp) = (port(Transport::Tcp), port(Transport::Udp));
        let ports = |udp_ports: &[u16], tcp_ports: &[u16]| {
            let tcp_ports = BOTH.iter().chain(tcp_ports).copied().map(tcp);
            tcp_ports.chain(udp_ports.iter().copied().map(udp)).collect::<Vec<_>>()
        };
        Self {
            failsafe_inbound: ports(&[68], &[22]).into_iter().collect(),
            failsafe_outbound: ports(&[53, 67], &[]).into_iter().collect(),
            ..Self::without_failsafe()
        }
    }
}
