//! Ids of objects in maps: numbers that follow from content as far as it is known. A number is used again only after all
//! others were, long after what it stood for is gone.

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
    /// Every counter below this is taken.
    first_counter: u32,
    /// The numbers of everything but counters.
    taken: BTreeSet<u32>,
    /// The last number that was given to anything but a counter.
    last: u32,
    /// Counters are below this.
    counter_limit: u32,
}

impl Ids {
    /// Returns the ids of what is there. `last` is the last number that was given.
    pub(crate) fn new(known: BTreeMap<(Kind, Digest), u32>, last: u32, counter_limit: u32) -> Self {
        let (mut counters, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for ((kind, _), id) in &known {
            let numbers = if kind.is_counter() { &mut counters } else { &mut taken };
            numbers.insert(*id);
        }
        let first_counter = Leaf::NO_COUNTER + 1;
        Self { known, counters, first_counter, taken, last, counter_limit }
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

    /// Gives a new object an id, and a name that follows from it.
    pub(crate) fn named(
        &mut self,
        kind: Kind,
        name: impl FnOnce(u32) -> Digest,
    ) -> Result<u32, Exhausted> {
        let id = if kind.is_counter() { self.free_counter()? } else { self.next()? };
        self.known.insert((kind, name(id)), id);
        Ok(id)
    }

    /// Gives something another name.
    pub(crate) fn rename(&mut self, kind: Kind, before: Digest, after: Digest) {
        if let Some(id) = self.known.remove(&(kind, before)) {
            self.known.insert((kind, after), id);
        }
    }

    /// Forgets something that is gone.
    pub(crate) fn forget(&mut self, kind: Kind, name: Digest) {
        if let Some(id) = self.known.remove(&(kind, name)) {
            if kind.is_counter() {
                self.counters.remove(&id);
                self.first_counter = self.first_counter.min(id);
            } else {
                self.taken.remove(&id);
            }
        }
    }

    /// Forgets everything but this.
    pub(crate) fn keep(&mut self, is_kept: impl Fn(Kind, u32) -> bool) {
        let gone = self.known.iter().filter(|((kind, _), id)| !is_kept(*kind, **id));
        let gone: Vec<_> = gone.map(|(name, _)| *name).collect();
        gone.into_iter().for_each(|(kind, name)| self.forget(kind, name));
    }

    /// Returns what is known.
    pub(crate) const fn known(&self) -> &BTreeMap<(Kind, Digest), u32> {
        &self.known
    }

    /// Returns the last number that was given to anything but a counter.
    pub(crate) const fn last(&self) -> u32 {
        self.last
    }

    /// Returns the next number that nothing has. After the last one it begins again: what is left over of an object without
    /// a name is removed with the update after it at the latest, and flows of an endpoint end with it.
    fn next(&mut self) -> Result<u32, Exhausted> {
        let after = (self.last.saturating_add(1)..Leaf::LIMIT).chain(1..Leaf::LIMIT);
        // More numbers than are taken need not be looked at.
        let mut candidates = after.take(self.taken.len() + 1);
        let id = candidates.find(|id| !self.taken.contains(id)).ok_or(Exhausted)?;
        self.taken.insert(id);
        self.last = id;
        Ok(id)
    }

    fn free_counter(&mut self) -> Result<u32, Exhausted> {
        let mut first = self.first_counter;
        for used in self.counters.range(first..) {
            if *used != first {
                break;
            }
            first += 1;
        }
        self.first_counter = first;
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
    fn numbers_end_below_the_bits_of_a_leaf_and_begin_again() {
        let known = BTreeMap::from([
            ((Kind::List, digest(9)), Leaf::LIMIT - 1),
            ((Kind::Table, digest(9)), 2),
        ]);
        let mut ids = Ids::new(known, Leaf::LIMIT - 3, 5);
        let next: Vec<_> = (1..4).map(|it| ids.id(Kind::List, digest(it)).unwrap()).collect();
        assert_eq!(next, [Leaf::LIMIT - 2, 1, 3]);
        assert_eq!(ids.last(), 3);
    }
}
