//! The steps from an observed state to a desired one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::enforced::Part;
use crate::error::NftError;
use crate::name::{Name, Owner};
use crate::observe::Observed;
use crate::operation::{Content, MAX_ELEMENTS, Operation};
use crate::render::Fixed;
use crate::ruleset::{Chain, Elements, Key, Ruleset, Set, Verdict};

mod together;

pub(crate) use self::together::{lookups, together};

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
    let observed = observed.unwrap_or(&nothing);
    let state = State { owner, observed, live: observed.ruleset.live(), extra };
    state.plan(desired, &mut plan)?;
    Ok(plan)
}

/// Returns the steps of a part, of which packets can meet all that is there before.
///
/// # Errors
///
/// [`NftError::ForeignSet`] if a set that stays has another definition after it.
pub(crate) fn plan_part(owner: &Owner, part: Part) -> Result<Plan, NftError> {
    let ruleset = Ruleset { sets: part.before, ..Ruleset::default() };
    let observed = Observed { ruleset, ..Observed::default() };
    let live = observed.ruleset.sets.keys().collect();
    let state = State { owner, observed: &observed, live, extra: Extra::Kept };
    let mut plan = Plan::default();
    state.plan(&part.after, &mut plan)?;
    plan.sweep = removal(part.dead_chains, Vec::new(), part.dead_sets);
    Ok(plan)
}

/// An observed state and what of it packets can meet.
struct State<'a> {
    owner: &'a Owner,
    observed: &'a Observed,
    live: BTreeSet<&'a Name>,
    extra: Extra,
}

impl State<'_> {
    fn plan(&self, desired: &Ruleset, plan: &mut Plan) -> Result<(), NftError> {
        let (maps, sets): (Vec<_>, Vec<_>) = desired
            .sets
            .iter()
            .partition(|(_, set)| Content::of(&set.elements) == Content::Verdicts);
        for (name, set) in sets {
            self.plan_set(name, set, plan)?;
        }
        self.plan_chains(desired, plan);
        for (name, map) in maps {
            self.plan_set(name, map, plan)?;
        }
        if self.extra == Extra::Swept {
            plan.sweep = self.sweep(desired);
        }
        Ok(())
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

    /// Returns the removal of what is ours and not desired.
    fn sweep(&self, desired: &Ruleset) -> Vec<Operation> {
        let ruleset = &self.observed.ruleset;
        let chains = ruleset.chains.keys().filter(|name| !desired.chains.contains_key(name));
        let chains = chains.cloned().collect();
        let sets = ruleset.sets.iter().filter(|(name, _)| !desired.sets.contains_key(name));
        let (maps, sets): (Vec<_>, Vec<_>) =
            sets.partition(|(_, set)| Content::of(&set.elements) == Content::Verdicts);
        let names = |sets: Vec<(&Name, &Set)>| sets.into_iter().map(|it| it.0.clone()).collect();
        let unreadable = self.observed.unreadable.iter();
        let unreadable = unreadable.filter(|name| !desired.sets.contains_key(name)).cloned();
        let sets: Vec<Name> = names(sets);
        removal(chains, names(maps), sets.into_iter().chain(unreadable).collect())
    }

    fn foreign(&self, name: &Name) -> NftError {
        NftError::ForeignSet { owner: self.owner.to_string(), set: name.to_string() }
    }
}

/// Returns the removal of objects: rules first, since they refer to the rest; maps before the chains that they lead to.
fn removal(chains: Vec<Name>, maps: Vec<Name>, sets: Vec<Name>) -> Vec<Operation> {
    let delete_set = |name| Operation::DeleteSet { name };
    let mut removal: Vec<_> =
        chains.iter().map(|name| Operation::FlushChain { name: name.clone() }).collect();
    removal.extend(maps.into_iter().map(delete_set));
    removal.extend(chains.into_iter().map(|name| Operation::DeleteChain { name }));
    removal.extend(sets.into_iter().map(delete_set));
    removal
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
