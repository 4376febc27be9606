//! Histories: clusters that become others, a few objects at a time.

use std::collections::BTreeMap;

use netpol_core::model::{HostSettings, Object, ObjectKey};
use netpol_core::{Applied, Capabilities, Change, Engine, NodeConfig, Program, Update};
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
    let mut engine = Engine::new(NodeConfig::new(cluster::NODE), &Capabilities::all());
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
