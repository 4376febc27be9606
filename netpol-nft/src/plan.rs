//! The steps from an observed state to a desired one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::net::Family;

use crate::error::NftError;
use crate::name::{Name, Owner};
use crate::observe::Observed;
use crate::operation::{Content, MAX_ELEMENTS, Operation};
use crate::render::{Fixed, host_chains};
use crate::ruleset::{Chain, Elements, Key, Ruleset, Set, Verdict};

/// Ordered changes.
///
/// **Make before break.** What is in `prepare` touches nothing that a packet can meet, so it may be cut into
/// transactions between any two operations. `switch` is one transaction. `sweep` removes what nothing refers to any
/// more, and may be cut as well.
///
/// A set is filled in `prepare` and used from `switch` on: an interval set that is new in the transaction of its rule
/// is empty for a moment after it (Linux 6.18).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Plan {
    /// New objects, which nothing in force refers to.
    pub(crate) prepare: Vec<Operation>,
    /// Groups of changes of what is in force. One transaction if it fits; else the groups may go one after the other,
    /// see [`Step`].
    pub(crate) switch: BTreeMap<Step, Vec<Vec<Operation>>>,
    /// Removal of old objects.
    pub(crate) sweep: Vec<Operation>,
}

/// The kinds of changes in a switch. The order of the variants is an order of execution that fails closed: endpoints
/// are isolated first and released last, and each endpoint and direction changes within one group.
///
/// Changed members are the exception: sets that change one after the other show packets a state that is neither old nor
/// new. A switch that is too large must be planned anew with other sets in their place.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Step {
    /// Endpoints become isolated; endpoints are forgotten.
    Close,
    /// Chains that are in force and are not as they must be.
    Chains,
    /// Members of sets that are in force.
    Members,
    /// Endpoints change their policy.
    Dispatch,
    /// Endpoints stop being isolated; endpoints become known, whose interface may be closed until then.
    Release,
}

/// What happens to objects of ours that are not desired.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extra {
    /// They are removed.
    Swept,
    /// They stay.
    Kept,
}

impl Plan {
    /// Returns whether there is nothing to do.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.prepare.is_empty() && self.switch.is_empty() && self.sweep.is_empty()
    }

    /// Returns the switch as one transaction.
    pub(crate) fn whole_switch(&self) -> Vec<Operation> {
        self.switch.values().flatten().flatten().cloned().collect()
    }

    /// Returns the sets whose members change in the switch.
    pub(crate) fn changed_sets(&self) -> BTreeSet<Name> {
        let members = self.switch.get(&Step::Members).into_iter().flatten().flatten();
        members.filter_map(Operation::object).cloned().collect()
    }

    fn group(&mut self, step: Step, operations: Vec<Operation>) {
        if !operations.is_empty() {
            self.switch.entry(step).or_default().push(operations);
        }
    }
}

/// Returns the steps that turn `observed` (`None`: no table) into `desired`; none if they are equal.
///
/// # Errors
///
/// [`NftError::ForeignSet`] if a set with one of our names is not as we make them.
pub(crate) fn plan(
    owner: &Owner,
    observed: Option<&Observed>,
    desired: &Ruleset,
    extra: Extra,
) -> Result<Plan, NftError> {
    let nothing = Observed::default();
    let mut plan = Plan::default();
    if observed.is_none_or(|observed| observed.dormant) {
        plan.prepare.push(Operation::AddTable);
    }
    let state = State::new(owner, observed.unwrap_or(&nothing), extra);
    let (maps, sets): (Vec<_>, Vec<_>) =
        desired.sets.iter().partition(|(_, set)| Content::of(&set.elements) == Content::Verdicts);
    for (name, set) in sets {
        state.plan_set(name, set, &mut plan)?;
    }
    state.plan_chains(desired, &mut plan);
    for (name, map) in maps {
        state.plan_set(name, map, &mut plan)?;
    }
    if extra == Extra::Swept {
        plan.sweep = state.sweep(desired);
    }
    Ok(plan)
}

/// Returns the sets of `desired` that must not change in place.
///
/// The kernel chooses a packet's rules when it enters a hook, but looks each key up in what is in force at that moment: one
/// that is on its way during a switch may meet some sets before it and some after it (Linux 6.18). So each packet meets the
/// old members of one set or the new ones, which is not enough where it would see another part of its policy change at
/// another time: where several sets below the policy of one endpoint, direction and family change, or where one does that
/// the rules of before refer to, and they change too. Such sets are made anew in their other slot, and appear together with
/// the rules that refer to them. Endpoints that go away do not count.
pub(crate) fn together(observed: &Observed, desired: &Ruleset) -> BTreeSet<Name> {
    let changed = changed_sets(observed, desired);
    let mut together = BTreeSet::new();
    if changed.is_empty() {
        return together;
    }
    let ruleset = &observed.ruleset;
    let mut note = |roots: Vec<&Name>, is_kept: bool| {
        let seen: BTreeSet<&Name> =
            ruleset.sets_below(roots).intersection(&changed).copied().collect();
        for family in Family::BOTH {
            let seen = seen.iter().filter(|it| it.members_family() == Some(family));
            if seen.clone().count() > usize::from(is_kept) {
                together.extend(seen.map(|&it| it.clone()));
            }
        }
    };
    for (before, after) in entries(ruleset, desired) {
        note(vec![before], Some(before) == after);
    }
    for root in host_chains() {
        if let Some((name, before)) = ruleset.chains.get_key_value(&root) {
            note(vec![name], Some(before) == desired.chains.get(&root));
        }
    }
    together
}

/// Returns where packets of endpoints go and will go, each pair once; none of endpoints that go away.
fn entries<'a>(
    observed: &'a Ruleset,
    desired: &'a Ruleset,
) -> BTreeSet<(&'a Name, Option<&'a Name>)> {
    let mut entries = BTreeSet::new();
    for (name, map) in &observed.sets {
        let Elements::Verdicts(before) = &map.elements else { continue };
        let after = match desired.sets.get(name).map(|it| &it.elements) {
            Some(Elements::Verdicts(after)) => Some(after),
            _ => None,
        };
        for (key, verdict) in before {
            let after = after.and_then(|it| it.get(key)?.target());
            let stays = || Fixed::Endpoints.name(*key).is_some_and(|it| desired.has_key(&it, *key));
            if let Some(before) = verdict.target().filter(|_| after.is_some() || stays()) {
                entries.insert((before, after));
            }
        }
    }
    entries
}

/// Returns the sets of exact members in force whose members change.
fn changed_sets<'d>(observed: &Observed, desired: &'d Ruleset) -> BTreeSet<&'d Name> {
    let live = observed.ruleset.live();
    let is_changed = |(name, set): &(&Name, &Set)| {
        let have = observed.ruleset.sets.get(*name);
        name.place().is_some()
            && live.contains(name)
            && (observed.spoiled.contains(*name)
                || have.is_some_and(|it| it.elements != set.elements))
    };
    desired.sets.iter().filter(is_changed).map(|(name, _)| name).collect()
}

/// An observed state and what of it packets can meet.
struct State<'a> {
    owner: &'a Owner,
    observed: &'a Observed,
    live: BTreeSet<&'a Name>,
    extra: Extra,
}

impl<'a> State<'a> {
    fn new(owner: &'a Owner, observed: &'a Observed, extra: Extra) -> Self {
        Self { owner, observed, live: observed.ruleset.live(), extra }
    }

    fn plan_set(&self, name: &Name, want: &Set, plan: &mut Plan) -> Result<(), NftError> {
        let Some(have) = self.observed.ruleset.sets.get(name) else {
            if self.observed.unreadable.contains(name) {
                return Err(self.foreign(name));
            }
            let (key, storage) = (want.key, want.storage);
            plan.prepare.push(Operation::AddSet {
                name: name.clone(),
                key,
                storage,
                content: Content::of(&want.elements),
            });
            plan.prepare.extend(added(name, want, &want.elements));
            return Ok(());
        };
        if (have.key, have.storage) != (want.key, want.storage)
            || Content::of(&have.elements) != Content::of(&want.elements)
        {
            return Err(self.foreign(name));
        }
        if self.observed.spoiled.contains(name) {
            // Among what is to stay are elements that could not be read.
            let flush =
                (self.extra == Extra::Swept).then(|| Operation::FlushSet { name: name.clone() });
            let operations = flush.into_iter().chain(added(name, want, &want.elements)).collect();
            self.place(name, Step::Members, operations, plan);
            return Ok(());
        }
        self.plan_elements(name, have, want, plan);
        Ok(())
    }

    fn plan_elements(&self, name: &Name, have: &Set, want: &Set, plan: &mut Plan) {
        match (&have.elements, &want.elements) {
            (Elements::Keys(old), Elements::Keys(new)) => {
                let (deleted, new) = (missing(old, new), missing(new, old));
                let deleted = removed(name, want, &Elements::Keys(deleted));
                let new = added(name, want, &Elements::Keys(new));
                self.place_keys(name, deleted, new, plan);
            }
            (Elements::Ranges(old), Elements::Ranges(new)) => {
                let (deleted, new) = (missing(old, new), missing(new, old));
                let operations = removed(name, want, &Elements::Ranges(deleted))
                    .into_iter()
                    .chain(added(name, want, &Elements::Ranges(new)))
                    .collect();
                self.place(name, Step::Members, operations, plan);
            }
            (Elements::Verdicts(old), Elements::Verdicts(new)) => {
                for operations in changed_entries(name, want, old, new) {
                    self.place(name, Step::Dispatch, operations, plan);
                }
            }
            _ => {}
        }
    }

    /// Keys of address sets change in one group. Those of endpoints come first and go last, except in the list of all: who is
    /// in it has a policy.
    fn place_keys(
        &self,
        name: &Name,
        deleted: Vec<Operation>,
        new: Vec<Operation>,
        plan: &mut Plan,
    ) {
        if name.place().is_some() {
            self.place(name, Step::Members, [deleted, new].concat(), plan);
        } else if Fixed::Endpoints.is_called(name) {
            self.place(name, Step::Close, deleted, plan);
            self.place(name, Step::Release, new, plan);
        } else {
            self.place(name, Step::Close, new, plan);
            self.place(name, Step::Release, deleted, plan);
        }
    }

    fn plan_chains(&self, desired: &Ruleset, plan: &mut Plan) {
        let mut rules = Vec::new();
        for (name, want) in &desired.chains {
            match self.observed.ruleset.chains.get(name) {
                None if want.base.is_none() => {
                    plan.prepare.push(Operation::AddChain { name: name.clone(), base: None });
                    rules.extend(filled(name, want));
                }
                None => plan.group(Step::Chains, made(name, want)),
                Some(have) if have == want => {}
                Some(have) if have.base == want.base => {
                    let flush = Operation::FlushChain { name: name.clone() };
                    let operations: Vec<_> =
                        [flush].into_iter().chain(filled(name, want)).collect();
                    if self.live.contains(name) {
                        plan.group(Step::Chains, operations);
                    } else {
                        rules.extend(operations);
                    }
                }
                Some(_) => plan.group(Step::Chains, [unmade(name), made(name, want)].concat()),
            }
        }
        // Only when all chains exist can rules lead from one to another.
        plan.prepare.extend(rules);
    }

    /// Puts changes of an object into the switch if packets can meet it.
    fn place(&self, name: &Name, step: Step, operations: Vec<Operation>, plan: &mut Plan) {
        if self.live.contains(name) {
            plan.group(step, operations);
        } else {
            plan.prepare.extend(operations);
        }
    }

    /// Returns the removal of what is ours and not desired: rules first, since they refer to the rest; maps before the
    /// chains that they lead to.
    fn sweep(&self, desired: &Ruleset) -> Vec<Operation> {
        let ruleset = &self.observed.ruleset;
        let chains: Vec<&Name> =
            ruleset.chains.keys().filter(|name| !desired.chains.contains_key(name)).collect();
        let sets = ruleset.sets.iter().filter(|(name, _)| !desired.sets.contains_key(name));
        let (maps, sets): (Vec<_>, Vec<_>) =
            sets.partition(|(_, set)| Content::of(&set.elements) == Content::Verdicts);
        let delete_set = |(name, _): (&Name, &Set)| Operation::DeleteSet { name: name.clone() };
        let mut sweep: Vec<_> =
            chains.iter().map(|&name| Operation::FlushChain { name: name.clone() }).collect();
        sweep.extend(maps.into_iter().map(delete_set));
        sweep.extend(chains.iter().map(|&name| Operation::DeleteChain { name: name.clone() }));
        sweep.extend(sets.into_iter().map(delete_set));
        let unreadable =
            self.observed.unreadable.iter().filter(|name| !desired.sets.contains_key(name));
        sweep.extend(unreadable.map(|name| Operation::DeleteSet { name: name.clone() }));
        sweep
    }

    fn foreign(&self, name: &Name) -> NftError {
        NftError::ForeignSet { owner: self.owner.to_string(), set: name.to_string() }
    }
}

fn made(name: &Name, chain: &Chain) -> Vec<Operation> {
    [Operation::AddChain { name: name.clone(), base: chain.base }]
        .into_iter()
        .chain(filled(name, chain))
        .collect()
}

fn unmade(name: &Name) -> Vec<Operation> {
    vec![
        Operation::FlushChain { name: name.clone() },
        Operation::DeleteChain { name: name.clone() },
    ]
}

fn filled(name: &Name, chain: &Chain) -> impl Iterator<Item = Operation> {
    chain.rules.iter().map(|rule| Operation::AddRule { chain: name.clone(), rule: rule.clone() })
}

fn added(name: &Name, set: &Set, elements: &Elements) -> Vec<Operation> {
    let add = |elements| Operation::AddElements { set: name.clone(), key: set.key, elements };
    chunks(elements).into_iter().map(add).collect()
}

fn removed(name: &Name, set: &Set, elements: &Elements) -> Vec<Operation> {
    let delete = |elements| Operation::DeleteElements { set: name.clone(), key: set.key, elements };
    chunks(elements).into_iter().map(delete).collect()
}

/// Returns the changes of a verdict map in groups. An entry that changes is deleted and added in one group.
fn changed_entries(
    name: &Name,
    set: &Set,
    old: &BTreeMap<Key, Verdict>,
    new: &BTreeMap<Key, Verdict>,
) -> Vec<Vec<Operation>> {
    let keys: BTreeSet<_> =
        old.keys().chain(new.keys()).filter(|key| old.get(key) != new.get(key)).copied().collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let pick = |keys: &[_], from: &BTreeMap<_, Verdict>| {
        Elements::Verdicts(
            keys.iter().filter_map(|key| Some((*key, from.get(key)?.clone()))).collect(),
        )
    };
    keys.chunks(MAX_ELEMENTS)
        .map(|keys| {
            [removed(name, set, &pick(keys, old)), added(name, set, &pick(keys, new))].concat()
        })
        .collect()
}

/// Returns elements in portions of at most [`MAX_ELEMENTS`].
fn chunks(elements: &Elements) -> Vec<Elements> {
    match elements {
        Elements::Keys(keys) => {
            keys.chunks(MAX_ELEMENTS).map(|it| Elements::Keys(it.to_vec())).collect()
        }
        Elements::Ranges(ranges) => {
            ranges.chunks(MAX_ELEMENTS).map(|it| Elements::Ranges(it.to_vec())).collect()
        }
        Elements::Verdicts(entries) => {
            let entries: Vec<_> = entries.iter().collect();
            let portion = |it: &[(&Key, &Verdict)]| {
                Elements::Verdicts(
                    it.iter().map(|&(key, verdict)| (*key, verdict.clone())).collect(),
                )
            };
            entries.chunks(MAX_ELEMENTS).map(portion).collect()
        }
    }
}

/// Returns what is in one sorted slice and not in the other.
fn missing<T: Ord + Copy>(of: &[T], from: &[T]) -> Vec<T> {
    let mut rest = from.iter().peekable();
    let is_missing = |item: &&T| {
        while rest.next_if(|other| other < item).is_some() {}
        rest.peek() != Some(item)
    };
    of.iter().filter(is_missing).copied().collect()
}

#[cfg(test)]
mod tests;
