//! Whatever happened before, and however it was told, the program is the one that follows from the inputs, and the deltas
//! lead from one to the next.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "support/cluster.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod cluster;
#[path = "support/hosts.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod hosts;
#[path = "support/services.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_core::model::{
    EndpointId, EndpointKind, HostSettings, Inputs, Interface, Lifecycle, NetworkSet, Node, Object,
    ObjectKey, Peers, ServiceName, Timestamp,
};
use netpol_core::net::Prefix;
use netpol_core::{
    Applied, Capabilities, Change, Dataplane, DataplaneError, DataplaneErrorKind, Engine, Labels,
    MemoryDataplane, NodeConfig, Program, Selector,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use self::cluster::{NODE, compiled, crowded, objects};

/// One thing that happens to an engine.
#[derive(Clone, Debug)]
enum Event {
    Upsert(Box<Object>),
    /// Remove one of the objects that there are.
    Remove(Index),
    /// Remove one of the objects that there are, and add it again.
    Renew(Index),
    /// Remove something by a key that may not be there.
    RemoveKey(ObjectKey),
    /// Hand the updates to the dataplane.
    Apply,
    /// Let the next update fail.
    Fail,
    Resync,
    /// Let the addresses of domain names expire.
    Expire,
    Settings(HostSettings),
}

fn some_labels(pairs: Vec<(&'static str, &'static str)>) -> impl Strategy<Value = Labels> {
    vec(select(pairs), 0..3).prop_map(|labels| labels.into_iter().collect())
}

/// Objects of the kinds that decide about labels and addresses without being endpoints or policies.
fn surroundings() -> impl Strategy<Value = Object> {
    let namespace = || select(vec!["x", "y", "z"]);
    let nets = vec(
        select(vec![
            "10.0.0.1/32",
            "10.0.0.2/32",
            "10.0.0.0/31",
            "10.0.0.2/31",
            "10.0.0.0/29",
            "fd00::1/128",
        ]),
        0..4,
    );
    let nets = nets.prop_map(|it| it.iter().map(|it| it.parse::<Prefix>().unwrap()).collect());
    let of_namespace = vec![("team", "red"), ("team", "blue"), ("app", "a")];
    let addresses = vec(select(vec!["10.0.0.6", "10.0.0.1", "fd00::1", "192.0.2.7"]), 0..3);
    prop_oneof![
        (namespace(), some_labels(of_namespace))
            .prop_map(|(name, labels)| Object::Namespace { name: name.into(), labels }),
        (namespace(), some_labels(vec![("grade", "gold"), ("grade", "tin")])).prop_map(
            |(namespace, labels)| Object::ServiceAccount {
                namespace: namespace.into(),
                name: "s".into(),
                labels
            }
        ),
        (
            option::of(namespace()),
            select(vec!["s", "t"]),
            some_labels(vec![("kind", "set"), ("app", "a"), ("role", "r")]),
            nets
        )
            .prop_map(|(namespace, name, labels, nets)| Object::NetworkSet(NetworkSet {
                namespace: namespace.map(Into::into),
                name: name.into(),
                labels,
                nets
            })),
        (select(vec![NODE, "node-b"]), some_labels(vec![("role", "r"), ("app", "a")]), addresses)
            .prop_map(|(name, labels, addresses): (&str, _, Vec<&str>)| {
                let addresses: Vec<_> = addresses.iter().map(|it| it.parse().unwrap()).collect();
                let interfaces = addresses.iter().zip(["eth0", "eth1"]).map(|(address, name)| {
                    Interface { name: name.into(), addresses: vec![*address] }
                });
                let interfaces = interfaces.collect();
                Object::Node(Node { name: name.into(), labels, addresses, interfaces })
            }),
    ]
}

/// Selectors of every way to be filed in an index.
const SELECTORS: [&str; 12] = [
    "all()",
    "has(role)",
    "!has(role)",
    "app == 'a'",
    "pcsa.projectcalico.org/name == 's' && app in {'a', 'b'}",
    "pcns.projectcalico.org/name in {'x', 'z'}",
    "projectcalico.org/namespace == 'y' && has(app)",
    "has(pcns.team) && has(app)",
    "has(pcsa.grade) || pcsa.grade == 'gold'",
    "pcns.team == 'blue' || pcns.team in {'red', 'green'}",
    "!has(app) && !has(pcns.team)",
    "app == 'a' && app == 'b'",
];

/// What the generator of small clusters leaves out: other nodes, interfaces, hosts, and selected nodes.
fn varied(object: Object, choice: u8) -> Object {
    match object {
        Object::Endpoint(mut endpoint) => {
            match choice % 8 {
                0 => endpoint.node = Some("node-b".into()),
                1 => endpoint.node = None,
                2 => endpoint = endpoint.attached_to("veth0"),
                3 => endpoint = endpoint.attached_to("veth1"),
                4 => {
                    endpoint.id =
                        EndpointId { kind: EndpointKind::Host, namespace: None, ..endpoint.id };
                }
                _ => {}
            }
            if choice % 16 == 5 {
                endpoint.lifecycle = Lifecycle::Finished;
            }
            Object::Endpoint(endpoint)
        }
        Object::Policy(mut policy) => {
            let selector = |offset: u8| -> Selector {
                SELECTORS[usize::from(choice.wrapping_add(offset)) % SELECTORS.len()]
                    .parse()
                    .unwrap()
            };
            if choice.is_multiple_of(3) {
                policy.subject = selector(1);
            }
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress).flatten() {
                for side in [&mut rule.matches.source, &mut rule.matches.destination] {
                    match &mut side.peers {
                        Some(Peers::Nodes(it)) => *it = selector(0),
                        Some(Peers::Endpoints(it)) if choice.is_multiple_of(2) => *it = selector(2),
                        _ => {}
                    }
                }
            }
            if choice.is_multiple_of(5) {
                policy.key.namespace = Some("y".into());
            }
            Object::Policy(policy)
        }
        other => other,
    }
}

fn event() -> impl Strategy<Value = Vec<Event>> {
    let cluster = (
        prop_oneof![
            objects().boxed(),
            crowded().boxed(),
            hosts::objects().boxed(),
            services::objects().boxed(),
            services::backends_apart().boxed(),
        ],
        vec(any::<u8>(), 32),
    )
        .prop_map(|(objects, choices)| {
            let varied = objects.into_iter().zip(choices.into_iter().cycle());
            varied.map(|(it, choice)| Event::Upsert(Box::new(varied_if(it, choice)))).collect()
        });
    let key = select(vec![
        ObjectKey::Namespace("x".into()),
        ObjectKey::Namespace("y".into()),
        ObjectKey::ServiceAccount("x".into(), "s".into()),
        ObjectKey::Tier("t1".into()),
        ObjectKey::Tier("default".into()),
        ObjectKey::Node(NODE.into()),
        ObjectKey::NetworkSet(None, "s".into()),
        ObjectKey::Endpoint(EndpointId::workload("x", "p")),
        ObjectKey::Service(ServiceName::new("x", "s")),
        ObjectKey::EndpointSlice("x".into(), "a".into()),
    ]);
    let one = |event: Event| vec![event];
    prop_oneof![
        3 => cluster,
        6 => surroundings().prop_map(move |it| one(Event::Upsert(Box::new(it)))),
        4 => prop_oneof![services::service(), services::slice(), services::slice()]
            .prop_map(move |it| one(Event::Upsert(Box::new(it)))),
        6 => any::<Index>().prop_map(move |it| one(Event::Remove(it))),
        2 => any::<Index>().prop_map(move |it| one(Event::Renew(it))),
        3 => key.prop_map(move |it| one(Event::RemoveKey(it))),
        8 => Just(one(Event::Apply)),
        1 => Just(one(Event::Fail)),
        1 => Just(one(Event::Resync)),
        1 => Just(one(Event::Expire)),
        1 => hosts::settings().prop_map(move |it| one(Event::Settings(it))),
    ]
}

fn varied_if(object: Object, choice: u8) -> Object {
    if choice < 64 { object } else { varied(object, choice) }
}

fn history() -> impl Strategy<Value = Vec<Event>> {
    vec(event(), 1..24).prop_map(|events| events.into_iter().flatten().collect())
}

/// An engine with its dataplane, and the objects as they were told.
struct World {
    engine: Engine,
    dataplane: MemoryDataplane,
    objects: BTreeMap<ObjectKey, Object>,
    inputs: Inputs,
    capabilities: Capabilities,
    settings: HostSettings,
    fails: bool,
    /// The program of the last update, whoever holds it.
    kept: Option<Arc<Program>>,
}

impl World {
    fn new(capabilities: &Capabilities) -> Self {
        Self {
            engine: Engine::new(NodeConfig::new(NODE), capabilities),
            dataplane: MemoryDataplane::default(),
            objects: BTreeMap::new(),
            inputs: Inputs::default(),
            capabilities: capabilities.clone(),
            settings: HostSettings::default(),
            fails: false,
            kept: None,
        }
    }

    fn upsert(&mut self, object: Object) {
        self.objects.insert(object.key(), object.clone());
        self.inputs.upsert(object.clone());
        self.engine.upsert(object).unwrap();
    }

    fn remove(&mut self, key: &ObjectKey) {
        let in_namespace = |it: &ObjectKey| match (key, it) {
            (ObjectKey::Namespace(name), ObjectKey::Policy(it)) => {
                it.namespace.as_ref() == Some(name)
            }
            (
                ObjectKey::Namespace(name),
                ObjectKey::ServiceAccount(it, _) | ObjectKey::EndpointSlice(it, _),
            ) => it == name,
            (ObjectKey::Namespace(name), ObjectKey::Service(it)) => it.namespace == *name,
            (ObjectKey::Namespace(name), ObjectKey::NetworkSet(it, _)) => it.as_ref() == Some(name),
            _ => false,
        };
        let was_there = self.objects.remove(key).is_some();
        self.objects.retain(|it, _| !in_namespace(it));
        assert_eq!(self.inputs.remove(key), was_there);
        assert_eq!(self.engine.remove(key), was_there, "{key:?}");
    }

    fn nth(&self, index: &Index) -> Option<(ObjectKey, Object)> {
        let keys: Vec<_> = self.objects.iter().collect();
        (!keys.is_empty()).then(|| {
            let (key, object) = keys[index.index(keys.len())];
            (key.clone(), object.clone())
        })
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Upsert(object) => self.upsert(*object),
            Event::Remove(index) => {
                self.nth(&index).into_iter().for_each(|(key, _)| self.remove(&key));
            }
            Event::Renew(index) => {
                if let Some((key, object)) =
                    self.nth(&index).filter(|it| !matches!(it.0, ObjectKey::Namespace(_)))
                {
                    self.remove(&key);
                    self.upsert(object);
                }
            }
            Event::RemoveKey(key) => self.remove(&key),
            Event::Apply => self.apply()?,
            Event::Fail => self.fails = true,
            Event::Resync => self.engine.resync(),
            Event::Settings(settings) => {
                self.settings = settings.clone();
                self.engine.force_settings(settings).unwrap();
            }
            Event::Expire => {
                let now = Timestamp(1);
                assert_eq!(self.engine.expire(now), self.inputs.expire(now));
                self.objects.retain(|key, _| !matches!(key, ObjectKey::DomainAddress(..)));
            }
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..8 {
            let Some(update) = self.engine.poll_update() else {
                let want = self.fresh_program();
                prop_assert_eq!(self.dataplane.program(), &want);
                prop_assert_eq!(self.engine.snapshot(), self.inputs.clone());
                return Ok(());
            };
            if std::mem::take(&mut self.fails) {
                let error = DataplaneError::new(DataplaneErrorKind::Transient, "test");
                self.engine.handle_applied(Err(error));
                continue;
            }
            let deltas = self.capabilities.deltas;
            prop_assert!(deltas || !matches!(update.change, Change::Delta(_)));
            if let Change::Delta(delta) = &update.change {
                prop_assert!(!delta.is_empty());
                // Every second one is kept, so that the engine must not change it.
                self.kept = (update.generation % 2 == 0).then(|| Arc::clone(&delta.program));
            }
            let before = self.kept.as_deref().cloned();
            let outcome = self.dataplane.apply(update);
            prop_assert!(outcome.is_ok(), "{:?}", outcome);
            self.engine.handle_applied(outcome);
            prop_assert_eq!(self.kept.as_deref(), before.as_ref());
        }
        Err(TestCaseError::fail("the engine does not come to rest"))
    }

    /// The program of an engine that is told just the objects that there are, from the last to the first.
    fn fresh_program(&self) -> Program {
        let objects: Vec<_> = self.objects.values().rev().cloned().collect();
        let mut program = compiled(&objects, &self.capabilities);
        program.hosts.settings = self.settings.clone();
        program
    }
}

fn run(
    history: Vec<Event>,
    capabilities: &Capabilities,
    complete_at: usize,
) -> Result<(), TestCaseError> {
    let mut world = World::new(capabilities);
    let idle = format!("{:?}", world.engine);
    let at = complete_at % (history.len() + 1);
    for (index, event) in history.into_iter().enumerate() {
        if index == at {
            world.engine.inputs_complete();
        }
        match event {
            // Before the barrier there is no program to compare with.
            Event::Apply if index < at => {
                while let Some(update) = world.engine.poll_update() {
                    prop_assert!(matches!(update.change, Change::Isolate(_)));
                    world.engine.handle_applied(Ok(Applied::completely(update.generation)));
                }
            }
            event => world.happen(event)?,
        }
    }
    world.engine.inputs_complete();
    world.apply()?;
    let written = serde_json::to_string(&world.engine.snapshot()).unwrap();
    prop_assert_eq!(serde_json::from_str::<Inputs>(&written).unwrap(), world.inputs.clone());
    // What is left when everything is gone.
    let keys: Vec<_> = world.objects.keys().cloned().collect();
    keys.iter().for_each(|key| {
        if world.objects.contains_key(key) {
            world.remove(key);
        }
    });
    world.apply()?;
    prop_assert_eq!(counts(&format!("{:?}", world.engine)), counts(&idle));
    Ok(())
}

/// The part of what an engine prints that says how much it stores.
fn counts(printed: &str) -> String {
    let start = printed.find("State {").unwrap();
    printed[start..printed.find("phase:").unwrap()].to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_program_follows_from_the_inputs_whatever_happened_before(
        history in history(), complete_at in 0..12_usize, deltas in prop::bool::weighted(0.9), log in any::<bool>(),
        view in services::destination_view(),
    ) {
        let mut capabilities = Capabilities::all();
        (capabilities.deltas, capabilities.log) = (deltas, log);
        capabilities.destination_view = view;
        run(history, &capabilities, complete_at)?;
    }
}
