//! Tuples: one direction of a tracked flow.

use std::net::IpAddr;

use netpol_core::net::{Family, Protocol, Transport};
use netpol_core::{Flow, Origin, Payload};

use crate::message::{NESTED, encoded, find};

/// `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`, `CTA_TUPLE_ZONE`.
///
/// Source, like the others: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const ZONE: u16 = 3;
/// `CTA_PROTO_NUM`, and what follows it: ports, or type and code of both kinds of ICMP.
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const ICMP: [u16; 2] = [5, 6];
const ICMPV6: [u16; 2] = [8, 9];

/// One direction of a tracked flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    part: Part,
    /// The zone in which this direction, and not the other one, is looked for.
    zone: Option<u16>,
}

/// What is known beside addresses and protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Ports { source: u16, destination: u16 },
    Icmp { kind: u8, code: u8 },
    Nothing,
}

impl Tuple {
    /// Reads the value of `CTA_TUPLE_ORIG` or `CTA_TUPLE_REPLY`.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let addresses = find(bytes, ADDRESSES)?;
        let v4 = |kind| <[u8; 4]>::try_from(find(addresses, kind)?).ok().map(IpAddr::from);
        let v6 = |kind| <[u8; 16]>::try_from(find(addresses, kind)?).ok().map(IpAddr::from);
        let protocol = find(bytes, PROTOCOL)?;
        let byte = |kind| find(protocol, kind).and_then(|it| it.first().copied());
        let word = |within, kind| {
            find(within, kind).and_then(|it| it.first_chunk().copied()).map(u16::from_be_bytes)
        };
        let icmp = |[kind, code]: [u16; 2]| {
            byte(kind).zip(byte(code)).map(|(kind, code)| Part::Icmp { kind, code })
        };
        let ports = word(protocol, SOURCE_PORT).zip(word(protocol, DESTINATION_PORT));
        let ports = ports.map(|(source, destination)| Part::Ports { source, destination });
        Some(Self {
            source: v4(1).or_else(|| v6(3))?,
            destination: v4(2).or_else(|| v6(4))?,
            protocol: byte(NUMBER)?,
            part: ports.or_else(|| icmp(ICMP)).or_else(|| icmp(ICMPV6)).unwrap_or(Part::Nothing),
            zone: word(bytes, ZONE),
        })
    }

    /// Returns the value of an attribute that [`read`](Self::read) reads as the same; `None` for a tuple without ports.
    pub(crate) fn write(&self) -> Option<Vec<u8>> {
        let Part::Ports { source, destination } = self.part else { return None };
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                encoded(&[(1, from.octets().as_slice()), (2, to.octets().as_slice())])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                encoded(&[(3, from.octets().as_slice()), (4, to.octets().as_slice())])
            }
            _ => return None,
        };
        let protocol = encoded(&[
            (NUMBER, &[self.protocol]),
            (SOURCE_PORT, source.to_be_bytes().as_slice()),
            (DESTINATION_PORT, destination.to_be_bytes().as_slice()),
        ]);
        let mut bytes =
            encoded(&[(ADDRESSES | NESTED, &addresses), (PROTOCOL | NESTED, &protocol)]);
        if let Some(zone) = self.zone {
            bytes.extend(encoded(&[(ZONE, zone.to_be_bytes().as_slice())]));
        }
        Some(bytes)
    }

    #[cfg(test)]
    pub(crate) fn udp(addresses: [&str; 2], [source, destination]: [u16; 2]) -> Self {
        let [from, to] = addresses.map(|it| it.parse().unwrap_or(IpAddr::from([0; 4])));
        let part = Part::Ports { source, destination };
        Self { source: from, destination: to, protocol: 17, part, zone: None }
    }

    /// Returns the other direction of a flow that is not translated; `None` for a tuple without ports.
    pub(crate) fn inverse(&self) -> Option<Self> {
        let Part::Ports { source, destination } = self.part else { return None };
        let part = Part::Ports { source: destination, destination: source };
        let Self { source, destination, protocol, .. } = *self;
        Some(Self { source: destination, destination: source, protocol, part, zone: None })
    }

    /// Returns the same tuple in a zone of its own.
    pub(crate) const fn in_zone(self, zone: u16) -> Self {
        Self { zone: Some(zone), ..self }
    }

    pub(crate) const fn zone(&self) -> Option<u16> {
        self.zone
    }

    pub(crate) const fn source(&self) -> IpAddr {
        self.source
    }

    pub(crate) const fn destination(&self) -> IpAddr {
        self.destination
    }

    pub(crate) const fn family(&self) -> Family {
        Family::of(self.source)
    }

    /// Returns the flow whose directions these tuples are, as it is judged: from its own source, to where destination NAT
    /// has sent it.
    pub(crate) fn flow(&self, reply: &Self, origin: Origin) -> Flow {
        let protocol = Protocol::new(self.protocol);
        let transport = Transport::from_protocol(protocol);
        let payload = match (transport, self.part, reply.part) {
            (Some(transport), Part::Ports { source, .. }, Part::Ports { source: to, .. }) => {
                Payload::Ports { transport, source, destination: to }
            }
            (None, Part::Icmp { kind, code }, _) => Payload::Icmp { kind, code },
            _ => Payload::Other(protocol),
        };
        Flow { source: self.source, destination: reply.source, payload, origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(addresses: [&str; 2], protocol: u8, part: Part) -> Tuple {
        let [source, destination] = addresses.map(|it| it.parse().unwrap_or(IpAddr::from([0; 4])));
        Tuple { source, destination, protocol, part, zone: None }
    }

    #[test]
    fn what_is_written_is_read() {
        let ports = Part::Ports { source: 40_000, destination: 80 };
        for addresses in [["10.0.0.1", "10.0.0.2"], ["2001:db8::1", "2001:db8::2"]] {
            let plain = tuple(addresses, 6, ports);
            for it in [plain, plain.in_zone(7)] {
                assert_eq!(it.write().as_deref().and_then(Tuple::read), Some(it));
            }
            assert_eq!(plain.inverse().and_then(|it| it.inverse()), Some(plain));
        }
    }

    #[test]
    fn tuples_without_ports_have_no_inverse() {
        let part = Part::Icmp { kind: 8, code: 0 };
        let ping = tuple(["10.0.0.1", "10.0.0.2"], 1, part);
        assert_eq!((ping.inverse(), ping.write()), (None, None));
    }

    /// The kernel writes these for a ping: `CTA_PROTO_ICMP_ID`, `CTA_PROTO_ICMP_TYPE`, `CTA_PROTO_ICMP_CODE`.
    #[test]
    fn icmp_has_a_type() {
        let addresses = encoded(&[(1, &[10, 0, 0, 1]), (2, &[10, 0, 0, 2])]);
        let protocol = encoded(&[(NUMBER, &[1]), (4, &[0, 9]), (5, &[8]), (6, &[0])]);
        let bytes = encoded(&[(ADDRESSES | NESTED, &addresses), (PROTOCOL | NESTED, &protocol)]);
        let part = Part::Icmp { kind: 8, code: 0 };
        assert_eq!(Tuple::read(&bytes), Some(tuple(["10.0.0.1", "10.0.0.2"], 1, part)));
        for length in 0..bytes.len() {
            assert_eq!(Tuple::read(bytes.get(..length).unwrap_or_default()), None, "{length}");
        }
    }

    #[test]
    fn a_flow_goes_where_its_replies_come_from() {
        let ports = |source, destination| Part::Ports { source, destination };
        let original = tuple(["10.0.0.1", "10.96.0.1"], 6, ports(40_000, 80));
        let reply = tuple(["10.0.0.2", "10.0.0.1"], 6, ports(8080, 40_000));
        let want = Flow {
            source: original.source,
            destination: reply.source,
            payload: Payload::Ports {
                transport: Transport::Tcp,
                source: 40_000,
                destination: 8080,
            },
            origin: Origin::Forwarded,
        };
        assert_eq!(original.flow(&reply, Origin::Forwarded), want);
    }
}
