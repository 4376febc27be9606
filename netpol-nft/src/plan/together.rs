//! Which sets must not change in place.
//!
//! The kernel chooses a packet's rules when it enters a hook, but looks each key up in what is in force at that moment: one
//! that is on its way during a switch may make some lookups before it and some after it (Linux 6.18). It must meet the old
//! policy of an endpoint and direction, or the new one. That is so where
//!
//! * it makes one lookup at most in sets that change, or
//! * all that change pulls the same way: whatever a packet sees of it then allows no more than the one policy and no less
//!   than the other. So it is with the rules of most policies, which allow members of sets, when a pod comes or goes.
//!
//! Everywhere else the sets are made anew in their other slot, and appear together with the rules that refer to them.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::net::Family;

use crate::name::Name;
use crate::observe::Observed;
use crate::render::{Fixed, host_chains};
use crate::ruleset::{Action, Elements, Fields, Match, Rule, Ruleset, Sense, Verdict};

/// What the rules of a policy do with one set of exact members.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lookups {
    /// How many there are.
    count: usize,
    /// What members do to what passes; `None` if that differs, or if it cannot be told.
    effect: Option<Effect>,
    /// Which fields are looked up; `None` if that differs.
    fields: Option<Fields>,
}

/// What more members of a set do to what passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Effect {
    Widens,
    Narrows,
}

/// How the members of a set change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// Some come.
    Grows,
    /// Some go.
    Shrinks,
    /// Some come and some go; of each packet's key one of both is true.
    Both,
}

impl Way {
    pub(crate) fn of(comes: bool, goes: bool) -> Self {
        match (comes, goes) {
            (true, false) => Self::Grows,
            (false, true) => Self::Shrinks,
            _ => Self::Both,
        }
    }
}

/// Returns what rules that can be reached from these chains do with sets of exact members.
pub(crate) fn lookups(ruleset: &Ruleset, roots: Vec<&Name>) -> BTreeMap<Name, Lookups> {
    let mut all: BTreeMap<Name, Lookups> = BTreeMap::new();
    let chains = ruleset.below(roots).into_iter().filter_map(|it| ruleset.chains.get(it));
    for rule in chains.flat_map(|chain| &chain.rules) {
        for (set, lookup) in lookups_of(rule) {
            all.entry(set.clone()).and_modify(|it| it.join(lookup)).or_insert(lookup);
        }
    }
    all
}

fn lookups_of(rule: &Rule) -> impl Iterator<Item = (&Name, Lookups)> {
    rule.matches.iter().filter_map(|it| match it {
        Match::Member { fields, set, sense } if set.place().is_some() => {
            let effect = effect(&rule.action, *sense);
            Some((set, Lookups { count: 1, effect, fields: Some(*fields) }))
        }
        _ => None,
    })
}

fn effect(action: &Action, sense: Sense) -> Option<Effect> {
    let of_members = match action {
        Action::Verdict(Verdict::Return) | Action::Untrack | Action::Mark(_) => Effect::Widens,
        Action::Verdict(Verdict::Drop) => Effect::Narrows,
        _ => return None,
    };
    Some(match (of_members, sense) {
        (it, Sense::In) => it,
        (Effect::Widens, Sense::NotIn) => Effect::Narrows,
        (Effect::Narrows, Sense::NotIn) => Effect::Widens,
    })
}

impl Lookups {
    fn join(&mut self, other: Self) {
        self.count += other.count;
        self.effect = self.effect.filter(|_| self.effect == other.effect);
        self.fields = self.fields.filter(|_| self.fields == other.fields);
    }

    /// Returns what a change does to what passes.
    fn pull(self, way: Way) -> Option<Effect> {
        match (self.effect?, way) {
            (effect, Way::Grows) => Some(effect),
            (Effect::Widens, Way::Shrinks) => Some(Effect::Narrows),
            (Effect::Narrows, Way::Shrinks) => Some(Effect::Widens),
            (_, Way::Both) => None,
        }
    }
}

/// Returns whether a packet could meet neither the old policy nor the new one while these sets, of one family, change in
/// place below one policy that stays.
pub(crate) fn is_torn(changed: &[(Lookups, Way)]) -> bool {
    match changed {
        [] => false,
        [(one, _)] if one.count <= 1 => false,
        // All lookups are of one key, which comes or goes.
        [(one, Way::Both)] => one.effect.is_none() || one.fields.is_none(),
        [(first, way), rest @ ..] => {
            let pull = first.pull(*way);
            pull.is_none() || rest.iter().any(|(it, way)| it.pull(*way) != pull)
        }
    }
}

/// Returns the sets of `desired` that must not change in place. Below the policy of an endpoint and direction that changes
/// otherwise too, that is every set. Endpoints that go away do not count.
pub(crate) fn together(observed: &Observed, desired: &Ruleset) -> BTreeSet<Name> {
    let changed = changed_sets(observed, desired);
    let mut together = BTreeSet::new();
    if changed.is_empty() {
        return together;
    }
    let ruleset = &observed.ruleset;
    let mut note = |root: &Name, is_kept: bool| {
        let lookups = lookups(ruleset, vec![root]);
        for family in Family::BOTH {
            let seen = lookups.iter().filter_map(|(name, lookups)| {
                let way = changed.get(name)?;
                (name.members_family() == Some(family)).then_some((name, (*lookups, *way)))
            });
            let (names, seen): (Vec<_>, Vec<_>) = seen.unzip();
            if !is_kept || is_torn(&seen) {
                together.extend(names.into_iter().cloned());
            }
        }
    };
    for (before, after) in entries(ruleset, desired) {
        note(before, Some(before) == after);
    }
    for root in host_chains() {
        if let Some((name, before)) = ruleset.chains.get_key_value(&root) {
            note(name, Some(before) == desired.chains.get(&root));
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
fn changed_sets<'d>(observed: &Observed, desired: &'d Ruleset) -> BTreeMap<&'d Name, Way> {
    let live = observed.ruleset.live();
    let way = |name: &Name, want: &Elements| {
        if observed.spoiled.contains(name) {
            return Some(Way::Both);
        }
        match (&observed.ruleset.sets.get(name)?.elements, want) {
            (Elements::Keys(have), Elements::Keys(want)) if have != want => {
                let lacks = |keys: &[_], from: &[_]| !super::missing(keys, from).is_empty();
                Some(Way::of(lacks(want, have), lacks(have, want)))
            }
            _ => None,
        }
    };
    let candidates = desired.sets.iter();
    candidates
        .filter(|(name, _)| name.place().is_some() && live.contains(name))
        .filter_map(|(name, set)| Some((name, way(name, &set.elements)?)))
        .collect()
}
