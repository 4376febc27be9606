//! Storage for many small records: numbered slots, tables that find a record by its content, and relations.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::marker::PhantomData;
use core::num::NonZeroU32;
use core::ops::{Index, IndexMut};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Names a record in a [`Slab`]. Whoever keeps one is counted by the record, or gives it up before the record goes.
pub(super) struct Id<T> {
    number: NonZeroU32,
    of: PhantomData<fn() -> T>,
}

/// Records by number. A number is given again after its record was removed.
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: BTreeSet<u32>,
}

/// Finds records by a hash of what identifies them. There is no order in it, so nothing is ever listed from it.
pub(super) struct Finder<T> {
    ids: HashTable<Id<T>>,
    hasher: DefaultHashBuilder,
}

/// A set that mostly has one element.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "makes the common case small")]
pub(super) enum Few<T> {
    None,
    One(T),
    Many(Box<BTreeSet<T>>),
}

/// Pairs of records that belong together, found by the first.
pub(super) struct Relation<A, B>(BTreeSet<(Id<A>, Id<B>)>);

impl<T> Id<T> {
    const MIN: Self = Self { number: NonZeroU32::MIN, of: PhantomData };
    const MAX: Self = Self { number: NonZeroU32::MAX, of: PhantomData };

    fn at(slot: usize) -> Self {
        // Memory ends long before the numbers do.
        let number = u32::try_from(slot).unwrap_or(u32::MAX).saturating_add(1);
        Self { number: NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX), of: PhantomData }
    }

    const fn slot(self) -> usize {
        self.number.get() as usize - 1
    }
}

impl<T> Slab<T> {
    /// Stores a record.
    pub(super) fn insert(&mut self, record: T) -> Id<T> {
        let free = self.free.pop_first().map(|slot| slot as usize);
        match free.and_then(|slot| Some((slot, self.slots.get_mut(slot)?))) {
            Some((slot, place)) => {
                *place = Some(record);
                Id::at(slot)
            }
            None => {
                self.slots.push(Some(record));
                Id::at(self.slots.len() - 1)
            }
        }
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, id: Id<T>) -> Option<T> {
        let record = self.slots.get_mut(id.slot())?.take()?;
        self.free.insert(u32::try_from(id.slot()).ok()?);
        while self.slots.pop_if(|last| last.is_none()).is_some() {
            self.free.pop_last();
        }
        if self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        Some(record)
    }

    /// Returns a record, `None` if it was removed.
    pub(super) fn get(&self, id: Id<T>) -> Option<&T> {
        self.slots.get(id.slot())?.as_ref()
    }

    /// Returns the records with their numbers, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, record)| Some((Id::at(slot), record.as_ref()?)))
    }

    /// Returns how many records there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[expect(
    clippy::panic,
    reason = "who keeps an id is counted; with a dangling one there is nothing right that could be enforced"
)]
impl<T> Index<Id<T>> for Slab<T> {
    type Output = T;

    fn index(&self, id: Id<T>) -> &T {
        match self.slots.get(id.slot()) {
            Some(Some(record)) => record,
            _ => panic!("a record is gone that is still referred to"),
        }
    }
}

#[expect(clippy::panic, reason = "as for `Index`")]
impl<T> IndexMut<Id<T>> for Slab<T> {
    fn index_mut(&mut self, id: Id<T>) -> &mut T {
        match self.slots.get_mut(id.slot()) {
            Some(Some(record)) => record,
            _ => panic!("a record is gone that is still referred to"),
        }
    }
}

impl<T> Finder<T> {
    /// Returns the hash by which records with this identity are found.
    pub(super) fn hash(&self, identity: &impl Hash) -> u64 {
        self.hasher.hash_one(identity)
    }

    /// Returns the hasher, for identities that are no single value.
    pub(super) const fn hasher(&self) -> &DefaultHashBuilder {
        &self.hasher
    }

    /// Returns the record with a hash that is the one.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(Id<T>) -> bool) -> Option<Id<T>> {
        self.ids.find(hash, |id| is_it(*id)).copied()
    }

    /// Adds a record that is not there. `rehash` tells the hash of any record that is.
    pub(super) fn insert(&mut self, hash: u64, id: Id<T>, rehash: impl Fn(Id<T>) -> u64) {
        self.ids.insert_unique(hash, id, |id| rehash(*id));
    }

    /// Forgets a record. `rehash` tells the hash of any other.
    pub(super) fn remove(&mut self, hash: u64, id: Id<T>, rehash: impl Fn(Id<T>) -> u64) {
        if let Ok(found) = self.ids.find_entry(hash, |it| *it == id) {
            found.remove();
        }
        if self.ids.len() < self.ids.capacity() / 8 {
            self.ids.shrink_to(self.ids.len() * 2, |id| rehash(*id));
        }
    }
}

impl<T: Copy + Ord> Few<T> {
    pub(super) fn insert(&mut self, element: T) {
        match self {
            Self::None => *self = Self::One(element),
            Self::One(it) if *it == element => {}
            Self::One(it) => *self = Self::Many(Box::new([*it, element].into())),
            Self::Many(them) => _ = them.insert(element),
        }
    }

    pub(super) fn remove(&mut self, element: T) {
        match self {
            Self::One(it) if *it == element => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(them) => {
                them.remove(&element);
                if let (1, Some(last)) = (them.len(), them.first()) {
                    *self = Self::One(*last);
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(it) => (Some(*it), None),
            Self::Many(them) => (None, Some(them)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|them| them.iter().copied()))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(them) => them.len(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl<A, B> Relation<A, B> {
    /// Says that two records belong together. Returns whether that is new.
    pub(super) fn insert(&mut self, one: Id<A>, other: Id<B>) -> bool {
        self.0.insert((one, other))
    }

    /// Says that two records do not belong together any more.
    pub(super) fn remove(&mut self, one: Id<A>, other: Id<B>) -> bool {
        self.0.remove(&(one, other))
    }

    /// Returns what belongs to a record.
    pub(super) fn of(&self, one: Id<A>) -> impl Iterator<Item = Id<B>> + '_ {
        self.0.range((one, Id::MIN)..=(one, Id::MAX)).map(|(_, other)| *other)
    }

    /// Returns how many pairs there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Id<T> {}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.number.cmp(&other.number)
    }
}

impl<T> Hash for Id<T> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slot().fmt(f)
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: BTreeSet::new() }
    }
}

impl<T> Default for Finder<T> {
    fn default() -> Self {
        Self { ids: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<A, B> Default for Relation<A, B> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_few_are_a_set() {
        let mut few = Few::None;
        for (insert, element, want) in [
            (true, 1, &[1][..]),
            (true, 1, &[1]),
            (false, 2, &[1]),
            (false, 1, &[]),
            (false, 1, &[]),
            (true, 3, &[3]),
            (true, 2, &[2, 3]),
            (true, 1, &[1, 2, 3]),
            (false, 2, &[1, 3]),
            (false, 3, &[1]),
            (true, 2, &[1, 2]),
        ] {
            if insert {
                few.insert(element)
            } else {
                few.remove(element)
            }
            assert_eq!(few.iter().collect::<Vec<_>>(), want);
            assert_eq!((few.len(), few.is_empty()), (want.len(), want.is_empty()));
        }
        assert!(matches!(few, Few::Many(_)));
    }

    #[test]
    fn slots_are_used_again_and_given_back() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..100).map(|it| slab.insert(it)).collect();
        for id in ids.iter().skip(1).step_by(2) {
            assert!(slab.remove(*id).is_some());
            assert!(slab.remove(*id).is_none(), "it is gone");
        }
        assert_eq!(slab.len(), 50);
        assert_eq!(slab.insert(7).slot(), 1, "the first free one");
        for id in &ids {
            slab.remove(*id);
        }
        assert_eq!((slab.len(), slab.slots.len(), slab.free.len()), (0, 0, 0));
        assert!(slab.slots.capacity() < 8);
    }
}
