//! What tables share: rows, lists of source ports and leaves, each kept once.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::{Counter, CounterId, Leaf, LeafId, LogRule, Row, SourceId, SourceRange};
use crate::model::PolicyKey;
use crate::program::{PolicySet, Rule, RuleId};
use crate::verdict::{Reason, RuleRef, Verdict};

/// Returns the id of the next of `len` things. There are never 2^32 of them: each takes memory, and what tables hold is
/// counted against limits of 32 bits.
pub(super) fn id_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Returns the place of the thing with this id.
pub(super) fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// Log rules that a flow met, as a node of a tree.
pub(super) type PathId = u32;

/// The path of a flow that met none.
pub(super) const NO_LOGS: PathId = 0;

/// How a flow ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct End {
    pub(super) cause: Cause,
    pub(super) logs: PathId,
}

/// What decided a flow.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Cause {
    /// A rule, by its number.
    Rule(u32, Verdict),
    /// The end of a stage, by its number.
    Stage(u32),
    /// The policy set's default.
    Default(Verdict),
    /// A frontend has no backends.
    NoBackends,
}

/// How much of a pool there was at some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    rows: u32,
    sources: u32,
    leaves: u32,
    counters: u32,
    ranges: usize,
}

/// What tables share.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Pool {
    rows: Numbered<Row>,
    sources: Numbered<Vec<SourceRange>>,
    ends: Numbered<End>,
    /// The ends, written out.
    leaves: Vec<Leaf>,
    counted: Numbered<Counted>,
    /// What is counted, written out.
    counters: Vec<Counter>,
    /// How many ranges the rows and lists have.
    ranges: usize,
    /// Rules and stages.
    origins: Numbered<Origin>,
    /// Each path but the empty one: the path before its last rule, and that rule.
    paths: Numbered<(PathId, u32)>,
    /// How many policies the stages have.
    policies: usize,
}

impl Pool {
    pub(super) fn rule(&mut self, rule: &Arc<Rule>) -> u32 {
        self.origins.number(Origin::Rule(Arc::clone(rule)))
    }

    /// Returns the number of a stage of a policy set, by its index there.
    pub(super) fn stage(&mut self, set: &Arc<PolicySet>, index: usize) -> u32 {
        let before = self.origins.len();
        let number = self.origins.number(Origin::Stage(Arc::clone(set), index));
        if self.origins.len() > before {
            self.policies += set.stages.get(index).map_or(0, |stage| stage.policies.len());
        }
        number
    }

    /// Returns the path after one more Log rule. A rule of the model can be several here; it is logged once.
    pub(super) fn logged(&mut self, path: PathId, rule: u32) -> PathId {
        let origin = |rule| self.told_rule(rule).map(|(_, origin)| origin);
        match self.paths.thing(path.wrapping_sub(1)) {
            Some(&(_, last)) if origin(last) == origin(rule) => path,
            _ => self.paths.number((path, rule)) + 1,
        }
    }

    pub(super) fn leaf(&mut self, end: End) -> LeafId {
        let id = self.ends.number(end);
        if index(id) == self.leaves.len() {
            let leaf = self.spell_out(end);
            self.leaves.push(leaf);
        }
        LeafId(id)
    }

    pub(super) fn row(&mut self, row: Row) -> super::RowId {
        let (ranges, before) = (row.cells.len(), self.rows.len());
        let id = self.rows.number(row);
        self.ranges += if self.rows.len() > before { ranges } else { 0 };
        super::RowId(id)
    }

    pub(super) fn source(&mut self, list: Vec<SourceRange>) -> SourceId {
        let (ranges, before) = (list.len(), self.sources.len());
        let id = self.sources.number(list);
        self.ranges += if self.sources.len() > before { ranges } else { 0 };
        SourceId(id)
    }

    /// Returns whether a leaf is there that allows.
    pub(super) fn allows(&self, leaf: LeafId) -> bool {
        self.leaves.get(index(leaf.0)).is_some_and(|leaf| leaf.verdict == Verdict::Allow)
    }

    /// Returns how many ranges a row has, those of its lists of source ports included.
    pub(super) fn ranges_of(&self, row: super::RowId) -> usize {
        let cells = self.rows.thing(row.0).map(|it| it.cells.as_slice()).unwrap_or_default();
        let sources = cells.iter().filter_map(|cell| match cell.then {
            super::Then::BySource(list) => self.sources.thing(list.0).map(Vec::len),
            super::Then::Leaf(_) => None,
        });
        cells.len() + sources.sum::<usize>()
    }

    pub(super) fn rows(&self) -> &[Row] {
        self.rows.things()
    }

    pub(super) fn sources(&self) -> &[Vec<SourceRange>] {
        self.sources.things()
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub(super) fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// Returns how many ranges the rows and lists have.
    pub(super) const fn ranges(&self) -> usize {
        self.ranges
    }

    /// Returns how much there is in all, as a measure of memory.
    pub(super) fn weight(&self) -> usize {
        let counted = [self.rows.len(), self.ends.len(), self.origins.len(), self.paths.len()];
        counted.into_iter().map(index).sum::<usize>() + self.ranges + self.policies
    }

    /// Returns how much there is, to come back to.
    pub(super) fn mark(&self) -> Mark {
        let (rows, sources, leaves) = (self.rows.len(), self.sources.len(), self.ends.len());
        Mark { rows, sources, leaves, counters: self.counted.len(), ranges: self.ranges }
    }

    /// Forgets what came after a mark.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        self.rows.truncate(mark.rows);
        self.sources.truncate(mark.sources);
        self.ends.truncate(mark.leaves);
        self.leaves.truncate(index(mark.leaves));
        self.counted.truncate(mark.counters);
        self.counters.truncate(index(mark.counters));
        self.ranges = mark.ranges;
    }

    fn spell_out(&mut self, end: End) -> Leaf {
        let mut logs = Vec::new();
        let mut path = end.logs;
        while let Some(&(before, rule)) = self.paths.thing(path.wrapping_sub(1)) {
            let rule = self.told_rule(rule);
            logs.extend(rule.map(|(id, origin)| LogRule { id, origin: origin.clone() }));
            path = before;
        }
        logs.reverse();
        let (verdict, reason) = self.reason(end.cause);
        let counted = match end.cause {
            Cause::Rule(rule, _) => self.told_rule(rule).map(|(id, _)| Counted::Rule(id)),
            Cause::Stage(_) | Cause::Default(_) | Cause::NoBackends => None,
        };
        let counter = self.counter(counted.unwrap_or(Counted::Unmatched(end.cause)));
        Leaf { verdict, reason, logs, counter }
    }

    fn reason(&self, cause: Cause) -> (Verdict, Reason) {
        let (verdict, origin) = match cause {
            Cause::Rule(rule, verdict) => (verdict, self.origins.thing(rule)),
            Cause::Stage(stage) => (Verdict::Deny, self.origins.thing(stage)),
            Cause::Default(verdict) => (verdict, None),
            Cause::NoBackends => return (Verdict::Deny, Reason::NoBackends),
        };
        let reason = match origin.map(Origin::told) {
            Some(Told::Rule(_, origin)) => Reason::Rule(origin.clone()),
            Some(Told::Stage(tier, policies)) => {
                Reason::NoMatch { tier: tier.into(), policies: policies.to_vec() }
            }
            None => Reason::DefaultVerdict,
        };
        (verdict, reason)
    }

    fn told_rule(&self, number: u32) -> Option<(RuleId, &RuleRef)> {
        match self.origins.thing(number)?.told() {
            Told::Rule(id, origin) => Some((id, origin)),
            Told::Stage(..) => None,
        }
    }

    fn counter(&mut self, counted: Counted) -> CounterId {
        let id = self.counted.number(counted);
        if index(id) == self.counters.len() {
            self.counters.push(match counted {
                Counted::Rule(id) => Counter::Rule(id),
                Counted::Unmatched(cause) => {
                    let (verdict, reason) = self.reason(cause);
                    Counter::Unmatched { verdict, reason }
                }
            });
        }
        CounterId(id)
    }
}

/// What decides flows, equal to another one of which leaves would tell the same.
#[derive(Clone, Debug)]
enum Origin {
    Rule(Arc<Rule>),
    /// A stage of a policy set, by its index.
    Stage(Arc<PolicySet>, usize),
}

/// What leaves tell of an origin.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Told<'a> {
    Rule(RuleId, &'a RuleRef),
    Stage(&'a str, &'a [PolicyKey]),
}

impl Origin {
    fn told(&self) -> Told<'_> {
        match self {
            Self::Rule(rule) => Told::Rule(rule.id, &rule.origin),
            Self::Stage(set, index) => {
                let stage = set.stages.get(*index);
                stage.map_or(Told::Stage("", &[]), |it| Told::Stage(&it.tier, &it.policies))
            }
        }
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.told() == other.told()
    }
}

impl Eq for Origin {}

impl PartialOrd for Origin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Origin {
    fn cmp(&self, other: &Self) -> Ordering {
        self.told().cmp(&other.told())
    }
}

/// What a counter counts, in numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Counted {
    Rule(RuleId),
    Unmatched(Cause),
}

/// Different things, numbered in the order in which they came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Numbered<T> {
    numbers: BTreeMap<T, u32>,
    things: Vec<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), things: Vec::new() }
    }
}

impl<T: Clone + Ord> Numbered<T> {
    pub(super) fn number(&mut self, thing: T) -> u32 {
        if let Some(&number) = self.numbers.get(&thing) {
            return number;
        }
        let number = self.len();
        self.numbers.insert(thing.clone(), number);
        self.things.push(thing);
        number
    }

    pub(super) fn thing(&self, number: u32) -> Option<&T> {
        self.things.get(index(number))
    }

    pub(super) fn len(&self) -> u32 {
        id_of(self.things.len())
    }

    pub(super) fn things(&self) -> &[T] {
        &self.things
    }

    pub(super) fn into_things(self) -> Vec<T> {
        self.things
    }

    fn truncate(&mut self, len: u32) {
        self.things.truncate(index(len));
        self.numbers.retain(|_, number| *number < len);
    }
}
