//! Flows: what was allowed once passes, in both directions.

use netpol_ebpf_abi::{Flow, FlowKey4, FlowKey6, SEEN_CLOSING, SEEN_REPLY};

use crate::maps;
use crate::packet::{ICMP, ICMPV6, Packet, SCTP, TCP, UDP};
use crate::time;

/// `last` is written when it is this many ticks old, so that most packets write nothing.
const TICKS_BETWEEN_WRITES: i64 = 63;

/// Returns what is known of a packet's flow.
#[inline(always)]
pub fn find<const V6: bool>(packet: &Packet, endpoint: u32) -> Option<*mut Flow> {
    if V6 {
        maps::FLOWS6.get_ptr_mut(key6(packet, endpoint))
    } else {
        maps::FLOWS4.get_ptr_mut(key4(packet, endpoint))
    }
}

/// Notes a new flow. Returns whether there was room.
#[inline(always)]
pub fn note<const V6: bool>(packet: &Packet, endpoint: u32, flow: &Flow) -> bool {
    if V6 {
        maps::FLOWS6.insert(key6(packet, endpoint), flow, 0).is_ok()
    } else {
        maps::FLOWS4.insert(key4(packet, endpoint), flow, 0).is_ok()
    }
}

/// Returns whether a flow has not been idle for too long.
#[inline(always)]
pub fn is_live(flow: &Flow, protocol: u32, now: u64) -> bool {
    ticks_since(flow.last, now) < (seconds(protocol, flow.seen) * time::per_second()) as i64
}

/// Notes that a packet of the flow passed.
#[inline(always)]
pub fn touch(flow: &mut Flow, packet: &Packet, is_reply: bool, now: u64) {
    let mut seen = flow.seen;
    if is_reply {
        seen |= SEEN_REPLY;
    }
    if packet.is_closing() {
        seen |= SEEN_CLOSING;
    }
    if seen != flow.seen {
        flow.seen = seen;
    }
    if ticks_since(flow.last, now) > TICKS_BETWEEN_WRITES {
        flow.last = now;
    }
}

/// Returns how many ticks ago something was. It is negative if another processor has noted a later packet meanwhile.
#[inline(always)]
fn ticks_since(last: u64, now: u64) -> i64 {
    now.wrapping_sub(last) as i64
}

/// Returns for how long a flow may be idle.
///
/// Source: the defaults in `Documentation/networking/nf_conntrack-sysctl.rst`.
#[inline(always)]
fn seconds(protocol: u32, seen: u16) -> u64 {
    let replied = seen & SEEN_REPLY != 0;
    match protocol {
        TCP if seen & SEEN_CLOSING != 0 => 120,
        TCP if replied => 432_000,
        TCP => 120,
        UDP if replied => 120,
        UDP | ICMP | ICMPV6 => 30,
        SCTP if replied => 210,
        SCTP => 30,
        _ => 600,
    }
}

#[inline(always)]
fn key4(packet: &Packet, endpoint: u32) -> FlowKey4 {
    FlowKey4 {
        endpoint,
        remote: packet.remote[0],
        local: packet.local[0],
        remote_port: packet.remote_port,
        local_port: packet.local_port,
        protocol: packet.protocol | packet.icmp.of_flow(),
    }
}

#[inline(always)]
fn key6(packet: &Packet, endpoint: u32) -> FlowKey6 {
    FlowKey6 {
        endpoint,
        remote: packet.remote,
        local: packet.local,
        remote_port: packet.remote_port,
        local_port: packet.local_port,
        protocol: packet.protocol | packet.icmp.of_flow(),
    }
}
