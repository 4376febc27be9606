//! Prefixes: maps and sets of them say what a comparison bit by bit says, and their text reads back.
//!
//! The first byte says what the others are: the text of a prefix, or steps of [`STEP`] bytes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_core::net::{Prefix, PrefixMap, PrefixSet};

/// Bytes of a step: what to do, the address, the length.
const STEP: usize = 18;

/// Most steps that are looked at; naive look-ups take a while.
const MAX_STEPS: usize = 128;

/// A block as its fixed bits, the first one first, and the number of bits of its family.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Block {
    bits: Vec<bool>,
    width: usize,
}

/// Checks a text, or a history of a map and two sets.
pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((b't', text)) => check_text(&String::from_utf8_lossy(text)),
        Some((_, steps)) => check_steps(steps),
        None => {}
    }
}

fn check_text(text: &str) {
    let read = text.parse::<Prefix>();
    let naive = naive_block(text);
    match (&read, &naive) {
        (Ok(prefix), Some(block)) => {
            assert_eq!(&block_of(*prefix), block, "{text:?}");
            assert_eq!(prefix.to_string().parse(), Ok(*prefix), "{text:?}");
        }
        (Err(error), None) => assert!(!error.to_string().is_empty()),
        _ => panic!("{text:?} is {read:?}, naively {naive:?}"),
    }
}

/// Returns the block that a text stands for, `None` if it is none.
fn naive_block(text: &str) -> Option<Block> {
    let (address, len) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let len = (0..=128).find(|number: &usize| number.to_string() == len)?;
    Block::new(address, len)
}

fn check_steps(data: &[u8]) {
    let mut map = PrefixMap::new();
    let mut entries: Vec<(Block, usize)> = Vec::new();
    let mut sets: [(Vec<Prefix>, Vec<Block>); 2] = Default::default();
    let mut asked: BTreeSet<IpAddr> = BTreeSet::new();
    for (index, step) in data.chunks_exact(STEP).take(MAX_STEPS).enumerate() {
        let (prefix, block) = block_in(&step[1..]);
        asked.extend([
            prefix.first(),
            prefix.last(),
            beside(prefix.first(), -1),
            beside(prefix.last(), 1),
        ]);
        let before = entries.iter().position(|(it, _)| *it == block);
        let before_value = before.map(|at| entries[at].1);
        assert_eq!(map.value(prefix).copied(), before_value, "{prefix}");
        match step[0] % 8 {
            0..4 => {
                assert_eq!(map.insert(prefix, index), before_value, "insert {prefix}");
                before.map(|at| entries.swap_remove(at));
                entries.push((block, index));
            }
            4 => {
                assert_eq!(map.remove(prefix), before_value, "remove {prefix}");
                before.map(|at| entries.swap_remove(at));
            }
            5 => {
                let around: Vec<_> = map.covering(prefix).map(|(_, value)| *value).collect();
                assert_eq!(around, naive_covering(&entries, &block), "around {prefix}");
            }
            kind => {
                let (prefixes, blocks) = &mut sets[usize::from(kind % 2)];
                prefixes.push(prefix);
                blocks.push(block);
            }
        }
    }
    let [(left, in_left), (right, in_right)] = sets;
    let left: PrefixSet = left.into_iter().collect();
    let right: PrefixSet = right.into_iter().collect();
    let difference = left.difference(&right);
    for address in asked {
        let host = Block::host(address);
        let around = naive_covering(&entries, &host);
        let longest = map.longest_match(address).map(|(_, value)| *value);
        assert_eq!(longest, around.last().copied(), "{address}");
        assert_eq!(map.contains(address), !around.is_empty(), "{address}");
        let is_in = |blocks: &[Block]| blocks.iter().any(|it| it.covers(&host));
        let (in_left, in_right) = (is_in(&in_left), is_in(&in_right));
        assert_eq!(left.contains(address), in_left, "{address} in {left}");
        assert_eq!(right.contains(address), in_right, "{address} in {right}");
        assert_eq!(difference.contains(address), in_left && !in_right, "{address} in {difference}");
    }
    check_form(&map, &entries);
    for set in [left, right, difference] {
        assert!(set.prefixes().is_sorted(), "{set}");
        assert_eq!(set.prefixes().iter().copied().collect::<PrefixSet>(), set, "one form");
    }
}

/// Checks that the map lists what it holds, in order, and is equal however it came about.
fn check_form(map: &PrefixMap<usize>, entries: &[(Block, usize)]) {
    let listed: Vec<_> = map.iter().map(|(prefix, value)| (prefix, *value)).collect();
    assert_eq!(listed.len(), map.len());
    assert!(listed.is_sorted_by(|a, b| a.0 < b.0), "{listed:?}");
    let mut blocks: Vec<_> =
        listed.iter().map(|(prefix, value)| (block_of(*prefix), *value)).collect();
    let mut entries = entries.to_vec();
    blocks.sort();
    entries.sort();
    assert_eq!(blocks, entries);
    assert_eq!(listed.into_iter().rev().collect::<PrefixMap<_>>(), *map);
}

/// Returns the values of the blocks around this one, the shortest block first.
fn naive_covering(entries: &[(Block, usize)], block: &Block) -> Vec<usize> {
    let mut around: Vec<_> = entries
        .iter()
        .filter(|(it, _)| it.covers(block))
        .map(|(it, value)| (it.bits.len(), *value))
        .collect();
    around.sort_unstable();
    around.into_iter().map(|(_, value)| value).collect()
}

impl Block {
    /// Returns the block of the first `len` bits, `None` if there are not so many. Blocks of IPv4-mapped addresses are
    /// the blocks of IPv4.
    fn new(address: IpAddr, len: usize) -> Option<Self> {
        let Self { mut bits, mut width } = Self::host(address);
        if len > width {
            return None;
        }
        bits.truncate(len);
        let is_mapped = width == 128
            && len >= 96
            && bits[..80].iter().all(|&bit| !bit)
            && bits[80..96].iter().all(|&bit| bit);
        if is_mapped {
            bits.drain(..96);
            width = 32;
        }
        Some(Self { bits, width })
    }

    /// Returns just this address, as it stands.
    fn host(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let bits = |octet: u8| (0..8).map(move |bit| octet >> (7 - bit) & 1 == 1);
        let bits: Vec<bool> = octets.into_iter().flat_map(bits).collect();
        Self { width: bits.len(), bits }
    }

    fn covers(&self, other: &Self) -> bool {
        self.width == other.width && other.bits.starts_with(&self.bits)
    }
}

fn block_of(prefix: Prefix) -> Block {
    Block::new(prefix.first(), usize::from(prefix.len())).unwrap_or_else(|| panic!("{prefix:?}"))
}

/// Reads a prefix out of 17 bytes: the address, and its length with the family in the highest bit.
fn block_in(bytes: &[u8]) -> (Prefix, Block) {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[..16]);
    let (address, width) = if bytes[16] >= 128 {
        (IpAddr::V4(Ipv4Addr::from([octets[0], octets[1], octets[2], octets[3]])), 32)
    } else {
        (IpAddr::V6(Ipv6Addr::from(octets)), 128)
    };
    let len = bytes[16] % 129 % (width + 1);
    let block = Block::new(address, usize::from(len)).unwrap_or_else(|| panic!("{address}/{len}"));
    match Prefix::containing(address, len) {
        Ok(prefix) => (prefix, block),
        Err(error) => panic!("{address}/{len}: {error}"),
    }
}

/// Returns the address before or behind this one; behind the last one is the first.
fn beside(address: IpAddr, step: i8) -> IpAddr {
    match address {
        IpAddr::V4(it) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(it).wrapping_add_signed(step.into())))
        }
        IpAddr::V6(it) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(it).wrapping_add_signed(step.into())))
        }
    }
}
