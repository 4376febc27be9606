//! Flows: what was allowed once passes, in both directions.

use netpol_ebpf_abi::{FLOW_CLOSING, FLOW_REPLIED, Flow, FlowKey4, FlowKey6};

use crate::maps;
use crate::packet::{ICMP, ICMPV6, Packet, SCTP, TCP, UDP};
use crate::time;

/// `last` is written when it is this many ticks old, so that most packets write nothing.
const TICKS_BETWEEN_WRITES: u64 = 63;

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
    now.wrapping_sub(flow.last) < seconds(protocol, flow.flags) * time::per_second()
}

/// Notes that a packet of the flow passed.
#[inline(always)]
pub fn touch(flow: &mut Flow, packet: &Packet, is_reply: bool, now: u64) {
    let mut flags = flow.flags;
    if is_reply {
        flags |= FLOW_REPLIED;
    }
    if packet.is_closing() {
        flags |= FLOW_CLOSING;
    }
    if flags != flow.flags {
        flow.flags = flags;
    }
    if now.wrapping_sub(flow.last) > TICKS_BETWEEN_WRITES {
        flow.last = now;
    }
}

/// Returns for how long a flow may be idle.
///
/// Source: the defaults in `Documentation/networking/nf_conntrack-sysctl.rst`.
#[inline(always)]
fn seconds(protocol: u32, flags: u32) -> u64 {
    let replied = flags & FLOW_REPLIED != 0;
    match protocol {
        TCP if flags & FLOW_CLOSING != 0 => 120,
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
