//! The pinned maps, and what is in them.

mod flows;
mod records;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use aya::maps::{Map as AyaMap, MapData, PerCpuArray, RingBuf};
use netpol_core::Counters;
use netpol_core::program::{Digest, RuleId};
use netpol_ebpf_abi::{self as abi, Statistic, maps};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::EbpfError;
use crate::ids::{Ids, Kind};
use crate::pins::Pins;
use crate::render::{Image, Map, Object};
use crate::sys::{Table, Words};

/// Removals go to the kernel in batches of this many, so that one that is absent costs little.
const REMOVALS: usize = 1024;

/// The maps of a dataplane.
pub(crate) struct Maps {
    parts: BTreeMap<Map, Table>,
    names: Table,
    next: Table,
    records: Table,
    own: Table,
    spilled: Table,
    words: Words,
    counters: PerCpuArray<MapData, u64>,
    statistics: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    /// Of IPv4 and of IPv6.
    flows: [Table; 2],
}

impl Maps {
    /// Opens the maps at their pins.
    pub(crate) fn open(pins: &Pins) -> Result<Self, EbpfError> {
        let table = |name| table(pins, name);
        let mut parts = BTreeMap::new();
        for map in Map::ALL {
            parts.insert(map, table(map.name())?);
        }
        let array = data(pins, maps::INTERFACES)?;
        let words = Words::map(array.fd().as_fd(), abi::INTERFACES as usize).map_err(|source| {
            EbpfError::Map { operation: "map into memory", map: maps::INTERFACES, source }
        })?;
        let per_cpu = |name| {
            let map = AyaMap::PerCpuArray(data(pins, name)?);
            PerCpuArray::try_from(map).map_err(|error| opening(name, error))
        };
        let events = AyaMap::RingBuf(data(pins, maps::EVENTS)?);
        Ok(Self {
            parts,
            names: table(maps::NAMES)?,
            next: table(maps::NEXT)?,
            records: table(maps::ENDPOINTS)?,
            own: table(maps::OWN)?,
            spilled: table(maps::SPILLED)?,
            words,
            counters: per_cpu(maps::COUNTERS)?,
            statistics: per_cpu(maps::STATISTICS)?,
            events: RingBuf::try_from(events).map_err(|error| opening(maps::EVENTS, error))?,
            flows: [table(maps::FLOWS4)?, table(maps::FLOWS6)?],
        })
    }

    /// Returns the ids that are in use.
    pub(crate) fn ids(&self) -> Result<Ids, EbpfError> {
        let mut known = BTreeMap::new();
        for ((kind, id), digest) in self.names()? {
            known.insert((kind, digest), id);
        }
        let last =
            self.next.get(&0_u32.to_ne_bytes()).map_err(|source| reading(maps::NEXT, source))?;
        let last = last.and_then(|bytes| u32::read_from_bytes(&bytes).ok()).unwrap_or_default();
        Ok(Ids::new(known, last, self.counters.len()))
    }

    /// Returns all objects that are complete, and their digests.
    pub(crate) fn names(&self) -> Result<BTreeMap<(Kind, u32), Digest>, EbpfError> {
        let failed = |source| reading(maps::NAMES, source);
        let mut names = BTreeMap::new();
        for key in self.names.keys().map_err(failed)?.chunks(self.names.key_size()) {
            let Ok([kind, id]) = <[u32; 2]>::read_from_bytes(key) else { continue };
            let Some(value) = self.names.get(key).map_err(failed)? else { continue };
            if let (Some(kind), Some(digest)) = (Kind::from_number(kind), value.first_chunk()) {
                names.insert((kind, id), Digest::from_bytes(*digest));
            }
        }
        Ok(names)
    }

    /// Notes the last number that was given. Before it is used, so that it is never used again.
    pub(crate) fn note_last(&self, last: u32) -> Result<(), EbpfError> {
        self.next
            .set(&0_u32.to_ne_bytes(), &last.to_ne_bytes())
            .map_err(|source| writing(maps::NEXT, source))
    }

    /// Writes an object, and its name last: what has a name is complete.
    pub(crate) fn write(&mut self, kind: Kind, id: u32, object: &Object) -> Result<(), EbpfError> {
        for (map, entries) in &object.entries {
            self.part(*map)?
                .set_all(&entries.keys, &entries.values)
                .map_err(|source| writing(map.name(), source))?;
        }
        if kind.is_counter() {
            let zeros = vec![
                0;
                aya::util::nr_cpus()
                    .map_err(|(_, source)| reading(maps::COUNTERS, source))?
            ];
            let zeros = zeros.try_into().map_err(|source| writing(maps::COUNTERS, source))?;
            self.counters
                .set(id, zeros, 0)
                .map_err(|error| writing(maps::COUNTERS, std::io::Error::other(error)))?;
        }
        self.name(kind, id, object.digest)
    }

    /// Removes an object that no program refers to, its name first.
    pub(crate) fn remove(&self, kind: Kind, id: u32, object: &Object) -> Result<(), EbpfError> {
        self.unname(kind, id)?;
        for (map, entries) in &object.entries {
            let removed = self.part(*map)?.remove_all(&entries.keys);
            removed.map_err(|source| writing(map.name(), source))?;
        }
        Ok(())
    }

    /// Writes rows that no class leads to yet, by table and class.
    pub(crate) fn set_rows(&self, rows: &BTreeMap<(u32, u32), abi::Row>) -> Result<(), EbpfError> {
        for (&(table, class), row) in rows {
            let key = abi::RowKey { table, class };
            let set = self.part(Map::Rows)?.set(key.as_bytes(), row.as_bytes());
            set.map_err(|source| writing(maps::ROWS, source))?;
        }
        Ok(())
    }

    /// Writes the class of a single address.
    pub(crate) fn set_class(&self, map: Map, key: &[u8], class: u32) -> Result<(), EbpfError> {
        let set = self.part(map)?.set(key, class.as_bytes());
        set.map_err(|source| writing(map.name(), source))
    }

    /// Has a single address have no class of its own.
    pub(crate) fn remove_class(&self, map: Map, key: &[u8]) -> Result<(), EbpfError> {
        self.part(map)?.remove(key).map_err(|source| writing(map.name(), source))
    }

    /// Names an object.
    pub(crate) fn name(&self, kind: Kind, id: u32, digest: Digest) -> Result<(), EbpfError> {
        let mut value = [0; 16];
        let (name, _) = value.split_at_mut(Digest::LEN);
        name.copy_from_slice(&digest.bytes());
        self.names
            .set([kind as u32, id].as_bytes(), &value)
            .map_err(|source| writing(maps::NAMES, source))
    }

    /// Takes the name of an object.
    pub(crate) fn unname(&self, kind: Kind, id: u32) -> Result<(), EbpfError> {
        self.names
            .remove([kind as u32, id].as_bytes())
            .map_err(|source| writing(maps::NAMES, source))
    }

    /// Removes all objects but these, and what is left of objects without a name.
    pub(crate) fn keep_only(&self, used: &BTreeSet<(Kind, u32)>) -> Result<(), EbpfError> {
        for (kind, id) in self.names()?.into_keys().filter(|name| !used.contains(name)) {
            self.unname(kind, id)?;
        }
        for map in Map::ALL {
            let part = self.part(map)?;
            let keys = part.keys().map_err(|source| reading(map.name(), source))?;
            let is_used =
                |key: &[u8]| map.object(key).is_some_and(|id| used.contains(&(map.kind(), id)));
            let unused: Vec<&[u8]> =
                keys.chunks(part.key_size()).filter(|key| !is_used(key)).collect();
            for some in unused.chunks(REMOVALS) {
                part.remove_all(&some.concat()).map_err(|source| writing(map.name(), source))?;
            }
        }
        Ok(())
    }

    /// Returns everything that records refer to, at whatever distance.
    pub(crate) fn used_by(
        &self,
        records: &[abi::Endpoint],
    ) -> Result<BTreeSet<(Kind, u32)>, EbpfError> {
        let mut used = BTreeSet::new();
        for record in records {
            used.insert((Kind::Endpoint, record.id));
            used.insert((Kind::Space, record.space));
            used.extend(record.tables.map(|table| (Kind::Table, table)));
        }
        let rows = self.values_of(Map::Rows, &used)?;
        for row in rows.iter().filter_map(|row| abi::Row::read_from_bytes(row).ok()) {
            used.insert((Kind::List, row.list));
            used.extend(ends_of(row.default));
            used.extend(row.ranges.iter().flat_map(|range| ends_of(range.leaf)));
        }
        // A list of ports may lead to lists of source ports, and these to counters.
        for _ in 0..2 {
            let leaves = self.values_of(Map::Ports, &used)?;
            let leaves = leaves.iter().filter_map(|leaf| abi::Leaf::read_from_bytes(leaf).ok());
            used.extend(leaves.flat_map(ends_of));
        }
        Ok(used)
    }

    /// Returns the values that belong to some objects.
    fn values_of(
        &self,
        map: Map,
        objects: &BTreeSet<(Kind, u32)>,
    ) -> Result<Vec<Vec<u8>>, EbpfError> {
        let failed = |source| reading(map.name(), source);
        let part = self.part(map)?;
        let mut values = Vec::new();
        for key in part.keys().map_err(failed)?.chunks(part.key_size()) {
            if map.object(key).is_some_and(|id| objects.contains(&(map.kind(), id))) {
                values.extend(part.get(key).map_err(failed)?);
            }
        }
        Ok(values)
    }

    /// Returns how the objects in the maps differ from those of an image. Objects that were changed lose their name, so
    /// that the next update makes them anew.
    pub(crate) fn differences(&self, image: &Image) -> Result<Vec<String>, EbpfError> {
        let names = self.names()?;
        let mut lines = Vec::new();
        for (name @ (kind, id), object) in &image.objects {
            if names.get(name) != Some(&object.digest) {
                lines.push(format!("{kind:?} {id} is missing"));
            }
        }
        let extra = names
            .keys()
            .filter(|name| name.0 != Kind::Endpoint && !image.objects.contains_key(name));
        lines.extend(extra.map(|(kind, id)| format!("{kind:?} {id} is too many")));
        for map in Map::ALL {
            for id in self.spoiled(map, image)? {
                lines.push(format!("{:?} {id} was changed in map `{}`", map.kind(), map.name()));
                self.unname(map.kind(), id)?;
            }
        }
        Ok(lines)
    }

    /// Returns the objects whose entries in a map are not those of an image.
    fn spoiled(&self, map: Map, image: &Image) -> Result<BTreeSet<u32>, EbpfError> {
        let failed = |source| reading(map.name(), source);
        let part = self.part(map)?;
        let mut wanted: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for entries in image.objects.values().filter_map(|object| object.entries.get(&map)) {
            let keys = entries.keys.chunks(part.key_size());
            wanted.extend(keys.zip(entries.values.chunks(part.value_size())));
        }
        let mut spoiled = BTreeSet::new();
        let keys = part.keys().map_err(failed)?;
        for key in keys.chunks(part.key_size()) {
            let value = part.get(key).map_err(failed)?;
            if wanted.remove(key) != value.as_deref() {
                spoiled.extend(map.object(key));
            }
        }
        spoiled.extend(wanted.keys().filter_map(|key| map.object(key)));
        Ok(spoiled)
    }

    /// Returns how many flows each rule decided.
    pub(crate) fn counters(&self) -> Result<Counters, EbpfError> {
        let mut counters = Counters::default();
        for ((kind, id), digest) in self.names()? {
            if !kind.is_counter() {
                continue;
            }
            let values = self.counters.get(&id, 0);
            let values =
                values.map_err(|error| reading(maps::COUNTERS, std::io::Error::other(error)))?;
            let sum = values.iter().fold(0_u64, |sum, value| sum.saturating_add(*value));
            match kind {
                Kind::Rule => drop(counters.rules.insert(RuleId::new(digest), sum)),
                Kind::Denied => counters.unmatched = counters.unmatched.saturating_add(sum),
                _ => {}
            }
        }
        Ok(counters)
    }

    /// Returns a statistic.
    pub(crate) fn statistic(&self, statistic: Statistic) -> Result<u64, EbpfError> {
        let values = self.statistics.get(&(statistic as u32), 0);
        let values =
            values.map_err(|error| reading(maps::STATISTICS, std::io::Error::other(error)))?;
        Ok(values.iter().fold(0, |sum, value| sum.saturating_add(*value)))
    }

    /// Returns the next event.
    pub(crate) fn event(&mut self) -> Option<abi::Event> {
        self.events.next().and_then(|bytes| abi::Event::read_from_bytes(&bytes).ok())
    }

    fn part(&self, map: Map) -> Result<&Table, EbpfError> {
        self.parts
            .get(&map)
            .ok_or_else(|| EbpfError::Dangling { missing: format!("map `{}`", map.name()) })
    }
}

/// Returns what a leaf refers to. Which kind of counter it is does not matter: all have their numbers in common.
fn ends_of(leaf: abi::Leaf) -> Vec<(Kind, u32)> {
    let kinds: &[Kind] =
        if leaf.is_by_source() { &[Kind::List] } else { &[Kind::Rule, Kind::Denied, Kind::Passed] };
    kinds.iter().map(|kind| (*kind, leaf.number())).collect()
}

fn data(pins: &Pins, name: &'static str) -> Result<MapData, EbpfError> {
    MapData::from_pin(pins.map(name)).map_err(|error| opening(name, error))
}

fn table(pins: &Pins, name: &'static str) -> Result<Table, EbpfError> {
    let data = data(pins, name)?;
    let info = data.info().map_err(|error| opening(name, error))?;
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(|source| reading(name, source))?;
    Ok(Table::new(fd, info.key_size() as usize, info.value_size() as usize))
}

fn opening(map: &'static str, error: aya::maps::MapError) -> EbpfError {
    EbpfError::Map { operation: "open", map, source: std::io::Error::other(error) }
}

fn reading(map: &'static str, source: std::io::Error) -> EbpfError {
    EbpfError::Map { operation: "read", map, source }
}

fn writing(map: &'static str, source: std::io::Error) -> EbpfError {
    EbpfError::Map { operation: "write", map, source }
}
