//! ICMP: queries, discovery, and errors that belong to a flow.

use aya_ebpf::programs::TcContext;
use netpol_ebpf_abi::{EGRESS, Reason};

use crate::endpoint;
use crate::packet::{self, Header4, Header6, ICMP, ICMPV6, Packet, Part, SCTP, TCP, UDP};

/// What an ICMP message says, in one word.
///
/// | bits   | meaning                                                        |
/// |--------|----------------------------------------------------------------|
/// | 0..8   | the code                                                       |
/// | 8..16  | the type                                                       |
/// | 16     | there is a message                                             |
/// | 17     | it asks for an answer                                          |
/// | 18     | it answers                                                     |
/// | 24..32 | the type of the query that it is or answers                    |
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Message(pub u32);

impl Message {
    /// The packet is not ICMP.
    pub const NONE: Self = Self(0);
    const SOME: u32 = 1 << 16;
    const QUERY: u32 = 1 << 17;
    const ANSWER: u32 = 1 << 18;

    #[inline(always)]
    fn new(v6: bool, kind: u8, code: u8) -> Self {
        let message = Self::SOME | u32::from(kind) << 8 | u32::from(code);
        // Only with code 0 is it a query or an answer (RFC 792, RFC 950, RFC 4443).
        let query = if code == 0 { query(v6, kind) } else { 0 };
        if query == 0 {
            Self(message)
        } else if query == kind {
            Self(message | Self::QUERY | u32::from(query) << 24)
        } else {
            Self(message | Self::ANSWER | u32::from(query) << 24)
        }
    }

    #[inline(always)]
    pub fn is_some(self) -> bool {
        self.0 & Self::SOME != 0
    }

    /// Returns whether the message is part of a flow: a query or an answer.
    #[inline(always)]
    pub fn is_tracked(self) -> bool {
        self.0 & (Self::QUERY | Self::ANSWER) != 0
    }

    #[inline(always)]
    pub fn is_answer(self) -> bool {
        self.0 & Self::ANSWER != 0
    }

    #[inline(always)]
    pub fn kind(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    /// Returns the type and code that policy is asked about.
    #[inline(always)]
    pub fn judged(self) -> u16 {
        self.0 as u16
    }

    /// Returns the same message as the query that it belongs to: what policy is asked about when a flow is judged again.
    #[inline(always)]
    pub fn as_query(self) -> Self {
        if self.is_answer() { Self(self.0 & !0xff00 | self.0 >> 24 << 8) } else { self }
    }

    /// Returns what tells flows of different queries apart, as a part of their keys.
    #[inline(always)]
    pub fn of_flow(self) -> u32 {
        self.0 >> 24 << 8
    }
}

/// Returns the type of the query that a type is or answers, 0 if there is none.
///
/// RFC 792: echo, timestamp, information; RFC 950: address mask; RFC 4443: echo.
#[inline(always)]
fn query(v6: bool, kind: u8) -> u8 {
    match (v6, kind) {
        (false, 0 | 8) => 8,
        (false, 13 | 14) => 13,
        (false, 15 | 16) => 15,
        (false, 17 | 18) => 17,
        (true, 128 | 129) => 128,
        _ => 0,
    }
}

/// Reads an ICMP message.
#[inline(always)]
pub fn read<const V6: bool>(packet: &mut Packet, context: &TcContext) -> Result<(), Reason> {
    let [kind, code]: [u8; 2] = packet::load(context, packet.offset)?;
    packet.icmp = Message::new(V6, kind, code);
    if packet.icmp.is_tracked() {
        let id: u16 = packet::load(context, packet.offset + 4)?;
        packet.remote_port = id;
        packet.local_port = id;
    }
    Ok(())
}

/// What becomes of a message without asking anybody.
pub enum Discovery {
    Passes,
    Dropped,
}

/// The hop limit of a packet that no router has forwarded (RFC 4861, section 3.1).
const NOT_FORWARDED: u8 = 255;

/// Returns whether a message is neighbour discovery (RFC 4861) or multicast listener discovery (RFC 2710, RFC 3810), and
/// not one that was forwarded: that is a message like any other.
#[inline(always)]
pub fn discovery<const DIRECTION: u32>(packet: &Packet) -> Option<Discovery> {
    if packet.protocol != ICMPV6 || !packet.icmp.is_some() {
        return None;
    }
    let kind = packet.icmp.kind();
    if DIRECTION == EGRESS && matches!(kind, 134 | 137) {
        return Some(Discovery::Dropped);
    }
    let (source, destination) = if DIRECTION == EGRESS {
        (&packet.local, &packet.remote)
    } else {
        (&packet.remote, &packet.local)
    };
    let is_of_link = match kind {
        133..=137 => packet.hops == NOT_FORWARDED && !endpoint::is_wide_multicast(destination),
        130..=132 | 143 => endpoint::is_link_local(source) || endpoint::is_unspecified(source),
        _ => false,
    };
    // RFC 6980 forbids fragments here.
    if is_of_link && packet.part == Part::Whole { Some(Discovery::Passes) } else { None }
}

/// Types of packets.
///
/// Source: `include/uapi/linux/if_packet.h`.
const TO_US: u32 = 0;
const TO_A_GROUP: u32 = 2;

/// Sees to it that the node does not forward a packet, but takes it if it is the node's: hosts discover each other by their
/// usual addresses too, and the hop limit alone does not keep what an endpoint sends on the link.
///
/// Source: `ip6_forward` in `net/ipv6/ip6_output.c`, which forwards nothing but `PACKET_HOST`.
#[inline(always)]
pub fn keep_on_link(context: &TcContext) {
    // SAFETY: the kernel hands the program a valid `__sk_buff`.
    if unsafe { (*context.skb.skb).pkt_type } == TO_US {
        // It cannot fail for a packet of this type.
        let _ = context.change_type(TO_A_GROUP);
    }
}

/// Returns whether a message tells of an error with a packet that it holds: destination unreachable, time exceeded or a
/// bad header (RFC 792), and of those of RFC 4443.
#[inline(always)]
pub fn is_error<const V6: bool>(packet: &Packet) -> bool {
    if !packet.icmp.is_some() {
        return false;
    }
    let kind = packet.icmp.kind();
    if V6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 11 | 12) }
}

/// Returns the packet that an error tells of, as the endpoint saw it. It went the other way, and the error goes to where
/// that packet came from: otherwise the error would be a way to everybody.
#[inline(always)]
pub fn culprit<const DIRECTION: u32, const V6: bool>(
    context: &TcContext,
    error: &Packet,
) -> Result<Packet, Reason> {
    let mut inner = Packet::unknown();
    let start = error.offset + 8;
    let (source, destination);
    if V6 {
        let header: Header6 = packet::load(context, start)?;
        (source, destination) = (header.source, header.destination);
        let end =
            packet::follow(context, u32::from(header.next), start + size_of::<Header6>() as u32)?;
        if end.part == Part::Later {
            return Err(Reason::Fragment);
        }
        inner.protocol = end.protocol;
        inner.offset = end.offset;
    } else {
        let header: Header4 = packet::load(context, start)?;
        (source, destination) = ([header.source, 0, 0, 0], [header.destination, 0, 0, 0]);
        if u16::from_be(header.fragment) & 0x1fff != 0 {
            return Err(Reason::Fragment);
        }
        inner.protocol = u32::from(header.protocol);
        inner.offset = start + u32::from(header.version_length & 15) * 4;
    }
    let goes_to = if DIRECTION == EGRESS { &error.remote } else { &error.local };
    if !is_same(goes_to, &source) {
        return Err(Reason::Malformed);
    }
    let mut ports = [0, 0];
    match inner.protocol {
        TCP | UDP | SCTP => ports = packet::load(context, inner.offset)?,
        ICMP if !V6 => query_of::<V6>(context, &mut inner, &mut ports)?,
        ICMPV6 if V6 => query_of::<V6>(context, &mut inner, &mut ports)?,
        _ => {}
    }
    let [source_port, destination_port]: [u16; 2] = ports;
    if DIRECTION == EGRESS {
        packet::copy(&mut inner.remote, &source);
        packet::copy(&mut inner.local, &destination);
        (inner.remote_port, inner.local_port) = (source_port, destination_port);
    } else {
        packet::copy(&mut inner.local, &source);
        packet::copy(&mut inner.remote, &destination);
        (inner.local_port, inner.remote_port) = (source_port, destination_port);
    }
    Ok(inner)
}

#[inline(always)]
fn is_same(one: &[u32; 4], other: &[u32; 4]) -> bool {
    one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3]
}

#[inline(always)]
fn query_of<const V6: bool>(
    context: &TcContext,
    inner: &mut Packet,
    ports: &mut [u16; 2],
) -> Result<(), Reason> {
    let [kind, code]: [u8; 2] = packet::load(context, inner.offset)?;
    inner.icmp = Message::new(V6, kind, code);
    let id: u16 = packet::load(context, inner.offset + 4)?;
    *ports = [id, id];
    Ok(())
}
