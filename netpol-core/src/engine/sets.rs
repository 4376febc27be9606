//! Address sets: which exist, and who is in them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::IpAddr;

use super::endpoints::{Endpoints, PortList};
use super::labels::LabelStore;
use super::selectors::SelectorIndex;
use super::store::{Finder, Id, Slab};
use super::views::{Time, View, Views};
use super::world::{World, split_hosts};
use crate::dataplane::{Edit, MembersChange};
use crate::model::{NamedPort, Peers, ServiceName};
use crate::net::{Prefix, PrefixSet};
use crate::program::{AddressSet, Members, Program, SetDefinition, SetId};
use crate::selector::Selector;

/// A set that some block refers to.
#[derive(Debug)]
pub(super) struct SetRecord {
    id: SetId,
    definition: SetDefinition,
    /// The blocks of network sets in it, single addresses included.
    nets: PrefixSet,
    /// How many references blocks have to it.
    holders: u32,
    /// How many blocks of the program refer to it.
    uses: u32,
    is_in_program: bool,
}

/// What a holder of an address brings into sets: what selectors see of it, and its named ports. Both counted.
pub(super) type Contribution = (Id<View>, Option<Id<PortList>>);

/// All sets.
#[derive(Default)]
pub(super) struct Sets {
    records: Slab<SetRecord>,
    by_definition: Finder<SetRecord>,
    /// Of the sets in the program whose members are seen through views.
    by_selector: SelectorIndex<Id<SetRecord>>,
    /// The sets in the program whose members are backends of Services.
    by_service: BTreeMap<ServiceName, BTreeSet<Id<SetRecord>>>,
    /// The other sets in the program.
    others: BTreeSet<Id<SetRecord>>,
    /// Sets that may have come into the program or have left it.
    pending: BTreeSet<Id<SetRecord>>,
}

/// What became of sets. Sorted.
#[derive(Debug, Default)]
pub(super) struct SetChanges {
    pub(super) new: Vec<SetId>,
    pub(super) members: Vec<MembersChange>,
    pub(super) removed: Vec<(SetId, Arc<AddressSet>)>,
}

/// What members are made of.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) views: &'a Views,
    pub(super) endpoints: &'a Endpoints,
    pub(super) world: &'a World,
}

impl SetRecord {
    /// Returns the selector whose views are in the set, `None` if it has nothing to do with views.
    fn selector(&self) -> Option<Selector> {
        match &self.definition {
            SetDefinition::Addresses(Peers::Endpoints(selector)) => Some(selector.clone()),
            SetDefinition::Addresses(
                Peers::Nodes(_)
                | Peers::DomainNames(_)
                | Peers::Tenants { .. }
                | Peers::BackendsOf(_),
            )
            | SetDefinition::BackendPorts { .. } => None,
            SetDefinition::NamedPort { endpoints, .. } => {
                Some(endpoints.clone().unwrap_or_else(Selector::all))
            }
        }
    }

    /// Returns the Service whose backends are in the set.
    const fn service(&self) -> Option<&ServiceName> {
        match &self.definition {
            SetDefinition::Addresses(Peers::BackendsOf(service))
            | SetDefinition::BackendPorts { service, .. } => Some(service),
            SetDefinition::Addresses(_) | SetDefinition::NamedPort { .. } => None,
        }
    }

    /// Returns the ports that an endpoint brings in, `None` if the set has addresses.
    fn ports<'a>(&'a self, ports: &'a [NamedPort]) -> Option<impl Iterator<Item = u16> + 'a> {
        let SetDefinition::NamedPort { transport, name, .. } = &self.definition else {
            return None;
        };
        let meant = move |it: &&NamedPort| it.transport == *transport && it.name == *name;
        Some(ports.iter().filter(meant).map(|it| it.port))
    }

    fn has_host(&self, address: IpAddr) -> bool {
        self.nets.prefixes().binary_search(&Prefix::host(address)).is_ok()
    }
}

/// References.
impl Sets {
    /// Returns the set with a definition, held once more, and its id.
    pub(super) fn hold(&mut self, definition: SetDefinition) -> (Id<SetRecord>, SetId) {
        let hash = self.by_definition.hash(&definition);
        let is_it = |id| self.records[id].definition == definition;
        if let Some(id) = self.by_definition.find(hash, is_it) {
            self.records[id].holders += 1;
            return (id, self.records[id].id);
        }
        let id = SetId::of(&definition);
        let nets = PrefixSet::default();
        let record = SetRecord { id, definition, nets, holders: 1, uses: 0, is_in_program: false };
        let record = self.records.insert(record);
        let Self { records, by_definition, .. } = self;
        let hasher = by_definition.hasher().clone();
        by_definition.insert(hash, record, |id| hasher.hash_one(&records[id].definition));
        (record, id)
    }

    /// Gives up a hold.
    pub(super) fn let_go(&mut self, id: Id<SetRecord>) {
        self.records[id].holders -= 1;
        self.forget(id);
    }

    fn forget(&mut self, id: Id<SetRecord>) {
        let record = &self.records[id];
        if record.holders > 0 || record.is_in_program {
            return;
        }
        self.pending.remove(&id);
        let Self { records, by_definition, .. } = self;
        let hasher = by_definition.hasher().clone();
        let rehash = |id| hasher.hash_one(&records[id].definition);
        by_definition.remove(rehash(id), id, rehash);
        records.remove(id);
    }

    /// Says that one more block of the program refers to a set.
    pub(super) fn use_it(&mut self, id: Id<SetRecord>) {
        self.records[id].uses += 1;
        self.pending.insert(id);
    }

    /// Says that a block of the program that refers to a set is gone.
    pub(super) fn unuse(&mut self, id: Id<SetRecord>) {
        self.records[id].uses -= 1;
        self.pending.insert(id);
    }

    /// Returns whether any set of the program can be changed by what happens to endpoints.
    pub(super) fn follow_views(&self) -> bool {
        self.by_selector.counts()[0] > 0
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 7] {
        let [selectors, places, users] = self.by_selector.counts();
        let (records, services) = (self.records.len(), self.by_service.len());
        let (others, pending) = (self.others.len(), self.pending.len());
        [records, selectors, places, users, services, others, pending]
    }
}

/// Members.
impl Sets {
    /// Brings the program's sets up to date: removes those that nothing refers to, changes members of those that stay, and
    /// adds the new ones. `dirty` has, for each address whose holders may have changed, what they brought in.
    pub(super) fn update(
        &mut self,
        dirty: &BTreeMap<IpAddr, Vec<Contribution>>,
        views: &mut Views,
        endpoints: &Endpoints,
        world: &World,
        program: &mut Program,
    ) -> SetChanges {
        let (mut new, mut removed) = (Vec::new(), Vec::new());
        for id in core::mem::take(&mut self.pending) {
            match (self.records[id].is_in_program, self.records[id].uses > 0) {
                (false, true) => new.push(id),
                (true, false) => removed.extend(self.leave(id, &mut views.labels, program)),
                (true, true) | (false, false) => {}
            }
        }
        removed.sort_unstable_by_key(|(id, _)| *id);
        let sources = Sources { views, endpoints, world };
        let mut edits = Edits { program, by_set: BTreeMap::new() };
        self.change_network_sets(sources, &mut edits);
        self.change_holders(dirty, sources, &mut edits);
        self.change_backends(world, &mut edits);
        self.change_others(world, &mut edits);
        let members = edits.finish();
        let new = new.into_iter().map(|id| self.enter(id, views, endpoints, world, program));
        let mut new: Vec<_> = new.collect();
        new.sort_unstable();
        SetChanges { new, members, removed }
    }

    /// Takes a set out of the program.
    fn leave(
        &mut self,
        id: Id<SetRecord>,
        labels: &mut LabelStore,
        program: &mut Program,
    ) -> Option<(SetId, Arc<AddressSet>)> {
        let record = &self.records[id];
        match (record.selector(), record.service()) {
            (Some(selector), _) => self.by_selector.remove(&selector, id, labels),
            (None, Some(service)) => {
                if let Some(sets) = self.by_service.get_mut(service) {
                    sets.remove(&id);
                    if sets.is_empty() {
                        self.by_service.remove(service);
                    }
                }
            }
            (None, None) => drop(self.others.remove(&id)),
        }
        let record = &mut self.records[id];
        record.is_in_program = false;
        record.nets = PrefixSet::default();
        let name = record.id;
        self.forget(id);
        Some((name, program.address_sets.remove(&name)?))
    }

    /// Puts a set into the program, with its members.
    fn enter(
        &mut self,
        id: Id<SetRecord>,
        views: &mut Views,
        endpoints: &Endpoints,
        world: &World,
        program: &mut Program,
    ) -> SetId {
        let record = &mut self.records[id];
        record.is_in_program = true;
        let members = match record.selector() {
            Some(selector) => {
                self.by_selector.insert(&selector, id, &mut views.labels);
                let selected = views.selected_by(&selector);
                record.members(&selected, views, endpoints, world)
            }
            None => {
                match record.service() {
                    Some(it) => self.by_service.entry(it.clone()).or_default().insert(id),
                    None => self.others.insert(id),
                };
                world.members(&record.definition)
            }
        };
        let set = AddressSet::new(record.definition.clone(), members);
        program.address_sets.insert(record.id, Arc::new(set));
        record.id
    }

    /// Follows network sets that came, went or changed, by themselves or with their namespace.
    fn change_network_sets(&mut self, sources: Sources<'_>, edits: &mut Edits<'_>) {
        let Sources { views, endpoints, world } = sources;
        if !world.has_changed() && !views.has_changed() {
            return;
        }
        let mut changed = world.changed_views();
        changed.extend(views.changed().into_iter().filter(|it| world.has_network_set(*it)));
        let selecting =
            |view, time| self.by_selector.users_selecting(view, time, views).into_iter();
        let at = |view| selecting(view, Time::Settled).chain(selecting(view, Time::Now));
        let affected: BTreeSet<_> = changed.into_iter().flat_map(at).collect();
        for id in affected {
            let record = &mut self.records[id];
            let SetDefinition::Addresses(Peers::Endpoints(selector)) = &record.definition else {
                continue;
            };
            let nets = world.selected_nets(selector, views);
            let is_held = |address| {
                let views_of = endpoints.holders(address).map(|it| endpoints.record_of(it).view);
                views_of.into_iter().any(|it| selector.matches(&views.seen(it, Time::Now)))
            };
            let (hosts, blocks) = split_hosts(&nets);
            let hosts: BTreeSet<_> = hosts.collect();
            let (hosts_before, _) = split_hosts(&record.nets);
            for address in hosts_before.filter(|it| !hosts.contains(it) && !is_held(*it)) {
                edits.address(id, record.id, address, false);
            }
            for &address in &hosts {
                edits.address(id, record.id, address, true);
            }
            edits.prefixes(id, record.id, blocks);
            record.nets = nets;
        }
    }

    /// Follows addresses whose holders, or the labels or ports of these, may have changed.
    fn change_holders(
        &self,
        dirty: &BTreeMap<IpAddr, Vec<Contribution>>,
        sources: Sources<'_>,
        edits: &mut Edits<'_>,
    ) {
        let Sources { views, endpoints, .. } = sources;
        let labels_changed = views.has_changed();
        let mut known: BTreeMap<_, Arc<[Id<SetRecord>]>> = BTreeMap::new();
        let mut sets_of = |view: Id<View>, time: Time| {
            let time = if labels_changed { time } else { Time::Now };
            let ask = || self.by_selector.users_selecting(view, time, views).into();
            Arc::clone(known.entry((view, time)).or_insert_with(ask))
        };
        for (&address, before) in dirty {
            let now = endpoints.contributions(address);
            if *before == now && !labels_changed {
                continue;
            }
            let mut with_sets = |them: &[Contribution], time: Time| -> Vec<_> {
                them.iter().map(|&it| (it, sets_of(it.0, time))).collect()
            };
            let (old, new) = (with_sets(before, Time::Settled), with_sets(&now, Time::Now));
            let touched = old.iter().chain(&new).flat_map(|(_, sets)| sets.iter().copied());
            for id in touched.collect::<BTreeSet<_>>() {
                let inside = |them: &[(Contribution, Arc<[Id<SetRecord>]>)]| -> Vec<_> {
                    let inside = them.iter().filter(|(_, sets)| sets.binary_search(&id).is_ok());
                    inside.map(|(it, _)| *it).collect()
                };
                self.change_holder(id, address, [inside(&old), inside(&new)], endpoints, edits);
            }
        }
    }

    /// Follows one address in one set: what those of its holders bring in that the set's selector selected, and selects.
    fn change_holder(
        &self,
        id: Id<SetRecord>,
        address: IpAddr,
        [was, is]: [Vec<Contribution>; 2],
        endpoints: &Endpoints,
        edits: &mut Edits<'_>,
    ) {
        let record = &self.records[id];
        if !matches!(record.definition, SetDefinition::NamedPort { .. }) {
            let is_member = !is.is_empty() || record.has_host(address);
            edits.address(id, record.id, address, is_member);
            return;
        }
        let ports = |them: Vec<Contribution>| {
            let lists = them.into_iter().map(|(_, list)| endpoints.ports_of(list));
            let ports = lists.flat_map(|list| record.ports(list).into_iter().flatten());
            ports.collect::<BTreeSet<_>>()
        };
        let (was, is) = (ports(was), ports(is));
        for &port in was.difference(&is) {
            edits.port(id, record.id, (address, port), false);
        }
        for &port in is.difference(&was) {
            edits.port(id, record.id, (address, port), true);
        }
    }

    /// Follows slices that came, went or changed.
    fn change_backends(&self, world: &World, edits: &mut Edits<'_>) {
        let sets = world.changed_services().iter().filter_map(|it| self.by_service.get(it));
        for &id in sets.flatten() {
            let record = &self.records[id];
            edits.replace(id, record.id, world.members(&record.definition));
        }
    }

    /// Follows the other sets that have nothing to do with views.
    fn change_others(&self, world: &World, edits: &mut Edits<'_>) {
        if !world.others_changed() {
            return;
        }
        for &id in &self.others {
            let record = &self.records[id];
            edits.replace(id, record.id, world.members(&record.definition));
        }
    }
}

impl SetRecord {
    /// Returns the members, given the views that the set's selector selects.
    fn members(
        &mut self,
        selected: &[Id<View>],
        views: &Views,
        endpoints: &Endpoints,
        world: &World,
    ) -> Members {
        let owned = selected.iter().flat_map(|view| views.endpoints_of(*view)).flat_map(|it| {
            let addresses = endpoints.record_of(it).addresses().iter();
            let owned = addresses.filter(move |address| endpoints.is_holder(it, **address));
            owned.map(move |address| (*address, it))
        });
        if matches!(self.definition, SetDefinition::NamedPort { .. }) {
            let ports_of = |(address, owner)| {
                let list = endpoints.ports_of(endpoints.record_of(owner).ports);
                let numbers = self.ports(list).into_iter().flatten();
                numbers.map(move |number| (address, number)).collect::<Vec<_>>()
            };
            return Members::Ports(owned.flat_map(ports_of).collect());
        }
        self.nets = world.nets_of(selected);
        let (hosts, prefixes) = split_hosts(&self.nets);
        Members::Addresses {
            exact: owned.map(|(address, _)| address).chain(hosts).collect(),
            prefixes,
        }
    }
}

/// Changes of members, made in a program and noted.
struct Edits<'p> {
    program: &'p mut Program,
    by_set: BTreeMap<Id<SetRecord>, Noted>,
}

/// What changed in a set: each member that came (`true`) or went.
struct Noted {
    set: SetId,
    addresses: BTreeMap<IpAddr, bool>,
    ports: BTreeMap<(IpAddr, u16), bool>,
    prefixes: Edit<Prefix>,
}

impl Edits<'_> {
    fn address(&mut self, id: Id<SetRecord>, set: SetId, address: IpAddr, is_member: bool) {
        // Looked at first, because what is shared is copied where it is changed.
        let before = self.program.address_sets.get(&set);
        if before.is_none_or(|it| it.members.contains_exact(address) == is_member) {
            return;
        }
        let Some(Members::Addresses { exact, .. }) = members_mut(self.program, set) else { return };
        if is_member {
            exact.insert(address)
        } else {
            exact.remove(address)
        };
        toggle(&mut self.noted(id, set).addresses, address, is_member);
    }

    fn port(&mut self, id: Id<SetRecord>, set: SetId, port: (IpAddr, u16), is_member: bool) {
        let Some(Members::Ports(ports)) = members_mut(self.program, set) else { return };
        let changed = if is_member { ports.insert(port) } else { ports.remove(&port) };
        if changed {
            toggle(&mut self.noted(id, set).ports, port, is_member);
        }
    }

    fn prefixes(&mut self, id: Id<SetRecord>, set: SetId, now: PrefixSet) {
        let Some(Members::Addresses { prefixes, .. }) = members_mut(self.program, set) else {
            return;
        };
        let missing_in = |one: &PrefixSet, other: &PrefixSet| -> Vec<Prefix> {
            let is_missing = |it: &&Prefix| other.prefixes().binary_search(it).is_err();
            one.prefixes().iter().filter(is_missing).copied().collect()
        };
        let edit = Edit { added: missing_in(&now, prefixes), removed: missing_in(prefixes, &now) };
        if !edit.is_empty() {
            *prefixes = now;
            self.noted(id, set).prefixes = edit;
        }
    }

    /// Gives a set other members of the same kind.
    fn replace(&mut self, id: Id<SetRecord>, set: SetId, now: Members) {
        let Some(before) = self.program.address_sets.get(&set) else { return };
        match (&before.members, now) {
            (Members::Addresses { exact, .. }, Members::Addresses { exact: now, prefixes }) => {
                let gone: Vec<_> = exact.iter().filter(|it| !now.contains(*it)).collect();
                gone.into_iter().for_each(|it| self.address(id, set, it, false));
                now.iter().for_each(|it| self.address(id, set, it, true));
                self.prefixes(id, set, prefixes);
            }
            (Members::Ports(before), Members::Ports(now)) => {
                let gone: Vec<_> = before.difference(&now).copied().collect();
                let come: Vec<_> = now.difference(before).copied().collect();
                gone.into_iter().for_each(|it| self.port(id, set, it, false));
                come.into_iter().for_each(|it| self.port(id, set, it, true));
            }
            (Members::Addresses { .. }, Members::Ports(_))
            | (Members::Ports(_), Members::Addresses { .. }) => {
                debug_assert!(false, "what a set holds follows from its definition");
            }
        }
    }

    fn noted(&mut self, id: Id<SetRecord>, set: SetId) -> &mut Noted {
        self.by_set.entry(id).or_insert_with(|| Noted {
            set,
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            prefixes: Edit::default(),
        })
    }

    /// Returns what changed, by set.
    fn finish(self) -> Vec<MembersChange> {
        let changes = self.by_set.into_values().map(|noted| {
            let mut change = MembersChange::new(noted.set);
            change.addresses = edit_of(noted.addresses);
            change.ports = edit_of(noted.ports);
            change.prefixes = noted.prefixes;
            change
        });
        let mut changes: Vec<_> = changes.filter(|change| !change.is_empty()).collect();
        changes.sort_unstable_by_key(|change| change.set);
        changes
    }
}

fn members_mut(program: &mut Program, set: SetId) -> Option<&mut Members> {
    program.address_sets.get_mut(&set).map(|it| &mut Arc::make_mut(it).members)
}

/// Notes that a member came or went. One that comes and goes again was never there.
fn toggle<T: Ord>(noted: &mut BTreeMap<T, bool>, member: T, is_member: bool) {
    if noted.get(&member) == Some(&!is_member) {
        noted.remove(&member);
    } else {
        noted.insert(member, is_member);
    }
}

fn edit_of<T>(noted: BTreeMap<T, bool>) -> Edit<T> {
    let mut edit = Edit::default();
    for (member, came) in noted {
        if came { edit.added.push(member) } else { edit.removed.push(member) }
    }
    edit
}
