//! Values by prefix, found by the addresses in them.

mod trie;

use core::fmt;
use core::net::IpAddr;

use self::trie::{Key, Trie};
use super::{Family, Prefix};

/// A map from prefixes of both families to values, which finds the prefixes that an address is in: the longest, any, or
/// all of them.
///
/// Prefixes may nest or have nothing in common. A look-up takes at most one step for each bit of an address, however
/// many prefixes there are, and needs no memory. Equal maps hold the same prefixes with equal values, whatever else was
/// inserted and removed.
///
/// Addresses are taken as they stand: an IPv4-mapped IPv6 address is in no block of IPv4.
///
/// ```
/// use netpol_core::net::PrefixMap;
///
/// let mut zones = PrefixMap::new();
/// zones.insert("10.0.0.0/8".parse()?, "cluster");
/// zones.insert("10.1.0.0/16".parse()?, "pods");
/// zones.insert("fd00::/8".parse()?, "cluster");
///
/// let (prefix, zone) = zones.longest_match("10.1.2.3".parse()?).ok_or("no match")?;
/// assert_eq!((prefix, *zone), ("10.1.0.0/16".parse()?, "pods"));
/// let around: Vec<_> = zones.covering("10.1.2.0/24".parse()?).map(|(_, zone)| *zone).collect();
/// assert_eq!(around, ["cluster", "pods"]);
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
        Self { v4: Trie::EMPTY, v6: Trie::EMPTY, len: 0 }
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

    /// Returns the longest prefix that `address` is in, with its value.
    #[must_use]
    pub fn longest_match(&self, address: IpAddr) -> Option<(Prefix, &T)> {
        self.around(address).last()
    }

    /// Returns whether `address` is in any of the prefixes.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.around(address).next().is_some()
    }

    /// Returns the prefixes that hold all of `prefix`, which may be one of them, from the shortest to the longest.
    pub fn covering(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &T)> {
        self.trie(prefix.family()).covering(Key::of(prefix))
    }

    /// Returns prefixes and values in the order of the prefixes: IPv4 first, each before those within it.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> {
        Family::BOTH.into_iter().flat_map(|family| self.trie(family).iter())
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

    fn around(&self, address: IpAddr) -> impl Iterator<Item = (Prefix, &T)> {
        self.trie(Family::of(address)).covering(Key::host(address))
    }

    const fn trie(&self, family: Family) -> &Trie<T> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    const fn trie_mut(&mut self, family: Family) -> &mut Trie<T> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: PartialEq> PartialEq for PrefixMap<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for PrefixMap<T> {}

impl<T: fmt::Debug> fmt::Debug for PrefixMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Of several values for one prefix the last one stays.
impl<T> FromIterator<(Prefix, T)> for PrefixMap<T> {
    fn from_iter<I: IntoIterator<Item = (Prefix, T)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

/// A value replaces an earlier one of its prefix.
impl<T> Extend<(Prefix, T)> for PrefixMap<T> {
    fn extend<I: IntoIterator<Item = (Prefix, T)>>(&mut self, entries: I) {
        for (prefix, value) in entries {
            self.insert(prefix, value);
        }
    }
}

#[cfg(test)]
mod tests;
