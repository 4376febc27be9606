//! The rows of frontends: what those of their backends say.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::pool::{Cause, End, NO_LOGS, Pool, index};
use super::regions::{Class, Served};
use super::{Cell, LeafId, Row, RowId, SourceRange, Table, Then};
use crate::net::Protocol;

/// Returns the row of a class of frontends in a table that has those of all other classes. If the policy set does not look
/// behind frontends, it is the one that their addresses would have otherwise.
pub(super) fn row(table: &Table, class: &Class, looks_behind: bool, pool: &mut Pool) -> RowId {
    let row_of = |id| table.row(id, class.family);
    let Some((around, ports)) = &class.served else { return table.other(class.family) };
    let around = row_of(*around);
    if !looks_behind {
        return around;
    }
    let Some(Row { default, mut cells }) = pool.rows().get(index(around.0)).cloned() else {
        return around;
    };
    for Served { transport, port, backends } in ports {
        let protocol = transport.protocol();
        let answers =
            backends.iter().map(|(class, port)| answer(row_of(*class), protocol, *port, pool));
        let answers: Vec<Then> = answers.collect();
        put(&mut cells, Cell { protocol, first: *port, last: *port, then: of_all(&answers, pool) });
    }
    cells.retain(|it| it.then != Then::Leaf(default));
    join(&mut cells);
    pool.row(Row { default, cells })
}

/// Returns what a row says of a port.
fn answer(row: RowId, protocol: Protocol, port: u16, pool: &Pool) -> Then {
    // Rows that are referred to are there.
    let Some(row) = pool.rows().get(index(row.0)) else { return Then::Leaf(LeafId(u32::MAX)) };
    let cell =
        row.cells.iter().find(|it| it.protocol == protocol && (it.first..=it.last).contains(&port));
    cell.map_or(Then::Leaf(row.default), |cell| cell.then)
}

/// Returns what holds if all of these must allow: the first that denies, or the first one. It may depend on the source port.
fn of_all(answers: &[Then], pool: &mut Pool) -> Then {
    if answers.is_empty() {
        return Then::Leaf(pool.leaf(End { cause: Cause::NoBackends, logs: NO_LOGS }));
    }
    let lists: Vec<Vec<SourceRange>> = answers.iter().map(|then| by_source(*then, pool)).collect();
    let first_ports: BTreeSet<u16> = lists.iter().flatten().map(|range| range.first).collect();
    let mut ranges: Vec<SourceRange> = Vec::new();
    for port in first_ports {
        let leaves = || lists.iter().filter_map(|list| leaf_of(list, port));
        let Some(leaf) = leaves().find(|it| !pool.allows(*it)).or_else(|| leaves().next()) else {
            continue;
        };
        if let Some(before) = ranges.last_mut() {
            if before.leaf == leaf {
                continue;
            }
            before.last = port.saturating_sub(1);
        }
        ranges.push(SourceRange { first: port, last: u16::MAX, leaf });
    }
    match ranges[..] {
        [SourceRange { leaf, .. }] => Then::Leaf(leaf),
        _ => Then::BySource(pool.source(ranges)),
    }
}

/// Returns what holds for each source port.
fn by_source(then: Then, pool: &Pool) -> Vec<SourceRange> {
    match then {
        Then::Leaf(leaf) => Vec::from([SourceRange { first: 0, last: u16::MAX, leaf }]),
        Then::BySource(list) => pool.sources().get(index(list.0)).cloned().unwrap_or_default(),
    }
}

fn leaf_of(list: &[SourceRange], port: u16) -> Option<LeafId> {
    let found = list.partition_point(|range| range.last < port);
    list.get(found).map(|range| range.leaf)
}

/// Puts a cell of one port in the place of what is there.
fn put(cells: &mut Vec<Cell>, new: Cell) {
    let is_around =
        |it: &Cell| it.protocol == new.protocol && (it.first..=it.last).contains(&new.first);
    if let Some(at) = cells.iter().position(is_around) {
        let around = cells.remove(at);
        let before = new.first.checked_sub(1).map(|last| Cell { last, ..around });
        let after = new.last.checked_add(1).map(|first| Cell { first, ..around });
        cells.extend([before, after].into_iter().flatten().filter(|it| it.first <= it.last));
    }
    cells.push(new);
    cells.sort_unstable();
}

/// Makes one of neighbours that lead to the same.
fn join(cells: &mut Vec<Cell>) {
    cells.dedup_by(|next, before| {
        let follows = before.protocol == next.protocol
            && before.last.checked_add(1) == Some(next.first)
            && before.then == next.then;
        if follows {
            before.last = next.last;
        }
        follows
    });
}
