//! An engine and a dataplane on which updates go wrong: whatever fails, whoever dies, and in whatever order, nothing opens
//! that no inputs allowed, and when the faults end the node enforces what its inputs say.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;

use netpol_core::model::{Endpoint, EndpointId, Object, Policy, PolicyKey, PolicyKind};
use netpol_core::net::Transport;
use netpol_core::{
    Capabilities, Change, Dataplane, DataplaneErrorKind, Direction, Engine, Fault, Flow,
    MemoryDataplane, NodeConfig, Program, Reason, Selector, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use self::cluster::{NODE, compiled, crowded, flows};

/// Something that happens to a node.
#[derive(Clone, Debug)]
enum Event {
    /// An object comes, or a new version of one.
    Upsert(usize),
    /// An object goes.
    Remove(usize),
    /// The next update goes wrong.
    Fault(Fault),
    /// The engine is asked once, and the dataplane does what it asks for.
    Drive,
    /// The process dies and another one takes over, which is told what exists.
    Restart,
    /// The process dies with an update under way.
    Crash,
    /// Somebody removes all that is ours from the kernel. The caller's audit notices, and it closes before it goes on.
    Flush,
}

fn event() -> impl Strategy<Value = Event> {
    use DataplaneErrorKind::{Capacity, Conflict, Other, Permission, Transient, Unsupported};
    let kinds = vec![Capacity, Conflict, Other, Permission, Transient, Unsupported];
    let isolates = select(vec!["p", "q", "r"]).prop_map(|name| EndpointId::workload("x", name));
    prop_oneof![
        6 => any::<usize>().prop_map(Event::Upsert),
        3 => any::<usize>().prop_map(Event::Remove),
        3 => select(kinds).prop_map(|kind| Event::Fault(Fault::Fails(kind))),
        1 => isolates.prop_map(|id| Event::Fault(Fault::Isolates(id))),
        8 => Just(Event::Drive),
        1 => Just(Event::Restart),
        1 => Just(Event::Crash),
        1 => Just(Event::Flush),
    ]
}

/// A node, and what it has been told.
struct World {
    objects: Vec<Object>,
    engine: Engine,
    dataplane: MemoryDataplane,
    /// The program of the last update of it that was applied.
    in_force: Program,
    is_driven_dry: bool,
}

impl World {
    fn new() -> Self {
        let mut engine = Engine::new(NodeConfig::new(NODE), &Capabilities::all());
        engine.inputs_complete();
        Self {
            objects: Vec::new(),
            engine,
            dataplane: MemoryDataplane::default(),
            in_force: Program::default(),
            is_driven_dry: false,
        }
    }

    fn happens(&mut self, event: &Event, pool: &[Object]) {
        self.is_driven_dry = false;
        match event {
            Event::Upsert(index) => {
                let object = pool.get(index % pool.len()).unwrap().clone();
                self.objects.retain(|it| it.key() != object.key());
                self.objects.push(object.clone());
                self.engine.upsert(object).unwrap();
            }
            Event::Remove(_) if self.objects.is_empty() => {}
            Event::Remove(index) => {
                let removed = self.objects.remove(index % self.objects.len());
                self.engine.remove(&removed.key());
                if let Object::Namespace { name, .. } = &removed {
                    self.objects.retain(|it| !goes_with_namespace(it, name));
                }
            }
            Event::Fault(fault) => self.dataplane.inject([fault.clone()]),
            Event::Drive => self.drive(),
            Event::Restart => self.restart(),
            Event::Crash => {
                drop(self.engine.poll_update());
                self.restart();
            }
            Event::Flush => {
                self.dataplane.remove().unwrap();
                self.in_force = Program::default();
                self.engine.resync();
            }
        }
    }

    fn restart(&mut self) {
        self.engine = Engine::new(NodeConfig::new(NODE), &Capabilities::all());
        for object in self.objects.clone() {
            self.engine.upsert(object).unwrap();
            self.drive();
        }
        self.engine.inputs_complete();
    }

    fn drive(&mut self) {
        let Some(update) = self.engine.poll_update() else {
            self.is_driven_dry = true;
            return;
        };
        let (before, change) = (self.in_force.clone(), update.change.clone());
        let outcome = self.dataplane.apply(update);
        match (&outcome, change) {
            (Ok(_), Change::Full(program)) => self.in_force = (*program).clone(),
            (Ok(_), Change::Delta(delta)) => self.in_force = (*delta.program).clone(),
            _ => assert_eq!(self.in_force, before),
        }
        self.engine.handle_applied(outcome);
    }

    /// What is in force is a program that was once applied completely, or closed.
    fn check(&self, flows: &[Flow]) -> Result<(), TestCaseError> {
        for flow in flows {
            let (held, wanted) = (self.dataplane.outcome(flow), self.in_force.outcome(flow));
            for direction in Direction::BOTH {
                let [held, wanted] = [&held, &wanted].map(|it| match direction {
                    Direction::Egress => &it.egress,
                    Direction::Ingress => &it.ingress,
                });
                let closed = held.as_ref().is_some_and(|it| {
                    it.verdict == Verdict::Deny || it.reason == Reason::NeighbourDiscovery
                });
                prop_assert!(held == wanted || closed, "{direction} of {flow}: {held:?}");
            }
        }
        Ok(())
    }

    /// No fault is left: the node ends with what a node does that was told the same at once.
    fn settles(&mut self) -> Result<(), TestCaseError> {
        // Faults that were never met are met now. What could not be programmed is tried again when asked for.
        for _ in 0..200 {
            self.drive();
            if self.is_driven_dry && !self.engine.isolated().is_empty() {
                self.engine.resync();
            }
        }
        prop_assert!(self.is_driven_dry);
        let wanted = compiled(&self.objects, &Capabilities::all());
        prop_assert_eq!(self.dataplane.program(), &wanted);
        prop_assert!(self.engine.isolated().is_empty() && self.engine.last_error().is_none());
        prop_assert!(self.dataplane.audit(&wanted).unwrap().is_none());
        Ok(())
    }
}

fn goes_with_namespace(object: &Object, namespace: &str) -> bool {
    match object {
        Object::Policy(it) => it.key.namespace.as_deref() == Some(namespace),
        Object::NetworkSet(it) => it.namespace.as_deref() == Some(namespace),
        Object::ServiceAccount { namespace: it, .. } => it == namespace,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn faults_open_nothing_and_are_overcome(pool in crowded(), events in vec(event(), 1..60), seed in 0_usize..1000) {
        let flows = flows(&pool, seed);
        let flows: Vec<_> = flows.into_iter().skip(seed % 7).step_by(7).collect();
        let mut world = World::new();
        for event in &events {
            world.happens(event, &pool);
            world.check(&flows)?;
        }
        world.settles()?;
    }
}

/// A positive control: a policy that denies is in force at last, and was not while updates failed.
#[test]
fn a_policy_takes_effect_when_its_faults_are_over() {
    let mut world = World::new();
    let mut pod = Endpoint::pod("x", "p").on_node(NODE).attached_to("veth0");
    pod.addresses = vec!["10.0.0.1".parse().unwrap()];
    let key =
        PolicyKey { kind: PolicyKind::GlobalNetworkPolicy, namespace: None, name: "closed".into() };
    let mut closed = Policy::new(key, Selector::all());
    closed.ingress = Some(Vec::new());
    let pool = [Object::Endpoint(pod), Object::Policy(closed)];
    let flow = Flow::to_port(
        "192.0.2.1".parse().unwrap(),
        "10.0.0.1".parse().unwrap(),
        Transport::Tcp,
        80,
    );
    world.happens(&Event::Upsert(0), &pool);
    world.drive();
    assert_eq!(world.dataplane.outcome(&flow).verdict(), Verdict::Allow);
    world.happens(&Event::Upsert(1), &pool);
    world.dataplane.inject([Fault::Fails(DataplaneErrorKind::Capacity)]);
    world.drive();
    assert_eq!(world.dataplane.outcome(&flow).verdict(), Verdict::Allow);
    world.drive();
    assert_eq!(world.dataplane.outcome(&flow).verdict(), Verdict::Deny);
}
