//! Values by prefix, found by the addresses in them.

mod trie;

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use self::trie::{Covering, Iter as TrieIter, Trie};
use super::{Family, Prefix};

/// A map from prefixes of both families to values, which finds the prefixes that an address is in: the longest, any, or
/// all of them.
///
/// Prefixes may nest, repeat their bits, or have nothing in common. A look-up takes at most one step for each bit of an
/// address, however many prefixes there are. Equal maps hold the same prefixes with equal values, whatever was inserted
/// and removed before.
///
/// ```
/// use netpol_core::net::{Prefix, PrefixMap};
///
/// let mut zones: PrefixMap<&str> = PrefixMap::new();
/// zones.insert("10.0.0.0/8".parse()?, "cluster");
/// zones.insert("10.1.0.0/16".parse()?, "pods");
/// zones.insert("::/0".parse()?, "everything");
///
/// let (prefix, zone) = zones.longest_match("10.1.2.3".parse()?).ok_or("no match")?;
/// assert_eq!((prefix.to_string(), *zone), ("10.1.0.0/16".into(), "pods"));
/// let all: Vec<_> = zones.covering("10.1.2.0/24".parse()?).map(|(_, zone)| *zone).collect();
/// assert_eq!(all, ["cluster", "pods"]);
/// assert!(!zones.contains("192.0.2.1".parse()?));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PrefixMap<T> {
    v4: Trie<T>,
    v6: Trie<T>,
    len: usize,
}

impl<T> PrefixMap<T> {
    /// Returns a map without prefixes.
    #[must_use]
    pub const fn new() -> Self {
        Self { v4: Trie::new(), v6: Trie::new(), len: 0 }
    }

    /// Gives `prefix` a value and returns the one it had before.
    pub fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        let before = self.trie_mut(prefix.family()).insert(prefix, value);
        self.len = self.len.saturating_add(usize::from(before.is_none()));
        before
    }

    /// Removes `prefix` and returns the value it had. Prefixes within it stay.
    pub fn remove(&mut self, prefix: Prefix) -> Option<T> {
        let value = self.trie_mut(prefix.family()).remove(prefix);
        self.len = self.len.saturating_sub(usize::from(value.is_some()));
        value
    }

    /// Returns the value of just this prefix.
    #[must_use]
    pub fn value(&self, prefix: Prefix) -> Option<&T> {
        let (longest, value) = self.covering(prefix).last()?;
        (longest == prefix).then_some(value)
    }

    /// Returns the longest prefix that `address` is in, with its value. An IPv4-mapped IPv6 address is the IPv4 address.
    #[must_use]
    pub fn longest_match(&self, address: IpAddr) -> Option<(Prefix, &T)> {
        self.covering(Prefix::host(address)).last()
    }

    /// Returns whether `address` is in any of the prefixes.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covering(Prefix::host(address)).next().is_some()
    }

    /// Returns all prefixes that hold the whole of `prefix`, itself included, from the shortest to the longest.
    pub fn covering(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &T)> {
        self.covering_entries(prefix)
    }

    /// Returns prefixes and values, IPv4 first; each prefix before those within it, and else by address.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> {
        self.entries()
    }

    /// Returns the number of prefixes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no prefixes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn covering_entries(&self, prefix: Prefix) -> Covering<'_, T> {
        let trie = match prefix.family() {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        trie.covering(prefix)
    }

    fn entries(&self) -> core::iter::Chain<TrieIter<'_, T>, TrieIter<'_, T>> {
        self.v4.iter().chain(self.v6.iter())
    }

    fn trie_mut(&mut self, family: Family) -> &mut Trie<T> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
