//! How large a flat form is, can be and may be.

use alloc::collections::BTreeMap;
use core::fmt;

use super::TableKey;
use crate::net::Family;

/// How large a flat form may be. Backends know from the sizes of their maps.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Single addresses of one family.
    pub addresses: u32,
    /// Prefixes of one family.
    pub prefixes: u32,
    /// Pairs of a policy set and a class, over all policy sets. Each policy set has two for the classes `other`.
    pub entries: u32,
    /// Pairs of one policy set and a class. A policy set that needs more has no table.
    pub entries_per_policy_set: u32,
    /// Ranges in all rows and in all lists of source ports.
    pub ranges: u32,
    /// Ranges in one row, those of its lists of source ports included. A policy set that needs more has no table.
    pub ranges_per_row: u32,
}

impl Limits {
    /// Returns limits that no program reaches.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self {
            addresses: u32::MAX,
            prefixes: u32::MAX,
            entries: u32::MAX,
            entries_per_policy_set: u32::MAX,
            ranges: u32::MAX,
            ranges_per_row: u32::MAX,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::unlimited()
    }
}

/// How large a flat form can be at most, known before a row of it is made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SizeBound {
    /// Single addresses, IPv4 and IPv6. Exact.
    pub addresses: [usize; 2],
    /// Prefixes, IPv4 and IPv6. Exact.
    pub prefixes: [usize; 2],
    /// Classes. Exact.
    pub classes: usize,
    /// Pairs of each policy set and a class, those of the classes `other` included. Less are stored where a class has
    /// the row of `other` although it meets other conditions.
    pub entries: BTreeMap<TableKey, usize>,
}

/// How large a flat form is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Size {
    /// Single addresses, IPv4 and IPv6.
    pub addresses: [usize; 2],
    /// Prefixes, IPv4 and IPv6.
    pub prefixes: [usize; 2],
    /// Classes.
    pub classes: usize,
    /// Pairs of a policy set and a class, those of the classes `other` included.
    pub entries: usize,
    /// Different rows.
    pub rows: usize,
    /// Ranges in all rows and in all lists of source ports.
    pub ranges: usize,
    /// Different leaves.
    pub leaves: usize,
    /// Counters.
    pub counters: usize,
}

/// What a flat form takes up.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Resource {
    /// [`Limits::addresses`].
    Addresses(Family),
    /// [`Limits::prefixes`].
    Prefixes(Family),
    /// [`Limits::entries`].
    Entries,
    /// [`Limits::entries_per_policy_set`].
    EntriesOfPolicySet,
    /// [`Limits::ranges`].
    Ranges,
    /// [`Limits::ranges_per_row`].
    RangesOfRow,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(family) => write!(f, "{family} addresses"),
            Self::Prefixes(family) => write!(f, "{family} prefixes"),
            Self::Entries => f.write_str("pairs of policy set and class"),
            Self::EntriesOfPolicySet => f.write_str("classes in one policy set"),
            Self::Ranges => f.write_str("ranges"),
            Self::RangesOfRow => f.write_str("ranges in one row"),
        }
    }
}

/// A flat form, or the table of a policy set, would be larger than it may be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("needs {needed} {resource}, the limit is {limit}{}", Culprit(*.policy_set))]
#[non_exhaustive]
pub struct CapacityError {
    /// What there is too much of.
    pub resource: Resource,
    /// The policy set that is too large, that needs most, or in which the limit was reached; `None` for what policy
    /// sets share.
    pub policy_set: Option<TableKey>,
    /// How much is needed, as far as it was counted.
    pub needed: usize,
    /// The limit.
    pub limit: u32,
}

/// Names the policy set at the end of a message.
struct Culprit(Option<TableKey>);

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |key| write!(f, ", at policy set {key}"))
    }
}

/// Returns an error if more is needed than there may be.
pub(super) fn check(
    resource: Resource,
    policy_set: Option<TableKey>,
    needed: usize,
    limit: u32,
) -> Result<(), CapacityError> {
    match u32::try_from(needed) {
        Ok(needed) if needed <= limit => Ok(()),
        _ => Err(CapacityError { resource, policy_set, needed, limit }),
    }
}

/// Counts the families of some things: IPv4 and IPv6.
pub(super) fn by_family(families: impl Iterator<Item = Family>) -> [usize; 2] {
    families.fold([0, 0], |[v4, v6], family| match family {
        Family::V4 => [v4 + 1, v6],
        Family::V6 => [v4, v6 + 1],
    })
}
