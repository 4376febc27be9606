//! Rows: of classes that are new, and of policy sets that are new.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use netpol_core::Delta;
use netpol_core::flat::{Flat, RowId, TableKey, classify};
use netpol_core::model::{L4Match, Peers};
use netpol_core::net::{Family, Prefix};
use netpol_core::program::{
    AddressSet, Digest, Endpoint, Members, PolicySet, PolicySetId, Rule, SetDefinition, SetId,
};
use netpol_core::{Program, Selector};
use netpol_ebpf_abi::{self as abi, Leaf, RowKey};
use zerocopy::{FromBytes, IntoBytes};

use super::build::{nets, rules};
use super::{Item, Live, Steps, Unfit, family_number, living, tables_of};
use crate::ids::Kind;
use crate::render::{self, Entries, Image, Map, Object, RenderedTable};

/// How many keys may have one address that stands for them.
const ROUNDS: usize = 8;

/// Policy sets and address sets by id, of the program before or after a delta.
struct Sources<'a> {
    policy_sets: BTreeMap<PolicySetId, &'a Arc<PolicySet>>,
    address_sets: BTreeMap<SetId, &'a AddressSet>,
}

/// The rows that some keys have in some tables.
type Rows = BTreeMap<TableKey, Vec<(usize, abi::Row)>>;

impl Live {
    /// Gives classes that are new their rows in all tables, also in those that endpoints are about to leave.
    pub(super) fn add_rows(
        &mut self,
        delta: &Delta,
        fresh: &[usize],
        steps: &mut Steps,
    ) -> Result<(), Unfit> {
        if fresh.is_empty() {
            return Ok(());
        }
        let program = &*delta.program;
        let before = delta.endpoints.iter().filter_map(|change| change.old.as_ref());
        let users = program.endpoints.iter().chain(before).chain(&delta.removed_endpoints);
        let mut users = tables_of(users);
        users.retain(|key, _| self.tables.contains_key(key));
        if users.len() != self.tables.len() {
            return Err(Unfit);
        }
        let mut sources = Sources::of(program);
        sources.policy_sets.extend(delta.removed_policy_sets.iter().map(|(id, set)| (*id, set)));
        sources.address_sets.extend(delta.removed_sets.iter().map(|(id, set)| (*id, &**set)));
        let rows = self.rows(&users, &sources, fresh, steps)?;
        let mut shared: HashMap<(u32, usize), abi::Row> = HashMap::new();
        for (key, rows) in rows {
            let table = self.tables.get_mut(&key).ok_or(Unfit)?;
            for (number, row) in rows {
                let record = self.keys.get(number).ok_or(Unfit)?;
                let family = family_number(Family::of(record.sample));
                let differs = table.others.get(family) != Some(&row);
                if table.id == abi::OPEN {
                    // That everything passes is no longer so.
                    if differs {
                        return Err(Unfit);
                    }
                    continue;
                }
                // Several policy sets may have had equal tables, which no longer need to be.
                if *shared.entry((table.id, number)).or_insert(row) != row {
                    return Err(Unfit);
                }
                if differs && table.rows.insert(record.class, row).is_none() {
                    let step = (table.id, record.class, row);
                    if !steps.rows.contains(&step) {
                        steps.rows.push(step);
                    }
                }
            }
        }
        let changed: BTreeSet<u32> = steps.rows.iter().map(|(table, _, _)| *table).collect();
        changed.into_iter().for_each(|table| self.rename((Kind::Table, table), steps));
        Ok(())
    }

    /// Makes the tables of policy sets that had none.
    pub(super) fn add_tables(&mut self, program: &Program, steps: &mut Steps) -> Result<(), Unfit> {
        let mut users = tables_of(program.endpoints.iter());
        users.retain(|key, _| !self.tables.contains_key(key));
        if users.is_empty() {
            return Ok(());
        }
        let new: BTreeSet<_> = users.keys().map(|key| key.policy_set).collect();
        let of_new = program.policy_sets.iter().filter(|(id, _)| new.contains(id));
        let rules = of_new.flat_map(|(_, set)| &set.stages).flat_map(|stage| &stage.rules);
        // What stands for a frontend has no backends.
        if !program.frontends.is_empty()
            || !self.is_sampled
            || !rules.flat_map(|rule| nets(rule)).all(|it| self.nets.contains(it))
        {
            return Err(Unfit);
        }
        // A class that comes back would not have rows in these tables.
        let Self { known, keys, .. } = self;
        known.retain(|_, number| keys.get(*number).is_some_and(|it| it.users > 0));
        let mut classes = HashSet::new();
        let one_each = self.known.values().copied().filter(|number| {
            self.keys.get(*number).is_some_and(|record| classes.insert(record.class))
        });
        let mut numbers: Vec<usize> = one_each.collect();
        numbers.sort_unstable();
        let rows = self.rows(&users, &Sources::of(program), &numbers, steps)?;
        for (key, rows) in rows {
            let set = program.policy_sets.get(&key.policy_set).ok_or(Unfit)?;
            let table = self.table(&rows, set.is_open())?;
            if table.id != abi::OPEN {
                let name = (Kind::Table, table.id);
                let digest = living(name);
                self.renamed.insert(name, digest);
                steps.new.push((name, object(&table, digest)));
            }
            self.tables.insert(key, table);
        }
        Ok(())
    }

    /// Returns a table that is new.
    fn table(&mut self, rows: &[(usize, abi::Row)], is_open: bool) -> Result<RenderedTable, Unfit> {
        let by_class = rows.iter().filter_map(|(number, row)| {
            let record = self.keys.get(*number)?;
            Some((record.class, (family_number(Family::of(record.sample)), *row)))
        });
        let mut by_class: BTreeMap<u32, (usize, abi::Row)> = by_class.collect();
        let mut other = |v6| by_class.remove(&abi::class_of_others(v6)).ok_or(Unfit);
        let others = [other(false)?.1, other(true)?.1];
        let id = if is_open {
            abi::OPEN
        } else {
            self.ids.named(Kind::Table, |id| living((Kind::Table, id))).map_err(|_| Unfit)?
        };
        let differs = |(family, row): &(usize, abi::Row)| others.get(*family) != Some(row);
        let rows = by_class.into_iter().filter(|(_, it)| differs(it));
        Ok(RenderedTable { id, others, rows: rows.map(|(class, (_, row))| (class, row)).collect() })
    }

    /// Returns the rows that keys have in tables, each of which has an endpoint.
    fn rows(
        &mut self,
        users: &BTreeMap<TableKey, &Endpoint>,
        sources: &Sources<'_>,
        keys: &[usize],
        steps: &mut Steps,
    ) -> Result<Rows, Unfit> {
        let mut rows = Rows::new();
        let mut left: Vec<usize> = keys.to_vec();
        for _ in 0..ROUNDS {
            let mut addresses = HashSet::new();
            let (now, later): (Vec<usize>, Vec<usize>) = left.into_iter().partition(|number| {
                self.keys.get(*number).is_some_and(|record| addresses.insert(record.sample))
            });
            self.rows_at_once(users, sources, &now, &mut rows, steps)?;
            left = later;
            if left.is_empty() {
                return Ok(rows);
            }
        }
        Err(Unfit)
    }

    /// As [`Self::rows`], of keys for which different addresses stand.
    fn rows_at_once(
        &mut self,
        users: &BTreeMap<TableKey, &Endpoint>,
        sources: &Sources<'_>,
        keys: &[usize],
        rows: &mut Rows,
        steps: &mut Steps,
    ) -> Result<(), Unfit> {
        let program = self.reduced(users, sources, keys)?;
        let flat = classify(&program, &self.capacity.limits()).map_err(|_| Unfit)?;
        let mut image = Image::default();
        let rendered = render::rows(&flat, &mut self.ids, &mut image).map_err(|_| Unfit)?;
        for (name, object) in image.objects {
            if let Entry::Vacant(place) = self.objects.entry(name) {
                steps.new.push((name, object.clone()));
                place.insert(object);
            }
        }
        for key in users.keys() {
            for number in keys {
                let sample = self.keys.get(*number).ok_or(Unfit)?.sample;
                let RowId(row) = row_of(&flat, *key, sample).ok_or(Unfit)?;
                let row = usize::try_from(row).ok().and_then(|row| rendered.get(row));
                rows.entry(*key).or_default().push((*number, *row.ok_or(Unfit)?));
            }
        }
        Ok(())
    }

    /// Returns a program in which just the addresses that stand for these keys are in sets, and just these policy sets are
    /// in force.
    fn reduced(
        &self,
        users: &BTreeMap<TableKey, &Endpoint>,
        sources: &Sources<'_>,
        keys: &[usize],
    ) -> Result<Program, Unfit> {
        let mut program = Program::default();
        // An endpoint may be there as it was and as it is.
        program.endpoints = users.values().map(|it| (*it).clone()).collect();
        for key in users.keys() {
            let set = sources.policy_sets.get(&key.policy_set).ok_or(Unfit)?;
            program.policy_sets.insert(key.policy_set, Arc::clone(set));
        }
        let referred: BTreeSet<SetId> = rules(&program).flat_map(sets).collect();
        let mut by_number: HashMap<u32, SetId> = HashMap::new();
        for id in referred {
            let set = sources.address_sets.get(&id).ok_or(Unfit)?;
            by_number.insert(*self.sets.get(&id).ok_or(Unfit)?, id);
            let members = self.by_prefix(&set.members, keys);
            let definition = SetDefinition::Addresses(Peers::Endpoints(Selector::all()));
            program.address_sets.insert(id, Arc::new(AddressSet::new(definition, members)));
        }
        for record in keys.iter().filter_map(|number| self.keys.get(*number)) {
            for item in &record.key.items {
                let Item::Set(number, port) = item else { continue };
                let set = by_number.get(number).and_then(|id| program.address_sets.get_mut(id));
                match (set.map(|set| &mut Arc::make_mut(set).members), port) {
                    (Some(Members::Addresses { exact, .. }), None) => {
                        exact.insert(record.sample);
                    }
                    (Some(Members::Ports(ports)), Some(port)) => {
                        ports.insert((record.sample, *port));
                    }
                    (None, _) => {}
                    _ => return Err(Unfit),
                }
            }
        }
        Ok(program)
    }

    /// Returns the members that stand for keys and are in prefixes of a set.
    fn by_prefix(&self, members: &Members, keys: &[usize]) -> Members {
        let Members::Addresses { prefixes, .. } = members else {
            return Members::Ports(BTreeSet::new());
        };
        let samples = keys.iter().filter_map(|number| Some(self.keys.get(*number)?.sample));
        let is_inside = |it: &IpAddr| {
            !prefixes.is_empty()
                && prefixes.contains(*it)
                && prefixes.prefixes().binary_search(&Prefix::host(*it)).is_err()
        };
        let exact = samples.filter(is_inside).collect();
        Members::Addresses { exact, prefixes: std::iter::empty::<Prefix>().collect() }
    }

    /// Forgets the tables that no endpoint has, and what only they referred to.
    pub(super) fn drop_tables(&mut self, program: &Program, steps: &mut Steps) {
        let wanted = tables_of(program.endpoints.iter());
        let before = self.tables.len();
        let mut dropped = Vec::new();
        self.tables.retain(|key, table| {
            let is_wanted = wanted.contains_key(key);
            if !is_wanted {
                dropped.push(table.clone());
            }
            is_wanted
        });
        if self.tables.len() == before {
            return;
        }
        let left: BTreeSet<u32> = self.tables.values().map(|table| table.id).collect();
        for table in dropped.iter().filter(|it| it.id != abi::OPEN && !left.contains(&it.id)) {
            let name = (Kind::Table, table.id);
            let digest = self.name(name);
            steps.dead.insert(name, object(table, digest));
            self.renamed.remove(&name);
            self.named.remove(&name);
        }
        let used = self.used();
        let unused: Vec<_> =
            self.objects.keys().filter(|it| !used.contains(*it)).copied().collect();
        for name in unused {
            steps.dead.extend(self.objects.remove(&name).map(|object| (name, object)));
        }
    }

    /// Returns the lists and counters that tables refer to.
    fn used(&self) -> HashSet<(Kind, u32)> {
        let mut used = HashSet::new();
        let mut pending: Vec<Leaf> = Vec::new();
        let list = |id: u32, used: &mut HashSet<_>, pending: &mut Vec<Leaf>| {
            if used.insert((Kind::List, id))
                && let Some(object) = self.objects.get(&(Kind::List, id))
                && let Some(entries) = object.entries.get(&Map::Ports)
            {
                let leaves = entries.values.chunks(size_of::<Leaf>());
                pending.extend(leaves.filter_map(|it| Leaf::read_from_bytes(it).ok()));
            }
        };
        for table in self.tables.values() {
            for row in table.others.iter().chain(table.rows.values()) {
                list(row.list, &mut used, &mut pending);
                pending.push(row.default);
                pending.extend(row.ranges.iter().map(|range| range.leaf));
            }
        }
        while let Some(leaf) = pending.pop() {
            if leaf.is_by_source() {
                list(leaf.number(), &mut used, &mut pending);
            } else {
                let kinds = [Kind::Rule, Kind::Denied, Kind::Passed];
                used.extend(kinds.map(|kind| (kind, leaf.number())));
            }
        }
        used
    }
}

impl<'a> Sources<'a> {
    fn of(program: &'a Program) -> Self {
        Self {
            policy_sets: program.policy_sets.iter().map(|(id, set)| (*id, set)).collect(),
            address_sets: program.address_sets.iter().map(|(id, set)| (*id, &**set)).collect(),
        }
    }
}

/// Returns what a table is in maps.
pub(super) fn object(table: &RenderedTable, digest: Digest) -> Object {
    let [v4, v6] = table.others;
    let others = [(abi::class_of_others(false), v4), (abi::class_of_others(true), v6)];
    let rows = others.into_iter().chain(table.rows.iter().map(|(class, row)| (*class, *row)));
    let mut entries = Entries::default();
    for (class, row) in rows {
        entries.push(&[RowKey { table: table.id, class }.as_bytes()], row.as_bytes());
    }
    Object { digest, entries: BTreeMap::from([(Map::Rows, entries)]) }
}

fn row_of(flat: &Flat, key: TableKey, address: IpAddr) -> Option<RowId> {
    let table = flat.tables().get(&key)?;
    let class = flat.class_of(address);
    Some(match table.entries().binary_search_by(|(it, _)| it.cmp(&class)) {
        Ok(found) => table.entries().get(found)?.1,
        Err(_) => table.other(Family::of(address)),
    })
}

/// Returns the sets that a rule refers to.
fn sets(rule: &Rule) -> Vec<SetId> {
    let mut sets: Vec<SetId> =
        rule.remote.in_set.iter().chain(&rule.remote.not_in_set).copied().collect();
    if let L4Match::Ports { source, destination, .. } = &rule.l4 {
        let lists = [&source.any_of, &source.none_of, &destination.any_of, &destination.none_of];
        sets.extend(lists.into_iter().flatten().flat_map(|ports| ports.sets.iter().copied()));
    }
    sets
}
