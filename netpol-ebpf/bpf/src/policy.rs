//! Policy: address to class, class to row, row to leaf. There is no precedence here: userland resolved it.

use aya_ebpf::btf_maps::lpm_trie::Key;
use netpol_ebpf_abi::{
    AddressKey4, AddressKey6, Endpoint, INGRESS, Leaf, OPEN, PREFIXES_V4, PREFIXES_V6, PortKey,
    Row, RowKey, class_of_others,
};

use crate::maps;
use crate::packet::Packet;

/// How many bits a space and an IPv4 or IPv6 address have.
const BITS4: u32 = 64;
const BITS6: u32 = 160;

/// Returns the table that judges a direction.
#[inline(always)]
pub fn table(endpoint: &Endpoint, direction: u32) -> u32 {
    let [ingress, egress] = endpoint.tables;
    if direction == INGRESS { ingress } else { egress }
}

/// Judges a packet as one that opens its flow in a direction, and counts it.
#[inline(always)]
pub fn judge<const V6: bool>(endpoint: &Endpoint, packet: &Packet, direction: u32) -> Leaf {
    let table = table(endpoint, direction);
    if table == OPEN {
        return Leaf::OPEN;
    }
    let leaf = leaf(row::<V6>(endpoint, table, packet), packet, direction);
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(leaf.number()) {
        // SAFETY: the element belongs to this CPU, and programs of this kind do not interrupt each other on it.
        unsafe { *counter += 1 };
    }
    leaf
}

#[inline(always)]
fn row<const V6: bool>(endpoint: &Endpoint, table: u32, packet: &Packet) -> Option<&'static Row> {
    let class =
        if V6 { class6(endpoint, packet.remote) } else { class4(endpoint, packet.remote[0]) };
    let others = class_of_others(V6);
    // SAFETY: userland never changes a row that can be found.
    match unsafe { maps::ROWS.get(RowKey { table, class }) } {
        None if class != others => {
            // SAFETY: as above.
            unsafe { maps::ROWS.get(RowKey { table, class: others }) }
        }
        found => found,
    }
}

#[inline(always)]
fn class4(endpoint: &Endpoint, address: u32) -> u32 {
    let key = AddressKey4 { space: endpoint.space, address };
    // SAFETY: userland replaces elements of the hash as a whole.
    if let Some(class) = unsafe { maps::ADDRESSES4.get(key) } {
        return *class;
    }
    if endpoint.flags & PREFIXES_V4 != 0
        && let Some(class) = maps::PREFIXES4.get(&Key::new(BITS4, key))
    {
        return *class;
    }
    class_of_others(false)
}

#[inline(always)]
fn class6(endpoint: &Endpoint, address: [u32; 4]) -> u32 {
    let key = AddressKey6 { space: endpoint.space, address };
    // SAFETY: userland replaces elements of the hash as a whole.
    if let Some(class) = unsafe { maps::ADDRESSES6.get(key) } {
        return *class;
    }
    if endpoint.flags & PREFIXES_V6 != 0
        && let Some(class) = maps::PREFIXES6.get(&Key::new(BITS6, key))
    {
        return *class;
    }
    class_of_others(true)
}

#[inline(always)]
fn leaf(row: Option<&Row>, packet: &Packet, direction: u32) -> Leaf {
    let Some(row) = row else { return Leaf::MISSING };
    let port = packet.port(direction);
    let mut leaf = row.default;
    for range in &row.ranges {
        if range.protocol == packet.protocol && range.first <= port && port <= range.last {
            leaf = range.leaf;
        }
    }
    if row.list != 0
        && let Some(found) = listed(row.list, packet.protocol as u16, port)
    {
        leaf = found;
    }
    if leaf.is_by_source() {
        leaf = listed(leaf.number(), PortKey::SOURCE, packet.source_port(direction))
            .unwrap_or(Leaf::MISSING);
    }
    leaf
}

#[inline(always)]
fn listed(list: u32, protocol: u16, port: u16) -> Option<Leaf> {
    let key = PortKey { list, protocol, port: port.to_be() };
    maps::PORTS.get(&Key::new(PortKey::BITS_BEFORE_PORT + 16, key)).copied()
}
