//! Packets as bytes.

use std::net::IpAddr;

use netpol_core::Payload;

/// Flags of TCP.
pub(super) const SYN: u8 = 2;
pub(super) const SYN_ACK: u8 = 0x12;
pub(super) const ACK: u8 = 0x10;
pub(super) const RST: u8 = 4;

/// An IP packet in an Ethernet frame.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The protocol of what follows all headers.
    pub(super) protocol: u8,
    /// Options of IPv4, a multiple of 4 bytes.
    pub(super) options: Vec<u8>,
    /// Extension headers of IPv6: the type of each and its bytes after the next type.
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    /// The field of IPv4 with flags and the offset of the fragment, and the identification.
    pub(super) fragment: (u16, u16),
    pub(super) payload: Vec<u8>,
    /// The time to live, or hop limit.
    pub(super) hops: u8,
    /// Cuts the frame to this length.
    pub(super) length: Option<usize>,
}

impl Packet {
    pub(super) fn new(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        let (options, extensions) = (Vec::new(), Vec::new());
        Self {
            source,
            destination,
            protocol,
            options,
            extensions,
            fragment: (0, 0),
            payload,
            hops: 64,
            length: None,
        }
    }

    pub(super) fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self::new(source.0, destination.0, 17, ports(source.1, destination.1, 8))
    }

    pub(super) fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Self {
        let mut payload = ports(source.1, destination.1, 20);
        payload[12] = 5 << 4;
        payload[13] = flags;
        Self::new(source.0, destination.0, 6, payload)
    }

    /// A message of the family's ICMP, with an identifier where it has one.
    pub(super) fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Self {
        let protocol = if source.is_ipv4() { 1 } else { 58 };
        Self::new(source, destination, protocol, vec![kind, code, 0, 0, 0x12, 0x34, 0, 1])
    }

    /// An ICMP error that tells of another packet.
    pub(super) fn error(source: IpAddr, destination: IpAddr, kind: u8, about: &Self) -> Self {
        let mut error = Self::icmp(source, destination, kind, 0);
        error.payload.extend_from_slice(&about.bytes()[14..]);
        error
    }

    /// The first packet of a flow.
    pub(super) fn of(source: IpAddr, destination: IpAddr, payload: Payload) -> Self {
        match payload {
            Payload::Ports { transport, source: from, destination: to } => {
                match transport.protocol().number() {
                    6 => Self::tcp((source, from), (destination, to), SYN),
                    protocol => Self::new(source, destination, protocol, ports(from, to, 12)),
                }
            }
            Payload::Icmp { kind, code } => {
                let hops = if source.is_ipv6() && (133..=137).contains(&kind) { 255 } else { 64 };
                Self { hops, ..Self::icmp(source, destination, kind, code) }
            }
            Payload::Other(protocol) => {
                Self::new(source, destination, protocol.number(), vec![0; 8])
            }
        }
    }

    /// The same packet back.
    pub(super) fn reply(&self) -> Self {
        let mut reply = self.clone();
        (reply.source, reply.destination) = (self.destination, self.source);
        if matches!(self.protocol, 6 | 17 | 132) {
            let (from, rest) = reply.payload.split_at_mut(2);
            from.swap_with_slice(&mut rest[..2]);
        }
        match (self.protocol, self.payload.first()) {
            (6, _) => reply.payload[13] = SYN_ACK,
            (1, Some(8)) => reply.payload[0] = 0,
            (58, Some(128)) => reply.payload[0] = 129,
            _ => {}
        }
        reply
    }

    pub(super) fn with_flags(mut self, flags: u8) -> Self {
        self.payload[13] = flags;
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([8, 0]);
                let words = 5 + self.options.len() / 4;
                let total = u16::try_from(words * 4 + self.payload.len()).unwrap();
                frame.extend([0x40 | u8::try_from(words).unwrap(), 0]);
                frame.extend(total.to_be_bytes());
                frame.extend(self.fragment.1.to_be_bytes());
                frame.extend(self.fragment.0.to_be_bytes());
                frame.extend([self.hops, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(&self.options);
                let sum = checksum(&frame[14..]);
                frame[24..26].copy_from_slice(&sum);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                let extensions: usize =
                    self.extensions.iter().map(|(_, bytes)| bytes.len() + 1).sum();
                frame.extend(u16::try_from(extensions + self.payload.len()).unwrap().to_be_bytes());
                let types: Vec<u8> =
                    self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol]).collect();
                frame.extend([types[0], self.hops]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                for ((_, bytes), next) in self.extensions.iter().zip(&types[1..]) {
                    frame.push(*next);
                    frame.extend(bytes);
                }
            }
            _ => panic!("one family"),
        }
        frame.extend(&self.payload);
        frame.truncate(self.length.unwrap_or(usize::MAX));
        frame
    }
}

/// RFC 1071.
pub(super) fn checksum(header: &[u8]) -> [u8; 2] {
    let words = header.chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

fn ports(source: u16, destination: u16, length: usize) -> Vec<u8> {
    let mut payload = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    payload.resize(length, 0);
    payload
}
