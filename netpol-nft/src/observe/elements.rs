//! Elements of sets.

use std::collections::BTreeMap;

use crate::attribute::{find, find_u32};
use crate::encode::key_from_bytes;
use crate::ruleset::{Elements, Key, KeyType, Set, Storage, Verdict};

/// The listed elements of one set.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    keys: Vec<Key>,
    verdicts: BTreeMap<Key, Verdict>,
    /// Where ranges begin and end. An end sorts before a beginning at the same key.
    edges: Vec<(Vec<u8>, Edge)>,
    spoiled: bool,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Edge {
    /// The key behind a range.
    End,
    /// The first key of a range.
    Start,
}

impl Listed {
    /// Takes one element: the value of an `NFTA_LIST_ELEM`.
    pub(crate) fn read(&mut self, set: &Set, element: &[u8]) {
        if self.try_read(set, element).is_none() {
            self.spoiled = true;
        }
    }

    fn try_read(&mut self, set: &Set, element: &[u8]) -> Option<()> {
        /// `NFTA_SET_ELEM_KEY`, `NFTA_SET_ELEM_DATA`, `NFTA_SET_ELEM_FLAGS`, `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`
        const KEY: u16 = 1;
        const DATA: u16 = 2;
        const FLAGS: u16 = 3;
        const VALUE: u16 = 1;
        const VERDICT: u16 = 2;
        /// `NFT_SET_ELEM_INTERVAL_END`
        const INTERVAL_END: u32 = 1;
        let bytes = find(find(element, KEY)?, VALUE)?;
        match (&set.elements, find_u32(element, FLAGS).unwrap_or_default()) {
            (Elements::Keys(_), 0) => self.keys.push(key_from_bytes(set.key, bytes)?),
            (Elements::Verdicts(_), 0) => {
                let verdict = super::verdict(find(find(element, DATA)?, VERDICT)?)?;
                self.verdicts.insert(key_from_bytes(set.key, bytes)?, verdict);
            }
            (Elements::Ranges(_), 0) => self.edges.push((bytes.to_vec(), Edge::Start)),
            (Elements::Ranges(_), INTERVAL_END) => self.edges.push((bytes.to_vec(), Edge::End)),
            _ => return None,
        }
        Some(())
    }

    /// Returns the elements, or `None` if some were not as we make them.
    pub(crate) fn finish(self, set: &Set) -> Option<Elements> {
        if self.spoiled {
            return None;
        }
        match (&set.elements, set.storage) {
            (Elements::Verdicts(_), _) => Some(Elements::Verdicts(self.verdicts)),
            (_, Storage::Interval) => ranges(set.key, self.edges).map(Elements::Ranges),
            (_, Storage::Hash { .. }) => Some(Elements::keys(self.keys)),
        }
    }
}

/// Pairs edges to ranges. The last range may have no end: it reaches to the last key. An end without a beginning at
/// the lowest key is what `nft` writes there and means nothing.
fn ranges(key: KeyType, mut edges: Vec<(Vec<u8>, Edge)>) -> Option<Vec<(Key, Key)>> {
    edges.sort_unstable();
    let mut ranges = Vec::with_capacity(edges.len() / 2);
    let mut open: Option<Key> = None;
    for (bytes, edge) in edges {
        match (edge, open.take()) {
            (Edge::Start, None) => open = Some(key_from_bytes(key, &bytes)?),
            (Edge::Start, Some(_)) => return None,
            (Edge::End, None) if bytes.iter().all(|&byte| byte == 0) => {}
            (Edge::End, None) => return None,
            (Edge::End, Some(first)) => {
                ranges.push((first, key_from_bytes(key, &predecessor(bytes)?)?))
            }
        }
    }
    if let Some(first) = open {
        ranges.push((
            first,
            key_from_bytes(key, &vec![0xff; usize::try_from(crate::encode::key_len(key)).ok()?])?,
        ));
    }
    Some(ranges)
}

/// Returns the key before this one.
fn predecessor(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    for byte in bytes.iter_mut().rev() {
        let (value, overflow) = byte.overflowing_sub(1);
        *byte = value;
        if !overflow {
            return Some(bytes);
        }
    }
    None
}
