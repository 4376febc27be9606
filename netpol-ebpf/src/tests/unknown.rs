//! Interfaces that look like those of workloads and belong to none.

use std::sync::Arc;

use netpol_core::model::{Endpoint, Mode, ObjectKey, Treatment, UnknownInterfaces};
use netpol_core::{Change, Dataplane, Engine, NodeConfig, Program, Update, Verdict};

use super::packet::{Packet, SYN};
use super::world::{
    Node, address, config, full, in_namespace, index, interface, interfaces, ip, pod,
};
use crate::programs::Side;
use crate::{EbpfDataplane, PrivateBpfFs};

use Verdict::{Allow, Deny};

/// A node with pods 0 to 2 and an unknown interface, `np3`, and its engine.
struct World {
    node: Node,
    engine: Engine,
    program: Arc<Program>,
}

impl World {
    fn new(treatment: Treatment) -> Self {
        interfaces(4);
        let pins = PrivateBpfFs::new().unwrap();
        let dataplane = EbpfDataplane::open(config(&pins)).unwrap();
        let mut config = NodeConfig::new("node");
        config.unknown = UnknownInterfaces { prefixes: ["np".parse().unwrap()].into(), treatment };
        let mut engine = Engine::new(config, dataplane.capabilities());
        (0..3).for_each(|number| engine.upsert(pod(number)).unwrap());
        engine.inputs_complete();
        let mut world = Self { node: Node { dataplane, pins }, engine, program: Arc::default() };
        world.settle();
        world
    }

    #[track_caller]
    fn settle(&mut self) {
        while let Some(update) = self.engine.poll_update() {
            match &update.change {
                Change::Full(program) => self.program = Arc::clone(program),
                Change::Delta(delta) => self.program = Arc::clone(&delta.program),
                _ => {}
            }
            let applied = self.node.dataplane.apply(update);
            assert!(applied.as_ref().is_ok_and(|it| it.isolated.is_empty()), "{applied:?}");
            self.engine.handle_applied(applied);
        }
    }

    #[track_caller]
    fn add(&mut self, pod: Endpoint) {
        self.engine.upsert(pod).unwrap();
        self.settle();
    }

    #[track_caller]
    fn remove(&mut self, number: u8) {
        assert!(self.engine.remove(&ObjectKey::Endpoint(pod(number).id)));
        self.settle();
    }

    /// Returns the verdicts on a packet that pod `number` sends, on one that is forwarded to it, and on one of the node.
    #[track_caller]
    fn judged(&mut self, number: u8, sent: &Packet, received: &Packet) -> [Verdict; 3] {
        let interface = format!("np{number}");
        assert!(self.guards(&interface), "{interface}");
        [(Side::From, sent, 1), (Side::To, received, 1), (Side::To, received, 0)]
            .map(|(side, packet, came_in)| self.node.judges(side, &interface, packet, came_in))
    }

    /// The same for new flows.
    #[track_caller]
    fn opens(&mut self, number: u8) -> [Verdict; 3] {
        self.node.state().maps.forget_flows();
        let [own, stranger] = [address(number, false), address(7, false)];
        let to = Packet::tcp((own, 9), (stranger, 80), SYN);
        self.judged(number, &to, &Packet::tcp((stranger, 9), (own, 80), SYN))
    }

    /// Returns whether an interface is guarded by programs of ours.
    fn guards(&mut self, interface: &str) -> bool {
        self.node.state().programs.guard(index(interface))
    }

    #[track_caller]
    fn differences(&mut self) -> Vec<String> {
        self.node.dataplane.audit(&self.program).unwrap().differences
    }
}

#[test]
fn what_nobody_has_told_of_is_closed() {
    in_namespace(|| {
        let mut world = World::new(Treatment::Closed);
        assert_eq!(world.opens(2), [Allow; 3]);
        assert_eq!(world.opens(3), [Deny; 3]);
        assert_eq!(world.differences(), Vec::<String>::new());
        world.add(pod(3));
        assert_eq!(world.opens(3), [Allow; 3]);
        assert_eq!(world.node.state().full_updates(), 1, "deltas suffice");
        assert_eq!(world.differences(), Vec::<String>::new());
    });
}

#[test]
fn an_endpoint_that_goes_is_closed_with_its_flows_while_its_interface_stays() {
    in_namespace(|| {
        let mut world = World::new(Treatment::Closed);
        for is_delta in [true, false] {
            let query = Packet::udp((address(2, false), 5), (address(7, false), 6));
            assert_eq!(world.judged(2, &query, &query.reply())[..2], [Allow; 2]);
            if is_delta {
                world.remove(2);
            } else {
                world.engine.remove(&ObjectKey::Endpoint(pod(2).id));
                world.engine.resync();
                world.settle();
            }
            assert_eq!(world.judged(2, &query, &query.reply()), [Deny; 3]);
            assert_eq!(world.differences(), Vec::<String>::new());
            world.add(pod(2));
            assert_eq!(world.judged(2, &query.reply(), &query.reply())[1], Allow, "no policy");
        }
        ip("link del np2");
        world.remove(2);
        assert_eq!(world.differences(), Vec::<String>::new());
        assert_eq!(world.node.state().programs.attached().unwrap().len(), 3, "np2 left nothing");
    });
}

#[test]
fn an_interface_that_appears_is_drift_until_it_is_closed() {
    in_namespace(|| {
        let mut world = World::new(Treatment::Closed);
        for (number, with_memory) in [(4_u8, true), (5, false)] {
            if !with_memory {
                world.node.dataplane.apply(Update::new(9, Change::Isolate([].into()))).unwrap();
            }
            interface(number.into());
            let name = format!("np{number}");
            let differences = world.differences();
            assert!(differences.iter().any(|it| it.contains(&name)), "{differences:?}");
            assert_eq!(world.node.dataplane.close_unknown().unwrap(), 1);
            assert_eq!(world.opens(number), [Deny; 3]);
            assert_eq!(world.differences(), Vec::<String>::new());
            assert_eq!(world.node.dataplane.close_unknown().unwrap(), 0);
            assert_eq!(world.opens(1), [Allow; 3], "others go on");
        }
        // Every update does the same.
        interface(6);
        world.remove(0);
        assert_eq!(world.opens(6), [Deny; 3]);
        ip("link del np6");
        world.add(pod(0));
        assert_eq!(world.differences(), Vec::<String>::new());
        assert_eq!(world.node.state().programs.attached().unwrap().len(), 6);
    });
}

#[test]
fn an_endpoint_is_judged_where_its_interface_is_made_anew() {
    in_namespace(|| {
        let mut world = World::new(Treatment::Closed);
        let mut isolated = pod(1);
        isolated.mode = Mode::Isolate;
        world.add(isolated);
        for by_update in [false, true] {
            for number in [1, 2] {
                ip(&format!("link del np{number}"));
                interface(number);
                assert!(!world.guards(&format!("np{number}")));
            }
            if by_update {
                world.remove(0);
            } else {
                assert_eq!(world.node.dataplane.close_unknown().unwrap(), 2);
            }
            assert_eq!((world.opens(1), world.opens(2)), ([Deny; 3], [Allow; 3]));
            assert_eq!(world.differences(), Vec::<String>::new());
            assert_eq!(world.node.dataplane.close_unknown().unwrap(), 0);
        }
        assert_eq!(world.node.state().full_updates(), 1, "deltas suffice");
    });
}

#[test]
fn it_may_open_flows_and_keeps_them_when_it_is_known() {
    in_namespace(|| {
        let mut world = World::new(Treatment::EgressTracked);
        assert_eq!(world.opens(3), [Allow, Deny, Allow]);
        let query = Packet::udp((address(3, false), 5), (address(7, false), 6));
        assert_eq!(world.judged(3, &query, &query.reply())[..2], [Allow; 2], "an answer passes");
        assert_eq!(world.differences(), Vec::<String>::new());
        let mut closed = pod(3);
        closed.default_verdict = Deny;
        world.add(closed.clone());
        assert_eq!(world.judged(3, &query, &query.reply()), [Allow; 3], "it is established");
        assert_eq!(world.opens(3), [Deny, Deny, Allow]);
        closed.mode = Mode::Isolate;
        world.add(closed);
        assert_eq!(world.opens(3), [Deny; 3]);
        world.remove(3);
        assert_eq!(world.opens(3), [Allow, Deny, Allow]);
        assert_eq!(world.differences(), Vec::<String>::new());
    });
}

#[test]
fn an_open_one_is_left_alone() {
    in_namespace(|| {
        let mut world = World::new(Treatment::Open);
        assert!(!world.guards("np3"));
        world.remove(2);
        assert!(!world.guards("np2"));
        assert_eq!(world.differences(), Vec::<String>::new());
    });
}

#[test]
fn a_restart_leaves_it_closed() {
    in_namespace(|| {
        for treatment in [Treatment::Closed, Treatment::EgressTracked] {
            let mut world = World::new(treatment);
            let want = world.opens(3);
            let Node { dataplane, pins } = world.node;
            drop(dataplane);
            let dataplane = EbpfDataplane::open(config(&pins)).unwrap();
            world.node = Node { dataplane, pins };
            assert_eq!(world.opens(3), want);
            world.node.dataplane.apply(full(&world.program)).unwrap();
            assert_eq!(world.opens(3), want);
            assert_eq!(world.differences(), Vec::<String>::new());
            world.node.dataplane.apply(full(&Program::default())).unwrap();
            assert!(!world.guards("np3"), "nothing looks like a workload's any more");
            (0..4).for_each(|number| ip(&format!("link del np{number}")));
        }
    });
}
