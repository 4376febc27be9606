//! What tables share: rows, lists of source ports and leaves, each kept once.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Counter, CounterId, Leaf, LeafId, LogRule, Row, SourceId, SourceRange};
use crate::model::PolicyKey;
use crate::program::{Rule, RuleId, Stage};
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
    ranges: usize,
}

/// What tables share, while they are made.
#[derive(Debug, Default)]
pub(super) struct Pool<'p> {
    rows: Numbered<Row>,
    sources: Numbered<Vec<SourceRange>>,
    leaves: Numbered<End>,
    /// How many ranges the rows and lists have.
    ranges: usize,
    rules: Numbered<(RuleId, &'p RuleRef)>,
    stages: Numbered<(&'p str, &'p [PolicyKey])>,
    /// Each path but the empty one: the path before its last rule, and that rule.
    paths: Numbered<(PathId, u32)>,
}

impl<'p> Pool<'p> {
    pub(super) fn rule(&mut self, rule: &'p Rule) -> u32 {
        self.rules.number((rule.id, &rule.origin))
    }

    pub(super) fn stage(&mut self, stage: &'p Stage) -> u32 {
        self.stages.number((&stage.tier, &stage.policies))
    }

    /// Returns the path after one more Log rule. A rule of the model can be several here; it is logged once.
    pub(super) fn logged(&mut self, path: PathId, rule: u32) -> PathId {
        let origin = |rule| self.rules.thing(rule).map(|(_, origin)| *origin);
        match self.paths.thing(path.wrapping_sub(1)) {
            Some(&(_, last)) if origin(last) == origin(rule) => path,
            _ => self.paths.number((path, rule)) + 1,
        }
    }

    pub(super) fn leaf(&mut self, end: End) -> LeafId {
        LeafId(self.leaves.number(end))
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

    /// Returns a row that is there.
    pub(super) fn row_of(&self, id: super::RowId) -> Option<&Row> {
        self.rows.thing(id.0)
    }

    /// Returns a list of source ports that is there.
    pub(super) fn source_of(&self, id: SourceId) -> Option<&[SourceRange]> {
        self.sources.thing(id.0).map(Vec::as_slice)
    }

    /// Returns whether a leaf is there that allows.
    pub(super) fn allows(&self, leaf: LeafId) -> bool {
        self.leaves.thing(leaf.0).is_some_and(|end| match end.cause {
            Cause::Rule(_, verdict) | Cause::Default(verdict) => verdict == Verdict::Allow,
            Cause::Stage(_) | Cause::NoBackends => false,
        })
    }

    /// Returns how many ranges a row has, those of its lists of source ports included.
    pub(super) fn ranges_of(&self, row: super::RowId) -> usize {
        let cells = self.row_of(row).map(|it| it.cells.as_slice()).unwrap_or_default();
        let sources = cells.iter().filter_map(|cell| match cell.then {
            super::Then::BySource(list) => self.source_of(list).map(<[_]>::len),
            super::Then::Leaf(_) => None,
        });
        cells.len() + sources.sum::<usize>()
    }

    /// Returns how many ranges the rows and lists have.
    pub(super) const fn ranges(&self) -> usize {
        self.ranges
    }

    /// Returns how much there is, to come back to.
    pub(super) fn mark(&self) -> Mark {
        let (rows, sources, leaves) = (self.rows.len(), self.sources.len(), self.leaves.len());
        Mark { rows, sources, leaves, ranges: self.ranges }
    }

    /// Forgets what came after a mark.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        self.rows.truncate(mark.rows);
        self.sources.truncate(mark.sources);
        self.leaves.truncate(mark.leaves);
        self.ranges = mark.ranges;
    }

    /// Returns the rows, lists, leaves and counters, by id.
    pub(super) fn into_parts(self) -> (Vec<Row>, Vec<Vec<SourceRange>>, Vec<Leaf>, Vec<Counter>) {
        let mut counters = Numbered::default();
        let leaves = self.leaves.things.iter().map(|&end| self.spell_out(end, &mut counters));
        let leaves = leaves.collect();
        let counters = counters.things.iter().map(|&cause| self.counter(cause)).collect();
        (self.rows.things, self.sources.things, leaves, counters)
    }

    fn spell_out(&self, end: End, counters: &mut Numbered<Counted>) -> Leaf {
        let mut logs = Vec::new();
        let mut path = end.logs;
        while let Some(&(before, rule)) = self.paths.thing(path.wrapping_sub(1)) {
            let rule = self.rules.thing(rule);
            logs.extend(rule.map(|&(id, origin)| LogRule { id, origin: origin.clone() }));
            path = before;
        }
        logs.reverse();
        let (verdict, reason) = self.reason(end.cause);
        let counted = match end.cause {
            Cause::Rule(rule, _) => self.rules.thing(rule).map(|(id, _)| Counted::Rule(*id)),
            Cause::Stage(_) | Cause::Default(_) | Cause::NoBackends => None,
        };
        let counter = counters.number(counted.unwrap_or(Counted::Unmatched(end.cause)));
        Leaf { verdict, reason, logs, counter: CounterId(counter) }
    }

    fn reason(&self, cause: Cause) -> (Verdict, Reason) {
        match cause {
            Cause::Rule(rule, verdict) => {
                let origin =
                    self.rules.thing(rule).map(|(_, origin)| Reason::Rule((*origin).clone()));
                (verdict, origin.unwrap_or(Reason::DefaultVerdict))
            }
            Cause::Stage(stage) => {
                let (tier, policies) = self.stages.thing(stage).copied().unwrap_or_default();
                let (tier, policies) = (tier.into(), policies.to_vec());
                (Verdict::Deny, Reason::NoMatch { tier, policies })
            }
            Cause::Default(verdict) => (verdict, Reason::DefaultVerdict),
            Cause::NoBackends => (Verdict::Deny, Reason::NoBackends),
        }
    }

    fn counter(&self, counted: Counted) -> Counter {
        match counted {
            Counted::Rule(id) => Counter::Rule(id),
            Counted::Unmatched(cause) => {
                let (verdict, reason) = self.reason(cause);
                Counter::Unmatched { verdict, reason }
            }
        }
    }
}

/// What a counter counts, in numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Counted {
    Rule(RuleId),
    Unmatched(Cause),
}

/// Different things, numbered in the order in which they came.
#[derive(Debug)]
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

    pub(super) fn into_things(self) -> Vec<T> {
        self.things
    }

    fn truncate(&mut self, len: u32) {
        self.things.truncate(index(len));
        self.numbers.retain(|_, number| *number < len);
    }
}
