//! Denied packets, as the kernel reports them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_core::Direction;
use netpol_core::net::Protocol;
use netpol_core::program::RuleId;
use netpol_ebpf_abi::{self as abi, EGRESS, Event};

/// A packet that was denied.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Denial {
    /// The index of the endpoint's interface on the host's side.
    pub interface: u32,
    /// The direction, seen from the endpoint.
    pub direction: Direction,
    /// The other address and the endpoint's; `None` for packets that are not IP, or too short.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The other port and the endpoint's; type and code, and 0, for ICMP.
    pub ports: (u16, u16),
    /// The protocol.
    pub protocol: Protocol,
    /// Why it was denied.
    pub reason: DenialReason,
    /// The rule that denied, where one did and is still in force.
    pub rule: Option<RuleId>,
    /// The packet passed all the same, because the endpoint is in audit mode.
    pub audited: bool,
}

pub use netpol_ebpf_abi::Reason as DenialReason;

impl Denial {
    /// Returns what an event says. `rule` is the rule of its counter.
    pub(crate) fn new(event: &Event, rule: Option<RuleId>) -> Option<Self> {
        let reason = DenialReason::ALL.into_iter().find(|reason| *reason as u8 == event.reason)?;
        let is_icmp = matches!(Protocol::new(event.protocol), Protocol::ICMP | Protocol::ICMPV6);
        let remote_port = if is_icmp { event.remote_port } else { u16::from_be(event.remote_port) };
        Some(Self {
            interface: event.interface,
            direction: if u32::from(event.direction) == EGRESS {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            addresses: address(event.version, event.remote)
                .zip(address(event.version, event.local)),
            ports: (remote_port, if is_icmp { 0 } else { u16::from_be(event.local_port) }),
            protocol: Protocol::new(event.protocol),
            reason,
            rule: rule.filter(|_| reason == abi::Reason::Policy),
            audited: event.audited != 0,
        })
    }
}

fn address(version: u8, words: [u32; 4]) -> Option<IpAddr> {
    let [a, b, c, d] = words.map(u32::from_be);
    match version {
        4 => Some(Ipv4Addr::from_bits(a).into()),
        6 => {
            let high = (u128::from(a) << 96) | (u128::from(b) << 64);
            Some(Ipv6Addr::from_bits(high | (u128::from(c) << 32) | u128::from(d)).into())
        }
        _ => None,
    }
}
