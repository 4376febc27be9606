//! The numbers of 16 bits as a line of spans, each with a value.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::net::PortSet;

/// An inclusive range of 16-bit numbers: ports, or ICMP `type << 8 | code`.
pub(super) type Range = (u16, u16);

/// Every number.
pub(super) const ALL: &[Range] = &[(0, u16::MAX)];

/// Returns the ranges sorted, disjoint and not adjacent.
pub(super) fn union(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut sorted: Vec<Range> = ranges.into_iter().collect();
    sorted.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Returns what is in `ranges` and not in `holes`; both are sorted and disjoint.
pub(super) fn difference(ranges: &[Range], holes: &[Range]) -> Vec<Range> {
    let mut rest = Vec::with_capacity(ranges.len());
    for &(first, last) in ranges {
        let mut from = Some(first);
        for &(hole_first, hole_last) in holes {
            let Some(start) = from.filter(|&start| start <= last) else { break };
            if hole_last < start || hole_first > last {
                continue;
            }
            if let Some(before) = hole_first.checked_sub(1).filter(|&before| start <= before) {
                rest.push((start, before));
            }
            from = hole_last.checked_add(1);
        }
        if let Some(start) = from.filter(|&start| start <= last) {
            rest.push((start, last));
        }
    }
    rest
}

/// Returns the ranges of a set of ports.
pub(super) fn of_ports(ports: &PortSet) -> impl Iterator<Item = Range> + '_ {
    ports.ranges().iter().map(|range| (range.first(), range.last()))
}

/// Ranges that are borrowed where they are the same for every class.
pub(super) type Ranges<'a> = Cow<'a, [Range]>;

/// A value for every number.
///
/// Invariant: the spans are sorted and disjoint, and together hold every number.
#[derive(Clone, Debug)]
pub(super) struct Line<T>(Vec<Span<T>>);

/// A range of a line.
#[derive(Clone, Debug)]
pub(super) struct Span<T> {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) value: T,
}

impl<T: Clone> Line<T> {
    /// Returns the line with one value everywhere.
    pub(super) fn new(value: T) -> Self {
        Self(Vec::from([Span { first: 0, last: u16::MAX, value }]))
    }

    /// Changes the values of some ranges.
    pub(super) fn paint(&mut self, ranges: &[Range], mut change: impl FnMut(&mut T)) {
        for &(first, last) in ranges {
            self.split_before(first);
            if let Some(after) = last.checked_add(1) {
                self.split_before(after);
            }
            let begin = self.0.partition_point(|span| span.first < first);
            let touched = self.0.iter_mut().skip(begin).take_while(|span| span.last <= last);
            touched.for_each(|span| change(&mut span.value));
        }
    }

    /// Returns the spans.
    pub(super) fn spans(&self) -> &[Span<T>] {
        &self.0
    }

    /// Returns the values, to change them.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|span| &mut span.value)
    }

    /// Makes a span begin at `at`.
    fn split_before(&mut self, at: u16) {
        let after = self.0.partition_point(|span| span.first < at);
        let Some(end) = at.checked_sub(1) else { return };
        let Some(span) = after.checked_sub(1).and_then(|it| self.0.get_mut(it)) else { return };
        if span.last >= at {
            let (last, value) = (span.last, span.value.clone());
            span.last = end;
            self.0.insert(after, Span { first: at, last, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_exact() {
        let cases: [(&[Range], &[Range], &[Range]); 9] = [
            (ALL, &[], ALL),
            (ALL, ALL, &[]),
            (ALL, &[(0, 0)], &[(1, 65_535)]),
            (ALL, &[(65_535, 65_535)], &[(0, 65_534)]),
            (ALL, &[(80, 80), (443, 444)], &[(0, 79), (81, 442), (445, 65_535)]),
            (&[(80, 90)], &[(85, 100)], &[(80, 84)]),
            (&[(80, 90)], &[(70, 85)], &[(86, 90)]),
            (&[(80, 90), (100, 110)], &[(85, 105)], &[(80, 84), (106, 110)]),
            (&[(80, 90)], &[(80, 80), (90, 90)], &[(81, 89)]),
        ];
        for (ranges, holes, want) in cases {
            assert_eq!(difference(ranges, holes), want, "{ranges:?} without {holes:?}");
        }
    }

    #[test]
    fn unions_merge_what_overlaps_or_touches() {
        assert_eq!(union([(5, 6), (1, 2), (3, 3), (6, 9)]), [(1, 3), (5, 9)]);
        assert_eq!(union([(0, 65_535), (65_535, 65_535)]), ALL);
    }

    #[test]
    fn painting_splits_where_ranges_begin_and_end() {
        let mut line = Line::new('a');
        line.paint(&[(0, 0), (80, 90), (65_535, 65_535)], |it| *it = 'b');
        line.paint(&[(85, 100)], |it| *it = if *it == 'b' { 'c' } else { 'd' });
        let spans: Vec<_> = line.spans().iter().map(|it| (it.first, it.last, it.value)).collect();
        assert_eq!(
            spans,
            [
                (0, 0, 'b'),
                (1, 79, 'a'),
                (80, 84, 'b'),
                (85, 90, 'c'),
                (91, 100, 'd'),
                (101, 65_534, 'a'),
                (65_535, 65_535, 'b'),
            ]
        );
    }
}
