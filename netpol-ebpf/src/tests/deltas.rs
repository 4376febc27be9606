//! Deltas on the kernel: what they leave judges as the whole program does.

use std::cell::{Cell, RefCell};

use netpol_core::model::{EntityMatch, Object, Peers};
use netpol_core::net::Transport;
use netpol_core::{Change, Dataplane, Direction, Origin, Verdict};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::agreement::{cluster, compare, is_a_packet};
use super::history::{Event, History, INTERFACES, events, histories, program};
use super::packet::{Packet, SYN};
use super::world::{
    Node, address, config, in_namespace, interface, objects, pod, policy, to_ports,
};
use crate::EbpfDataplane;
use crate::programs::Side;

/// How many flows are judged after each delta.
const FLOWS: usize = 60;

#[derive(Default)]
struct Counts {
    deltas: Cell<usize>,
    covered: Cell<usize>,
    judged: Cell<usize>,
}

#[test]
fn the_kernel_judges_after_deltas_as_after_a_full_update() {
    in_namespace(|| {
        let mut node = Node::new(Vec::new());
        (3..INTERFACES).for_each(interface);
        let (node, counts) = (RefCell::new(&mut node), Counts::default());
        let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
        let mut runner =
            TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let test = |(clusters, at_once): (Vec<Vec<Object>>, usize)| {
            follow(&mut node.borrow_mut(), &clusters, at_once, &counts)
        };
        runner.run(&histories(), test).unwrap_or_else(|error| panic!("{error}"));
        let Counts { deltas, covered, judged } = counts;
        let (deltas, covered, judged) = (deltas.get(), covered.get(), judged.get());
        println!("{deltas} deltas, {covered} without a full update, {judged} packets");
        assert!(covered > deltas / 4 && judged > 5000);
    });
}

#[test]
fn a_process_without_memory_makes_anew_what_deltas_changed() {
    in_namespace(|| {
        let mut friends = to_ports(Transport::Tcp, &[(80, 80)]);
        let peers = Some(Peers::Endpoints("pod == '7'".parse().unwrap()));
        friends.source = EntityMatch { peers, ..EntityMatch::default() };
        let policies = vec![policy("in", Direction::Ingress, vec![friends])];
        let mut node = Node::new(policies.clone());
        let mut history = History::of("node", node.dataplane.capabilities(), &objects(policies));
        let mut update = |node: &mut Node, events: &[Event]| {
            history.happens(events);
            let update = history.update().unwrap();
            let whole = program(&update);
            history.answer(node.dataplane.apply(update));
            whole
        };
        let judge = |node: &mut Node| {
            node.state().maps.forget_flows();
            node.receives(&Packet::tcp((address(7, false), 9), (address(0, false), 80), SYN))
        };
        let alone = update(&mut node, &[]);
        assert_eq!(judge(&mut node), Verdict::Deny);
        let friend = Object::Endpoint(pod(7).on_node("elsewhere"));
        let before = node.state().full_updates();
        let together = update(&mut node, &[Event::Come(friend.clone())]);
        assert_eq!(node.state().full_updates(), before);
        assert_eq!(judge(&mut node), Verdict::Allow);
        for (program, verdict) in [(&alone, Verdict::Deny), (&together, Verdict::Allow)] {
            let Node { dataplane, pins } = node;
            drop(dataplane);
            let dataplane = EbpfDataplane::open(config(&pins)).unwrap();
            node = Node { dataplane, pins };
            node.enforce(program);
            assert_eq!(judge(&mut node), verdict);
            assert!(node.dataplane.audit(program).unwrap().is_none());
        }
    });
}

fn follow(
    node: &mut Node,
    clusters: &[Vec<Object>],
    at_once: usize,
    counts: &Counts,
) -> Result<(), TestCaseError> {
    let capabilities = node.dataplane.capabilities().clone();
    let mut history = History::new(&capabilities, &clusters[0]);
    let all: Vec<_> = clusters.windows(2).flat_map(|it| events(&it[0], &it[1])).collect();
    for (step, some) in std::iter::once(&all[..0]).chain(all.chunks(at_once)).enumerate() {
        history.happens(some);
        let Some(update) = history.update() else { continue };
        let program = program(&update);
        let is_delta = matches!(update.change, Change::Delta(_));
        let before = node.state().full_updates();
        let outcome = node.dataplane.apply(update);
        let applied = outcome.as_ref().unwrap_or_else(|error| panic!("{error:?}"));
        let isolated: Vec<_> = applied.isolated.iter().map(|(id, _)| id.clone()).collect();
        history.answer(outcome);
        counts.deltas.set(counts.deltas.get() + usize::from(is_delta));
        let covered = is_delta && node.state().full_updates() == before;
        counts.covered.set(counts.covered.get() + usize::from(covered));
        let drift = node.dataplane.audit(&program).unwrap();
        prop_assert!(drift.is_none(), "{:?}", drift.differences);
        let objects = clusters.concat();
        let flows = cluster::flows(&objects, step);
        let every = flows.len() / FLOWS + 1;
        for flow in flows.iter().skip(step % every).step_by(every).filter(|it| is_a_packet(it)) {
            for (number, endpoint) in program.endpoints.iter().enumerate() {
                let sides = [
                    (Direction::Egress, Side::From, flow.source),
                    (Direction::Ingress, Side::To, flow.destination),
                ];
                for (direction, side, address) in sides {
                    let judges = endpoint.addresses.contains(&address)
                        && !isolated.contains(&endpoint.id)
                        && (direction == Direction::Ingress || flow.origin == Origin::Endpoint);
                    if judges {
                        counts.judged.set(counts.judged.get() + 1);
                        compare(node, &program, number, direction, side, flow)?;
                    }
                }
            }
        }
    }
    Ok(())
}
