//! Fragments: only the first one of a datagram has ports.

use netpol_ebpf_abi::{Fragment, FragmentKey, Reason};

use crate::icmp::Message;
use crate::maps;
use crate::packet::{Packet, Part};

/// Notes the ports of a datagram if this is its first fragment.
#[inline(always)]
pub fn note<const V6: bool>(packet: &Packet, endpoint: u32, direction: u32) {
    if packet.part == Part::First {
        let fragment = Fragment {
            remote_port: packet.remote_port,
            local_port: packet.local_port,
            icmp: packet.icmp.0,
            protocol: packet.protocol,
        };
        // Without the note the later fragments are dropped.
        let _ = maps::FRAGMENTS.insert(key::<V6>(packet, endpoint, direction), fragment, 0);
    }
}

/// Gives a later fragment the protocol and ports of its first one.
#[inline(always)]
pub fn recall<const V6: bool>(
    packet: &mut Packet,
    endpoint: u32,
    direction: u32,
) -> Result<(), Reason> {
    // SAFETY: a note of another datagram could take this one's place while it is read; that is checked by nothing but
    // its key, as with every hash of the kernel that forgets.
    let Some(first) = (unsafe { maps::FRAGMENTS.get(key::<V6>(packet, endpoint, direction)) })
    else {
        return Err(Reason::Fragment);
    };
    packet.remote_port = first.remote_port;
    packet.local_port = first.local_port;
    packet.icmp = Message(first.icmp);
    packet.protocol = first.protocol;
    Ok(())
}

#[inline(always)]
fn key<const V6: bool>(packet: &Packet, endpoint: u32, direction: u32) -> FragmentKey {
    let (remote, local) = packet.addresses::<V6>();
    let protocol = if V6 { 0 } else { packet.protocol };
    let version = if V6 { 6 } else { 4 };
    FragmentKey {
        remote,
        local,
        endpoint,
        id: packet.id,
        kind: protocol | direction << 8 | version << 16,
    }
}
