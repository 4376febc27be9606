//! What deltas need to know of the program in force.
//!
//! A delta names what changed. What follows from that in the table is found here, without a look at the kernel or at the
//! rest of the program: which policies look a set up, where that set is, and what nothing refers to any more.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::model::{L4Match, Mode};
use netpol_core::program::{Address, Endpoint, PolicySet, SetId};
use netpol_core::{Delta, Program};
use netpol_netfilter::Lookups;

use self::census::Census;
use self::members::Changes;
use crate::name::{Name, Place};
use crate::plan::lookups;
use crate::render::{
    Context, Entries, Options, Policies, PolicyRenderer, PolicyUse, Rendered, disposition,
    host_chains, policy_uses,
};
use crate::ruleset::{Fields, Ruleset, Set};

mod census;
mod members;

/// An index of the program in force. What is in it follows from the program and from where its sets are.
#[derive(Debug)]
pub(crate) struct Enforced {
    options: Options,
    census: Census,
    /// Where the sets of exact members are, by the stem of their names.
    places: BTreeMap<String, Place>,
    /// The policy sets that judge endpoints.
    uses: BTreeMap<PolicyUse, Use>,
    /// What leads to the policy of host endpoints, and all below.
    hosts: Use,
    /// Which policy sets refer to an address set.
    users: BTreeMap<SetId, BTreeSet<PolicyUse>>,
    /// How many policy sets need a chain or set; those of hosts count as one.
    needed: BTreeMap<Name, usize>,
}

/// A policy set in one direction.
#[derive(Clone, Debug, Default)]
struct Use {
    /// How many endpoints it judges.
    endpoints: usize,
    /// Where it begins, `None` if it is open.
    entry: Option<Name>,
    /// Its chains.
    chains: BTreeSet<Name>,
    /// The sets that these refer to.
    sets: BTreeSet<Name>,
    /// What they do with sets of exact members.
    lookups: BTreeMap<Name, Lookups<Fields>>,
    /// The address sets that its rules refer to.
    refers: BTreeSet<SetId>,
}

/// What a delta changes in a table.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Sets that stay, with the elements that go.
    pub(crate) before: BTreeMap<Name, Set>,
    /// New objects, and sets that stay with the elements that come.
    pub(crate) after: Ruleset,
    /// Chains that nothing leads to any more.
    pub(crate) dead_chains: Vec<Name>,
    /// Sets that nothing refers to any more.
    pub(crate) dead_sets: Vec<Name>,
}

/// An endpoint as it was, if it was there, and as it is, if it still is.
type Changed<'a> = (Option<&'a Endpoint>, Option<&'a Endpoint>);

impl Enforced {
    /// Returns the index of a program that is in force as it was rendered. `None` if endpoints share an interface or address,
    /// so that deltas could not tell them apart.
    pub(crate) fn of(program: &Program, rendered: &Rendered, options: Options) -> Option<Self> {
        let ruleset = &rendered.ruleset;
        let names = host_chains();
        let roots = names.iter().filter(|it| ruleset.chains.contains_key(it)).collect();
        let hosts = Use { refers: host_sets(program), ..Use::below(ruleset, roots) };
        let mut enforced = Self {
            options,
            census: Census::of(program)?,
            places: BTreeMap::new(),
            uses: BTreeMap::new(),
            hosts,
            users: BTreeMap::new(),
            needed: BTreeMap::new(),
        };
        let needed = enforced.hosts.objects();
        enforced.needed.extend(needed.map(|name| (name.clone(), 1)));
        enforced.note_places(ruleset.sets.keys());
        for key in program.endpoints.iter().flat_map(judges) {
            if !enforced.uses.contains_key(&key) {
                let it = Use::of(key, program, ruleset, rendered.entries.get(&key)?.as_ref())?;
                enforced.need(key, it);
            }
            enforced.uses.get_mut(&key)?.endpoints += 1;
        }
        Some(enforced)
    }

    /// Follows a delta, and returns what it changes in the table. `None` if only the whole program can be put in force: where
    /// what concerns host endpoints changes, where addresses of a family appear for the first time or disappear, where
    /// something cannot be rendered, or where the delta does not fit. The index is of no use then.
    pub(crate) fn advance(&mut self, delta: &Delta) -> Option<Part> {
        let program = delta.program.as_ref();
        let mut endpoints = changed_endpoints(delta);
        let families = self.census.families();
        self.census.advance(delta, &endpoints)?;
        if delta.hosts.is_some() || self.census.families() != families {
            return None;
        }
        let new = self.hold(&endpoints)?;
        let mut changes = Changes::of(delta, &self.places)?;
        let other = self.other(&mut changes, &endpoints)?;
        endpoints.extend(bystanders(&other, program, delta));
        let anew = new.union(&other).copied().collect();
        let mut part = Part::default();
        if !endpoints.is_empty() {
            part.before = self.entries(endpoints.iter().filter_map(|it| it.0))?;
        }
        self.places.extend(changes.new_places());
        self.render(&anew, program, &mut part)?;
        if !endpoints.is_empty() {
            part.after.sets.extend(self.entries(endpoints.iter().filter_map(|it| it.1))?);
        }
        for (name, before, after) in changes.in_place() {
            // One that only new rules refer to is made with all its members.
            if self.needed.contains_key(&name) && !part.after.sets.contains_key(&name) {
                part.before.insert(name.clone(), before);
                part.after.sets.insert(name, after);
            }
        }
        Some(part)
    }

    /// Notes which policy sets judge the changed endpoints, and returns those that are new.
    fn hold(&mut self, endpoints: &[Changed<'_>]) -> Option<BTreeSet<PolicyUse>> {
        for key in endpoints.iter().filter_map(|it| it.0).flat_map(judges) {
            let it = self.uses.get_mut(&key)?;
            it.endpoints = it.endpoints.checked_sub(1)?;
        }
        let mut new = BTreeSet::new();
        for key in endpoints.iter().filter_map(|it| it.1).flat_map(judges) {
            let it = self.uses.entry(key).or_insert_with(|| {
                new.insert(key);
                Use::default()
            });
            it.endpoints += 1;
        }
        Some(new)
    }

    /// Returns the policy sets that stay and become other chains: their prefixes change, or their sets move, as they do
    /// where members must not change in place. `None` if that concerns hosts.
    fn other(
        &self,
        changes: &mut Changes,
        endpoints: &[Changed<'_>],
    ) -> Option<BTreeSet<PolicyUse>> {
        let left: BTreeSet<_> = endpoints.iter().flat_map(|it| left(*it)).collect();
        let redefined = self.users_of(&changes.other_prefixes);
        for key in self.users_of(&changes.sets()).union(&left) {
            let is_kept = !left.contains(key) && !redefined.contains(key);
            changes.settle(&self.uses.get(key)?.lookups, is_kept);
        }
        changes.settle(&self.hosts.lookups, true);
        let elsewhere = changes.elsewhere();
        if !elsewhere.is_disjoint(&self.hosts.refers) {
            return None;
        }
        let stays = |key: &PolicyUse| self.uses.get(key).is_some_and(|it| it.endpoints > 0);
        Some(self.users_of(&elsewhere).into_iter().filter(stays).collect())
    }

    fn users_of(&self, sets: &BTreeSet<SetId>) -> BTreeSet<PolicyUse> {
        sets.iter().filter_map(|it| self.users.get(it)).flatten().copied().collect()
    }

    /// Returns what endpoints have in the maps and sets with fixed names.
    fn entries<'e>(
        &self,
        endpoints: impl Iterator<Item = &'e Endpoint>,
    ) -> Option<BTreeMap<Name, Set>> {
        let mut entries = Entries::default();
        for endpoint in endpoints {
            let entry = |key| Ok(self.uses.get(&key).and_then(|it| it.entry.clone()));
            entries.add(endpoint, &disposition(endpoint, entry).ok()?);
        }
        entries.into_sets().ok()
    }

    /// Renders policy sets, and notes what is needed then and what is not any more.
    fn render(
        &mut self,
        anew: &BTreeSet<PolicyUse>,
        program: &Program,
        part: &mut Part,
    ) -> Option<()> {
        let refused = BTreeMap::new();
        let context = Context { options: self.options, places: &self.places, refused: &refused };
        let families = self.census.families();
        let mut renderer = PolicyRenderer::beside(program, &context, families, &self.needed);
        for &(side, on_allow, id) in anew {
            renderer.entry(side, on_allow, id).ok()?;
        }
        let Policies { ruleset, entries, .. } = renderer.finish();
        let (mut uses, mut missing) = (Vec::new(), BTreeSet::new());
        for &key in anew {
            let it = Use::of(key, program, &ruleset, entries.get(&key)?.as_ref())?;
            missing.extend(it.objects().filter(|it| !self.needed.contains_key(it)).cloned());
            uses.push((key, it));
        }
        let mut old: Vec<_> = uses.into_iter().filter_map(|(key, it)| self.need(key, it)).collect();
        part.after = ruleset;
        part.after.chains.retain(|name, _| missing.contains(name));
        part.after.sets.retain(|name, _| missing.contains(name));
        self.note_places(part.after.sets.keys());
        let unused: Vec<_> =
            self.uses.iter().filter(|it| it.1.endpoints == 0).map(|it| *it.0).collect();
        for key in unused {
            let it = self.uses.remove(&key)?;
            self.unlist(key, &it);
            old.push(it);
        }
        old.iter().for_each(|it| self.release(it, part));
        Some(())
    }

    /// Puts a policy set in the place of the one before, which is returned and needs its objects until it is released.
    fn need(&mut self, key: PolicyUse, new: Use) -> Option<Use> {
        for name in new.objects() {
            *self.needed.entry(name.clone()).or_default() += 1;
        }
        let endpoints = self.uses.get(&key).map(|it| it.endpoints).unwrap_or_default();
        let new = Use { endpoints, ..new };
        let refers = new.refers.clone();
        let old = self.uses.insert(key, new);
        old.iter().for_each(|it| self.unlist(key, it));
        for set in refers {
            self.users.entry(set).or_default().insert(key);
        }
        old
    }

    fn unlist(&mut self, key: PolicyUse, it: &Use) {
        for set in &it.refers {
            let Some(users) = self.users.get_mut(set) else { continue };
            users.remove(&key);
            if users.is_empty() {
                self.users.remove(set);
            }
        }
    }

    fn release(&mut self, old: &Use, part: &mut Part) {
        for (names, dead) in
            [(&old.chains, &mut part.dead_chains), (&old.sets, &mut part.dead_sets)]
        {
            for name in names {
                let Some(count) = self.needed.get_mut(name) else { continue };
                *count -= 1;
                if *count == 0 {
                    self.needed.remove(name);
                    dead.push(name.clone());
                    forget_place(&mut self.places, name);
                }
            }
        }
    }

    fn note_places<'n>(&mut self, names: impl Iterator<Item = &'n Name>) {
        let placed = names.filter_map(Name::place);
        self.places.extend(placed.map(|(stem, place)| (stem.to_owned(), place)));
    }
}

/// Forgets where a set is that is gone, unless it has only moved.
fn forget_place(places: &mut BTreeMap<String, Place>, name: &Name) {
    if let Some((stem, place)) = name.place()
        && places.get(stem) == Some(&place)
    {
        places.remove(stem);
    }
}

impl Use {
    fn of(
        (_, _, id): PolicyUse,
        program: &Program,
        ruleset: &Ruleset,
        entry: Option<&Name>,
    ) -> Option<Self> {
        let refers = sets_of(program.policy_sets.get(&id)?);
        let entry = entry.cloned();
        Some(Self { refers, entry: entry.clone(), ..Self::below(ruleset, entry.iter().collect()) })
    }

    fn below(ruleset: &Ruleset, roots: Vec<&Name>) -> Self {
        let lookups = lookups(ruleset, roots.clone());
        let below = ruleset.below(roots).into_iter().cloned();
        let (chains, sets) = below.partition(|name| ruleset.chains.contains_key(name));
        Self { chains, sets, lookups, ..Self::default() }
    }

    fn objects(&self) -> impl Iterator<Item = &Name> {
        self.chains.iter().chain(&self.sets)
    }
}

/// Returns the policy sets that judge an endpoint; none if it is open or closed.
fn judges(endpoint: &Endpoint) -> impl Iterator<Item = PolicyUse> {
    let uses = (endpoint.mode == Mode::Enforce).then(|| policy_uses(endpoint));
    uses.into_iter().flatten()
}

/// Returns the policy sets that judge an endpoint no more, although it stays.
fn left((before, after): Changed<'_>) -> Vec<PolicyUse> {
    let Some(after) = after else { return Vec::new() };
    let after: Vec<_> = judges(after).collect();
    before.into_iter().flat_map(judges).filter(|it| !after.contains(it)).collect()
}

fn changed_endpoints(delta: &Delta) -> Vec<Changed<'_>> {
    let changed = delta.endpoints.iter().map(|it| (it.old.as_ref(), Some(&it.new)));
    changed.chain(delta.removed_endpoints.iter().map(|it| (Some(it), None))).collect()
}

/// Returns the endpoints that a delta does not name and that these policy sets judge.
fn bystanders<'p>(
    uses: &BTreeSet<PolicyUse>,
    program: &'p Program,
    delta: &Delta,
) -> Vec<Changed<'p>> {
    if uses.is_empty() {
        return Vec::new();
    }
    let is_named =
        |it: &Endpoint| delta.endpoints.binary_search_by(|one| one.new.id.cmp(&it.id)).is_ok();
    let concerned = program.endpoints.iter().filter(|it| judges(it).any(|key| uses.contains(&key)));
    concerned.filter(|it| !is_named(it)).map(|it| (Some(it), Some(it))).collect()
}

/// Returns the address sets that the rules of a policy set refer to.
fn sets_of(set: &PolicySet) -> BTreeSet<SetId> {
    let mut sets = BTreeSet::new();
    for rule in set.stages.iter().flat_map(|stage| &stage.rules) {
        let of_address = |it: &Address| [it.in_set, it.not_in_set];
        let addresses = [Some(&rule.remote), rule.local.as_ref()].into_iter().flatten();
        sets.extend(addresses.flat_map(of_address).flatten());
        if let L4Match::Ports { source, destination, .. } = &rule.l4 {
            let lists =
                [&source.any_of, &source.none_of, &destination.any_of, &destination.none_of];
            sets.extend(lists.into_iter().flatten().flat_map(|it| &it.sets));
        }
    }
    sets
}

/// Returns the address sets that host endpoints and their policy refer to.
fn host_sets(program: &Program) -> BTreeSet<SetId> {
    let hosts = &program.hosts;
    let ids = hosts.endpoints.iter().flat_map(|it| {
        let everywhere = it.normal.into_iter().map(Some);
        everywhere.chain(it.untracked).chain(it.forward).chain([it.pre_dnat])
    });
    let policies = ids.flatten().filter_map(|it| program.policy_sets.get(&it));
    policies.flat_map(|it| sets_of(it)).chain(hosts.nodes).collect()
}
