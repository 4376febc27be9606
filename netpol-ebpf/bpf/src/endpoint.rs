//! Endpoints: what is in force for the interface that a packet passes.

use aya_ebpf::programs::TcContext;
use netpol_ebpf_abi::{self as abi, CHECK_SOURCE, Endpoint, MORE_ADDRESSES, OwnKey};

use crate::maps;

/// Returns the index of the interface that the program is attached to.
#[inline(always)]
pub fn interface(context: &TcContext) -> u32 {
    // SAFETY: the kernel hands the program a valid `__sk_buff`.
    unsafe { (*context.skb.skb).ifindex }
}

/// Returns the index of the interface through which the packet came to this node; 0 if the node itself made it.
#[inline(always)]
pub fn came_in(context: &TcContext) -> u32 {
    // SAFETY: the kernel hands the program a valid `__sk_buff`.
    unsafe { (*context.skb.skb).ingress_ifindex }
}

/// Returns whether a socket of this node has made the packet.
#[inline(always)]
pub fn has_socket(context: &TcContext) -> bool {
    // SAFETY: the kernel hands the program a valid `__sk_buff`; the field of the union is its only one.
    !unsafe { (*context.skb.skb).__bindgen_anon_2.sk }.is_null()
}

/// Returns the record in force for an interface.
#[inline(always)]
pub fn find(interface: u32) -> Option<&'static Endpoint> {
    let word = maps::INTERFACES.get_ptr(interface & (abi::INTERFACES - 1))?;
    // SAFETY: the pointer is to an element of the array. Userland replaces the word with one aligned store; it is read
    // as volatile so that it is read once.
    let word = unsafe { core::ptr::read_volatile(word) };
    let (owner, mut record) = abi::published(word);
    if owner != interface {
        // SAFETY: userland replaces elements of the hash as a whole.
        record = *unsafe { maps::SPILLED.get(interface) }?;
    }
    if record == 0 { None } else { maps::ENDPOINTS.get(record) }
}

/// Returns whether an IPv4 address is one of the endpoint's.
#[inline(always)]
pub fn owns4(endpoint: &Endpoint, address: u32) -> bool {
    endpoint.v4 == address && address != 0 || owns_more(endpoint, mapped(address))
}

/// Returns whether an IPv6 address is one of the endpoint's.
#[inline(always)]
pub fn owns6(endpoint: &Endpoint, address: &[u32; 4]) -> bool {
    let [a, b, c, d] = endpoint.v6;
    (a == address[0] && b == address[1] && c == address[2] && d == address[3])
        || owns_more(endpoint, *address)
}

/// Returns whether a source address is wrong for what the endpoint sends over IPv4.
#[inline(always)]
pub fn is_forged4(endpoint: &Endpoint, source: u32) -> bool {
    endpoint.flags & CHECK_SOURCE != 0 && !owns4(endpoint, source)
}

/// Returns whether a source address is wrong for what the endpoint sends over IPv6. Link-local addresses (RFC 4291,
/// section 2.5.6) are the endpoint's own business: nobody forwards them.
#[inline(always)]
pub fn is_forged6(endpoint: &Endpoint, source: &[u32; 4]) -> bool {
    endpoint.flags & CHECK_SOURCE != 0 && !is_link_local(source) && !owns6(endpoint, source)
}

/// Returns whether an IPv6 address is one of the link (RFC 4291, section 2.5.6).
#[inline(always)]
pub fn is_link_local(address: &[u32; 4]) -> bool {
    u32::from_be(address[0]) & 0xffc0_0000 == 0xfe80_0000
}

/// Returns whether an IPv6 address is a group beyond the link (RFC 4291, section 2.7).
#[inline(always)]
pub fn is_wide_multicast(address: &[u32; 4]) -> bool {
    let first = u32::from_be(address[0]);
    first >> 24 == 0xff && first >> 16 & 15 > 2
}

/// Returns whether an IPv6 address is that of a host that has none yet (RFC 4291, section 2.5.2).
#[inline(always)]
pub fn is_unspecified(address: &[u32; 4]) -> bool {
    address[0] | address[1] | address[2] | address[3] == 0
}

/// Returns an IPv4 address as an IPv6 address (RFC 4291, section 2.5.5.2).
#[inline(always)]
pub fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

#[inline(always)]
fn owns_more(endpoint: &Endpoint, address: [u32; 4]) -> bool {
    if endpoint.flags & MORE_ADDRESSES == 0 {
        return false;
    }
    let key = OwnKey { endpoint: endpoint.id, address };
    maps::OWN.get_ptr(key).is_some()
}
