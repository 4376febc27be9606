//! The program in the kernel and the interpreter of the core give the same verdict on packets drawn from the edges of
//! models.

use std::cell::{Cell, RefCell};

use netpol_core::model::{Attachment, Object};
use netpol_core::{Dataplane, Direction, Flow, Origin, Payload, Program};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::packet::Packet;
use super::world::{Node, full, in_namespace, index, interface};
use crate::programs::Side;

#[path = "../../../netpol-core/tests/support/cluster.rs"]
pub(crate) mod cluster;

/// More interfaces than any cluster has endpoints.
const INTERFACES: usize = 12;

#[test]
fn the_kernel_agrees_with_the_interpreter() {
    in_namespace(|| check(cluster::objects(), 150));
}

#[test]
fn the_kernel_agrees_with_the_interpreter_in_crowds() {
    in_namespace(|| check(cluster::crowded(), 100));
}

fn check(objects: impl Strategy<Value = Vec<Object>>, cases: u32) {
    let mut node = Node::new(Vec::new());
    interfaces_beyond(3);
    let (node, judged) = (RefCell::new(&mut node), Cell::new(0_usize));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&(objects, 0..1000_usize), |(objects, seed)| {
            let objects = cluster::with_single_addresses(objects);
            let count = agree(&mut node.borrow_mut(), &objects, seed)?;
            judged.set(judged.get() + count);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(judged.get() > 10_000, "only {} packets were judged", judged.get());
}

/// Applies the program of a model and compares the verdicts on its flows. Returns how many there were.
fn agree(node: &mut Node, objects: &[Object], seed: usize) -> Result<usize, TestCaseError> {
    let capabilities = node.dataplane.capabilities().clone();
    let mut program = cluster::compiled(objects, &capabilities);
    for (number, endpoint) in program.endpoints.iter_mut().enumerate() {
        endpoint.attachment = Attachment::Interface(format!("np{number}"));
    }
    let applied = node.dataplane.apply(full(&program)).expect("a small program fits");
    let isolated: Vec<_> = applied.isolated.into_iter().map(|(id, _)| id).collect();
    let mut judged = 0;
    for flow in cluster::flows(objects, seed) {
        if !is_a_packet(&flow) {
            continue;
        }
        for (number, endpoint) in program.endpoints.iter().enumerate() {
            if isolated.contains(&endpoint.id) {
                continue;
            }
            for (direction, side, address) in [
                (Direction::Egress, Side::From, flow.source),
                (Direction::Ingress, Side::To, flow.destination),
            ] {
                if !endpoint.addresses.contains(&address)
                    || (direction == Direction::Egress && flow.origin != Origin::Endpoint)
                {
                    continue;
                }
                judged += 1;
                compare(node, &program, number, direction, side, &flow)?;
            }
        }
    }
    Ok(judged)
}

pub(super) fn compare(
    node: &mut Node,
    program: &Program,
    number: usize,
    direction: Direction,
    side: Side,
    flow: &Flow,
) -> Result<(), TestCaseError> {
    let packet = Packet::of(flow.source, flow.destination, flow.payload);
    let Attachment::Interface(interface) = &program.endpoints[number].attachment else {
        return Ok(());
    };
    let came_in = match flow.origin {
        Origin::OwnNode => 0,
        _ if program.endpoints[number].addresses.contains(&flow.source) => index(interface),
        _ => 1,
    };
    node.state().maps.forget_flows();
    let got = node.judges(side, interface, &packet, came_in);
    let explained = program.explain(&program.endpoints[number], direction, flow);
    prop_assert_eq!(got, explained.verdict, "{} {}: {}", flow, direction, explained);
    Ok(())
}

/// Whether a flow can be a packet as it stands: protocols with a payload of their own are not written as others, and
/// numbers of extension headers are no protocols over IPv6.
pub(super) fn is_a_packet(flow: &Flow) -> bool {
    if let Payload::Icmp { kind, .. } = flow.payload {
        // Discovery is not forwarded: that of listeners has no address of a pod, and that of neighbours goes to no group
        // beyond the link.
        let of_listeners = matches!(kind, 130..=132 | 143);
        let of_neighbours = (133..=137).contains(&kind) && flow.destination.is_multicast();
        return flow.source.is_ipv4() || !of_listeners && !of_neighbours;
    }
    let Payload::Other(protocol) = flow.payload else { return true };
    let v6 = flow.destination.is_ipv6();
    let has_payload =
        matches!((protocol.number(), v6), (6 | 17 | 132, _) | (1, false) | (58, true));
    let is_extension = v6 && matches!(protocol.number(), 0 | 43 | 44 | 51 | 60);
    !has_payload && !is_extension
}

fn interfaces_beyond(first: usize) {
    for number in first..INTERFACES {
        interface(number);
    }
}
