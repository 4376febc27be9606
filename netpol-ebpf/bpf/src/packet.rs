//! Packets: what is read of their headers.

use aya_ebpf::programs::TcContext;
use netpol_ebpf_abi::{EGRESS, Reason};

use crate::{endpoint, fragment, icmp};

/// Protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub const ICMP: u32 = 1;
pub const IP_IN_IP: u32 = 4;
pub const TCP: u32 = 6;
pub const UDP: u32 = 17;
pub const ICMPV6: u32 = 58;
pub const SCTP: u32 = 132;

/// Extension headers of IPv6.
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const FRAGMENT: u32 = 44;
const AUTHENTICATION: u32 = 51;
const DESTINATION: u32 = 60;

/// Options of IPv4 (RFC 791, section 3.1): the two of one byte, and those that name further destinations.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// The most bytes that options of IPv4 can have.
const MOST_OPTIONS: usize = 40;

/// How many extension headers are followed.
const MOST_HEADERS: usize = 8;

/// The length of the Ethernet header.
const ETHERNET: usize = 14;
/// Where the next header is if the IP header is as short as it can be.
const AFTER_V4: usize = ETHERNET + size_of::<Header4>();
const AFTER_V6: usize = ETHERNET + size_of::<Header6>();

/// Bits of the second byte of flags of TCP (RFC 9293, section 3.1).
const FIN: u32 = 1;
const SYN: u32 = 1 << 1;
const RST: u32 = 1 << 2;
const ACK: u32 = 1 << 4;

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Part {
    Whole,
    /// All of a datagram, with a fragment header nevertheless (RFC 6946).
    Atomic,
    First,
    Later,
}

/// What is known of a packet, as its endpoint sees it.
///
/// The direction is a parameter of the functions, so that the compiler makes each program from its own half.
#[derive(Clone, Copy)]
pub struct Packet {
    /// The other address. IPv4 addresses are in the first word.
    pub remote: [u32; 4],
    /// The endpoint's address.
    pub local: [u32; 4],
    /// The ports of the flow, in network order; see `FlowKey4`.
    pub remote_port: u16,
    pub local_port: u16,
    /// The protocol.
    pub protocol: u32,
    /// Where what follows the IP headers begins.
    pub offset: u32,
    /// The flags of TCP.
    pub tcp: u32,
    /// What ICMP says; see `icmp`.
    pub icmp: icmp::Message,
    pub part: Part,
    /// The identification of a fragmented datagram, in network order.
    pub id: u32,
    /// The hop limit of IPv6.
    pub hops: u8,
}

/// The beginning of the header of TCP (RFC 9293, section 3.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    ports: [u16; 2],
    numbers: [u16; 4],
    length: u8,
    flags: u8,
}

/// RFC 791, section 3.1.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header4 {
    pub version_length: u8,
    service: u8,
    length: u16,
    id: u16,
    pub fragment: u16,
    time: u8,
    pub protocol: u8,
    checksum: u16,
    pub source: u32,
    pub destination: u32,
}

/// RFC 8200, section 3.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header6 {
    version_class_label: u32,
    length: u16,
    pub next: u8,
    pub limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

impl Packet {
    /// Returns a packet of which nothing is known.
    #[inline(always)]
    pub fn unknown() -> Self {
        Self {
            remote: [0; 4],
            local: [0; 4],
            remote_port: 0,
            local_port: 0,
            protocol: 0,
            offset: 0,
            tcp: 0,
            icmp: icmp::Message::NONE,
            part: Part::Whole,
            id: 0,
            hops: 0,
        }
    }

    /// Returns whether the packet asks for a new TCP connection.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.protocol == TCP && self.tcp & (SYN | ACK | RST) == SYN
    }

    /// Returns whether the packet begins the end of a TCP connection.
    #[inline(always)]
    pub fn is_closing(&self) -> bool {
        self.protocol == TCP && self.tcp & (FIN | RST) != 0
    }

    /// Returns the port that policy asks about when it judges a direction, in the order of the host.
    #[inline(always)]
    pub fn port(&self, direction: u32) -> u16 {
        if self.icmp.is_some() {
            return self.icmp.judged();
        }
        u16::from_be(if direction == EGRESS { self.remote_port } else { self.local_port })
    }

    /// Returns the other port, in the order of the host.
    #[inline(always)]
    pub fn source_port(&self, direction: u32) -> u16 {
        u16::from_be(if direction == EGRESS { self.local_port } else { self.remote_port })
    }

    /// Reads IPv4 and what follows.
    #[inline(always)]
    pub fn read4<const DIRECTION: u32>(
        &mut self,
        context: &TcContext,
        endpoint: u32,
    ) -> Result<(), Reason> {
        let header: *const Header4 = header(context, ETHERNET)?;
        // SAFETY: `header` checked that all of it is in the packet.
        let header = unsafe { &*header };
        let words = u32::from(header.version_length & 15);
        if header.version_length >> 4 != 4 || words < 5 {
            return Err(Reason::Malformed);
        }
        if DIRECTION == EGRESS {
            self.local[0] = header.source;
            self.remote[0] = header.destination;
        } else {
            self.remote[0] = header.source;
            self.local[0] = header.destination;
        }
        self.protocol = u32::from(header.protocol);
        self.offset = ETHERNET as u32 + words * 4;
        let fragment = u16::from_be(header.fragment);
        if fragment & 0x3fff != 0 {
            self.id = u32::from(header.id);
            self.part = if fragment & 0x1fff == 0 { Part::First } else { Part::Later };
            if self.protocol == TCP && fragment & 0x1fff == 1 {
                // It could replace the flags of a first fragment (RFC 3128); one that begins there is none of ours.
                return Err(Reason::Malformed);
            }
        }
        if DIRECTION == EGRESS && words > 5 && has_source_route(context, words * 4)? {
            return Err(Reason::SourceRoute);
        }
        self.read_ports::<DIRECTION, false>(context, endpoint)
    }

    /// Reads IPv6, its extension headers and what follows.
    #[inline(always)]
    pub fn read6<const DIRECTION: u32>(
        &mut self,
        context: &TcContext,
        endpoint: u32,
    ) -> Result<(), Reason> {
        let header: *const Header6 = header(context, ETHERNET)?;
        // SAFETY: `header` checked that all of it is in the packet.
        let header = unsafe { &*header };
        if u32::from_be(header.version_class_label) >> 28 != 6 {
            return Err(Reason::Malformed);
        }
        if DIRECTION == EGRESS {
            copy(&mut self.local, &header.source);
            copy(&mut self.remote, &header.destination);
        } else {
            copy(&mut self.remote, &header.source);
            copy(&mut self.local, &header.destination);
        }
        self.hops = header.limit;
        let next = u32::from(header.next);
        let end = if matches!(next, TCP | UDP | ICMPV6) {
            Headers { protocol: next, ..Headers::none(AFTER_V6 as u32) }
        } else {
            follow(context, next, AFTER_V6 as u32)?
        };
        self.protocol = end.protocol;
        self.offset = end.offset;
        self.part = end.part;
        self.id = end.id;
        if DIRECTION == EGRESS && end.has_route {
            return Err(Reason::SourceRoute);
        }
        self.read_ports::<DIRECTION, true>(context, endpoint)
    }

    /// Returns the key of a fragmented datagram.
    #[inline(always)]
    pub fn addresses<const V6: bool>(&self) -> ([u32; 4], [u32; 4]) {
        if V6 {
            (self.remote, self.local)
        } else {
            (endpoint::mapped(self.remote[0]), endpoint::mapped(self.local[0]))
        }
    }

    #[inline(always)]
    fn read_ports<const DIRECTION: u32, const V6: bool>(
        &mut self,
        context: &TcContext,
        endpoint: u32,
    ) -> Result<(), Reason> {
        if self.part == Part::Later {
            return fragment::recall::<V6>(self, endpoint, DIRECTION);
        }
        match self.protocol {
            TCP | UDP | SCTP => {
                let [source, destination] = self.transport::<V6>(context)?;
                if DIRECTION == EGRESS {
                    self.local_port = source;
                    self.remote_port = destination;
                } else {
                    self.remote_port = source;
                    self.local_port = destination;
                }
                Ok(())
            }
            ICMP if !V6 => icmp::read::<V6>(self, context),
            ICMPV6 if V6 => icmp::read::<V6>(self, context),
            _ => Ok(()),
        }
    }

    /// Reads the ports, and the flags of TCP. They are in the usual place nearly always, and can be read directly there.
    #[inline(always)]
    fn transport<const V6: bool>(&mut self, context: &TcContext) -> Result<[u16; 2], Reason> {
        let usual = if V6 { AFTER_V6 } else { AFTER_V4 };
        if self.offset == usual as u32 {
            if self.protocol == TCP {
                if let Some(start) = at::<Tcp>(context, usual) {
                    // SAFETY: `at` checked that the bytes are in the packet.
                    let header = unsafe { &*start };
                    self.tcp = u32::from(header.flags);
                    return Ok(header.ports);
                }
            } else if let Some(start) = at::<[u16; 2]>(context, usual) {
                // SAFETY: `at` checked that the bytes are in the packet.
                return Ok(unsafe { *start });
            }
        }
        if self.protocol == TCP {
            self.tcp = u32::from(load::<u8>(context, self.offset + 13)?);
        }
        load(context, self.offset)
    }
}

/// Where the headers of IPv6 end.
#[derive(Clone, Copy)]
pub struct Headers {
    pub protocol: u32,
    pub offset: u32,
    pub part: Part,
    id: u32,
    /// The packet goes on from its destination to others.
    has_route: bool,
}

impl Headers {
    /// Returns headers of which nothing is known.
    #[inline(always)]
    fn none(offset: u32) -> Self {
        Self { protocol: 0, offset, part: Part::Whole, id: 0, has_route: false }
    }
}

/// Follows the extension headers of IPv6 (RFC 8200, section 4; RFC 4302, section 2.2 for authentication). Others, such as
/// mobility, are protocols as they are for the kernel and for the other backends.
#[inline(always)]
pub fn follow(context: &TcContext, mut next: u32, mut offset: u32) -> Result<Headers, Reason> {
    let mut headers = Headers::none(offset);
    for _ in 0..MOST_HEADERS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                if next == ROUTING {
                    let [_, left]: [u8; 2] = load(context, offset + 2)?;
                    headers.has_route |= left != 0;
                }
                let [after, length]: [u8; 2] = load(context, offset)?;
                next = u32::from(after);
                offset += (u32::from(length) + 1) * 8;
            }
            AUTHENTICATION => {
                let [after, length]: [u8; 2] = load(context, offset)?;
                next = u32::from(after);
                offset += (u32::from(length) + 2) * 4;
            }
            FRAGMENT => {
                let [first, second]: [u32; 2] = load(context, offset)?;
                let first = u32::from_be(first);
                next = first >> 24;
                offset += 8;
                headers.id = second;
                if first & 0xfff8 != 0 {
                    if next == TCP && first & 0xfff8 == 8 {
                        // As in IPv4.
                        return Err(Reason::Malformed);
                    }
                    return Ok(Headers { protocol: next, offset, part: Part::Later, ..headers });
                }
                headers.part = if first & 1 != 0 { Part::First } else { Part::Atomic };
            }
            _ => return Ok(Headers { protocol: next, offset, ..headers }),
        }
    }
    if matches!(next, HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT) {
        return Err(Reason::ExtensionHeaders);
    }
    Ok(Headers { protocol: next, offset, ..headers })
}

/// Returns whether an IPv4 header of this length in bytes has an option that names further destinations.
#[inline(always)]
fn has_source_route(context: &TcContext, length: u32) -> Result<bool, Reason> {
    let mut offset = size_of::<Header4>() as u32;
    for _ in 0..MOST_OPTIONS {
        if offset >= length {
            break;
        }
        let kind: u8 = load(context, ETHERNET as u32 + offset)?;
        match kind {
            END_OF_OPTIONS => break,
            NO_OPERATION => offset += 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Ok(true),
            _ => {
                let length: u8 = load(context, ETHERNET as u32 + offset + 1)?;
                if length < 2 {
                    return Err(Reason::Malformed);
                }
                offset += u32::from(length);
            }
        }
    }
    Ok(false)
}

/// Reads bytes of the packet wherever they are.
#[inline(always)]
pub fn load<T>(context: &TcContext, offset: u32) -> Result<T, Reason> {
    context.load(offset as usize).map_err(|_| Reason::Malformed)
}

/// Copies an address word by word: a copy of the whole can become a call.
#[inline(always)]
pub fn copy(to: &mut [u32; 4], from: &[u32; 4]) {
    to[0] = from[0];
    to[1] = from[1];
    to[2] = from[2];
    to[3] = from[3];
}

/// Returns where a header is, and sees to it that it can be read directly.
#[inline(always)]
fn header<T>(context: &TcContext, offset: usize) -> Result<*const T, Reason> {
    if let Some(start) = at(context, offset) {
        return Ok(start);
    }
    // The kernel may keep this part of the packet elsewhere. If there is no such part, the second look fails.
    let _ = context.pull_data((offset + size_of::<T>()) as u32);
    at(context, offset).ok_or(Reason::Malformed)
}

/// Returns where a part of the packet is, if it can be read directly.
#[inline(always)]
fn at<T>(context: &TcContext, offset: usize) -> Option<*const T> {
    let buffer = context.skb.skb;
    // Both ends are read each time: the verifier knows them as pointers only until the compiler puts them aside, which it
    // does as numbers of 32 bits.
    // SAFETY: the kernel hands the program a valid `__sk_buff`.
    let start = unsafe { core::ptr::read_volatile(&raw const (*buffer).data) } as usize;
    // SAFETY: as above.
    let end = unsafe { core::ptr::read_volatile(&raw const (*buffer).data_end) } as usize;
    if start + offset + size_of::<T>() > end {
        return None;
    }
    Some((start + offset) as *const T)
}
