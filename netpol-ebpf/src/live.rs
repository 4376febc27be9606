//! What is in force, as far as it must be known to change only what a delta names. Pure: nothing here touches the kernel.
//!
//! The flat form follows the program (`Flat::advance`); this says what that changes in maps. It refuses what it does not
//! cover, and then a full update is made: each [`Unfit`] is a case in which maps would have to change where programs read.

mod differences;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_core::Delta;
use netpol_core::flat::{Changes, ClassId, Flat, Move, TableKey};
use netpol_core::model::EndpointId;
use netpol_core::program::{Digest, Program};
use netpol_ebpf_abi as abi;

use crate::config::Capacity;
use crate::ids::{Ids, Kind};
use crate::render::{self, Desired, Image, Object, Objects, Options, Rows, Settings, Space};

/// How many addresses a delta may move from class to class. Each waits until no program reads the one before; more are
/// cheaper in a new space.
const MOVES: usize = 4;

/// A delta cannot be applied by changing only what it names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unfit;

/// What is in force. Lists of ports and counters stay until the next full update.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) ids: Ids,
    pub(crate) endpoints: BTreeMap<String, Desired>,
    flat: Flat,
    rows: Rows,
    /// How many entries lists of ports have.
    ports: usize,
    /// The ids of tables; [`abi::OPEN`] if everything passes without asking a rule.
    tables: BTreeMap<TableKey, u32>,
    space: Space,
    /// The names of the space and of tables whose content is still what their name is the digest of.
    named: BTreeMap<(Kind, u32), Digest>,
    options: Options,
    capacity: Capacity,
    settings: Settings,
}

/// What applying a delta changes in maps, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    /// Objects that lose the name that tells of their content, before it changes, and the name that they get.
    pub(crate) renamed: Vec<((Kind, u32), Digest)>,
    /// Objects that are new. Nothing refers to them.
    pub(crate) new: Objects,
    /// Rows of new classes, by table and class.
    pub(crate) rows: BTreeMap<(u32, u32), abi::Row>,
    /// Classes of single addresses that had none.
    pub(crate) added: Vec<(IpAddr, u32)>,
    /// New classes of single addresses.
    pub(crate) moved: Vec<(IpAddr, u32)>,
    /// Single addresses that no longer have a class of their own.
    pub(crate) removed: Vec<IpAddr>,
    /// Interfaces whose endpoint is new or changed.
    pub(crate) switched: Vec<String>,
    /// Interfaces that are no endpoint's any more.
    pub(crate) detached: Vec<String>,
    /// Endpoints that are gone.
    pub(crate) gone: Vec<EndpointId>,
    /// Tables that nothing refers to when endpoints are switched.
    pub(crate) dead: Objects,
}

impl Live {
    /// Returns what is in force when an image is; `None` if a delta could not be applied to it.
    pub(crate) fn of(
        program: &Program,
        flat: Flat,
        image: Image,
        mut ids: Ids,
        options: Options,
        capacity: &Capacity,
    ) -> Option<Self> {
        if !image.isolated.is_empty() || !flat.unclassified().is_empty() {
            return None;
        }
        let names = image.objects.iter().map(|(name, object)| (*name, object.digest));
        let mut named: BTreeMap<_, _> = names.collect();
        ids.keep(|kind, id| kind == Kind::Endpoint || named.contains_key(&(kind, id)));
        named.retain(|(kind, _), _| matches!(kind, Kind::Space | Kind::Table));
        Some(Self {
            ids,
            flat,
            ports: render::ports(&image.objects),
            endpoints: image.endpoints,
            rows: image.rows,
            tables: image.tables,
            space: image.space,
            named,
            options,
            capacity: capacity.clone(),
            settings: Settings::of(program).ok()?,
        })
    }

    /// Makes this what a delta's program is, and returns the way there. After an error it is worth nothing.
    pub(crate) fn advance(&mut self, delta: &Delta) -> Result<Steps, Unfit> {
        let program = &*delta.program;
        let is_foreign = delta.hosts.is_some()
            || Settings::of(program).ok() != Some(self.settings)
            || program.endpoints.len() > self.capacity.endpoints as usize;
        if is_foreign {
            return Err(Unfit);
        }
        let changes = self.flat.advance(delta, &self.capacity.limits()).ok_or(Unfit)?;
        let mut steps = Steps::default();
        let rendered = self.rows.follow(&self.flat, &mut self.ids, &mut steps.new);
        rendered.map_err(|_| Unfit)?;
        self.ports += render::ports(&steps.new);
        if self.ports > self.capacity.ports as usize {
            return Err(Unfit);
        }
        self.move_addresses(&changes.moves, &mut steps)?;
        self.add_rows(&changes, &mut steps)?;
        self.add_tables(&changes, &mut steps)?;
        self.change_endpoints(delta, &mut steps)?;
        self.drop_tables(&changes, &mut steps)?;
        Ok(steps)
    }

    /// Returns what is to be in the maps.
    pub(crate) fn image(&self) -> Result<Image, Unfit> {
        let mut image = Image { endpoints: self.endpoints.clone(), ..Image::default() };
        let (mut ids, flat) = (self.ids.clone(), &self.flat);
        image.rows.follow(flat, &mut ids, &mut image.objects).map_err(|_| Unfit)?;
        let space = (Kind::Space, self.space.id);
        let entries = render::space_entries(self.space.id, flat);
        image.objects.insert(space, Object { digest: self.name(space), entries });
        for (key, table) in flat.tables() {
            let id = *self.tables.get(key).ok_or(Unfit)?;
            if id != abi::OPEN {
                let entries = self.rows.table(id, table).map_err(|_| Unfit)?;
                let digest = self.name((Kind::Table, id));
                image.objects.insert((Kind::Table, id), Object { digest, entries });
            }
        }
        Ok(image)
    }

    /// Returns the id of the space.
    pub(crate) const fn space(&self) -> u32 {
        self.space.id
    }

    fn name(&self, object: (Kind, u32)) -> Digest {
        self.named.get(&object).copied().unwrap_or_else(|| living(object))
    }

    /// Has an object lose the name that tells of its content.
    fn rename(&mut self, object: (Kind, u32), steps: &mut Steps) {
        if let Some(before) = self.named.remove(&object) {
            let digest = living(object);
            self.ids.rename(object.0, before, digest);
            steps.renamed.push((object, digest));
        }
    }

    fn move_addresses(&mut self, moves: &[Move], steps: &mut Steps) -> Result<(), Unfit> {
        for &Move { address, before, after } in moves {
            match (before, after) {
                (None, Some(ClassId(class))) => steps.added.push((address, class)),
                (Some(_), Some(ClassId(class))) => steps.moved.push((address, class)),
                (_, None) => steps.removed.push(address),
            }
        }
        if steps.moved.len() > MOVES {
            return Err(Unfit);
        }
        if !moves.is_empty() {
            self.rename((Kind::Space, self.space.id), steps);
        }
        Ok(())
    }

    /// Gives new classes their rows, also in tables that endpoints are about to leave.
    fn add_rows(&mut self, changes: &Changes, steps: &mut Steps) -> Result<(), Unfit> {
        if changes.entries.is_empty() {
            return Ok(());
        }
        let mut users: BTreeMap<u32, usize> = BTreeMap::new();
        self.tables.values().for_each(|id| *users.entry(*id).or_default() += 1);
        let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for &(key, ClassId(class), row) in &changes.entries {
            let row = self.rows.row(row).map_err(|_| Unfit)?;
            let place = (*self.tables.get(&key).ok_or(Unfit)?, class);
            // That everything passes is no longer so.
            if place.0 == abi::OPEN || *steps.rows.entry(place).or_insert(row) != row {
                return Err(Unfit);
            }
            *counts.entry(place).or_default() += 1;
        }
        // Policy sets that had equal tables may no longer have them.
        if counts.iter().any(|((table, _), count)| users.get(table) != Some(count)) {
            return Err(Unfit);
        }
        let changed: BTreeSet<u32> = steps.rows.keys().map(|(table, _)| *table).collect();
        changed.into_iter().for_each(|table| self.rename((Kind::Table, table), steps));
        Ok(())
    }

    fn add_tables(&mut self, changes: &Changes, steps: &mut Steps) -> Result<(), Unfit> {
        for key in &changes.new_tables {
            let table = self.flat.tables().get(key).ok_or(Unfit)?;
            if render::is_open(&self.flat, table) {
                self.tables.insert(*key, abi::OPEN);
                continue;
            }
            let named = self.ids.named(Kind::Table, |id| living((Kind::Table, id)));
            let id = named.map_err(|_| Unfit)?;
            let entries = self.rows.table(id, table).map_err(|_| Unfit)?;
            let name = (Kind::Table, id);
            steps.new.insert(name, Object { digest: living(name), entries });
            self.tables.insert(*key, id);
        }
        Ok(())
    }

    fn change_endpoints(&mut self, delta: &Delta, steps: &mut Steps) -> Result<(), Unfit> {
        let old = delta.endpoints.iter().filter_map(|change| change.old.as_ref());
        for endpoint in delta.removed_endpoints.iter().chain(old) {
            if let Some(interface) = render::interface(endpoint).map_err(|_| Unfit)? {
                let desired = self.endpoints.remove(interface).ok_or(Unfit)?;
                if desired.id != endpoint.id {
                    return Err(Unfit);
                }
                steps.detached.push(interface.to_owned());
            }
        }
        steps.gone.extend(delta.removed_endpoints.iter().map(|endpoint| endpoint.id.clone()));
        for change in &delta.endpoints {
            let Some(interface) = render::interface(&change.new).map_err(|_| Unfit)? else {
                steps.gone.push(change.new.id.clone());
                continue;
            };
            let table = |key: TableKey| self.tables.get(&key).copied();
            let desired =
                render::judged(&change.new, self.settings, &self.space, self.options, table)
                    .map_err(|_| Unfit)?;
            if self.endpoints.insert(interface.to_owned(), desired).is_some() {
                return Err(Unfit);
            }
            steps.detached.retain(|it| it != interface);
            steps.switched.push(interface.to_owned());
        }
        Ok(())
    }

    /// Forgets the tables that no endpoint has.
    fn drop_tables(&mut self, changes: &Changes, steps: &mut Steps) -> Result<(), Unfit> {
        for (key, table) in &changes.removed_tables {
            let id = self.tables.remove(key).ok_or(Unfit)?;
            if id == abi::OPEN || self.tables.values().any(|it| *it == id) {
                continue;
            }
            let name = (Kind::Table, id);
            let entries = self.rows.table(id, table).map_err(|_| Unfit)?;
            steps.dead.insert(name, Object { digest: self.name(name), entries });
            self.named.remove(&name);
        }
        Ok(())
    }
}

/// Returns the name of an object that is changed in place. It is never that of a content, so whoever has no memory makes
/// the object anew.
fn living(object: (Kind, u32)) -> Digest {
    Digest::of(&("living", object.0 as u32, object.1))
}
