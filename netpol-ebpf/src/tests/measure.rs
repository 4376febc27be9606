//! Figures: what a packet costs, what an update costs, what the verifier has to do.
//!
//! `cargo test --release -p netpol-ebpf measure -- --nocapture --test-threads 1` prints them. The bounds that are asserted
//! are several times larger, because other tests run at the same time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use netpol_core::model::{
    Action, Endpoint, EndpointId, EntityMatch, L4Match, NetworkSet, Object, Peers, Policy,
    PolicyKey, PolicyKind, PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Prefix, Transport};
use netpol_core::program::Program;
use netpol_core::{Change, Dataplane, Direction, Update, Verdict};

use super::packet::{ACK, Packet, SYN};
use super::world::{
    Node, address, full, in_namespace, index, ip, objects, policy, program, to_ports,
};
use crate::programs::Side;
use crate::{Capacity, EbpfConfig, EbpfDataplane, PrivateBpfFs};

/// The least of several averages of many runs.
fn least(rounds: u32, mut measure: impl FnMut() -> Duration) -> u128 {
    (0..rounds).map(|_| measure().as_nanos()).min().unwrap()
}

#[test]
fn an_established_flow_costs_little_more_than_an_empty_program() {
    in_namespace(|| {
        let mut node = Node::new(vec![policy(
            "in",
            Direction::Ingress,
            vec![to_ports(Transport::Tcp, &[(80, 80)])],
        )]);
        let np0 = index("np0");
        let programs = |node: &mut Node, name: &str, frame: &[u8]| {
            least(30, || node.state().programs.run_named(name, frame, np0, 1, 100_000).1)
        };
        for v6 in [false, true] {
            let syn = Packet::tcp((address(1, v6), 9), (address(0, v6), 80), SYN);
            assert_eq!(node.receives(&syn), Verdict::Allow);
            let there = syn.clone().with_flags(ACK).bytes();
            let back = syn.reply().with_flags(ACK).bytes();
            node.state().programs.load_nothing();
            let floor = programs(&mut node, "nothing", &there);
            let to = programs(&mut node, Side::To.program(), &there);
            let from = programs(&mut node, Side::From.program(), &back);
            let family = if v6 { "IPv6" } else { "IPv4" };
            println!("established {family}: empty {floor} ns, to {to} ns, from {from} ns");
            assert!(to < floor + 400 && from < floor + 400);
        }
    });
}

#[test]
fn a_new_flow_costs_the_same_with_many_peers() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        let np0 = index("np0");
        for peers in [10_u32, 1000, 4000] {
            let nets = (0..peers)
                .map(|it| Prefix::host(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 | it))))
                .collect();
            let mut web = to_ports(Transport::Tcp, &[(80, 80), (443, 443)]);
            web.source = EntityMatch { nets: Some(nets), ..EntityMatch::default() };
            node.apply(&objects(vec![policy("in", Direction::Ingress, vec![web])]));
            node.state().programs.load_nothing();
            let mut number = 0;
            let mut frame = |port| {
                number = (number * 7 + 13) % peers;
                let source = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 | number));
                Packet::tcp((source, port), (address(0, false), 443), SYN).bytes()
            };
            let floor = {
                let bytes = frame(1);
                least(30, || node.state().programs.run_named("nothing", &bytes, np0, 1, 100_000).1)
            };
            // A SYN is judged each time, and notes its flow each time.
            let hot = {
                let bytes = frame(2);
                least(30, || node.state().programs.run(Side::To, &bytes, np0, 1, 100_000).1)
            };
            println!("new flow, {peers} peers: empty {floor} ns, judged {hot} ns");
            assert!(hot < floor + 4000);
        }
    });
}

#[test]
fn a_full_sync_of_a_large_node() {
    let (pods, policies, sets, members) = (110, 30, 40, 1000);
    let program = large(pods, policies, sets, members);
    in_namespace(move || {
        for number in 0..pods {
            ip(&format!("link add np{number} type veth peer name peer{number}"));
        }
        let pins = PrivateBpfFs::new().unwrap();
        let started = Instant::now();
        let config = EbpfConfig {
            bpf_fs: pins.path(),
            capacity: Capacity::default(),
            ..EbpfConfig::default()
        };
        let mut dataplane = EbpfDataplane::open(config).unwrap();
        println!("open: {:?}", started.elapsed());
        // The kernel waits for a grace period with each program that it attaches.
        let started = Instant::now();
        let endpoints = program.endpoints.clone().into();
        dataplane.apply(Update::new(1, Change::Isolate(endpoints))).unwrap();
        println!("closing {pods} new pods: {:?}", started.elapsed());
        let started = Instant::now();
        let applied = dataplane.apply(full(&program)).unwrap();
        let elapsed = started.elapsed();
        assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
        println!("full sync of {pods} pods and {} addresses: {elapsed:?}", sets * members);
        let started = Instant::now();
        dataplane.apply(full(&program)).unwrap();
        println!("the same again: {:?}", started.elapsed());
        assert!(elapsed < Duration::from_secs(20));
    });
}

#[test]
fn the_verifier_has_not_much_to_do() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        for side in Side::BOTH {
            let (instructions, compiled) = node.state().programs.size(side);
            println!(
                "{}: {instructions} instructions verified, {compiled} bytes compiled",
                side.program()
            );
            assert!(instructions < 300_000);
        }
    });
}

/// Pods on one node, all of whom every policy applies to, with rules for ports of sets of addresses.
fn large(pods: usize, policies: usize, sets: usize, members: usize) -> Program {
    let mut objects: Vec<Object> = Vec::new();
    for number in 0..pods {
        let mut pod = Endpoint::new(EndpointId::workload("x", format!("pod{number}")));
        pod = pod.on_node("node").attached_to(format!("np{number}"));
        pod.default_verdict = Verdict::Allow;
        pod.labels = [("group", (number % policies).to_string())].into_iter().collect();
        pod.addresses =
            vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + u32::try_from(number).unwrap()))];
        objects.push(Object::Endpoint(pod));
    }
    for set in 0..sets {
        let first = 0x0b00_0000 + u32::try_from(set * members * 2).unwrap();
        let members =
            (0..u32::try_from(members).unwrap()).map(|it| Ipv4Addr::from_bits(first + it * 2));
        let nets = members.map(|it| Prefix::host(it.into())).collect();
        let labels = [("set", set.to_string())].into_iter().collect();
        objects.push(Object::NetworkSet(NetworkSet {
            namespace: Some("x".into()),
            name: format!("s{set}"),
            labels,
            nets,
        }));
    }
    for number in 0..policies {
        let rules = (0..5).map(|rule| {
            let set = (number * 5 + rule) % sets;
            let peers = Some(Peers::Endpoints(format!("set == '{set}'").parse().unwrap()));
            let port = 8000 + u16::try_from(rule).unwrap();
            let numbers = [PortRange::single(port).unwrap()].into_iter().collect();
            let any_of = Some(PortMatch { numbers, ..PortMatch::default() });
            let l4 = L4Match::Ports {
                transport: Transport::Tcp,
                source: PortConstraint::default(),
                destination: PortConstraint { any_of, none_of: None },
            };
            let source = EntityMatch { peers, ..EntityMatch::default() };
            Rule::new(rule, Action::Allow, RuleMatch { l4, source, ..RuleMatch::default() })
        });
        let key = PolicyKey {
            kind: PolicyKind::KubernetesNetworkPolicy,
            namespace: Some("x".into()),
            name: format!("p{number}"),
        };
        let mut policy = Policy::new(key, format!("group == '{number}'").parse().unwrap());
        policy.ingress = Some(rules.collect());
        objects.push(Object::Policy(policy));
    }
    program(&objects)
}
