//! A binary trie in which chains of nodes with one child are one node.
//!
//! Below a node the keys agree with its own in all of its bits, and then go to the side that their next bit says. Every
//! node has an entry or both children, so there are fewer than twice as many nodes as entries. No path is longer than
//! keys have bits, which bounds every recursion here, and the one of the compiler that drops the nodes.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Prefix;

/// The prefixes of one family.
#[derive(Clone)]
pub(super) struct Trie<T> {
    root: Link<T>,
}

type Link<T> = Option<Box<Node<T>>>;

#[derive(Clone)]
struct Node<T> {
    key: Key,
    entry: Option<(Prefix, T)>,
    zero: Link<T>,
    one: Link<T>,
}

/// The first bits of an address.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Key {
    /// The bits from the most significant one; all others are zero.
    bits: u128,
    len: u8,
}

impl Key {
    pub(super) fn of(prefix: Prefix) -> Self {
        Self { len: prefix.len(), ..Self::host(prefix.first()) }
    }

    pub(super) const fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self { bits: (address.to_bits() as u128) << 96, len: 32 },
            IpAddr::V6(address) => Self { bits: address.to_bits(), len: 128 },
        }
    }

    /// Returns the key of the bits that both begin with.
    fn common(self, other: Self) -> Self {
        // At most 128, so the length is that of one of the keys or fits where theirs do.
        let equal = (self.bits ^ other.bits).leading_zeros();
        let shorter = self.len.min(other.len);
        let len = u8::try_from(equal).map_or(shorter, |equal| equal.min(shorter));
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Self { bits: self.bits & mask, len }
    }

    fn is_prefix_of(self, other: Self) -> bool {
        let differ = (self.bits ^ other.bits).leading_zeros();
        self.len <= other.len && u32::from(self.len) <= differ
    }

    /// Returns the bit behind the first `len`.
    fn bit(self, len: u8) -> bool {
        self.bits.checked_shl(u32::from(len)).is_some_and(|rest| rest >> 127 == 1)
    }
}

impl<T> Node<T> {
    fn leaf(key: Key, prefix: Prefix, value: T) -> Box<Self> {
        Box::new(Self { key, entry: Some((prefix, value)), zero: None, one: None })
    }

    /// Returns the child on the way to `key`, which begins with the node's own and is longer.
    fn child(&self, key: Key) -> &Link<T> {
        if key.bit(self.key.len) { &self.one } else { &self.zero }
    }

    fn child_mut(&mut self, key: Key) -> &mut Link<T> {
        if key.bit(self.key.len) { &mut self.one } else { &mut self.zero }
    }
}

impl<T> Trie<T> {
    pub(super) const EMPTY: Self = Self { root: None };

    pub(super) fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        insert(&mut self.root, Key::of(prefix), prefix, value)
    }

    pub(super) fn remove(&mut self, prefix: Prefix) -> Option<T> {
        remove(&mut self.root, Key::of(prefix))
    }

    /// Returns the entries whose keys `key` begins with, from the shortest.
    pub(super) fn covering(&self, key: Key) -> Covering<'_, T> {
        Covering { key, next: self.root.as_deref() }
    }

    pub(super) fn iter(&self) -> Iter<'_, T> {
        Iter { rest: self.root.as_deref().into_iter().collect() }
    }
}

fn insert<T>(link: &mut Link<T>, key: Key, prefix: Prefix, value: T) -> Option<T> {
    let Some(node) = link else {
        *link = Some(Node::leaf(key, prefix, value));
        return None;
    };
    if node.key == key {
        return node.entry.replace((prefix, value)).map(|(_, before)| before);
    }
    if node.key.is_prefix_of(key) {
        return insert(node.child_mut(key), key, prefix, value);
    }
    // The node goes below one that holds what it and the new key have in common, which may be all of the new key.
    let (lower, common) = (node.key, node.key.common(key));
    let mut above = Box::new(Node { key: common, entry: None, zero: None, one: None });
    *above.child_mut(lower) = link.take();
    if common == key {
        above.entry = Some((prefix, value));
    } else {
        *above.child_mut(key) = Some(Node::leaf(key, prefix, value));
    }
    *link = Some(above);
    None
}

fn remove<T>(link: &mut Link<T>, key: Key) -> Option<T> {
    let node = link.as_mut()?;
    let value = if node.key == key {
        node.entry.take().map(|(_, value)| value)
    } else if node.key.is_prefix_of(key) {
        remove(node.child_mut(key), key)
    } else {
        None
    }?;
    // A node without an entry stays only to part its two children.
    if node.entry.is_none() && (node.zero.is_none() || node.one.is_none()) {
        *link = node.zero.take().or(node.one.take());
    }
    Some(value)
}

/// Iterates over the entries on the way to a key.
pub(super) struct Covering<'a, T> {
    key: Key,
    next: Option<&'a Node<T>>,
}

impl<'a, T> Iterator for Covering<'a, T> {
    type Item = (Prefix, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(node) = self.next.take().filter(|node| node.key.is_prefix_of(self.key)) {
            self.next = node.child(self.key).as_deref();
            if let Some((prefix, value)) = &node.entry {
                return Some((*prefix, value));
            }
        }
        None
    }
}

/// Iterates over all entries, each before those below it.
pub(super) struct Iter<'a, T> {
    /// Nodes that were not visited yet, the next one last.
    rest: Vec<&'a Node<T>>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = (Prefix, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(node) = self.rest.pop() {
            self.rest.extend(node.one.as_deref());
            self.rest.extend(node.zero.as_deref());
            if let Some((prefix, value)) = &node.entry {
                return Some((*prefix, value));
            }
        }
        None
    }
}
