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
use super::{Entries, Image, Map, Object, Objects};
use crate::error::EbpfError;
use crate::ids::{Ids, Kind};

/// The rows of a flat form and what they refer to, by their index there, each with the digest of its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    counters: Vec<(u32, Digest)>,
    leaves: Vec<(Leaf, Digest)>,
    sources: Vec<(u32, Digest)>,
    rows: Vec<(abi::Row, Digest)>,
}

impl Rows {
    /// Renders what a flat form has more than before. Lists and counters go to the objects.
    pub(crate) fn follow(
        &mut self,
        flat: &Flat,
        ids: &mut Ids,
        objects: &mut Objects,
    ) -> Result<(), EbpfError> {
        let mut renderer = Renderer { flat, ids, objects, known: self };
        renderer.counters()?;
        renderer.leaves()?;
        renderer.sources()?;
        renderer.rows()
    }

    /// Returns a row.
    pub(crate) fn row(&self, RowId(row): RowId) -> Result<abi::Row, EbpfError> {
        Ok(at(&self.rows, row)?.0)
    }

    /// Returns what a table is in maps, under an id.
    pub(crate) fn table(
        &self,
        id: u32,
        table: &Table,
    ) -> Result<BTreeMap<Map, Entries>, EbpfError> {
        let mut entries = Entries::default();
        for (class, row) in classes(table) {
            let key = RowKey { table: id, class };
            entries.push(&[key.as_bytes()], self.row(row)?.as_bytes());
        }
        Ok(BTreeMap::from([(Map::Rows, entries)]))
    }

    /// Returns what identifies the content of a table in a space.
    fn digest(&self, table: &Table, space: &Space) -> Result<Digest, EbpfError> {
        let mut content = Vec::new();
        for (class, RowId(row)) in classes(table) {
            content.push((class, at(&self.rows, row)?.1));
        }
        Ok(Digest::of(&("table", space.digest, content)))
    }
}

/// Puts the tables of a flat form into an image, and notes their ids.
pub(super) fn render(flat: &Flat, ids: &mut Ids, image: &mut Image) -> Result<(), EbpfError> {
    image.rows.follow(flat, ids, &mut image.objects)?;
    for (key, table) in flat.tables() {
        if is_open(flat, table) {
            image.tables.insert(*key, abi::OPEN);
            continue;
        }
        let digest = image.rows.digest(table, &image.space)?;
        let id = ids.id(Kind::Table, digest).map_err(|_| EbpfError::Ids)?;
        let entries = image.rows.table(id, table)?;
        image.objects.insert((Kind::Table, id), Object { digest, entries });
        image.tables.insert(*key, id);
    }
    Ok(())
}

/// Returns whether a table allows everything by the default verdict: then there is nothing to count, and no rule is asked.
pub(crate) fn is_open(flat: &Flat, table: &Table) -> bool {
    let is_open = |family| {
        let RowId(row) = table.other(family);
        let row = at(flat.rows(), row).ok().filter(|row| row.cells.is_empty());
        let leaf = row.and_then(|row| at(flat.leaves(), row.default.0).ok());
        leaf.is_some_and(|leaf| {
            leaf.verdict == Verdict::Allow
                && leaf.reason == Reason::DefaultVerdict
                && leaf.logs.is_empty()
        })
    };
    table.entries().is_empty() && Family::BOTH.into_iter().all(is_open)
}

/// Returns the rows of a table by class.
fn classes(table: &Table) -> impl Iterator<Item = (u32, RowId)> {
    let others = Family::BOTH.map(|it| (class_of_others(it == Family::V6), table.other(it)));
    let entries = table.entries().iter().map(|(class, row)| (class.0, *row));
    others.into_iter().chain(entries)
}

/// Renders what is not yet known.
struct Renderer<'a> {
    flat: &'a Flat,
    ids: &'a mut Ids,
    objects: &'a mut Objects,
    known: &'a mut Rows,
}

impl Renderer<'_> {
    fn counters(&mut self) -> Result<(), EbpfError> {
        for counter in self.flat.counters().iter().skip(self.known.counters.len()) {
            let (kind, digest) = name(counter);
            let id = self.ids.id(kind, digest).map_err(|_| EbpfError::Ids)?;
            self.objects.insert((kind, id), Object { digest, entries: BTreeMap::new() });
            self.known.counters.push((id, digest));
        }
        Ok(())
    }

    fn leaves(&mut self) -> Result<(), EbpfError> {
        for leaf in self.flat.leaves().iter().skip(self.known.leaves.len()) {
            let CounterId(counter) = leaf.counter;
            let (id, digest) = *at(&self.known.counters, counter)?;
            let encoded = match leaf.verdict {
                Verdict::Allow => Leaf::allow(id),
                Verdict::Deny => Leaf::deny(id),
            };
            self.known.leaves.push((encoded, Digest::of(&("leaf", leaf.verdict, digest))));
        }
        Ok(())
    }

    fn sources(&mut self) -> Result<(), EbpfError> {
        for list in self.flat.sources().iter().skip(self.known.sources.len()) {
            let mut ranges = Vec::new();
            let mut content = Vec::new();
            for range in list {
                let (leaf, digest) = self.leaf(range.leaf)?;
                ranges.push((abi::PortKey::SOURCE, range.first, range.last, leaf));
                content.push((range.first, range.last, digest));
            }
            let digest = Digest::of(&("sources", content));
            let id = self.list(digest, &ranges)?;
            self.known.sources.push((id, digest));
        }
        Ok(())
    }

    fn rows(&mut self) -> Result<(), EbpfError> {
        for row in self.flat.rows().iter().skip(self.known.rows.len()) {
            let rendered = self.row(row)?;
            self.known.rows.push(rendered);
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
                let (list, digest) = *at(&self.known.sources, source)?;
                Ok((Leaf::by_source(list), digest))
            }
        }
    }

    fn leaf(&self, LeafId(leaf): LeafId) -> Result<(Leaf, Digest), EbpfError> {
        at(&self.known.leaves, leaf).copied()
    }

    fn list(&mut self, digest: Digest, ranges: &[(u16, u16, u16, Leaf)]) -> Result<u32, EbpfError> {
        let id = self.ids.id(Kind::List, digest).map_err(|_| EbpfError::Ids)?;
        let entries = BTreeMap::from([(Map::Ports, ports::list(id, ranges))]);
        self.objects.insert((Kind::List, id), Object { digest, entries });
        Ok(id)
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
