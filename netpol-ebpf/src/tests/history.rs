//! Histories: clusters that become others, a few objects at a time.

use std::collections::BTreeMap;

use netpol_core::model::{EntityMatch, Object, ObjectKey, Treatment, UnknownInterfaces};
use netpol_core::{Capabilities, Change, Engine, NodeConfig, Update};
use proptest::collection::vec;
use proptest::prelude::*;

use super::agreement::cluster;

/// Interfaces of the endpoints of all clusters, by namespace, name and UID.
pub(crate) const INTERFACES: usize = 18;

/// How a cluster changes: objects that come, and keys of those that go.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Come(Object),
    Go(ObjectKey),
}

/// Several clusters one after the other, and how many events come at once.
pub(crate) fn histories() -> impl Strategy<Value = (Vec<Vec<Object>>, usize)> {
    let cluster = prop_oneof![cluster::crowded(), cluster::objects()];
    let cluster = cluster.prop_map(|objects| {
        let mut objects = cluster::with_single_addresses(objects);
        objects.iter_mut().for_each(ready);
        objects
    });
    (vec(cluster, 2..4), 1..5_usize)
}

/// Gives an endpoint its interface, and leaves the own side of endpoints out of most rules.
fn ready(object: &mut Object) {
    match object {
        Object::Endpoint(endpoint) => {
            let at = |all: &[&str], it: &str| all.iter().position(|other| *other == it).unwrap();
            let namespace = endpoint.id.namespace.clone().unwrap_or_default();
            let number = at(&["x", "y"], &namespace) * 9
                + at(&["p", "q", "r"], &endpoint.id.name) * 3
                + at(&["", "1", "2"], &endpoint.id.uid);
            *endpoint = endpoint.clone().attached_to(format!("np{number}"));
        }
        Object::Policy(policy) => {
            let rules = policy.ingress.iter_mut().flatten();
            rules.for_each(|it| it.matches.destination = EntityMatch::default());
            let rules = policy.egress.iter_mut().flatten();
            rules.for_each(|it| it.matches.source = EntityMatch::default());
        }
        _ => {}
    }
}

/// Returns what leads from one cluster to another.
pub(crate) fn events(before: &[Object], after: &[Object]) -> Vec<Event> {
    let by_key = |objects: &[Object]| -> BTreeMap<ObjectKey, Object> {
        objects.iter().map(|object| (object.key(), object.clone())).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let gone = before.keys().filter(|key| !after.contains_key(key)).cloned().map(Event::Go);
    let new = after.iter().filter(|(key, object)| before.get(key) != Some(object));
    new.map(|(_, object)| Event::Come(object.clone())).chain(gone).collect()
}

/// An engine that hands out deltas.
pub(crate) struct History {
    engine: Engine,
}

impl History {
    pub(crate) fn new(capabilities: &Capabilities, objects: &[Object]) -> Self {
        Self::of(cluster::NODE, capabilities, objects)
    }

    pub(crate) fn of(node: &str, capabilities: &Capabilities, objects: &[Object]) -> Self {
        let mut capabilities = capabilities.clone();
        capabilities.deltas = true;
        let treatments = [Treatment::Closed, Treatment::EgressTracked, Treatment::Open];
        let treatment = treatments[objects.len() % treatments.len()];
        let mut config = NodeConfig::new(node);
        config.unknown = UnknownInterfaces { prefixes: ["np".parse().unwrap()].into(), treatment };
        let mut engine = Engine::new(config, &capabilities);
        objects.iter().for_each(|object| engine.upsert(object.clone()).unwrap());
        engine.inputs_complete();
        Self { engine }
    }

    pub(crate) fn happens(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Come(object) => self.engine.upsert(object.clone()).unwrap(),
                Event::Go(key) => drop(self.engine.remove(key)),
            }
        }
    }

    pub(crate) fn update(&mut self) -> Option<Update> {
        self.engine.poll_update()
    }

    pub(crate) fn answer(
        &mut self,
        outcome: Result<netpol_core::Applied, netpol_core::DataplaneError>,
    ) {
        self.engine.handle_applied(outcome);
    }
}

/// Returns the program that an update leads to.
pub(crate) fn program(update: &Update) -> netpol_core::Program {
    match &update.change {
        Change::Full(program) => (**program).clone(),
        Change::Delta(delta) => (*delta.program).clone(),
        other => panic!("expected a program, got {other:?}"),
    }
}
