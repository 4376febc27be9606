//! The verdicts on one protocol: the stages painted over its ports, one rule after the other.

use alloc::vec::Vec;

use super::line::{ALL, Line, Range};
use super::plan::Cover;
use super::pool::{Cause, End, NO_LOGS, PathId, Pool};
use crate::model::Action;
use crate::net::{Family, Protocol, Transport};
use crate::program::StageEnd;
use crate::verdict::Verdict;

/// What one stage does with the flows of a class.
#[derive(Debug)]
pub(super) struct StageHits<'a> {
    /// The stage's number in the pool.
    pub(super) number: u32,
    pub(super) end: StageEnd,
    pub(super) hits: Vec<Hit<'a>>,
}

/// A rule that matches flows of a class.
#[derive(Debug)]
pub(super) struct Hit<'a> {
    /// The rule's number in the pool.
    pub(super) number: u32,
    pub(super) action: Action,
    pub(super) cover: Cover<'a>,
}

/// What is known of a flow so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The next rule is asked.
    Open(PathId),
    /// The next stage is asked.
    Passed(PathId),
    /// The verdict has fallen.
    Ended(End),
}

/// More ranges came up than a row may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooManyRanges(pub(super) usize);

/// The flows of one protocol, by destination port (or ICMP message) and then by source port.
pub(super) struct Plane {
    line: Line<Line<State>>,
}

impl Plane {
    /// The most ranges that a plane may have while it is painted: twice as many as there are ports. Without conditions
    /// on source ports it is never reached.
    pub(super) const MAX_RANGES: usize = 1 << 17;

    /// Returns what some stages do with a protocol, `None` for all protocols that none of their rules names.
    pub(super) fn painted(
        protocol: Option<Protocol>,
        family: Family,
        stages: &[StageHits<'_>],
        default: Verdict,
        pool: &mut Pool,
    ) -> Result<Self, TooManyRanges> {
        let mut plane = Self { line: Line::new(Line::new(State::Open(NO_LOGS))) };
        for stage in stages {
            for hit in &stage.hits {
                if let Some((source, destination)) = hit.cover.on(protocol, family) {
                    plane.paint(hit, source, destination, pool);
                    plane.check()?;
                }
            }
            plane.end_stage(stage);
        }
        plane.change(|state| match *state {
            State::Open(logs) | State::Passed(logs) => {
                *state = State::Ended(End { cause: Cause::Default(default), logs });
            }
            State::Ended(_) => {}
        });
        Ok(plane)
    }

    /// Calls `each` with the destination ports that share their verdicts on source ports, in order, and with those
    /// verdicts: ranges of source ports in order, neighbours different.
    pub(super) fn for_each(&self, mut each: impl FnMut(Range, &[(Range, End)])) {
        let mut ends = Vec::new();
        for across in self.line.spans() {
            ends.clear();
            for span in across.value.spans() {
                let State::Ended(end) = span.value else { continue };
                match ends.last_mut() {
                    Some(((_, last), before)) if *before == end => *last = span.last,
                    _ => ends.push(((span.first, span.last), end)),
                }
            }
            each((across.first, across.last), &ends);
        }
    }

    fn paint(&mut self, hit: &Hit<'_>, source: &[Range], destination: &[Range], pool: &mut Pool) {
        let mut change = |state: &mut State| {
            let State::Open(logs) = *state else { return };
            let ended =
                |verdict| State::Ended(End { cause: Cause::Rule(hit.number, verdict), logs });
            *state = match hit.action {
                Action::Allow => ended(Verdict::Allow),
                Action::Deny => ended(Verdict::Deny),
                Action::Pass => State::Passed(logs),
                Action::Log => State::Open(pool.logged(logs, hit.number)),
            };
        };
        self.line.paint(destination, |across| across.paint(source, &mut change));
    }

    fn end_stage(&mut self, stage: &StageHits<'_>) {
        self.change(|state| match (*state, stage.end) {
            (State::Open(logs), StageEnd::Deny) => {
                *state = State::Ended(End { cause: Cause::Stage(stage.number), logs });
            }
            (State::Passed(logs), _) => *state = State::Open(logs),
            (State::Open(_), StageEnd::Next) | (State::Ended(_), _) => {}
        });
    }

    fn change(&mut self, mut change: impl FnMut(&mut State)) {
        self.line.values_mut().flat_map(Line::values_mut).for_each(&mut change);
    }

    fn check(&self) -> Result<(), TooManyRanges> {
        let ranges = self.line.spans().iter().map(|across| across.value.spans().len()).sum();
        if ranges > Self::MAX_RANGES { Err(TooManyRanges(ranges)) } else { Ok(()) }
    }
}

impl Cover<'_> {
    /// Returns the protocol whose flows it tells apart, if it names one.
    pub(super) fn protocols(&self, family: Family) -> impl Iterator<Item = Protocol> + '_ {
        let (one, others) = match self {
            Self::Any => (None, None),
            Self::Is(protocol) => (Some(*protocol), None),
            Self::IsNot(protocols) => (None, Some(*protocols)),
            Self::Ports { transport, .. } => (Some(transport.protocol()), None),
            Self::Icmp { .. } => (Some(icmp_of(family)), None),
        };
        one.into_iter().chain(others.into_iter().flatten().copied())
    }

    /// Returns the source and destination ports that are covered of a protocol, `None` if none are.
    fn on(&self, protocol: Option<Protocol>, family: Family) -> Option<(&[Range], &[Range])> {
        let all = |covered: bool| covered.then_some((ALL, ALL));
        match self {
            Self::Any => all(true),
            Self::Is(it) => all(protocol == Some(*it)),
            Self::IsNot(them) => all(protocol.is_none_or(|it| !them.contains(&it))),
            Self::Ports { transport, source, destination } => {
                let covered = protocol.and_then(Transport::from_protocol) == Some(*transport);
                covered.then_some((source.as_ref(), destination.as_ref()))
            }
            Self::Icmp { messages } => {
                (protocol == Some(icmp_of(family))).then_some((ALL, messages))
            }
        }
    }
}

/// Returns the ICMP of a family.
pub(super) const fn icmp_of(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    }
}
