//! Deltas: changes of what is in force that touch only what they name.
//!
//! What programs may read is changed here, so more care is needed than where everything is new. An address goes from class
//! to class with one write, after the rows of its new class are there. And the kernel uses the room of an element that was
//! removed or replaced for the next one that is written to the map, at once, even if a program has just found it and not yet
//! read it. So a write after a removal waits until no such program runs. What endpoints were switched away from is removed
//! with an update after that, so that nobody waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::Delta;
use netpol_core::program::Digest;

use super::grace::{Grace, Period};
use super::{InForce, Isolated, Own, State, holders};
use crate::config::Capacity;
use crate::error::EbpfError;
use crate::ids::Kind;
use crate::live::{Live, Steps};
use crate::programs::index_of;
use crate::render::{self, Map, Objects};
use crate::sys::wait_for_programs;

/// What is in force, and where. There is none where a delta could not be applied.
pub(super) struct Memory {
    pub(super) live: Live,
    pub(super) in_force: InForce,
    /// The interfaces of endpoints, by name.
    pub(super) indexes: BTreeMap<String, u32>,
    /// What endpoints were switched away from, the oldest first.
    graves: Vec<Grave>,
}

/// What nothing refers to any more. Programs that still run may read it.
struct Grave {
    /// When they have ended.
    after: Period,
    tables: Objects,
    /// Ids of endpoints that were in force.
    ids: BTreeSet<u32>,
}

/// What programs may still read.
#[derive(Debug, Default)]
pub(super) struct Fence {
    grace: Grace,
    /// When nobody reads the elements that were removed from a map of single addresses.
    removed: BTreeMap<Map, Period>,
    /// When nobody reads the records that were replaced.
    replaced: Option<Period>,
}

impl Fence {
    /// Waits until no program reads an element of a map whose room a write could take.
    fn before_write(&mut self, map: Map) {
        if let Some(period) = self.removed.remove(&map) {
            self.grace.wait(period);
        }
    }

    /// As [`Self::before_write`], for every map and record.
    pub(super) fn before_writes(&mut self) {
        let replaced = self.replaced.take();
        for period in std::mem::take(&mut self.removed).into_values().chain(replaced) {
            self.grace.wait(period);
        }
    }

    fn removed(&mut self, map: Map) {
        self.removed.insert(map, self.grace.next());
    }

    /// Notes that records were replaced, and returns when nobody reads them.
    pub(super) fn replaced(&mut self) -> Period {
        let period = self.grace.next();
        self.replaced = Some(period);
        period
    }

    /// Has the time begin after which nobody waits.
    pub(super) fn begin(&mut self) {
        let last = self.removed.values().copied().chain(self.replaced).max();
        if last.is_some_and(|last| last >= self.grace.next()) {
            self.grace.begin();
        }
    }
}

impl State {
    /// Enforces a delta's program: by changing only what the delta names, else as a whole.
    pub(crate) fn change(&mut self, delta: &Delta) -> Result<(Isolated, u64), EbpfError> {
        if let Some(memory) = self.memory.take() {
            if let Some(outcome) = self.advance(memory, delta) {
                return Ok(outcome);
            }
            // Some of it may have been done.
            wait_for_programs();
        }
        self.enforce(&delta.program)
    }

    /// Removes what nothing refers to any more.
    pub(super) fn settle(&mut self) -> Result<(), EbpfError> {
        let Some(mut memory) = self.memory.take() else { return Ok(()) };
        self.fence.before_writes();
        self.bury(&mut memory)?;
        self.memory = Some(memory);
        Ok(())
    }

    /// Returns how many updates were not of what a delta names only.
    #[cfg(test)]
    pub(crate) const fn full_updates(&self) -> u64 {
        self.full_updates
    }

    /// Changes what a delta names. If that fails at any point, all has to be done anew.
    fn advance(&mut self, mut memory: Memory, delta: &Delta) -> Option<(Isolated, u64)> {
        self.programs.begin_update();
        if !(delta.endpoints.is_empty() && delta.removed_endpoints.is_empty()) {
            let InForce { records, own, .. } = &memory.in_force;
            self.before = holders(records.values().map(|(_, record)| record), own);
        }
        if memory.is_crowded(&self.config.capacity, delta) {
            self.fence.before_writes();
        }
        self.bury(&mut memory).ok()?;
        let steps = memory.live.advance(delta).ok()?;
        self.write(&memory.live, &steps).ok()?;
        self.move_addresses(&memory.live, &steps).ok()?;
        let ids = self.switch_all(&mut memory, &steps)?;
        self.treat_new(&mut memory).ok()?;
        for id in &steps.gone {
            memory.live.ids.forget(Kind::Endpoint, Digest::of(id));
        }
        if std::mem::take(&mut memory.in_force.switched) || !steps.dead.is_empty() {
            let after = self.fence.replaced();
            memory.graves.push(Grave { after, tables: steps.dead, ids });
        }
        let revoked = self.end_flows(&memory.in_force).ok()?;
        // Links take long, so only whoever waits for an endpoint anyway waits for them.
        if !delta.removed_endpoints.is_empty() || delta.endpoints.iter().any(|it| it.old.is_none())
        {
            drop(self.programs.link_more());
        }
        self.fence.begin();
        self.before.clear();
        self.memory = Some(memory);
        Some((Isolated::new(), revoked))
    }

    /// Ends the flows of addresses that changed hands, after the last program that could note one for whom they were.
    fn end_flows(&mut self, in_force: &InForce) -> Result<u64, EbpfError> {
        let after = in_force.wanted_holders();
        let lost = self.before.iter().filter(|(it, holder)| after.get(*it) != Some(*holder));
        let lost: BTreeSet<_> = lost.map(|(it, _)| *it).collect();
        if !lost.is_empty() {
            self.fence.before_writes();
        }
        self.maps.end_flows(&lost)
    }

    /// Writes what nothing refers to yet.
    fn write(&mut self, live: &Live, steps: &Steps) -> Result<(), EbpfError> {
        if !steps.new.is_empty() {
            self.maps.note_last(live.ids.last())?;
        }
        for ((kind, id), digest) in &steps.renamed {
            self.maps.name(*kind, *id, *digest)?;
        }
        for ((kind, id), object) in render::in_order(&steps.new) {
            self.maps.write(*kind, *id, object)?;
        }
        self.maps.set_rows(&steps.rows)
    }

    /// Gives single addresses their new classes.
    fn move_addresses(&mut self, live: &Live, steps: &Steps) -> Result<(), EbpfError> {
        let place = |address: &IpAddr| render::entry(live.space(), *address);
        for (address, class) in &steps.added {
            let (map, key) = place(address);
            self.fence.before_write(map);
            self.maps.set_class(map, &key, *class)?;
        }
        for (address, class) in &steps.moved {
            let (map, key) = place(address);
            self.fence.before_write(map);
            self.fence.removed(map);
            self.maps.set_class(map, &key, *class)?;
        }
        for address in &steps.removed {
            let (map, key) = place(address);
            self.fence.removed(map);
            self.maps.remove_class(map, &key)?;
        }
        Ok(())
    }

    /// Puts in force what endpoints have now. Returns the ids that they had.
    fn switch_all(&mut self, memory: &mut Memory, steps: &Steps) -> Option<BTreeSet<u32>> {
        let Memory { live, in_force, indexes, .. } = memory;
        let mut old = BTreeSet::new();
        let id_at = |in_force: &InForce, index: &u32| {
            in_force.records.get(index).map(|(_, record)| record.id)
        };
        for interface in &steps.detached {
            let index = indexes.remove(interface)?;
            old.extend(id_at(in_force, &index));
            // One that stays is unknown from now on.
            if !self.unknown.holds(interface) || index_of(interface).ok() != Some(index) {
                self.leave(index, in_force).ok()?;
            }
        }
        for interface in &steps.switched {
            let index = index_of(interface).ok()?;
            if let Some(before) = indexes.insert(interface.clone(), index).filter(|it| *it != index)
            {
                old.extend(id_at(in_force, &before));
                self.leave(before, in_force).ok()?;
            }
            old.extend(id_at(in_force, &index));
            let desired = live.endpoints.get(interface)?.clone();
            let is_attached = self.programs.is_current(index);
            if is_attached && in_force.records.contains_key(&index) {
                in_force.wanted.insert(index);
                let place = (interface.as_str(), index);
                self.switch_record(place, &desired, in_force, &mut live.ids).ok()?;
            } else {
                self.switch(interface, &desired, in_force, &mut live.ids).ok()?;
            }
        }
        Some(old)
    }

    pub(super) fn leave(&mut self, index: u32, in_force: &mut InForce) -> Result<(), EbpfError> {
        self.programs.detach(index)?;
        self.maps.withdraw(index)?;
        in_force.wanted.remove(&index);
        if in_force.records.remove(&index).is_some() {
            in_force.switched = true;
        }
        Ok(())
    }

    /// Removes what no program reads any more.
    fn bury(&mut self, memory: &mut Memory) -> Result<(), EbpfError> {
        let Memory { live, in_force, indexes, graves } = memory;
        let count = graves.iter().take_while(|it| self.fence.grace.is_over(it.after)).count();
        if count == 0 {
            return Ok(());
        }
        let used: BTreeSet<u32> = in_force.records.values().map(|(_, record)| record.id).collect();
        for grave in graves.drain(..count) {
            for ((kind, id), object) in &grave.tables {
                self.maps.remove(*kind, *id, object)?;
                live.ids.forget(*kind, object.digest);
            }
            for id in grave.ids.difference(&used) {
                self.maps.unname(Kind::Endpoint, *id)?;
            }
        }
        if graves.is_empty() {
            in_force.taken = in_force.records.values().map(|(number, _)| *number).collect();
            in_force.first_free = 1;
        }
        let own = in_force.records.values().map(|(_, it)| (it.interface, it.id));
        let own: BTreeMap<u32, u32> = own.collect();
        let wanted = indexes.iter().filter_map(|(name, index)| {
            let desired = live.endpoints.get(name)?;
            Some((*own.get(index)?, desired))
        });
        let more = wanted.flat_map(|(id, desired)| desired.more.iter().map(move |it| (id, *it)));
        let more: Own = more.collect();
        if in_force.own != more {
            self.maps.keep_own(&more)?;
            in_force.own = more;
        }
        Ok(())
    }

    /// Notes what a full update has put in force, if deltas can follow it.
    pub(super) fn remember(&mut self, live: Option<Live>, mut in_force: InForce) {
        let Some(live) = live else { return };
        let InForce { records, wanted, .. } = &mut in_force;
        records.retain(|interface, _| wanted.contains(interface));
        in_force.taken = in_force.records.values().map(|(number, _)| *number).collect();
        (in_force.first_free, in_force.switched) = (1, false);
        let indexes = live.endpoints.keys().map(|it| Ok((it.clone(), index_of(it)?)));
        let indexes: Result<BTreeMap<_, _>, EbpfError> = indexes.collect();
        if let Ok(indexes) = indexes {
            self.memory = Some(Memory { live, in_force, indexes, graves: Vec::new() });
        }
    }
}

impl Memory {
    /// Returns whether what waits for its removal could take room that a delta needs. Maps have twice the room of what is in
    /// force.
    fn is_crowded(&self, capacity: &Capacity, delta: &Delta) -> bool {
        let records = self.in_force.taken.len() + delta.endpoints.len();
        let tables = self.graves.iter().flat_map(|grave| grave.tables.values());
        let rows = tables.filter_map(|table| table.entries.get(&Map::Rows));
        let rows: usize = rows.map(|it| it.values.len() / Map::Rows.value_size()).sum();
        records >= capacity.records() as usize || rows > capacity.rows as usize / 2
    }
}
