//! What a rule says about protocols, ports and ICMP messages, as the model says it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::protocol::{WireProtocol, icmp_of};
use crate::model::{L4Match, PortConstraint, PortMatch};
use crate::net::{Family, IcmpMatch, Protocol, Transport};

const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

/// The conditions of a rule on its protocol. The default holds for every one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProtocolMatch {
    pub(super) is: Option<WireProtocol>,
    pub(super) is_not: Option<Protocol>,
    pub(super) icmp: Option<IcmpMatch>,
    pub(super) not_icmp: Option<IcmpMatch>,
}

/// The ports of both sides.
pub(super) struct SidePorts {
    pub(super) source: PortConstraint<PortMatch>,
    pub(super) destination: PortConstraint<PortMatch>,
}

/// A condition of the model, and the family to which it is restricted.
pub(super) type L4OfFamily = (Option<Family>, L4Match<PortMatch>);

impl ProtocolMatch {
    /// Returns the conditions of which a flow meets one if it meets those of the rule. No flow meets two.
    pub(super) fn with_ports(self, ports: SidePorts) -> Vec<L4OfFamily> {
        let has_messages = self.icmp.is_some() || self.not_icmp.is_some();
        if has_messages {
            // What has messages has no port, so it has none of those that are excluded, and none that is asked for.
            if ports.only_exclude() { self.messages() } else { Vec::new() }
        } else if ports.is_any() {
            self.protocols()
        } else {
            self.ports(&ports)
        }
    }

    /// Returns whether a protocol meets the conditions.
    fn includes(self, protocol: Protocol) -> bool {
        self.is.is_none_or(|it| it.protocol == protocol) && self.is_not != Some(protocol)
    }

    fn protocols(self) -> Vec<L4OfFamily> {
        match (self.is, self.is_not) {
            (Some(WireProtocol { protocol, family }), _) => {
                let is_included = self.includes(protocol);
                is_included.then_some((family, L4Match::Is(protocol))).into_iter().collect()
            }
            (None, Some(protocol)) => [(None, L4Match::IsNot([protocol].into()))].into(),
            (None, None) => [(None, L4Match::Any)].into(),
        }
    }

    /// Returns the conditions on messages. Only ICMP has any, so a rule with such a condition is about ICMP alone.
    fn messages(self) -> Vec<L4OfFamily> {
        let of = |family| L4Match::Icmp { family, is: self.icmp, is_not: self.not_icmp };
        let families = Family::BOTH.into_iter().filter(|&family| self.includes(icmp_of(family)));
        families.map(|family| (Some(family), of(family))).collect()
    }

    /// Returns the conditions on ports, in which a protocol without ports meets those that exclude some.
    fn ports(self, ports: &SidePorts) -> Vec<L4OfFamily> {
        let of = |transport| L4Match::Ports {
            transport,
            source: ports.source.clone(),
            destination: ports.destination.clone(),
        };
        let transports = TRANSPORTS.into_iter().filter(|it| self.includes(it.protocol()));
        let mut matches: Vec<_> = transports.map(|transport| (None, of(transport))).collect();
        if self.is.is_none() && ports.only_exclude() {
            let others: BTreeSet<_> =
                TRANSPORTS.map(Transport::protocol).into_iter().chain(self.is_not).collect();
            matches.push((None, L4Match::IsNot(others)));
        }
        matches
    }
}

impl SidePorts {
    fn is_any(&self) -> bool {
        self.only_exclude() && self.source.none_of.is_none() && self.destination.none_of.is_none()
    }

    fn only_exclude(&self) -> bool {
        self.source.any_of.is_none() && self.destination.any_of.is_none()
    }
}
