//! Tables, their rows, and the counters of their leaves.

use std::collections::BTreeMap;

use netpol_core::flat::{
    Cell, Counter, CounterId, Flat, LeafId, Row, RowId, SourceId, Table, Then,
};
use netpol_core::net::Family;
use netpol_core::program::Digest;
use netpol_core::{Reason, Verdict};
use netpol_ebpf_abi::{self as abi, Leaf, RANGES, RowKey, class_of_others};
use zerocopy::IntoBytes;

use super::ports;
use super::space::Space;
use super::{Image, Map, Object, RenderedTable};
use crate::error::EbpfError;
use crate::ids::{Ids, Kind};

pub(super) fn render(
    flat: &Flat,
    space: &Space,
    ids: &mut Ids,
    image: &mut Image,
) -> Result<(), EbpfError> {
    let mut renderer = Renderer::of(flat, ids, image)?;
    for (key, table) in flat.tables() {
        let id = renderer.table(table, space)?;
        let row = |RowId(row)| at(&renderer.rows, row).map(|(row, _)| *row);
        let others = [row(table.other(Family::V4))?, row(table.other(Family::V6))?];
        let rows = table.entries().iter().map(|(class, id)| Ok((class.0, row(*id)?)));
        let rows = rows.collect::<Result<_, EbpfError>>()?;
        renderer.image.tables.insert(*key, RenderedTable { id, others, rows });
    }
    Ok(())
}

/// Returns the rows of a flat form, by id. What they refer to goes into an image.
pub(crate) fn rows(
    flat: &Flat,
    ids: &mut Ids,
    image: &mut Image,
) -> Result<Vec<abi::Row>, EbpfError> {
    Ok(Renderer::of(flat, ids, image)?.rows.into_iter().map(|(row, _)| row).collect())
}

/// Rows, leaves and lists by their index in the flat form, each with the digest of its content.
struct Renderer<'a> {
    flat: &'a Flat,
    ids: &'a mut Ids,
    image: &'a mut Image,
    leaves: Vec<(Leaf, Digest)>,
    sources: Vec<(u32, Digest)>,
    rows: Vec<(abi::Row, Digest)>,
}

impl<'a> Renderer<'a> {
    fn of(flat: &'a Flat, ids: &'a mut Ids, image: &'a mut Image) -> Result<Self, EbpfError> {
        let (leaves, sources, rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut renderer = Self { flat, ids, image, leaves, sources, rows };
        renderer.leaves()?;
        renderer.sources()?;
        renderer.rows()?;
        Ok(renderer)
    }

    fn leaves(&mut self) -> Result<(), EbpfError> {
        let mut counters = Vec::new();
        for counter in self.flat.counters() {
            let (kind, digest) = name(counter);
            let id = self.ids.id(kind, digest).map_err(|_| EbpfError::Ids)?;
            self.image.objects.insert((kind, id), Object { digest, entries: BTreeMap::new() });
            counters.push((id, digest));
        }
        for leaf in self.flat.leaves() {
            let CounterId(counter) = leaf.counter;
            let (id, digest) = *at(&counters, counter)?;
            let encoded = match leaf.verdict {
                Verdict::Allow => Leaf::allow(id),
                Verdict::Deny => Leaf::deny(id),
            };
            self.leaves.push((encoded, Digest::of(&("leaf", leaf.verdict, digest))));
        }
        Ok(())
    }

    fn sources(&mut self) -> Result<(), EbpfError> {
        for list in self.flat.sources() {
            let mut ranges = Vec::new();
            let mut content = Vec::new();
            for range in list {
                let (leaf, digest) = self.leaf(range.leaf)?;
                ranges.push((abi::PortKey::SOURCE, range.first, range.last, leaf));
                content.push((range.first, range.last, digest));
            }
            let digest = Digest::of(&("sources", content));
            let id = self.list(digest, &ranges)?;
            self.sources.push((id, digest));
        }
        Ok(())
    }

    fn rows(&mut self) -> Result<(), EbpfError> {
        for row in self.flat.rows() {
            let rendered = self.row(row)?;
            self.rows.push(rendered);
        }
        Ok(())
    }

    fn row(&mut self, row: &Row) -> Result<(abi::Row, Digest), EbpfError> {
        let (default, default_digest) = self.leaf(row.default)?;
        let mut ranges = Vec::new();
        let mut content = Vec::new();
        for cell in &row.cells {
            let (leaf, digest) = self.then(cell)?;
            let protocol = u16::from(cell.protocol.number());
            ranges.push((protocol, cell.first, cell.last, leaf));
            content.push((protocol, cell.first, cell.last, digest));
        }
        let digest = Digest::of(&("row", default_digest, content));
        let mut rendered = abi::Row { default, ..abi::Row::default() };
        if ranges.len() > RANGES {
            rendered.list = self.list(digest, &ranges)?;
        } else {
            for (place, (protocol, first, last, leaf)) in rendered.ranges.iter_mut().zip(ranges) {
                *place = abi::Range { first, last, protocol: protocol.into(), leaf };
            }
        }
        Ok((rendered, digest))
    }

    fn then(&self, cell: &Cell) -> Result<(Leaf, Digest), EbpfError> {
        match cell.then {
            Then::Leaf(leaf) => self.leaf(leaf),
            Then::BySource(SourceId(source)) => {
                let (list, digest) = *at(&self.sources, source)?;
                Ok((Leaf::by_source(list), digest))
            }
        }
    }

    fn leaf(&self, LeafId(leaf): LeafId) -> Result<(Leaf, Digest), EbpfError> {
        at(&self.leaves, leaf).copied()
    }

    fn list(&mut self, digest: Digest, ranges: &[(u16, u16, u16, Leaf)]) -> Result<u32, EbpfError> {
        let id = self.ids.id(Kind::List, digest).map_err(|_| EbpfError::Ids)?;
        let entries = BTreeMap::from([(Map::Ports, ports::list(id, ranges))]);
        self.image.objects.insert((Kind::List, id), Object { digest, entries });
        Ok(id)
    }

    /// Returns the id of the table of a policy set; [`abi::OPEN`] if everything passes without asking a rule.
    fn table(&mut self, table: &Table, space: &Space) -> Result<u32, EbpfError> {
        let others =
            Family::BOTH.map(|family| (class_of_others(family == Family::V6), table.other(family)));
        let rows: Vec<(u32, RowId)> = others
            .into_iter()
            .chain(table.entries().iter().map(|(class, row)| (class.0, *row)))
            .collect();
        if table.entries().is_empty() && self.is_open(table) {
            return Ok(abi::OPEN);
        }
        let mut content = Vec::with_capacity(rows.len());
        for &(class, RowId(row)) in &rows {
            content.push((class, at(&self.rows, row)?.1));
        }
        let digest = Digest::of(&("table", space.digest, content));
        let id = self.ids.id(Kind::Table, digest).map_err(|_| EbpfError::Ids)?;
        let mut object = Object { digest, entries: BTreeMap::new() };
        let entries = object.entries.entry(Map::Rows).or_default();
        for (class, RowId(row)) in rows {
            entries
                .push(&[RowKey { table: id, class }.as_bytes()], at(&self.rows, row)?.0.as_bytes());
        }
        self.image.objects.insert((Kind::Table, id), object);
        Ok(id)
    }

    /// Returns whether a table without entries allows everything by the default verdict: then there is nothing to count.
    fn is_open(&self, table: &Table) -> bool {
        Family::BOTH.into_iter().all(|family| {
            let RowId(row) = table.other(family);
            let row = at(self.flat.rows(), row).ok().filter(|row| row.cells.is_empty());
            let leaf = row.and_then(|row| at(self.flat.leaves(), row.default.0).ok());
            leaf.is_some_and(|leaf| {
                leaf.verdict == Verdict::Allow
                    && leaf.reason == Reason::DefaultVerdict
                    && leaf.logs.is_empty()
            })
        })
    }
}

/// Returns what identifies a counter in maps.
pub(super) fn name(counter: &Counter) -> (Kind, Digest) {
    match counter {
        Counter::Rule(rule) => (Kind::Rule, rule.digest()),
        Counter::Unmatched { verdict: Verdict::Deny, .. } => (Kind::Denied, Digest::of(counter)),
        Counter::Unmatched { verdict: Verdict::Allow, .. } => (Kind::Passed, Digest::of(counter)),
    }
}

fn at<T>(all: &[T], index: u32) -> Result<&T, EbpfError> {
    let found = usize::try_from(index).ok().and_then(|index| all.get(index));
    found.ok_or_else(|| EbpfError::Dangling { missing: format!("part {index} of the flat form") })
}
