//! The steps from an observed state to a desired one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::IptablesError;
use crate::name::{Fixed, Name, Owner, Side};
use crate::observe::{Observed, ObservedSet, Table};
use crate::probe::TableId;
use crate::render::hook_chains;
use crate::ruleset::{Chain, Key, Member, Rule, Ruleset, Set, Shape};

/// Ordered changes. **Make before break**: nothing is referred to before it exists, nothing is removed while something
/// in force refers to it, and a failure before the sweep can be taken back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Plan {
    /// New sets, and changes of sets that nothing in force refers to.
    pub(crate) prepare: Vec<SetChange>,
    /// Changes of sets in force. Each packet sees at most one of them, see [`together`].
    pub(crate) members: Vec<SetChange>,
    /// What takes `members` back.
    pub(crate) members_back: Vec<SetChange>,
    /// New and changed chains. Those of a table change in one step.
    pub(crate) switch: BTreeMap<TableId, Vec<ChainChange>>,
    /// Jumps that are missing or not the first of their built-in chain.
    pub(crate) hooks: BTreeMap<TableId, Vec<HookChange>>,
    /// Jumps of ours that are not wanted: the built-in chains, and the chains that they enter.
    pub(crate) sweep_hooks: BTreeMap<TableId, Vec<(String, Name)>>,
    /// Chains of ours that are not wanted.
    pub(crate) sweep_chains: BTreeMap<TableId, Vec<Name>>,
    /// Sets of ours that are not wanted.
    pub(crate) sweep_sets: Vec<Name>,
}

impl Plan {
    fn set_hooks(
        &mut self,
        owner: &Owner,
        observed: &Observed,
        id: TableId,
        chains: &BTreeMap<Name, Chain>,
    ) {
        let hooks = hooks(owner, observed, id, chains);
        if !hooks.is_empty() {
            self.hooks.insert(id, hooks);
        }
    }

    /// Returns the tables that change before the sweep.
    pub(crate) fn tables(&self) -> BTreeSet<TableId> {
        self.switch.keys().chain(self.hooks.keys()).copied().collect()
    }
}

/// A change of a set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SetChange {
    Create { set: Name, shape: Shape, members: usize },
    Add { set: Name, member: Member },
    Remove { set: Name, member: Member },
    Swap { one: Name, other: Name },
    Destroy { set: Name },
}

impl SetChange {
    /// Returns the set that changes.
    pub(crate) fn set(&self) -> &Name {
        match self {
            Self::Create { set, .. }
            | Self::Add { set, .. }
            | Self::Remove { set, .. }
            | Self::Destroy { set } => set,
            Self::Swap { other, .. } => other,
        }
    }
}

/// A change of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ChainChange {
    /// The chain is made, or emptied, and has these rules then.
    Replace { name: Name, chain: Chain },
    /// The chain has these rules more.
    Append { name: Name, rules: Vec<Rule> },
}

impl ChainChange {
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::Replace { name, .. } | Self::Append { name, .. } => name,
        }
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        match self {
            Self::Replace { chain, .. } => &chain.rules,
            Self::Append { rules, .. } => rules,
        }
    }
}

/// A change of the jumps in a built-in chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HookChange {
    pub(crate) hook: &'static str,
    /// The chain that must be entered first.
    pub(crate) chain: Name,
    /// Our jumps that are in the wrong place, by the chains that they enter.
    pub(crate) misplaced: Vec<Name>,
}

/// The largest set that is made without counting: the default of `maxelem` (ipset(8)).
const DEFAULT_LIMIT: usize = 65_536;

/// Returns the most members that a new set of `members` takes.
pub(crate) fn limit(members: usize) -> usize {
    members.saturating_mul(2).next_power_of_two().max(DEFAULT_LIMIT)
}

/// Returns the steps that turn what was observed into what is desired; none if they are equal.
///
/// # Errors
///
/// [`IptablesError::ForeignSet`] if a set in force has one of our names and is not as we make them.
pub(crate) fn plan(
    owner: &Owner,
    observed: &Observed,
    desired: &Ruleset,
) -> Result<Plan, IptablesError> {
    let mut plan = Plan::default();
    let live = observed.live_sets();
    for (name, set) in &desired.sets {
        plan_set(owner, observed, live.contains(name), name, set, &mut plan)?;
    }
    for (&id, chains) in &desired.chains {
        let changed = chains.iter().filter(|(name, chain)| {
            !observed.chain(id, name).is_some_and(|listed| listed.is(chain))
        });
        let replace = |(name, chain): (&Name, &Chain)| ChainChange::Replace {
            name: name.clone(),
            chain: chain.clone(),
        };
        let changes: Vec<ChainChange> = changed.map(replace).collect();
        if !changes.is_empty() {
            plan.switch.insert(id, changes);
        }
        plan.set_hooks(owner, observed, id, chains);
    }
    let nothing = BTreeMap::new();
    for (&id, table) in &observed.tables {
        let wanted = desired.chains.get(&id).unwrap_or(&nothing);
        let extra = table.chains.keys().filter(|it| !wanted.contains_key(*it));
        let extra: Vec<Name> = extra.cloned().collect();
        if !extra.is_empty() {
            plan.sweep_chains.insert(id, extra);
        }
        let hooks = hook_chains(owner, id.table, wanted);
        let is_wanted = |built_in: &str| hooks.iter().any(|(hook, _)| *hook == built_in);
        let extra = table.hooks.iter().filter(|(built_in, _)| !is_wanted(built_in));
        let jumps = extra.flat_map(|(built_in, jumps)| {
            jumps.iter().map(move |(_, chain)| (built_in.clone(), chain.clone()))
        });
        let jumps: Vec<(String, Name)> = jumps.collect();
        if !jumps.is_empty() {
            plan.sweep_hooks.insert(id, jumps);
        }
    }
    let extra = observed.sets.keys().filter(|name| !desired.sets.contains_key(*name));
    plan.sweep_sets = extra.cloned().collect();
    Ok(plan)
}

/// Returns the steps that isolate endpoints and change nothing else. `lists` are the chains of these endpoints alone.
pub(crate) fn plan_isolation(
    owner: &Owner,
    observed: &Observed,
    lists: &BTreeMap<TableId, BTreeMap<Name, Chain>>,
) -> Plan {
    let appended = [Fixed::IsolatedFrom, Fixed::IsolatedTo, Fixed::IsolatedAt, Fixed::Endpoints];
    let appended = appended.map(|it| owner.chain(it));
    let kept = [Fixed::Own, Fixed::Related, Fixed::Egress, Fixed::Ingress, Fixed::Encapsulated];
    let kept: Vec<Name> = kept.into_iter().chain(HOSTS).map(|it| owner.chain(it)).collect();
    let mut plan = Plan::default();
    for (&id, chains) in lists {
        let change = |(name, chain): (&Name, &Chain)| match observed.chain(id, name) {
            Some(listed) if kept.contains(name) || listed.is(chain) => None,
            Some(listed) if appended.contains(name) => {
                let rules: Vec<Rule> = listed.missing(&chain.rules).into_iter().cloned().collect();
                let append = ChainChange::Append { name: name.clone(), rules };
                (!append.rules().is_empty()).then_some(append)
            }
            _ => Some(ChainChange::Replace { name: name.clone(), chain: chain.clone() }),
        };
        let changes: Vec<ChainChange> = chains.iter().filter_map(change).collect();
        if !changes.is_empty() {
            plan.switch.insert(id, changes);
        }
        plan.set_hooks(owner, observed, id, chains);
    }
    plan
}

/// The chains where the policy of host endpoints begins, in any table.
pub(crate) const HOSTS: [Fixed; 6] = [
    Fixed::HostInput,
    Fixed::HostOutput,
    Fixed::HostForward,
    Fixed::RawInput,
    Fixed::RawOutput,
    Fixed::BeforeNat,
];

/// Returns the sets in force, by their name in the first slot, that are in the second.
pub(crate) fn second_slots(owner: &Owner, observed: &Observed) -> BTreeSet<Name> {
    let live = observed.live_sets();
    let first_of = |name: &&Name| {
        let first = owner.other_slot(name).filter(|_| is_second(name))?;
        (!live.contains(&first)).then_some(first)
    };
    live.iter().filter_map(first_of).collect()
}

/// Returns the sets, by their name in the first slot, that are to be in the second after these have changed slot.
pub(crate) fn switched(
    owner: &Owner,
    mut second: BTreeSet<Name>,
    together: &BTreeSet<Name>,
) -> BTreeSet<Name> {
    for name in together {
        match owner.other_slot(name) {
            Some(first) if is_second(name) => drop(second.remove(&first)),
            Some(_) => drop(second.insert(name.clone())),
            None => {}
        }
    }
    second
}

fn is_second(name: &Name) -> bool {
    matches!(name.as_str().rsplit_once('-'), Some((stem, _)) if stem.ends_with(['t', 'r']))
}

/// Returns the sets of `desired` that must change to their other slot.
///
/// The members of one set can change in place: each packet meets the old membership of its address or the new one. That
/// is not enough where a packet would see another part of its policy change at another time: where several sets below
/// the policy of one endpoint and direction change, or one does and the chains change too. Such sets are made anew and
/// appear together with the chains. Endpoints that go away do not count.
pub(crate) fn together(owner: &Owner, observed: &Observed, desired: &Ruleset) -> BTreeSet<Name> {
    let changed = changed_sets(observed, desired);
    let of_other_type = changed.iter().filter(|name| needs_other_type(observed, desired, name));
    let mut together: BTreeSet<Name> = of_other_type.map(|name| (*name).clone()).collect();
    if changed.is_empty() {
        return together;
    }
    let empty = Table::default();
    for (&id, chains) in &desired.chains {
        let table = observed.tables.get(&id).unwrap_or(&empty);
        together.extend(together_of_hosts(owner, table, chains, &changed));
        for side in Side::BOTH {
            for (before, after) in entries(owner, side, table, chains) {
                let sets_before = before.map(|it| table.sets_below(it)).unwrap_or_default();
                let sets_after = after.map(|it| sets_below(chains, it)).unwrap_or_default();
                let seen = sets_before.union(&sets_after).copied();
                let seen: BTreeSet<&Name> = seen.filter(|it| changed.contains(it)).collect();
                if seen.len() > 1 || (seen.len() == 1 && before != after) {
                    together.extend(seen.into_iter().cloned());
                }
            }
        }
    }
    together
}

/// Returns the sets that must change slot because the policy of host endpoints has them. A packet may meet all chains of
/// host endpoints in a table.
fn together_of_hosts(
    owner: &Owner,
    table: &Table,
    chains: &BTreeMap<Name, Chain>,
    changed: &BTreeSet<&Name>,
) -> BTreeSet<Name> {
    let roots = HOSTS.map(|it| owner.chain(it));
    let before = roots.iter().flat_map(|root| table.sets_below(root));
    let after = roots.iter().flat_map(|root| sets_below(chains, root));
    let seen: BTreeSet<Name> =
        before.chain(after).filter(|it| changed.contains(it)).cloned().collect();
    let below = |root| reachable(chains, root);
    let is_same = |name: &Name| match (table.chains.get(name), chains.get(name)) {
        (Some(listed), Some(chain)) => listed.is(chain),
        (None, chain) => chain.is_none(),
        (Some(_), None) => false,
    };
    let is_changed = || roots.iter().flat_map(below).any(|name| !is_same(name));
    if seen.len() > 1 || (seen.len() == 1 && is_changed()) { seen } else { BTreeSet::new() }
}

/// Returns where packets of each endpoint go and will go; none of those that go away.
fn entries<'a>(
    owner: &Owner,
    side: Side,
    table: &'a Table,
    chains: &'a BTreeMap<Name, Chain>,
) -> Vec<(Option<&'a Name>, Option<&'a Name>)> {
    let dispatch = owner.chain(side.dispatch());
    let before = table.dispatch(&dispatch);
    let after = desired_dispatch(chains, &dispatch);
    let entry = |key: Key| [&before, &after].map(|map| map.get(&key).copied());
    let endpoints = chains.get(&owner.chain(Fixed::Endpoints));
    let endpoints = endpoints.into_iter().flat_map(|chain| &chain.rules).filter_map(Rule::key);
    endpoints.map(|key| entry(key).into()).collect()
}

/// Returns where a desired list leads the packets of each endpoint.
pub(crate) fn desired_dispatch<'a>(
    chains: &'a BTreeMap<Name, Chain>,
    root: &Name,
) -> BTreeMap<Key, &'a Name> {
    let mut dispatch = BTreeMap::new();
    let mut todo: Vec<&Chain> = chains.get(root).into_iter().collect();
    while let Some(chain) = todo.pop() {
        for rule in &chain.rules {
            match (rule.key(), rule.action.target()) {
                (Some(key), Some(target)) => drop(dispatch.insert(key, target)),
                (None, Some(part)) => todo.extend(chains.get(part)),
                (_, None) => {}
            }
        }
    }
    dispatch
}

/// Returns the sets in force whose members change, or whose type does.
fn changed_sets<'d>(observed: &Observed, desired: &'d Ruleset) -> BTreeSet<&'d Name> {
    let live = observed.live_sets();
    let changed = |(name, set): &(&Name, &Set)| {
        live.contains(name) && observed.sets.get(*name).is_some_and(|it| !is_same(it, set))
    };
    desired.sets.iter().filter(changed).map(|(name, _)| name).collect()
}

fn needs_other_type(observed: &Observed, desired: &Ruleset, name: &Name) -> bool {
    let shapes = observed.sets.get(name).zip(desired.sets.get(name));
    shapes.is_some_and(|(have, want)| have.shape != Some(want.shape))
}

/// Returns the sets that a desired chain leads to.
fn sets_below<'d>(chains: &'d BTreeMap<Name, Chain>, name: &'d Name) -> BTreeSet<&'d Name> {
    let below = reachable(chains, name).into_iter();
    below.filter_map(|name| chains.get(name)).flat_map(Chain::sets).collect()
}

/// Returns the desired chains that one leads to, itself included.
pub(crate) fn reachable<'d>(
    chains: &'d BTreeMap<Name, Chain>,
    name: &'d Name,
) -> BTreeSet<&'d Name> {
    let (mut todo, mut seen) = (vec![name], BTreeSet::new());
    while let Some(name) = todo.pop() {
        if let Some(chain) = chains.get(name).filter(|_| seen.insert(name)) {
            todo.extend(chain.targets());
        }
    }
    seen
}

fn is_same(observed: &ObservedSet, desired: &Set) -> bool {
    observed.shape == Some(desired.shape)
        && !observed.spoiled
        && observed.members == desired.members
}

fn plan_set(
    owner: &Owner,
    observed: &Observed,
    live: bool,
    name: &Name,
    set: &Set,
    plan: &mut Plan,
) -> Result<(), IptablesError> {
    let Some(have) = observed.sets.get(name) else {
        plan.prepare.extend(created(name, set));
        return Ok(());
    };
    if is_same(have, set) {
        return Ok(());
    }
    if have.shape != Some(set.shape) {
        if live {
            return Err(IptablesError::ForeignSet { set: name.to_string() });
        }
        plan.prepare.push(SetChange::Destroy { set: name.clone() });
        plan.prepare.extend(created(name, set));
        return Ok(());
    }
    let changes = filled(owner, observed, name, have, set);
    if live {
        plan.members.extend(changes);
        plan.members_back.extend(delta(name, &set.members, &have.members));
    } else {
        plan.prepare.extend(changes);
    }
    Ok(())
}

/// Returns the steps that make a set.
fn created(name: &Name, set: &Set) -> impl Iterator<Item = SetChange> {
    let create =
        SetChange::Create { set: name.clone(), shape: set.shape, members: set.members.len() };
    let add = |&member: &Member| SetChange::Add { set: name.clone(), member };
    [create].into_iter().chain(set.members.iter().map(add))
}

/// Returns the steps that give an existing set its members: one by one, or all at once if there are many.
fn filled(
    owner: &Owner,
    observed: &Observed,
    name: &Name,
    have: &ObservedSet,
    want: &Set,
) -> Vec<SetChange> {
    const FEW: usize = 64;
    let changes = delta(name, &have.members, &want.members);
    let few = changes.len() <= FEW.max(want.members.len() / 2);
    if few && !have.spoiled && have.members.len() + changes.len() <= have.limit {
        return changes;
    }
    let temporary = owner.temporary(name);
    let old = observed.sets.contains_key(&temporary);
    let mut steps: Vec<SetChange> =
        old.then(|| SetChange::Destroy { set: temporary.clone() }).into_iter().collect();
    steps.extend(created(&temporary, want));
    steps.push(SetChange::Swap { one: temporary.clone(), other: name.clone() });
    steps.push(SetChange::Destroy { set: temporary });
    steps
}

/// Returns the steps between two sorted lists of members.
fn delta(name: &Name, have: &[Member], want: &[Member]) -> Vec<SetChange> {
    let missing = want.iter().filter(|member| have.binary_search(member).is_err());
    let extra = have.iter().filter(|member| want.binary_search(member).is_err());
    let add = |&member: &Member| SetChange::Add { set: name.clone(), member };
    let remove = |&member: &Member| SetChange::Remove { set: name.clone(), member };
    missing.map(add).chain(extra.map(remove)).collect()
}

/// Returns the changes that make our jumps to these chains the first in the built-in ones.
fn hooks(
    owner: &Owner,
    observed: &Observed,
    id: TableId,
    chains: &BTreeMap<Name, Chain>,
) -> Vec<HookChange> {
    let table = observed.tables.get(&id);
    let change = |(hook, chain): (&'static str, Name)| {
        let jumps = table.and_then(|it| it.hooks.get(hook)).map(Vec::as_slice).unwrap_or_default();
        match jumps {
            [(0, found)] if *found == chain => None,
            _ => {
                let misplaced = jumps.iter().map(|(_, chain)| chain.clone()).collect();
                Some(HookChange { hook, chain, misplaced })
            }
        }
    };
    hook_chains(owner, id.table, chains).into_iter().filter_map(change).collect()
}
