//! Lists of ports as prefixes: what a longest-prefix map can hold.

use netpol_ebpf_abi::{Leaf, PortKey};
use zerocopy::IntoBytes;

use super::Entries;

/// Bits of a port.
const PORT_BITS: u32 = 16;

/// Returns the entries of a list of (protocol, first port, last port, leaf). A range becomes up to 30 entries.
pub(super) fn list(list: u32, ranges: &[(u16, u16, u16, Leaf)]) -> Entries {
    let mut entries = Entries::default();
    for &(protocol, first, last, leaf) in ranges {
        for (port, length) in prefixes(first, last) {
            let bits = PortKey::BITS_BEFORE_PORT + length;
            let key = PortKey { list, protocol, port: port.to_be() };
            entries.push(&[bits.as_bytes(), key.as_bytes()], leaf.as_bytes());
        }
    }
    entries
}

/// Returns the prefixes, as port and length in bits, that together are the ports from `first` to `last`.
fn prefixes(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let (mut next, last) = (u32::from(first), u32::from(last));
    std::iter::from_fn(move || {
        let port = u16::try_from(next).ok().filter(|_| next <= last)?;
        let aligned = if port == 0 { PORT_BITS } else { port.trailing_zeros() };
        // The largest block that begins here and does not end after `last`.
        let room = (last - next + 1).ilog2();
        let bits = aligned.min(room);
        next += 1 << bits;
        Some((port, PORT_BITS - bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_exactly_the_range() {
        for (first, last) in
            [(0, 0), (0, 65_535), (1, 65_534), (80, 80), (80, 81), (1024, 65_535), (65_535, 65_535)]
        {
            let found: Vec<_> = prefixes(first, last).collect();
            assert!(found.len() <= 30, "{first}-{last}: {found:?}");
            for port in 0..=u16::MAX {
                let covers = |&(start, length): &(u16, u32)| {
                    let low = u32::from(u16::MAX) >> length;
                    u32::from(port ^ start) & !low & 0xffff == 0
                };
                let covering = found.iter().filter(|it| covers(it)).count();
                assert_eq!(
                    covering,
                    usize::from((first..=last).contains(&port)),
                    "{first}-{last}: port {port}"
                );
            }
        }
    }
}
