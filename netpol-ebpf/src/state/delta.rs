//! Deltas: changes of what is in force that touch only what they name.
//!
//! What programs may read is changed here, so more care is needed than where everything is new. An address goes from class
//! to class with one write, after the rows of its new class are there. And the kernel uses the room of an element that was
//! removed or replaced for the next one that is written to the map, at once, even if a program has just found it and not yet
//! read it. So [`Fence`] has a write after a removal wait until no such program runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netpol_core::Delta;
use netpol_core::program::Digest;

use super::{InForce, Isolated, Own, State, holders};
use crate::error::EbpfError;
use crate::ids::Kind;
use crate::live::{Live, Steps};
use crate::programs::index_of;
use crate::render::{self, Map};
use crate::sys::wait_for_programs;

/// After that time no program still reads what it found: they run for microseconds.
const LONG_AGO: Duration = Duration::from_secs(1);

/// What is in force, and where. There is none where a delta could not be applied.
pub(super) struct Memory {
    pub(super) live: Live,
    pub(super) in_force: InForce,
    /// The interfaces of endpoints, by name.
    pub(super) indexes: BTreeMap<String, u32>,
}

/// When elements of the maps of single addresses were removed or replaced last.
#[derive(Debug, Default)]
pub(super) struct Fence(BTreeMap<Map, Instant>);

impl Fence {
    /// Waits until no program reads an element of a map whose room a write could take.
    fn before_write(&mut self, map: Map) {
        if self.0.remove(&map).is_some_and(|removed| removed.elapsed() < LONG_AGO) {
            wait_for_programs();
            self.0.clear();
        }
    }

    /// As [`Self::before_write`], for every map.
    pub(super) fn before_writes(&mut self) {
        let is_recent = |removed: &Instant| removed.elapsed() < LONG_AGO;
        if std::mem::take(&mut self.0).values().any(is_recent) {
            wait_for_programs();
        }
    }

    fn removed(&mut self, map: Map) {
        self.0.insert(map, Instant::now());
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

    /// Returns how many updates were not of what a delta names only.
    #[cfg(test)]
    pub(crate) const fn full_updates(&self) -> u64 {
        self.full_updates
    }

    /// Returns when a delta switched endpoints last.
    #[cfg(test)]
    pub(crate) const fn published(&self) -> Option<Instant> {
        self.published
    }

    /// Changes what a delta names. If that fails at any point, all has to be done anew.
    fn advance(&mut self, mut memory: Memory, delta: &Delta) -> Option<(Isolated, u64)> {
        self.programs.begin_update();
        if !(delta.endpoints.is_empty() && delta.removed_endpoints.is_empty()) {
            let InForce { records, own, .. } = &memory.in_force;
            self.before = holders(records.values().map(|(_, record)| record), own);
        }
        let steps = memory.live.advance(delta).ok()?;
        self.write(&memory.live, &steps).ok()?;
        self.move_addresses(&memory.live, &steps).ok()?;
        let old = self.switch_all(&mut memory, &steps)?;
        #[cfg(test)]
        {
            self.published = Some(Instant::now());
        }
        let mut revoked = 0;
        if memory.in_force.switched {
            wait_for_programs();
            let InForce { records, taken, first_free, switched, .. } = &mut memory.in_force;
            *taken = records.values().map(|(number, _)| *number).collect();
            (*first_free, *switched) = (1, false);
            let after = memory.in_force.wanted_holders();
            let lost = self.before.iter().filter(|(it, holder)| after.get(*it) != Some(*holder));
            revoked = self.maps.end_flows(&lost.map(|(it, _)| *it).collect()).ok()?;
        }
        self.bury(&mut memory, &steps, &old).ok()?;
        // An interface that cannot have links yet keeps its filters.
        drop(self.programs.link_more());
        self.before.clear();
        self.memory = Some(memory);
        Some((Isolated::new(), revoked))
    }

    /// Writes what nothing refers to yet.
    fn write(&mut self, live: &Live, steps: &Steps) -> Result<(), EbpfError> {
        if !steps.new.is_empty() {
            self.maps.note_last(live.ids.last())?;
        }
        for ((kind, id), digest) in &steps.renamed {
            self.maps.name(*kind, *id, *digest)?;
        }
        for ((kind, id), object) in &steps.new {
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
        let Memory { live, in_force, indexes } = memory;
        let mut old = BTreeSet::new();
        let id_at = |in_force: &InForce, index: &u32| {
            in_force.records.get(index).map(|(_, record)| record.id)
        };
        for interface in &steps.detached {
            let index = indexes.remove(interface)?;
            old.extend(id_at(in_force, &index));
            self.leave(index, in_force).ok()?;
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
            self.switch(interface, &desired, in_force, &mut live.ids).ok()?;
        }
        Some(old)
    }

    fn leave(&mut self, index: u32, in_force: &mut InForce) -> Result<(), EbpfError> {
        self.programs.detach(index)?;
        self.maps.withdraw(index)?;
        in_force.wanted.remove(&index);
        if in_force.records.remove(&index).is_some() {
            in_force.switched = true;
        }
        Ok(())
    }

    /// Removes what no program refers to any more.
    fn bury(
        &mut self,
        memory: &mut Memory,
        steps: &Steps,
        old: &BTreeSet<u32>,
    ) -> Result<(), EbpfError> {
        let Memory { live, in_force, .. } = memory;
        for ((kind, id), object) in &steps.dead {
            self.maps.remove(*kind, *id, object)?;
        }
        for id in &steps.gone {
            live.ids.forget(Kind::Endpoint, Digest::of(id));
        }
        let left: BTreeSet<u32> = in_force.records.values().map(|(_, record)| record.id).collect();
        for id in old.difference(&left) {
            self.maps.unname(Kind::Endpoint, *id)?;
        }
        if steps.switched.is_empty() && steps.detached.is_empty() {
            return Ok(());
        }
        let own = in_force.records.values().filter(|(_, it)| left.contains(&it.id));
        let own: BTreeMap<u32, u32> = own.map(|(_, it)| (it.interface, it.id)).collect();
        let wanted = memory.indexes.iter().filter_map(|(name, index)| {
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
            self.memory = Some(Memory { live, in_force, indexes });
        }
    }
}
