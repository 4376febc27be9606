#![expect(clippy::unwrap_used, reason = "test code")]

use alloc::string::ToString;
use alloc::vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn set(texts: &[&str]) -> PrefixSet {
    texts.iter().map(|text| text.parse::<Prefix>().unwrap()).collect()
}

#[test]
fn sets_have_one_form() {
    for (texts, want) in [
        (vec![], ""),
        (vec!["10.0.0.0/9", "10.128.0.0/9"], "10.0.0.0/8"),
        (vec!["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"], "10.0.0.0/8"),
        (vec!["::/0", "0.0.0.0/0"], "0.0.0.0/0, ::/0"),
        (vec!["::ffff:10.0.0.0/104"], "10.0.0.0/8"),
    ] {
        assert_eq!(set(&texts).to_string(), want);
    }
}

#[test]
fn families_do_not_touch_each_other() {
    let all_v4 = set(&["0.0.0.0/0"]);
    assert!(!all_v4.contains(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    assert!(!all_v4.contains(mapped) && set(&["::/0"]).contains(mapped), "it is an IPv6 address");
    assert_eq!(set(&["0.0.0.0/0", "::/0"]).difference(&all_v4).to_string(), "::/0");
    assert!(all_v4.difference(&set(&["0.0.0.0/0"])).is_empty());
}

/// Says whether the first `len` bits of two addresses agree, bit by bit: shares nothing with the subject.
fn in_block(block: (u32, u8), address: u32) -> bool {
    (0..u32::from(block.1)).all(|bit| (block.0 >> (31 - bit)) & 1 == (address >> (31 - bit)) & 1)
}

fn blocks() -> impl Strategy<Value = Vec<(u32, u8)>> {
    // Few distinct bits, so that blocks nest, touch and overlap often.
    prop::collection::vec((prop::sample::select(vec![0u32, 1, 2, 3, 4, 7]), 0u8..=32), 0..6)
        .prop_map(|blocks| blocks.into_iter().map(|(bits, len)| (bits << 29 | bits, len)).collect())
}

fn edges(blocks: &[(u32, u8)]) -> Vec<u32> {
    blocks
        .iter()
        .flat_map(|&(bits, len)| {
            let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
            let (first, last) = (bits & mask, bits & mask | !mask);
            [first.wrapping_sub(1), first, first | (!mask >> 1), last, last.wrapping_add(1)]
        })
        .collect()
}

fn prefixes(blocks: &[(u32, u8)]) -> PrefixSet {
    blocks
        .iter()
        .map(|&(bits, len)| Prefix::containing(IpAddr::V4(Ipv4Addr::from_bits(bits)), len).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn membership_and_difference_agree_with_bits(left in blocks(), right in blocks()) {
        let (a, b) = (prefixes(&left), prefixes(&right));
        let difference = a.difference(&b);
        for bits in edges(&left).into_iter().chain(edges(&right)).chain([0, u32::MAX]) {
            let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
            let in_left = left.iter().any(|&block| in_block(block, bits));
            let in_right = right.iter().any(|&block| in_block(block, bits));
            prop_assert_eq!(a.contains(address), in_left, "{} in {}", address, a);
            prop_assert_eq!(difference.contains(address), in_left && !in_right, "{} in {}", address, difference);
        }
        let again: PrefixSet = difference.prefixes().iter().copied().collect();
        prop_assert_eq!(&again, &difference, "a difference is in canonical form");
    }
}

#[test]
fn what_is_left_of_ipv6_never_becomes_ipv4() {
    let set = |blocks: &[&str]| -> PrefixSet {
        blocks.iter().map(|it| it.parse::<Prefix>().unwrap()).collect()
    };
    let rest = set(&["::/64"]).difference(&set(&["::fffe:0:0/96"]));
    let again: PrefixSet = rest.prefixes().iter().copied().collect();
    assert_eq!(again, rest);
    assert_eq!(again.of_family(Family::V4).count(), 0);
    assert!(!again.contains("192.0.2.1".parse().unwrap()));
    assert!(again.contains("::ffff:192.0.2.1".parse().unwrap()));
}
