//! Sets of what flows can carry.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;

use crate::flat::{LeafId, Row, SourceRange, Then};
use crate::flow::{Flow, Payload};
use crate::net::{Family, Protocol, Transport};

/// An inclusive range of 16-bit numbers: ports, or ICMP `type << 8 | code`.
type Range = (u16, u16);

const ALL: Range = (0, u16::MAX);

/// A set of payloads: protocols, their ports, and types of ICMP. Equal sets are equal values.
///
/// ICMP is that of the family of the flows that the set is about. Packets of a protocol with ports or types from which these
/// cannot be read are in no set.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Traffic {
    /// Whether protocols that are not listed are in the set.
    others: bool,
    /// Sorted and disjoint. A protocol of which all is in the set that `others` speaks for is not listed.
    protocols: BTreeMap<Protocol, Vec<Strip>>,
}

/// Destination ports, or messages of ICMP, with the same source ports.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
struct Strip {
    destination: Range,
    /// Sorted, disjoint and not adjacent; not empty.
    sources: Vec<Range>,
}

/// A part of [`Traffic`]: flows of one protocol to one range of ports from one range of ports.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "these are all that a set tells apart")]
pub struct TrafficPart {
    /// The protocol.
    pub protocol: Protocol,
    /// The first and the last destination port; of ICMP the first and the last `type << 8 | code`.
    pub destination: (u16, u16),
    /// The first and the last source port.
    pub source: (u16, u16),
}

impl Traffic {
    /// Returns the set of everything.
    pub(super) const fn everything() -> Self {
        Self { others: true, protocols: BTreeMap::new() }
    }

    /// Returns the empty set.
    pub(super) const fn nothing() -> Self {
        Self { others: false, protocols: BTreeMap::new() }
    }

    /// Returns the messages of ICMPv6 that no policy is asked about: discovery, and what only routers send.
    pub(super) fn discovery() -> Self {
        let messages = [(130, 137), (143, 143)];
        let strip = |(first, last)| Strip {
            destination: (u16::from_be_bytes([first, 0]), u16::from_be_bytes([last, u8::MAX])),
            sources: [ALL].into(),
        };
        let strips = messages.into_iter().map(strip).collect();
        Self { others: false, protocols: [(Protocol::ICMPV6, strips)].into() }
    }

    /// Returns what leads to wanted leaves in a row.
    pub(super) fn of_row(
        row: &Row,
        sources: &[Vec<SourceRange>],
        is_wanted: impl Fn(LeafId) -> bool,
    ) -> Self {
        let default = is_wanted(row.default);
        let whole = |wanted| if wanted { Vec::from([ALL]) } else { Vec::new() };
        let mut protocols = BTreeMap::new();
        for cells in row.cells.chunk_by(|a, b| a.protocol == b.protocol) {
            let Some(protocol) = cells.first().map(|cell| cell.protocol) else { continue };
            let (mut strips, mut next) = (Strips::default(), Some(0));
            for cell in cells {
                if let Some(gap) = next.filter(|&it| it < cell.first) {
                    strips.push((gap, cell.first - 1), whole(default));
                }
                let across = match cell.then {
                    Then::Leaf(leaf) => whole(is_wanted(leaf)),
                    Then::BySource(list) => {
                        let list = usize::try_from(list.0).ok().and_then(|it| sources.get(it));
                        let ranges = list.into_iter().flatten();
                        union(ranges.filter(|it| is_wanted(it.leaf)).map(|it| (it.first, it.last)))
                    }
                };
                strips.push((cell.first, cell.last), across);
                next = cell.last.checked_add(1);
            }
            if let Some(gap) = next {
                strips.push((gap, u16::MAX), whole(default));
            }
            protocols.insert(protocol, strips);
        }
        Self::canonical(default, protocols)
    }

    /// Returns what is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one && other)
    }

    /// Returns what is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one && !other)
    }

    /// Returns whether nothing is in the set.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.others && self.protocols.is_empty()
    }

    /// Returns whether everything is in the set.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.others && self.protocols.is_empty()
    }

    /// Returns whether a flow is in the set, by what it carries.
    #[must_use]
    pub fn contains(&self, flow: &Flow) -> bool {
        let protocol = flow.protocol();
        let (destination, source) = match flow.payload {
            Payload::Ports { source, destination, .. } => (destination, source),
            Payload::Icmp { kind, code } => (u16::from_be_bytes([kind, code]), 0),
            Payload::Other(_) if needs_more(protocol, flow.family()) => return false,
            Payload::Other(_) => (0, 0),
        };
        match self.protocols.get(&protocol) {
            None => self.others,
            Some(strips) => covers(sources_at(strips, destination).0, source).0,
        }
    }

    /// Returns the parts of the set as flows of a family: first one of the protocols that are not told apart, if they are in
    /// the set.
    pub fn parts(&self, family: Family) -> impl Iterator<Item = TrafficPart> + '_ {
        let usual = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, icmp_of(family)];
        let any = usual.into_iter().chain((0..=u8::MAX).map(Protocol::new));
        let mut any = any.filter(|it| self.others && !self.protocols.contains_key(it));
        let other =
            any.next().map(|protocol| TrafficPart { protocol, destination: ALL, source: ALL });
        let listed = self.protocols.iter().flat_map(|(&protocol, strips)| {
            strips.iter().flat_map(move |strip| {
                let part =
                    move |&source| TrafficPart { protocol, destination: strip.destination, source };
                strip.sources.iter().map(part)
            })
        });
        other.into_iter().chain(listed)
    }

    fn combined(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let listed: BTreeSet<_> = self.protocols.keys().chain(other.protocols.keys()).collect();
        let combine = |&it: &Protocol| (it, overlay(&self.strips(it), &other.strips(it), &keep));
        let protocols = listed.into_iter().map(combine).collect();
        Self::canonical(keep(self.others, other.others), protocols)
    }

    fn strips(&self, protocol: Protocol) -> Cow<'_, [Strip]> {
        match self.protocols.get(&protocol) {
            Some(strips) => Cow::Borrowed(strips),
            None if self.others => {
                Cow::Owned([Strip { destination: ALL, sources: [ALL].into() }].into())
            }
            None => Cow::Owned(Vec::new()),
        }
    }

    fn canonical(others: bool, protocols: BTreeMap<Protocol, Strips>) -> Self {
        let protocols = protocols.into_iter().map(|(protocol, strips)| (protocol, strips.0));
        let protocols = protocols
            .filter(|(_, strips)| if others { !is_whole(strips) } else { !strips.is_empty() });
        Self { others, protocols: protocols.collect() }
    }
}

impl TrafficPart {
    /// Returns one payload of the part, as a flow of a family has it: an ordinary one where there is one.
    #[must_use]
    pub fn example(&self, family: Family) -> Payload {
        let within = |(first, last): Range, usual: u16| {
            if (first..=last).contains(&usual) { usual } else { first }
        };
        let destination = within(self.destination, 80);
        match Transport::from_protocol(self.protocol) {
            Some(transport) => {
                let source = within(self.source, Flow::EPHEMERAL);
                Payload::Ports { transport, source, destination }
            }
            None if self.protocol == icmp_of(family) => {
                let echo = if family == Family::V4 { 8 } else { 128 };
                let [kind, code] =
                    within(self.destination, u16::from_be_bytes([echo, 0])).to_be_bytes();
                Payload::Icmp { kind, code }
            }
            None => Payload::Other(self.protocol),
        }
    }
}

/// Strips as they are put together, from the first port to the last.
#[derive(Default)]
struct Strips(Vec<Strip>);

impl Strips {
    fn push(&mut self, destination: Range, sources: Vec<Range>) {
        match self.0.last_mut() {
            _ if sources.is_empty() => {}
            Some(before)
                if before.sources == sources
                    && before.destination.1.checked_add(1) == Some(destination.0) =>
            {
                before.destination.1 = destination.1;
            }
            _ => self.0.push(Strip { destination, sources }),
        }
    }
}

fn is_whole(strips: &[Strip]) -> bool {
    matches!(strips, [Strip { destination: ALL, sources }] if *sources == [ALL])
}

fn overlay(one: &[Strip], other: &[Strip], keep: impl Fn(bool, bool) -> bool) -> Strips {
    let (mut strips, mut next) = (Strips::default(), Some(0));
    while let Some(first) = next {
        let (sources, until) = sources_at(one, first);
        let (other_sources, other_until) = sources_at(other, first);
        let last = until.min(other_until);
        strips.push((first, last), overlay_ranges(sources, other_sources, &keep));
        next = last.checked_add(1);
    }
    strips
}

fn overlay_ranges(one: &[Range], other: &[Range], keep: impl Fn(bool, bool) -> bool) -> Vec<Range> {
    let (mut kept, mut next) = (Vec::new(), Some(0));
    while let Some(first) = next {
        let (in_one, until) = covers(one, first);
        let (in_other, other_until) = covers(other, first);
        let last = until.min(other_until);
        if keep(in_one, in_other) {
            kept.push((first, last));
        }
        next = last.checked_add(1);
    }
    union(kept)
}

/// Returns the source ports for a destination port, and the last destination port up to which they are the same.
fn sources_at(strips: &[Strip], port: u16) -> (&[Range], u16) {
    let next = strips.partition_point(|strip| strip.destination.1 < port);
    match strips.get(next) {
        Some(strip) if strip.destination.0 <= port => (&strip.sources, strip.destination.1),
        Some(strip) => (&[], strip.destination.0 - 1),
        None => (&[], u16::MAX),
    }
}

/// Returns whether a port is in the ranges, and the last port up to which the answer is the same.
fn covers(ranges: &[Range], port: u16) -> (bool, u16) {
    let next = ranges.partition_point(|&(_, last)| last < port);
    match ranges.get(next) {
        Some(&(first, last)) if first <= port => (true, last),
        Some(&(first, _)) => (false, first - 1),
        None => (false, u16::MAX),
    }
}

/// Returns sorted, disjoint ranges without neighbours that touch.
fn union(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last,
            _ => merged.push((first, last)),
        }
    }
    merged
}

const fn icmp_of(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    }
}

/// Returns whether packets of a protocol have ports or a type.
fn needs_more(protocol: Protocol, family: Family) -> bool {
    Transport::from_protocol(protocol).is_some() || protocol == icmp_of(family)
}

/// Writes `everything`, `nothing`, `TCP 80, 443; ICMP type 8`, or `everything but` such a list.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return f.write_str("nothing");
        }
        if self.others {
            f.write_str("everything")?;
            return match Self::everything().difference(self) {
                rest if rest.is_nothing() => Ok(()),
                rest => write!(f, " but {rest}"),
            };
        }
        for (index, (&protocol, strips)) in self.protocols.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "; " })?;
            write_protocol(f, protocol, strips)?;
        }
        Ok(())
    }
}

fn write_protocol(f: &mut fmt::Formatter<'_>, protocol: Protocol, strips: &[Strip]) -> fmt::Result {
    let is_number = protocol.to_string().starts_with(|it: char| it.is_ascii_digit());
    write!(f, "{}{protocol}", if is_number { "protocol " } else { "" })?;
    if is_whole(strips) {
        return Ok(());
    }
    for (index, Strip { destination, sources }) in strips.iter().enumerate() {
        f.write_str(if index == 0 { " " } else { ", " })?;
        match (protocol, *destination) {
            (_, ALL) => f.write_str("any port")?,
            (Protocol::ICMP | Protocol::ICMPV6, messages) => write_messages(f, messages)?,
            (_, ports) => write_range(f, ports)?,
        }
        if *sources != [ALL] {
            f.write_str(" from port ")?;
            for (index, &range) in sources.iter().enumerate() {
                f.write_str(if index == 0 { "" } else { " or " })?;
                write_range(f, range)?;
            }
        }
    }
    Ok(())
}

fn write_range(f: &mut fmt::Formatter<'_>, (first, last): Range) -> fmt::Result {
    if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
}

fn write_messages(f: &mut fmt::Formatter<'_>, (first, last): Range) -> fmt::Result {
    let ([kind, code], [last_kind, last_code]) = (first.to_be_bytes(), last.to_be_bytes());
    match (code, last_code) {
        (0, u8::MAX) if kind == last_kind => write!(f, "type {kind}"),
        (0, u8::MAX) => write!(f, "types {kind}-{last_kind}"),
        _ if first == last => write!(f, "type {kind} code {code}"),
        _ if kind == last_kind => write!(f, "type {kind} codes {code}-{last_code}"),
        _ => write!(f, "type {kind} code {code} to type {last_kind} code {last_code}"),
    }
}
