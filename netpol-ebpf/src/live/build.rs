//! What is in force after a full update.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use netpol_core::Program;
use netpol_core::flat::Flat;
use netpol_core::net::{Family, Prefix, PrefixMap, PrefixSet};
use netpol_core::program::{Members, PolicySetId, Rule};
use netpol_ebpf_abi as abi;

use super::{Item, Key, KeyRecord, Live};
use crate::config::Capacity;
use crate::ids::{Ids, Kind};
use crate::render::{Image, Options, Settings};

impl Live {
    /// Returns what is in force when an image is; `None` if a delta could not be applied to it.
    pub(crate) fn of(
        program: &Program,
        flat: &Flat,
        image: &Image,
        mut ids: Ids,
        options: Options,
        capacity: &Capacity,
    ) -> Option<Self> {
        if !image.isolated.is_empty()
            || !flat.unclassified().is_empty()
            || !program.policy_sets.keys().all(|id| fits(program, *id))
        {
            return None;
        }
        let named: BTreeMap<_, _> =
            image.objects.iter().map(|(name, object)| (*name, object.digest)).collect();
        ids.keep(|kind, id| kind == Kind::Endpoint || named.contains_key(&(kind, id)));
        let is_part = |kind: Kind| kind == Kind::List || kind.is_counter();
        let objects = image.objects.iter().filter(|((kind, _), _)| is_part(*kind));
        let mut live = Self {
            ids,
            endpoints: image.endpoints.clone(),
            options,
            capacity: capacity.clone(),
            settings: Settings::of(program).ok()?,
            space: image.space,
            sets: HashMap::new(),
            last_set: 0,
            gone: HashSet::new(),
            left_over: 0,
            nets: rules(program).flat_map(nets).cloned().collect(),
            blocks: PrefixMap::new(),
            keys: Vec::new(),
            known: HashMap::new(),
            addresses: HashMap::new(),
            counts: [0, 0],
            is_sampled: true,
            next_class: u32::try_from(flat.classes().len()).ok()?,
            tables: image.tables.clone(),
            objects: objects.map(|(name, object)| (*name, object.clone())).collect(),
            renamed: BTreeMap::new(),
            named: named.into_iter().filter(|((kind, _), _)| !is_part(*kind)).collect(),
        };
        for (prefix, class) in flat.prefixes() {
            live.blocks.insert(prefix, class.0);
        }
        live.add_addresses(program, flat);
        live.add_samples();
        Some(live)
    }

    fn add_addresses(&mut self, program: &Program, flat: &Flat) {
        let mut items: Vec<(IpAddr, Item)> = Vec::new();
        for (id, set) in &program.address_sets {
            let number = self.number_set(*id);
            items.extend(of_members(&set.members, number));
        }
        let hosts = self.nets.iter().flat_map(hosts);
        items.extend(hosts.map(|address| (address, Item::Host(address))));
        let frontends = program.frontends.iter().map(|(it, _)| it.address);
        items.extend(frontends.map(|address| (address, Item::Host(address))));
        items.sort();
        items.dedup();
        for group in items.chunk_by(|(one, _), (other, _)| one == other) {
            let Some(&(address, _)) = group.first() else { continue };
            let items = group.iter().map(|(_, item)| *item).collect();
            let key = Key { around: self.around(address), items };
            let number = self
                .known
                .get(&key)
                .copied()
                .unwrap_or_else(|| self.insert_key(key, flat.class_of(address).0, address));
            self.attach(address, number);
        }
    }

    /// Gives each class of prefixes, and those of all other addresses, a key for new tables.
    fn add_samples(&mut self) {
        let mut blocks: Vec<(Prefix, u32)> =
            self.blocks.iter().map(|(it, class)| (it, *class)).collect();
        let others =
            Family::BOTH.map(|it| (Prefix::all(it), abi::class_of_others(it == Family::V6)));
        blocks.extend(others);
        blocks.sort_unstable();
        for (number, (prefix, class)) in blocks.iter().enumerate() {
            let key = Key { around: *class, items: Vec::new() };
            if self.known.contains_key(&key) {
                continue;
            }
            let inner = blocks.get(number + 1..).unwrap_or_default();
            let inner = inner.iter().map(|(it, _)| *it).take_while(|it| prefix.covers(*it));
            if let Some(sample) = self.free_address(*prefix, inner) {
                let number = self.insert_key(key, *class, sample);
                if let Some(record) = self.keys.get_mut(number) {
                    record.users = 1;
                }
            }
        }
        self.is_sampled = blocks
            .iter()
            .all(|(_, class)| self.known.contains_key(&Key { around: *class, items: Vec::new() }));
    }

    /// Returns an address of a prefix that is not in the sorted prefixes inside of it, and has no key.
    fn free_address(&self, prefix: Prefix, inner: impl Iterator<Item = Prefix>) -> Option<IpAddr> {
        let mut next = Some(prefix.first());
        for inner in inner {
            let candidate = self.skip_known(next?);
            if candidate < inner.first() {
                return Some(candidate);
            }
            if next? <= inner.last() {
                next = after(inner.last());
            }
        }
        let candidate = self.skip_known(next?);
        prefix.contains(candidate).then_some(candidate)
    }

    fn skip_known(&self, mut address: IpAddr) -> IpAddr {
        while self.addresses.contains_key(&address) {
            let Some(next) = after(address) else { break };
            address = next;
        }
        address
    }

    pub(super) fn insert_key(&mut self, key: Key, class: u32, sample: IpAddr) -> usize {
        let number = self.keys.len();
        self.known.insert(key.clone(), number);
        self.keys.push(KeyRecord { key, class, sample, users: 0 });
        number
    }
}

/// Returns whether no rule of a policy set asks for the endpoint's own address, whose answer could change with every
/// endpoint.
pub(super) fn fits(program: &Program, id: PolicySetId) -> bool {
    let stages = program.policy_sets.get(&id).map(|set| &set.stages);
    let mut rules = stages.into_iter().flatten().flat_map(|stage| &stage.rules);
    rules.all(|rule| rule.local.is_none())
}

pub(super) fn rules(program: &Program) -> impl Iterator<Item = &Rule> {
    let stages = program.policy_sets.values().flat_map(|set| &set.stages);
    stages.flat_map(|stage| &stage.rules).map(AsRef::as_ref)
}

/// Returns the lists of prefixes that a rule asks for.
pub(super) fn nets(rule: &Rule) -> impl Iterator<Item = &PrefixSet> {
    let lists = rule.remote.nets.iter().chain([&rule.remote.not_nets]);
    lists.filter(|it| !it.is_empty())
}

/// Returns what names single addresses in the members of a set.
pub(super) fn of_members(members: &Members, set: u32) -> Vec<(IpAddr, Item)> {
    match members {
        Members::Addresses { exact, prefixes } => {
            exact.iter().chain(hosts(prefixes)).map(|it| (it, Item::Set(set, None))).collect()
        }
        Members::Ports(ports) => {
            ports.iter().map(|(it, port)| (*it, Item::Set(set, Some(*port)))).collect()
        }
    }
}

/// Returns the single addresses in a list of prefixes.
fn hosts(nets: &PrefixSet) -> impl Iterator<Item = IpAddr> {
    nets.prefixes().iter().filter(|it| it.first() == it.last()).map(|it| it.first())
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => it.to_bits().checked_add(1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(it) => it.to_bits().checked_add(1).map(|it| IpAddr::V6(it.into())),
    }
}

/// Returns whether a list of prefixes has more than one address in some.
pub(super) fn has_blocks(members: &Members) -> bool {
    let Members::Addresses { prefixes, .. } = members else { return false };
    prefixes.prefixes().iter().any(|it| it.first() != it.last())
}
