#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code"
)]

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::net::PrefixSet;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Returns a map from prefixes to what they are written as.
fn map(texts: &[&'static str]) -> PrefixMap<&'static str> {
    texts.iter().map(|text| (prefix(text), *text)).collect()
}

#[test]
fn the_longest_prefix_wins() {
    let zones = map(&["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.1/32", "::/0", "fd00::/8"]);
    for (text, want) in [
        ("192.0.2.1", "0.0.0.0/0"),
        ("10.128.0.0", "10.0.0.0/8"),
        ("10.127.255.255", "10.0.0.0/9"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.0", "10.0.0.0/9"),
        ("::ffff:10.0.0.1", "::/0"),
        ("fd00::1", "fd00::/8"),
        ("fe00::1", "::/0"),
    ] {
        let (found, value) = zones.longest_match(address(text)).unwrap();
        assert_eq!((found.to_string().as_str(), *value), (want, want), "{text}");
        assert!(zones.contains(address(text)), "{text}");
    }
}

#[test]
fn families_have_nothing_in_common() {
    assert_eq!(map(&["::/0"]).longest_match(address("0.0.0.0")), None);
    assert!(!map(&["0.0.0.0/0"]).contains(address("::")));
    let mapped = address("::ffff:10.0.0.1");
    assert!(!map(&["10.0.0.0/8", "::ffff:10.0.0.0/104"]).contains(mapped), "a block is IPv4");
    assert_eq!(map(&["::/0"]).covering(prefix("0.0.0.0/0")).count(), 0);
}

#[test]
fn covering_prefixes_come_from_the_shortest() {
    let zones = map(&["10.1.0.0/16", "0.0.0.0/0", "10.1.2.0/24", "10.1.3.0/24", "10.0.0.0/8"]);
    let covering =
        |text: &str| -> Vec<_> { zones.covering(prefix(text)).map(|(_, value)| *value).collect() };
    assert_eq!(covering("10.1.2.3/32"), ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]);
    assert_eq!(covering("10.1.2.0/24"), ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]);
    assert_eq!(covering("10.1.2.0/23"), ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"]);
    assert_eq!(covering("0.0.0.0/0"), ["0.0.0.0/0"]);
}

#[test]
fn what_is_inserted_can_be_removed() {
    let mut zones = PrefixMap::default();
    assert!(zones.is_empty() && !zones.contains(address("10.0.0.1")));
    assert_eq!(zones.insert(prefix("10.0.0.0/8"), 1), None);
    assert_eq!(zones.insert(prefix("10.255.0.0/8"), 2), Some(1), "one prefix has one form");
    assert_eq!(zones.insert(prefix("10.0.0.0/9"), 3), None);
    assert_eq!((zones.len(), zones.value(prefix("10.0.0.0/8"))), (2, Some(&2)));
    assert_eq!(zones.remove(prefix("10.0.0.0/10")), None);
    assert_eq!(zones.remove(prefix("0.0.0.0/0")), None);
    assert_eq!(zones.remove(prefix("10.0.0.0/8")), Some(2));
    assert_eq!(zones.remove(prefix("10.0.0.0/8")), None);
    assert_eq!((zones.len(), zones.value(prefix("10.0.0.0/8"))), (1, None));
    assert_eq!(zones.longest_match(address("10.0.0.1")), Some((prefix("10.0.0.0/9"), &3)));
    assert_eq!(zones, [(prefix("10.0.0.0/9"), 3)].into_iter().collect());
}

#[test]
fn maps_are_shown_in_order() {
    let zones = map(&["::/0", "10.0.0.0/9", "10.0.0.0/8", "9.0.0.0/8", "::1/128"]);
    let shown: Vec<_> = zones.iter().map(|(prefix, _)| prefix.to_string()).collect();
    assert_eq!(shown, ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9", "::/0", "::1/128"]);
    assert_eq!(format!("{:?}", map(&["::/0"])), r#"{::/0: "::/0"}"#);
}

/// An address as its bits, the most significant one first: shares nothing with the subject.
type Bits = Vec<bool>;

fn bits_of(address: IpAddr) -> Bits {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet & (1 << bit) != 0)).collect()
}

/// A list of blocks with values, the last of equal ones counting: the map as plainly as it can be.
#[derive(Debug, Default)]
struct Plain(Vec<(Bits, usize, u32)>);

impl Plain {
    /// Returns whether the first `len` bits of addresses of one family agree, bit by bit.
    fn agree(left: &[bool], right: &[bool], len: usize) -> bool {
        left.len() == right.len() && (0..len).all(|bit| left[bit] == right[bit])
    }

    fn remove(&mut self, block: &Bits, len: usize) {
        self.0.retain(|(other, other_len, _)| *other_len != len || !Self::agree(block, other, len));
    }

    fn insert(&mut self, block: Bits, len: usize, value: u32) {
        self.remove(&block, len);
        self.0.push((block, len, value));
    }

    /// Returns length and value of all blocks around this one, the shortest first.
    fn covering(&self, block: &Bits, len: usize) -> Vec<(usize, u32)> {
        let around = |(other, other_len, _): &&(Bits, usize, u32)| {
            *other_len <= len && Self::agree(block, other, *other_len)
        };
        let mut found: Vec<_> =
            self.0.iter().filter(around).map(|(_, len, value)| (*len, *value)).collect();
        found.sort_unstable();
        found
    }
}

#[derive(Clone, Copy, Debug)]
struct Block {
    address: IpAddr,
    len: u8,
}

impl Block {
    fn prefix(self) -> Prefix {
        Prefix::containing(self.address, self.len).unwrap()
    }
}

/// Addresses that agree in the first bits with others of their kind, so that blocks nest, touch and part everywhere.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let v4 =
        (select(vec![0_u32, 1, 2, 3, 7]), 0..32_u32, any::<bool>()).prop_map(|(bits, at, flip)| {
            let base = bits << 29 | bits << 11 | bits;
            IpAddr::V4(Ipv4Addr::from_bits(if flip { base ^ (1 << at) } else { base }))
        });
    let v6 = (select(vec![0_u128, 1, 2, 3, 7]), 0..128_u32, any::<bool>()).prop_map(
        |(bits, at, flip)| {
            let base = 0x2001_0db8 << 96 | bits << 125 | bits << 62 | bits;
            IpAddr::V6(Ipv6Addr::from_bits(if flip { base ^ (1 << at) } else { base }))
        },
    );
    prop_oneof![v4, v6]
}

fn blocks() -> impl Strategy<Value = Block> {
    (addresses(), 0..=128_u8).prop_map(|(address, len)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        Block { address, len: if len > longest { len % (longest + 1) } else { len } }
    })
}

/// Returns the edges of a block and what is beside them.
fn edges(block: Block) -> Vec<IpAddr> {
    let (first, last) = (block.prefix().first(), block.prefix().last());
    let step = |address: IpAddr, by: u128| match address {
        IpAddr::V4(it) => IpAddr::V4(Ipv4Addr::from_bits(it.to_bits().wrapping_add(by as u32))),
        IpAddr::V6(it) => IpAddr::V6(Ipv6Addr::from_bits(it.to_bits().wrapping_add(by))),
    };
    [first, last, step(first, u128::MAX), step(last, 1), block.address].to_vec()
}

proptest! {
    #[test]
    fn look_ups_agree_with_bits(
        steps in prop::collection::vec((blocks(), prop::option::weighted(0.7, 0..4_u32)), 0..40),
        others in prop::collection::vec(blocks(), 8),
    ) {
        let (mut map, mut plain) = (PrefixMap::new(), Plain::default());
        for &(block, value) in &steps {
            let (bits, len) = (bits_of(block.address), usize::from(block.len));
            let before = plain.covering(&bits, len).last().filter(|it| it.0 == len).map(|it| it.1);
            match value {
                Some(value) => {
                    prop_assert_eq!(map.insert(block.prefix(), value), before);
                    plain.insert(bits, len, value);
                }
                None => {
                    prop_assert_eq!(map.remove(block.prefix()), before);
                    plain.remove(&bits, len);
                }
            }
            prop_assert_eq!(map.len(), plain.0.len());
        }
        for &block in steps.iter().map(|(block, _)| block).chain(&others) {
            let want = plain.covering(&bits_of(block.address), usize::from(block.len));
            let got: Vec<_> = map.covering(block.prefix()).map(|(it, value)| (usize::from(it.len()), *value)).collect();
            prop_assert_eq!(got, want, "around {}", block.prefix());
            for address in edges(block) {
                let bits = bits_of(address);
                let want = plain.covering(&bits, bits.len());
                let got = map.longest_match(address).map(|(it, value)| (usize::from(it.len()), *value));
                prop_assert_eq!(got, want.last().copied(), "{}", address);
                prop_assert_eq!(map.contains(address), !want.is_empty(), "{}", address);
            }
        }
    }

    #[test]
    fn maps_are_what_they_hold(steps in prop::collection::vec((blocks(), prop::option::weighted(0.7, 0..4_u32)), 0..40)) {
        let mut map = PrefixMap::new();
        for &(block, value) in &steps {
            match value {
                Some(value) => map.insert(block.prefix(), value),
                None => map.remove(block.prefix()),
            };
        }
        let entries: Vec<_> = map.iter().map(|(prefix, value)| (prefix, *value)).collect();
        prop_assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "{:?}", entries);
        prop_assert_eq!(entries.len(), map.len());
        prop_assert_eq!(&entries.iter().rev().copied().collect::<PrefixMap<_>>(), &map);
        prop_assert_eq!(&map.clone(), &map);
        for &(prefix, value) in &entries {
            prop_assert_eq!(map.value(prefix), Some(&value));
            prop_assert_eq!(map.remove(prefix), Some(value));
        }
        prop_assert_eq!(map, PrefixMap::new());
    }

    #[test]
    fn any_of_agrees_with_the_set(list in prop::collection::vec(blocks(), 0..30), others in prop::collection::vec(blocks(), 8)) {
        let map: PrefixMap<()> = list.iter().map(|block| (block.prefix(), ())).collect();
        let set: PrefixSet = list.iter().map(|block| block.prefix()).collect();
        for &block in list.iter().chain(&others) {
            for address in edges(block) {
                let bits = bits_of(address);
                let listed = list.iter().any(|it| Plain::agree(&bits_of(it.address), &bits, it.len.into()));
                prop_assert_eq!([map.contains(address), set.contains(address)], [listed; 2], "{}", address);
            }
        }
    }
}
