//! Which sets must not change in place, see [`Lookups`]: they are made anew in their other slot, and appear together with the
//! rules that refer to them.

use std::collections::{BTreeMap, BTreeSet};

use netpol_core::net::Family;
use netpol_netfilter::{Effect, Lookups, Way};

use crate::name::Name;
use crate::observe::Observed;
use crate::render::{Fixed, host_chains};
use crate::ruleset::{Action, Elements, Fields, Match, Rule, Ruleset, Sense, Verdict};

/// Returns what rules that can be reached from these chains do with sets of exact members.
pub(crate) fn lookups(ruleset: &Ruleset, roots: Vec<&Name>) -> BTreeMap<Name, Lookups<Fields>> {
    let mut all: BTreeMap<Name, Lookups<Fields>> = BTreeMap::new();
    let chains = ruleset.below(roots).into_iter().filter_map(|it| ruleset.chains.get(it));
    for rule in chains.flat_map(|chain| &chain.rules) {
        for (set, lookup) in lookups_of(rule) {
            all.entry(set.clone()).and_modify(|it| it.join(lookup)).or_insert(lookup);
        }
    }
    all
}

fn lookups_of(rule: &Rule) -> impl Iterator<Item = (&Name, Lookups<Fields>)> {
    rule.matches.iter().filter_map(|it| match it {
        Match::Member { fields, set, sense } if set.place().is_some() => {
            let effect = effect(&rule.action, *sense);
            Some((set, Lookups::once(*fields, effect)))
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
    Some(match sense {
        Sense::In => of_members,
        Sense::NotIn => of_members.reversed(),
    })
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
            if !is_kept || Lookups::are_torn(&seen) {
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
                Some(Way::of(&super::missing(want, have), &super::missing(have, want)))
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
