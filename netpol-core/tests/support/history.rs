//! Histories: clusters that become others, a few objects at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netpol_core::model::{EndpointId, HostSettings, Object, ObjectKey};
use netpol_core::program::{Denial, Members, PolicySetId, SetId};
use netpol_core::{
    Applied, Capabilities, Change, Delta, Edit, EndpointChange, Engine, MembersChange, NodeConfig,
    Program, Update,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::cluster;

/// Several clusters one after the other, and how many of their objects change at once.
pub(crate) type History = (Vec<Vec<Object>>, usize);

/// Histories of clusters.
pub(crate) fn histories(
    clusters: impl Strategy<Value = Vec<Object>>,
) -> impl Strategy<Value = History> {
    (vec(clusters, 2..4), 1..5_usize)
}

/// Gives each update of a history, and the program that it leads to, to `apply`.
pub(crate) fn replay(
    (clusters, at_once): &History,
    settings: &HostSettings,
    mut apply: impl FnMut(Update, &Program) -> Result<Applied, TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut config = NodeConfig::new(cluster::NODE);
    // In every other history, what is denied is answered.
    config.denial = if at_once % 2 == 0 { Denial::Reject } else { Denial::Drop };
    let mut engine = Engine::new(config, &Capabilities::all());
    engine.force_settings(settings.clone()).unwrap();
    clusters[0].iter().for_each(|it| engine.upsert(it.clone()).unwrap());
    engine.inputs_complete();
    let events: Vec<_> = clusters.windows(2).flat_map(|it| events(&it[0], &it[1])).collect();
    for events in std::iter::once(&events[..0]).chain(events.chunks(*at_once)) {
        for (key, object) in events {
            match object {
                Some(object) => engine.upsert(object.clone()).unwrap(),
                None => drop(engine.remove(key)),
            }
        }
        if let Some(update) = engine.poll_update() {
            let program = match &update.change {
                Change::Full(program) => (**program).clone(),
                Change::Delta(delta) => (*delta.program).clone(),
                other => panic!("expected a program, got {other:?}"),
            };
            engine.handle_applied(Ok(apply(update, &program)?));
        }
    }
    Ok(())
}

/// Returns what leads from one cluster to another: objects that come, and keys of those that go.
fn events(before: &[Object], after: &[Object]) -> Vec<(ObjectKey, Option<Object>)> {
    let by_key = |objects: &[Object]| -> BTreeMap<ObjectKey, Object> {
        objects.iter().map(|object| (object.key(), object.clone())).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (key.clone(), None));
    let new = after.iter().filter(|(key, object)| before.get(key) != Some(object));
    new.map(|(key, object)| (key.clone(), Some(object.clone()))).chain(gone).collect()
}

/// Returns the delta between two programs.
pub(crate) fn difference(before: &Program, after: &Program) -> Delta {
    let mut delta = Delta::default();
    delta.program = Arc::new(after.clone());
    for (id, set) in &after.address_sets {
        match before.address_sets.get(id) {
            None => delta.new_sets.push(*id),
            Some(old) => delta.members.push(edited(*id, &old.members, &set.members)),
        }
    }
    delta.members.retain(|it| !it.is_empty());
    let of = |program: &Program, id: &EndpointId| {
        program.endpoints.iter().find(|it| it.id == *id).cloned()
    };
    for new in &after.endpoints {
        let old = of(before, &new.id);
        if old.as_ref() != Some(new) {
            delta.endpoints.push(EndpointChange { old, new: new.clone() });
        }
    }
    let gone = before.endpoints.iter().filter(|it| of(after, &it.id).is_none());
    delta.removed_endpoints = gone.cloned().collect();
    let is_new = |id: &&PolicySetId| !before.policy_sets.contains_key(id);
    delta.new_policy_sets = after.policy_sets.keys().filter(is_new).copied().collect();
    let gone = before.policy_sets.iter().filter(|it| !after.policy_sets.contains_key(it.0));
    delta.removed_policy_sets = gone.map(|(id, set)| (*id, Arc::clone(set))).collect();
    let gone = before.address_sets.iter().filter(|it| !after.address_sets.contains_key(it.0));
    delta.removed_sets = gone.map(|(id, set)| (*id, Arc::clone(set))).collect();
    let mut advanced = before.clone();
    advanced.advance(&delta).unwrap();
    assert_eq!(advanced, *after);
    delta
}

fn edited(set: SetId, old: &Members, new: &Members) -> MembersChange {
    fn edit<T: Ord + Copy>(old: impl Iterator<Item = T>, new: impl Iterator<Item = T>) -> Edit<T> {
        let (old, new): (BTreeSet<T>, BTreeSet<T>) = (old.collect(), new.collect());
        let lacks = |one: &BTreeSet<T>, other| one.difference(other).copied().collect();
        Edit { added: lacks(&new, &old), removed: lacks(&old, &new) }
    }
    let mut change = MembersChange::new(set);
    match (old, new) {
        (
            Members::Addresses { exact: old, prefixes: old_prefixes },
            Members::Addresses { exact: new, prefixes: new_prefixes },
        ) => {
            change.addresses = edit(old.iter(), new.iter());
            let (old, new) = (old_prefixes.prefixes().iter(), new_prefixes.prefixes().iter());
            change.prefixes = edit(old.copied(), new.copied());
        }
        (Members::Ports(old), Members::Ports(new)) => {
            change.ports = edit(old.iter().copied(), new.iter().copied());
        }
        _ => panic!("a set is of one kind"),
    }
    change
}
