//! SCTP packets, as far as a handshake and a message need them.
//!
//! Kernels often come without SCTP, so both ends of a probe speak it over raw sockets. Source: RFC 9260, section 3.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

/// Length of the common header, in bytes.
const HEADER: usize = 12;

/// Where the checksum is in a packet.
const CHECKSUM: std::ops::Range<usize> = 8..12;

/// Length of the head of a chunk or parameter, in bytes.
const CHUNK_HEAD: usize = 4;

/// Largest packet that is received, in bytes.
pub(crate) const MAX_PACKET: usize = 2048;

/// Number of the parameter that carries the cookie. Source: RFC 9260, section 3.3.3.
const STATE_COOKIE: u16 = 7;

/// One packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Packet {
    pub(crate) source: u16,
    pub(crate) destination: u16,
    /// Verification tag: the one that the receiver chose.
    pub(crate) tag: u32,
    pub(crate) chunks: Vec<Chunk>,
}

/// One chunk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Chunk {
    Data {
        tsn: u32,
        message: Vec<u8>,
    },
    Init {
        tag: u32,
        tsn: u32,
    },
    InitAck {
        tag: u32,
        tsn: u32,
        cookie: Vec<u8>,
    },
    Sack {
        tsn: u32,
    },
    Abort,
    CookieEcho(Vec<u8>),
    CookieAck,
    /// Of another kind, or malformed.
    Other,
}

// Kinds of chunks. Source: RFC 9260, section 3.2.
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// A whole message in one chunk: the bits B and E.
const UNFRAGMENTED: u8 = 3;

/// Receiver window that we advertise, in bytes.
const WINDOW: u32 = 65_536;

impl Packet {
    /// Returns the bytes of the packet, checksum included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        for chunk in &self.chunks {
            chunk.encode(&mut bytes);
        }
        // The reflected CRC goes out with its low byte first (RFC 9260, appendix A).
        let sum = crc32c::crc32c(&bytes).to_le_bytes();
        if let Some(field) = bytes.get_mut(CHECKSUM) {
            field.copy_from_slice(&sum);
        }
        bytes
    }

    /// Returns the packet in `bytes`, or `None` if it is cut short or its checksum is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (ports, rest) = bytes.split_first_chunk::<4>()?;
        let (tag, rest) = rest.split_first_chunk::<4>()?;
        let (sum, mut rest) = rest.split_first_chunk::<4>()?;
        let [s1, s2, d1, d2] = *ports;
        let crc = [ports.as_slice(), tag, &[0; 4], rest].into_iter().fold(0, crc32c::crc32c_append);
        if crc.to_le_bytes() != *sum {
            return None;
        }
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let (kind, flags, value, after) = split_chunk(rest)?;
            chunks.push(Chunk::decode(kind, flags, value));
            rest = after;
        }
        Some(Self {
            source: u16::from_be_bytes([s1, s2]),
            destination: u16::from_be_bytes([d1, d2]),
            tag: u32::from_be_bytes(*tag),
            chunks,
        })
    }

    /// Returns the packet that a raw socket for `address` has received: IPv4 comes with its header, IPv6 without.
    pub(crate) fn decode_received(address: IpAddr, bytes: &[u8]) -> Option<Self> {
        match address {
            IpAddr::V4(_) => {
                let words = bytes.first()? & 0x0f;
                Self::decode(bytes.get(usize::from(words) * 4..)?)
            }
            IpAddr::V6(_) => Self::decode(bytes),
        }
    }
}

impl Chunk {
    fn encode(&self, bytes: &mut Vec<u8>) {
        // Streams out and in: one each.
        let init = |tag: u32, tsn: u32| {
            let numbers =
                [tag.to_be_bytes(), WINDOW.to_be_bytes(), [0, 1, 0, 1], tsn.to_be_bytes()];
            numbers.concat()
        };
        let (kind, flags, value) = match self {
            Self::Data { tsn, message } => {
                // Stream, sequence number and payload protocol are zero.
                let head = [tsn.to_be_bytes(), [0; 4], [0; 4]].concat();
                (DATA, UNFRAGMENTED, [head, message.clone()].concat())
            }
            Self::Init { tag, tsn } => (INIT, 0, init(*tag, *tsn)),
            Self::InitAck { tag, tsn, cookie } => {
                let length = u16::try_from(CHUNK_HEAD + cookie.len()).unwrap_or(u16::MAX);
                let head = [STATE_COOKIE.to_be_bytes(), length.to_be_bytes()].concat();
                (INIT_ACK, 0, [init(*tag, *tsn), head, cookie.clone()].concat())
            }
            Self::Sack { tsn } => {
                (SACK, 0, [tsn.to_be_bytes(), WINDOW.to_be_bytes(), [0; 4]].concat())
            }
            Self::Abort => (ABORT, 0, Vec::new()),
            Self::CookieEcho(cookie) => (COOKIE_ECHO, 0, cookie.clone()),
            Self::CookieAck => (COOKIE_ACK, 0, Vec::new()),
            Self::Other => return,
        };
        let length = u16::try_from(CHUNK_HEAD + value.len()).unwrap_or(u16::MAX);
        bytes.extend([kind, flags]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }

    fn decode(kind: u8, flags: u8, value: &[u8]) -> Self {
        let decoded = match (kind, flags) {
            (DATA, UNFRAGMENTED) => number(value, 0)
                .zip(value.get(12..))
                .map(|(tsn, message)| Self::Data { tsn, message: message.to_vec() }),
            (INIT, _) => {
                number(value, 0).zip(number(value, 12)).map(|(tag, tsn)| Self::Init { tag, tsn })
            }
            (INIT_ACK, _) => decode_init_ack(value),
            (SACK, _) => number(value, 0).map(|tsn| Self::Sack { tsn }),
            (ABORT, _) => Some(Self::Abort),
            (COOKIE_ECHO, _) => Some(Self::CookieEcho(value.to_vec())),
            (COOKIE_ACK, _) => Some(Self::CookieAck),
            _ => None,
        };
        decoded.unwrap_or(Self::Other)
    }
}

/// Opens a raw SCTP socket in the calling thread's namespace.
///
/// It is handed out as a UDP socket, which is how the runtime knows sockets that send and receive whole packets.
///
/// # Errors
///
/// Where the kernel's own SCTP is loaded, too: it would refuse what we answer.
pub(crate) fn raw_socket(address: IpAddr) -> io::Result<UdpSocket> {
    if Path::new("/proc/thread-self/net/sctp").exists() {
        return Err(io::Error::other(
            "the kernel's own SCTP would answer, too; unload it with `rmmod sctp`",
        ));
    }
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, Type::from(nix::libc::SOCK_RAW), Some(Protocol::SCTP))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Splits off the first chunk or parameter: kind, flags, value and what follows the padding.
fn split_chunk(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let ([kind, flags, l1, l2], _) = bytes.split_first_chunk::<CHUNK_HEAD>()?;
    let length = usize::from(u16::from_be_bytes([*l1, *l2]));
    let value = bytes.get(CHUNK_HEAD..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((*kind, *flags, value, rest))
}

fn decode_init_ack(value: &[u8]) -> Option<Chunk> {
    let (tag, tsn) = number(value, 0).zip(number(value, 12))?;
    let mut parameters = value.get(16..)?;
    while !parameters.is_empty() {
        let (high, low, cookie, rest) = split_chunk(parameters)?;
        if u16::from_be_bytes([high, low]) == STATE_COOKIE {
            return Some(Chunk::InitAck { tag, tsn, cookie: cookie.to_vec() });
        }
        parameters = rest;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|it| u32::from_be_bytes(*it))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "test code")]
mod tests {
    use super::*;

    fn packet(chunks: Vec<Chunk>) -> Packet {
        Packet { source: 40_000, destination: 80, tag: 7, chunks }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for chunks in [
            vec![Chunk::Init { tag: 1, tsn: 2 }],
            vec![Chunk::InitAck { tag: 1, tsn: 2, cookie: vec![1, 2, 3, 4, 5] }],
            vec![Chunk::CookieEcho(vec![1, 2, 3])],
            vec![Chunk::CookieAck],
            vec![Chunk::Sack { tsn: 9 }, Chunk::Data { tsn: 3, message: b"hello".to_vec() }],
            vec![Chunk::Abort],
        ] {
            let packet = packet(chunks);
            assert_eq!(Packet::decode(&packet.encode()), Some(packet));
        }
    }

    #[test]
    fn broken_packets_are_refused() {
        let good = packet(vec![Chunk::Data { tsn: 3, message: b"hello".to_vec() }]).encode();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert_eq!(Packet::decode(&bad), None, "byte {position} changed");
            assert_eq!(Packet::decode(&good[..position]), None, "cut at {position}");
        }
    }

    #[test]
    fn the_ipv4_header_is_skipped() {
        let packet = packet(vec![Chunk::CookieAck]);
        let received = [[0x45; 20].to_vec(), packet.encode()].concat();
        assert_eq!(Packet::decode_received([192, 0, 2, 1].into(), &received), Some(packet));
    }
}
