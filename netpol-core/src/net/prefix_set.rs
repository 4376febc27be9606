//! Sets of addresses as disjoint prefixes.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use ipnet::IpNet;

use super::{Family, Prefix};

/// A set of addresses of both families in canonical form: equal sets are equal values.
///
/// Invariant: the prefixes are sorted, disjoint, and as few as possible (no two are the halves of one).
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(from = "Vec<Prefix>")]
pub struct PrefixSet(Vec<Prefix>);

impl PrefixSet {
    /// Returns the prefixes, IPv4 first, sorted and disjoint.
    #[must_use]
    pub fn prefixes(&self) -> &[Prefix] {
        &self.0
    }

    /// Returns the prefixes of one family, sorted and disjoint.
    pub fn of_family(&self, family: Family) -> impl Iterator<Item = Prefix> + '_ {
        self.0.iter().copied().filter(move |prefix| prefix.family() == family)
    }

    /// Returns whether no address is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `address` is in the set. It is taken as it stands: an IPv4-mapped IPv6 address is in no block of
    /// IPv4. Cost: one binary search.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let after = self.0.partition_point(|prefix| prefix.first() <= address);
        after
            .checked_sub(1)
            .and_then(|it| self.0.get(it))
            .is_some_and(|prefix| prefix.contains(address))
    }

    /// Returns the addresses that are in `self` and not in `other`.
    ///
    /// ```
    /// use netpol_core::net::{Prefix, PrefixSet};
    /// let block: PrefixSet = ["10.0.0.0/30".parse::<Prefix>()?].into_iter().collect();
    /// let hole: PrefixSet = ["10.0.0.1/32".parse::<Prefix>()?].into_iter().collect();
    /// assert_eq!(block.difference(&hole).to_string(), "10.0.0.0/32, 10.0.0.2/31");
    /// # Ok::<(), netpol_core::net::PrefixError>(())
    /// ```
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = Vec::with_capacity(self.0.len());
        for &prefix in &self.0 {
            subtract(prefix, &other.0, &mut rest);
        }
        Self(rest)
    }
}

impl From<Vec<Prefix>> for PrefixSet {
    fn from(prefixes: Vec<Prefix>) -> Self {
        prefixes.into_iter().collect()
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let nets: Vec<IpNet> = prefixes.into_iter().map(Prefix::net).collect();
        let prefix = |net: IpNet| Prefix::as_it_stands(net.network(), net.prefix_len()).ok();
        let mut merged: Vec<Prefix> =
            IpNet::aggregate(&nets).into_iter().filter_map(prefix).collect();
        merged.sort_unstable();
        Self(merged)
    }
}

impl fmt::Display for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, prefix) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            prefix.fmt(f)?;
        }
        Ok(())
    }
}

/// Appends to `rest` what remains of `prefix` without the disjoint, sorted `holes`. The recursion is at most as deep
/// as an address has bits.
fn subtract(prefix: Prefix, holes: &[Prefix], rest: &mut Vec<Prefix>) {
    let begin = holes.partition_point(|hole| hole.last() < prefix.first());
    let end = holes.partition_point(|hole| hole.first() <= prefix.last());
    let holes = holes.get(begin..end).unwrap_or_default();
    let Some(first) = holes.first() else {
        return rest.push(prefix);
    };
    // A hole that covers the prefix leaves no room for others.
    if !first.covers(prefix) {
        for half in prefix.halves().into_iter().flatten() {
            subtract(half, holes, rest);
        }
    }
}

#[cfg(test)]
mod tests;
