//! Ids of objects in maps: numbers that follow from content as far as it is known, and are never used twice.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::program::Digest;
use netpol_ebpf_abi::Leaf;

/// What an id stands for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub(crate) enum Kind {
    /// Classes of addresses.
    Space = 1,
    /// A policy set in a space.
    Table = 2,
    /// A list of ports.
    List = 3,
    /// An endpoint.
    Endpoint = 4,
    /// The counter of a rule; the digest is the rule's id.
    Rule = 5,
    /// The counter of denials that no rule decided.
    Denied = 6,
    /// The counter of what passed although no rule decided.
    Passed = 7,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Space,
        Self::Table,
        Self::List,
        Self::Endpoint,
        Self::Rule,
        Self::Denied,
        Self::Passed,
    ];

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Returns whether ids of this kind are indexes of counters.
    pub(crate) const fn is_counter(self) -> bool {
        matches!(self, Self::Rule | Self::Denied | Self::Passed)
    }
}

/// There is no number left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Exhausted;

/// The ids that are in use, and those to come.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ids {
    known: BTreeMap<(Kind, Digest), u32>,
    counters: BTreeSet<u32>,
    /// The last number that was given to anything but a counter.
    last: u32,
    /// Counters are below this.
    counter_limit: u32,
}

impl Ids {
    /// Returns the ids of what is there. `last` is the last number that was ever given.
    pub(crate) fn new(known: BTreeMap<(Kind, Digest), u32>, last: u32, counter_limit: u32) -> Self {
        let counters =
            known.iter().filter(|((kind, _), _)| kind.is_counter()).map(|(_, id)| *id).collect();
        let highest =
            known.iter().filter(|((kind, _), _)| !kind.is_counter()).map(|(_, id)| *id).max();
        Self { known, counters, last: last.max(highest.unwrap_or_default()), counter_limit }
    }

    /// Returns the id of something, a new one if it has none.
    pub(crate) fn id(&mut self, kind: Kind, digest: Digest) -> Result<u32, Exhausted> {
        match self.known.get(&(kind, digest)) {
            Some(id) => Ok(*id),
            None => self.renew(kind, digest),
        }
    }

    /// Gives something a new id, whatever it had.
    pub(crate) fn renew(&mut self, kind: Kind, digest: Digest) -> Result<u32, Exhausted> {
        let id = if kind.is_counter() { self.free_counter()? } else { self.next()? };
        self.known.insert((kind, digest), id);
        Ok(id)
    }

    /// Returns what is known.
    pub(crate) const fn known(&self) -> &BTreeMap<(Kind, Digest), u32> {
        &self.known
    }

    /// Returns the last number that was given to anything but a counter.
    pub(crate) const fn last(&self) -> u32 {
        self.last
    }

    fn next(&mut self) -> Result<u32, Exhausted> {
        self.last = self.last.checked_add(1).filter(|id| *id < Leaf::LIMIT).ok_or(Exhausted)?;
        Ok(self.last)
    }

    fn free_counter(&mut self) -> Result<u32, Exhausted> {
        let mut first = Leaf::NO_COUNTER + 1;
        for used in self.counters.range(first..) {
            if *used != first {
                break;
            }
            first += 1;
        }
        if first >= self.counter_limit {
            return Err(Exhausted);
        }
        self.counters.insert(first);
        Ok(first)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; Digest::LEN])
    }

    #[test]
    fn what_is_known_keeps_its_id_and_nothing_gets_one_twice() {
        let mut ids = Ids::new(BTreeMap::from([((Kind::Table, digest(1)), 7)]), 9, 100);
        assert_eq!(ids.id(Kind::Table, digest(1)), Ok(7));
        assert_eq!(ids.id(Kind::Table, digest(2)), Ok(10));
        assert_eq!(ids.id(Kind::Space, digest(2)), Ok(11));
        assert_eq!(ids.renew(Kind::Table, digest(1)), Ok(12));
        assert_eq!(ids.id(Kind::Table, digest(1)), Ok(12));
        assert_eq!(ids.last(), 12);
    }

    #[test]
    fn counters_are_as_low_as_possible() {
        let known = BTreeMap::from([((Kind::Rule, digest(1)), 1), ((Kind::Denied, digest(2)), 3)]);
        let mut ids = Ids::new(known, 0, 5);
        let next: Vec<_> = (3..6).map(|it| ids.id(Kind::Rule, digest(it))).collect();
        assert_eq!(next, [Ok(2), Ok(4), Err(Exhausted)]);
    }

    #[test]
    fn numbers_end_below_the_bits_of_a_leaf() {
        let mut ids = Ids::new(BTreeMap::new(), Leaf::LIMIT - 2, 5);
        ids.id(Kind::List, digest(1)).unwrap();
        assert_eq!(ids.id(Kind::List, digest(2)), Err(Exhausted));
    }
}
