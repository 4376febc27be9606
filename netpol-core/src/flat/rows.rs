//! Tables and their rows.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::line::Range;
use super::paint::{Hit, Plane, StageHits, TooManyRanges};
use super::plan::{Answers, SetPlan};
use super::pool::{End, Pool, id_of, index};
use super::regions::Regions;
use super::size::{CapacityError, Limits, Resource, check};
use super::{Cell, ClassId, LeafId, Row, RowId, SourceRange, Table, Then, served};
use crate::net::{Family, Protocol};

/// Returns the table of a policy set.
pub(super) fn table(
    set: &SetPlan<'_>,
    regions: &Regions,
    pool: &mut Pool,
    limits: &Limits,
) -> Result<Table, CapacityError> {
    let mut rows = Vec::with_capacity(set.answers.len());
    for answers in &set.answers {
        rows.push(row(set, answers, pool, limits)?);
    }
    // Numbers of answers are indexes, so there is always a row.
    let row_of = |number: u32| rows.get(index(number)).copied().unwrap_or(RowId(u32::MAX));
    let others = set.others.map(row_of);
    let [v4, v6] = others;
    let family = |number: u32| set.answers.get(index(number)).map(|(family, _)| *family);
    let differs = |&(class, number): &(_, u32)| {
        let other = if family(number) == Some(Family::V4) { v4 } else { v6 };
        let row = row_of(number);
        (row != other).then_some((class, row))
    };
    let entries = set.classes.iter().filter_map(differs).collect();
    let known = set.answers.iter().cloned().zip(rows.iter().copied()).collect();
    let (questions, is_local) = (set.questions.clone(), set.is_local);
    let told_apart = set.classes.len() + set.served.len();
    let mut table = Table { entries, others, questions, known, told_apart, is_local };
    let served = served(set, &table, regions, pool, limits)?;
    table.entries.extend(served);
    table.entries.sort_unstable();
    Ok(table)
}

/// Returns the rows of the classes of frontends, as far as they differ from those of `other`, in a table that has those of all
/// other classes.
fn served(
    set: &SetPlan<'_>,
    table: &Table,
    regions: &Regions,
    pool: &mut Pool,
    limits: &Limits,
) -> Result<Vec<(ClassId, RowId)>, CapacityError> {
    let mut rows = Vec::new();
    for &id in &set.served {
        let Some(class) = regions.class(id) else { continue };
        let row = served::row(table, class, set.looks_behind(), pool);
        let ranges = pool.ranges_of(row);
        check(Resource::RangesOfRow, Some(set.key), ranges, limits.ranges_per_row)?;
        check(Resource::Ranges, Some(set.key), pool.ranges(), limits.ranges)?;
        if row != table.other(class.family) {
            rows.push((id, row));
        }
    }
    Ok(rows)
}

/// Returns the row of the addresses that answer so.
pub(super) fn row(
    set: &SetPlan<'_>,
    (family, yes): &Answers,
    pool: &mut Pool,
    limits: &Limits,
) -> Result<RowId, CapacityError> {
    let stages = hits(set, *family, yes);
    let limit = limits.ranges_per_row.min(id_of(Plane::MAX_RANGES));
    let resource = Resource::RangesOfRow;
    let too_many = |TooManyRanges(needed)| CapacityError {
        resource,
        policy_set: Some(set.key),
        needed,
        limit,
    };
    let covers = stages.iter().flat_map(|stage| &stage.hits).map(|hit| &hit.cover);
    let protocols: BTreeSet<Protocol> = covers.flat_map(|it| it.protocols(*family)).collect();
    let plane = |protocol, pool: &mut Pool| {
        Plane::painted(protocol, *family, &stages, set.default, pool).map_err(too_many)
    };
    let default = default_leaf(&plane(None, pool)?, pool);
    let mut row = Draft { default, cells: Vec::new(), source_ranges: 0 };
    for protocol in protocols {
        row.add(protocol, &plane(Some(protocol), pool)?, pool);
        let ranges = row.cells.len() + row.source_ranges;
        check(resource, Some(set.key), ranges, limits.ranges_per_row)?;
    }
    let row = pool.row(Row { default, cells: row.cells });
    check(Resource::Ranges, Some(set.key), pool.ranges(), limits.ranges)?;
    Ok(row)
}

/// Returns the rules that match flows of a family whose remote address answers so.
fn hits<'a>(set: &'a SetPlan<'_>, family: Family, yes: &[u32]) -> Vec<StageHits<'a>> {
    let stages = set.stages.iter().map(|stage| {
        let hits = stage.rules(yes).filter_map(|plan| {
            let cover = plan.cover(family, yes)?;
            Some(Hit { number: plan.number, action: plan.action, cover })
        });
        StageHits { number: stage.number, end: stage.end, hits: hits.collect() }
    });
    stages.collect()
}

/// Returns the leaf of a plane whose protocol no rule names, and which therefore has one.
fn default_leaf(plane: &Plane, pool: &mut Pool) -> LeafId {
    let mut leaf = LeafId(u32::MAX);
    plane.for_each(|_, ends| {
        if let Some(&(_, end)) = ends.first() {
            leaf = pool.leaf(end);
        }
    });
    leaf
}

/// A row to which protocols are added in order.
struct Draft {
    default: LeafId,
    cells: Vec<Cell>,
    /// How many ranges the lists of its cells have.
    source_ranges: usize,
}

impl Draft {
    fn add(&mut self, protocol: Protocol, plane: &Plane, pool: &mut Pool) {
        plane.for_each(|range, ends| {
            let then = then(ends, pool);
            if then == Then::Leaf(self.default) {
                return;
            }
            match self.cells.last_mut() {
                Some(before) if is_followed_by(before, protocol, range) && before.then == then => {
                    before.last = range.1;
                }
                _ => {
                    let (first, last) = range;
                    self.cells.push(Cell { protocol, first, last, then });
                    self.source_ranges += if ends.len() > 1 { ends.len() } else { 0 };
                }
            }
        });
    }
}

fn is_followed_by(before: &Cell, protocol: Protocol, (first, _): Range) -> bool {
    before.protocol == protocol && before.last.checked_add(1) == Some(first)
}

fn then(ends: &[(Range, End)], pool: &mut Pool) -> Then {
    if let [(_, end)] = ends {
        return Then::Leaf(pool.leaf(*end));
    }
    let range =
        |&((first, last), end): &(Range, End)| SourceRange { first, last, leaf: pool.leaf(end) };
    let list = ends.iter().map(range).collect();
    Then::BySource(pool.source(list))
}
