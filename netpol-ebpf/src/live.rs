//! What is in force, as far as it must be known to change only what a delta names. Pure: nothing here touches the kernel.
//!
//! The flat form is derived from a whole program; this is what its parts are derived from. A single address has a *key*: the
//! class of the prefix around it, and the sets (with ports, where they are sets of ports) that name the address itself. Equal
//! keys are one class, so a change of members is a look-up of a key. A key that is new is a new class, whose rows come from
//! the flat form of a program that has just this address in its sets; the same gives a new policy set its rows, from one
//! address for each class. The classes of prefixes are never changed here.
//!
//! [`Live::advance`] refuses what it does not cover, and then a full update is made. So it is where the rules for that are:
//! each [`Unfit`] is a case in which a class or row could be wrong.

mod build;
mod classes;
mod differences;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use netpol_core::Delta;
use netpol_core::Direction;
use netpol_core::flat::TableKey;
use netpol_core::model::EndpointId;
use netpol_core::net::{Family, PrefixMap, PrefixSet};
use netpol_core::program::{Digest, Endpoint, SetId};
use netpol_ebpf_abi as abi;

use crate::config::Capacity;
use crate::ids::{Ids, Kind};
use crate::render::{self, Desired, Image, Object, Options, RenderedTable, Settings, Space};

/// How many addresses a delta may move from class to class. Each waits until no program reads the one before; more are
/// cheaper in a new space.
const MOVES: usize = 4;

/// A delta cannot be applied by changing only what it names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unfit;

/// What is in force.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) ids: Ids,
    pub(crate) endpoints: BTreeMap<String, Desired>,
    options: Options,
    capacity: Capacity,
    settings: Settings,
    space: Space,
    /// The sets of the program, each with a number that no set had before.
    sets: HashMap<SetId, u32>,
    last_set: u32,
    /// Numbers of sets that are gone. Keys may still have them, which makes two classes of what could be one.
    gone: HashSet<u32>,
    /// How many addresses gone sets had.
    left_over: usize,
    /// The lists of prefixes that classes tell apart.
    nets: BTreeSet<PrefixSet>,
    /// The classes of prefixes.
    blocks: PrefixMap<u32>,
    keys: Vec<KeyRecord>,
    known: HashMap<Key, usize>,
    /// The number of the key of each single address that has one.
    addresses: HashMap<IpAddr, usize>,
    /// How many addresses of each family have one.
    counts: [usize; 2],
    next_class: u32,
    /// Every class of prefixes has a key, which new tables need.
    is_sampled: bool,
    tables: BTreeMap<TableKey, RenderedTable>,
    /// Lists of ports and counters.
    objects: BTreeMap<(Kind, u32), Object>,
    /// Spaces and tables whose content no longer is what their first name was the digest of.
    renamed: BTreeMap<(Kind, u32), Digest>,
    /// The names that the others have.
    named: BTreeMap<(Kind, u32), Digest>,
}

/// What tells a single address from others: the class of the prefix around it, and what names the address itself, sorted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    around: u32,
    items: Vec<Item>,
}

/// What names an address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Item {
    /// A set, by its number, and the port that the address contributes to it if it is one of ports.
    Set(u32, Option<u16>),
    /// A list of prefixes has the address as such, or it is a frontend's. Whatever else names it, no other address is like it.
    Host(IpAddr),
}

/// A key and its class.
#[derive(Clone, Debug)]
struct KeyRecord {
    key: Key,
    class: u32,
    /// An address in the same prefixes, which can stand for the key.
    sample: IpAddr,
    /// How many addresses have it. Keys of prefixes always count.
    users: usize,
}

/// What applying a delta changes in maps, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    /// Objects that lose the name that tells of their content, before it changes, and the name that they get.
    pub(crate) renamed: Vec<((Kind, u32), Digest)>,
    /// Objects that are new. Nothing refers to them.
    pub(crate) new: Vec<((Kind, u32), Object)>,
    /// Rows of new classes: table, class and row.
    pub(crate) rows: Vec<(u32, u32, abi::Row)>,
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
    /// Objects that nothing refers to when endpoints are switched.
    pub(crate) dead: BTreeMap<(Kind, u32), Object>,
}

impl Live {
    /// Makes this what a delta's program is, and returns the way there. After an error it is worth nothing.
    pub(crate) fn advance(&mut self, delta: &Delta) -> Result<Steps, Unfit> {
        let program = &*delta.program;
        let is_foreign = delta.hosts.is_some()
            || Settings::of(program).ok() != Some(self.settings)
            || !delta.new_policy_sets.iter().all(|id| build::fits(program, *id))
            || program.endpoints.len() > self.capacity.endpoints as usize;
        if is_foreign {
            return Err(Unfit);
        }
        let mut steps = Steps::default();
        let fresh = self.change_members(delta, &mut steps)?;
        self.add_rows(delta, &fresh, &mut steps)?;
        if !delta.endpoints.is_empty() || !delta.removed_endpoints.is_empty() {
            self.add_tables(program, &mut steps)?;
            self.change_endpoints(delta, &mut steps)?;
            self.drop_tables(program, &mut steps);
        }
        self.forget_sets(delta);
        self.check_room(&steps)?;
        Ok(steps)
    }

    /// Returns what is to be in the maps.
    pub(crate) fn image(&self) -> Image {
        let mut image = Image { endpoints: self.endpoints.clone(), ..Image::default() };
        image.objects.clone_from(&self.objects);
        let entries = self.addresses.iter().filter_map(|(address, key)| {
            let record = self.keys.get(*key)?;
            (record.class != record.key.around).then_some((*address, record.class))
        });
        let blocks = self.blocks.iter().map(|(prefix, class)| (prefix, *class));
        let entries = render::space_entries(self.space.id, entries, blocks);
        let name = (Kind::Space, self.space.id);
        image.objects.insert(name, Object { digest: self.name(name), entries });
        for table in self.tables.values().filter(|table| table.id != abi::OPEN) {
            let name = (Kind::Table, table.id);
            image.objects.insert(name, tables::object(table, self.name(name)));
        }
        image
    }

    /// Returns the id of the space.
    pub(crate) const fn space(&self) -> u32 {
        self.space.id
    }

    fn name(&self, object: (Kind, u32)) -> Digest {
        let name = self.renamed.get(&object).or_else(|| self.named.get(&object));
        name.copied().unwrap_or_else(|| living(object))
    }

    /// Has an object lose the name that tells of its content.
    fn rename(&mut self, object: (Kind, u32), steps: &mut Steps) {
        if self.renamed.contains_key(&object) {
            return;
        }
        let digest = living(object);
        if let Some(before) = self.named.remove(&object) {
            self.ids.rename(object.0, before, digest);
        }
        self.renamed.insert(object, digest);
        steps.renamed.push((object, digest));
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
            let table = |key: TableKey| self.tables.get(&key).map(|table| table.id);
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

    fn check_room(&self, steps: &Steps) -> Result<(), Unfit> {
        let most = self.capacity.addresses as usize / 4;
        if self.left_over > most || self.gone.len() > most || self.keys.len() > 8 * most {
            return Err(Unfit);
        }
        if steps.new.is_empty() && steps.rows.is_empty() && steps.added.is_empty() {
            return Ok(());
        }
        let rows: usize = self.tables.values().map(|table| table.rows.len() + 2).sum();
        let lists = self.objects.range((Kind::List, 0)..(Kind::Endpoint, 0));
        let lists = lists.filter_map(|(_, it)| it.entries.get(&render::Map::Ports));
        let ports: usize = lists.map(|entries| entries.values.len() / size_of::<u32>()).sum();
        let fits = self.counts.iter().all(|count| *count <= self.capacity.addresses as usize)
            && rows <= self.capacity.rows as usize
            && ports <= self.capacity.ports as usize;
        if fits { Ok(()) } else { Err(Unfit) }
    }
}

/// Returns the name of an object that is changed in place. It is never that of a content, so whoever has no memory makes
/// the object anew.
fn living(object: (Kind, u32)) -> Digest {
    Digest::of(&("living", object.0 as u32, object.1))
}

/// Returns the tables that endpoints need.
fn tables_of<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> BTreeMap<TableKey, &'a Endpoint> {
    let both = endpoints.flat_map(|endpoint| {
        Direction::BOTH.map(|direction| {
            (TableKey { policy_set: endpoint.policy_set(direction), direction }, endpoint)
        })
    });
    both.collect()
}

const fn family_number(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
