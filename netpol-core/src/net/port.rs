//! Ports: ranges and sets of them.

use alloc::vec::Vec;

use core::fmt;
use serde::{Deserialize, Serialize};

/// A non-empty, inclusive range of transport-layer ports.
///
/// Invariant: `1 <= first <= last`. Port 0 is reserved (RFC 6335, section 6) and every policy API rejects it. A
/// packet can still carry it, so "any port" is the absence of a range, never `1-65535`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "(u16, u16)", try_from = "(u16, u16)")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why two numbers are no range of ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PortRangeError {
    /// The range begins at the reserved port 0.
    #[error("port 0 is reserved, expected 1 to 65535")]
    Zero,
    /// The last port is below the first.
    #[error("the last port {last} is below the first port {first}")]
    Reversed {
        /// The first port as given.
        first: u16,
        /// The last port as given.
        last: u16,
    },
}

impl PortRange {
    /// Returns the range of ports from `first` to `last`, both included.
    ///
    /// # Errors
    ///
    /// [`PortRangeError::Zero`] if `first` is 0, [`PortRangeError::Reversed`] if `first` is greater than `last`.
    pub const fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first == 0 {
            return Err(PortRangeError::Zero);
        }
        if first > last {
            return Err(PortRangeError::Reversed { first, last });
        }
        Ok(Self { first, last })
    }

    /// Returns the range of one port.
    ///
    /// # Errors
    ///
    /// [`PortRangeError::Zero`] if `port` is 0.
    pub const fn single(port: u16) -> Result<Self, PortRangeError> {
        Self::new(port, port)
    }

    /// Returns the first port of the range.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Returns the last port of the range.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Returns whether `port` is in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> Self {
        (range.first, range.last)
    }
}

impl TryFrom<(u16, u16)> for PortRange {
    type Error = PortRangeError;

    fn try_from((first, last): (u16, u16)) -> Result<Self, PortRangeError> {
        Self::new(first, last)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A set of ports in canonical form: equal sets are equal values.
///
/// Invariant: the ranges are sorted, disjoint and not adjacent.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(from = "Vec<PortRange>")]
pub struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Returns the ranges, sorted, disjoint and not adjacent.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// Returns whether no port is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `port` is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|range| range.first <= port);
        after.checked_sub(1).and_then(|it| self.0.get(it)).is_some_and(|range| range.contains(port))
    }
}

impl From<Vec<PortRange>> for PortSet {
    fn from(ranges: Vec<PortRange>) -> Self {
        ranges.into_iter().collect()
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last)
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            range.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_an_order_and_no_zero() {
        assert_eq!(PortRange::new(0, 5), Err(PortRangeError::Zero));
        assert_eq!(PortRange::new(6, 5), Err(PortRangeError::Reversed { first: 6, last: 5 }));
        let top = PortRange::new(65_535, 65_535).unwrap();
        assert!(top.contains(65_535) && !top.contains(65_534));
    }

    #[test]
    fn sets_merge_what_overlaps_or_touches() {
        let cases: [(&[(u16, u16)], &str); 6] = [
            (&[], ""),
            (&[(80, 80), (443, 443)], "80,443"),
            (&[(443, 443), (80, 90), (85, 95), (96, 96)], "80-96,443"),
            (&[(80, 80), (80, 80)], "80"),
            (&[(1, 65_535), (7, 7)], "1-65535"),
            (&[(65_535, 65_535), (65_534, 65_534)], "65534-65535"),
        ];
        for (ranges, want) in cases {
            let set: PortSet =
                ranges.iter().map(|&(first, last)| PortRange::new(first, last).unwrap()).collect();
            assert_eq!(alloc::format!("{set}"), want);
            for port in 0..=u16::MAX {
                let listed = ranges.iter().any(|&(first, last)| (first..=last).contains(&port));
                assert_eq!(set.contains(port), listed, "port {port} of {want}");
            }
        }
    }
}
