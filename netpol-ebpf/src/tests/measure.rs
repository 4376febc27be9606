//! Figures: what a packet costs, what an update costs, what the verifier has to do.
//!
//! `cargo test --release -p netpol-ebpf measure -- --nocapture --test-threads 1` prints them. The bounds that are asserted
//! are several times larger, because other tests run at the same time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpol_core::model::{
    Action, Endpoint, EndpointId, EntityMatch, L4Match, NetworkSet, Object, Peers, Policy,
    PolicyKey, PolicyKind, PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Prefix, Transport};
use netpol_core::program::Program;
use netpol_core::{Change, Dataplane, Direction, Update, Verdict};

use super::history::{Event, History};
use super::packet::{ACK, Packet, SYN};
use super::world::{
    Node, address, in_namespace, index, interfaces, ip, objects, policy, program, to_ports,
};
use crate::programs::Side;
use crate::{EbpfConfig, EbpfDataplane, Hook, PrivateBpfFs, Statistic};

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

/// How many packets of different flows are run.
const FLOWS: u32 = 50_000;

#[test]
fn a_new_flow_costs_the_same_with_many_peers() {
    in_namespace(|| {
        interfaces(3);
        let pins = PrivateBpfFs::new().unwrap();
        let config = EbpfConfig { bpf_fs: pins.path(), ..EbpfConfig::default() };
        let mut node = Node { dataplane: EbpfDataplane::open(config).unwrap(), pins };
        for peers in [10, 1000, 10_000] {
            node.apply(&objects(vec![web_for(peers)]));
            node.state().programs.load_nothing();
            node.state().maps.forget_flows();
            // Each packet is of another flow, of a peer that none of the packets before it tells.
            let syns = (0..FLOWS).map(|it| syn(it.wrapping_mul(0x9e37_79b1) % peers, it));
            let syns: Vec<Vec<u8>> = syns.collect();
            let floor = each(&mut node, "nothing", &syns);
            let new = each(&mut node, Side::To.program(), &syns);
            let opened = node.dataplane.statistics().unwrap()[&Statistic::Opened];
            let acks: Vec<Vec<u8>> = syns
                .into_iter()
                .map(|mut frame| {
                    frame[FLAGS] = ACK;
                    frame
                })
                .collect();
            let known = each(&mut node, Side::To.program(), &acks);
            println!(
                "{peers} peers, {FLOWS} random flows: empty {floor} ns, new flow {new} ns, \
                 then established {known} ns"
            );
            assert!(opened >= u64::from(FLOWS), "only {opened} flows were opened");
            assert!(new < floor + 10_000);
        }
    });
}

/// Where the flags of TCP are in a frame of IPv4.
const FLAGS: usize = 14 + 20 + 13;

/// Allows ports of the web from so many hosts.
fn web_for(peers: u32) -> Policy {
    let nets = (0..peers).map(|it| Prefix::host(host(it))).collect();
    let mut web = to_ports(Transport::Tcp, &[(80, 80), (443, 443)]);
    web.source = EntityMatch { nets: Some(nets), ..EntityMatch::default() };
    policy("in", Direction::Ingress, vec![web])
}

fn host(peer: u32) -> IpAddr {
    // No two of them follow each other.
    IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 | (peer << 1)))
}

/// The first packet of a flow from a peer; different numbers below 60 000 are different flows.
fn syn(peer: u32, number: u32) -> Vec<u8> {
    let port = 1024 + u16::try_from(number).unwrap();
    Packet::tcp((host(peer), port), (address(0, false), 443), SYN).bytes()
}

/// Returns how long a program runs for one of these frames, each of which it sees once: the middle of all times.
fn each(node: &mut Node, program: &str, frames: &[Vec<u8>]) -> u128 {
    let np0 = index("np0");
    let run =
        |frame: &Vec<u8>| node.state().programs.run_named(program, frame, np0, 1, 1).1.as_nanos();
    let mut times: Vec<u128> = frames.iter().map(run).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_full_sync_of_a_large_node() {
    let (pods, policies, sets, members) = (110, 30, 40, 1000);
    let program = large(pods, policies, sets, members);
    in_namespace(move || {
        for number in 0..pods {
            ip(&format!("link add np{number} type veth peer name peer{number}"));
        }
        for hook in [Hook::Detected, Hook::Clsact] {
            let pins = PrivateBpfFs::new().unwrap();
            let config = EbpfConfig { bpf_fs: pins.path(), hook, ..EbpfConfig::default() };
            let started = Instant::now();
            let mut dataplane = EbpfDataplane::open(config).unwrap();
            println!("{hook:?}: open: {:?}", started.elapsed());
            let mut apply = |what: &str, change| {
                let started = Instant::now();
                let applied = dataplane.apply(Update::new(1, change)).unwrap();
                let elapsed = started.elapsed();
                assert!(applied.isolated.is_empty(), "{:?}", applied.isolated);
                println!("{hook:?}: {what}: {elapsed:?}");
                elapsed
            };
            let whole = || Change::Full(Arc::new(program.clone()));
            let addresses = sets * members;
            let elapsed = apply(&format!("{pods} new pods, {addresses} addresses"), whole());
            assert!(elapsed < Duration::from_secs(20));
            apply("the same again", whole());
            apply("all pods closed", Change::Isolate(program.endpoints.clone().into()));
            apply("no pod", Change::Full(Arc::new(Program::default())));
            apply("new pods closed", Change::Isolate(program.endpoints.clone().into()));
            apply("and opened", whole());
            dataplane.remove().unwrap();
        }
    });
}

#[test]
fn the_verifier_has_not_much_to_do() {
    in_namespace(|| {
        let mut node = Node::new(vec![]);
        for side in Side::BOTH {
            let (instructions, compiled) = node.state().programs.size(side);
            let took = node.state().programs.load_again(side);
            println!(
                "{}: {instructions} instructions verified in {took:?}, {compiled} bytes compiled",
                side.program()
            );
            assert!(instructions < 300_000);
        }
    });
}

/// How often a change is measured.
const CHANGES: usize = 100;

#[test]
fn changes_of_a_large_node() {
    let pods = 110;
    let objects = large_objects(pods, pods, 40, 1000);
    in_namespace(move || {
        for number in 0..pods {
            ip(&format!("link add np{number} type veth peer name peer{number}"));
        }
        let pins = PrivateBpfFs::new().unwrap();
        let hook = Hook::Clsact;
        let config = EbpfConfig { bpf_fs: pins.path(), hook, ..EbpfConfig::default() };
        let mut node = Node { dataplane: EbpfDataplane::open(config).unwrap(), pins };
        let mut history = History::of("node", node.dataplane.capabilities(), &objects);
        let mut change = |node: &mut Node, events: &[Event]| {
            history.happens(events);
            let update = history.update().unwrap();
            let started = Instant::now();
            let outcome = node.dataplane.apply(update);
            let elapsed = started.elapsed();
            assert!(outcome.as_ref().unwrap().isolated.is_empty());
            history.answer(outcome);
            elapsed
        };
        change(&mut node, &[]);
        let full = node.state().full_updates();
        let remote = |number: usize| {
            let mut pod = Endpoint::new(EndpointId::workload("x", format!("remote{number}")));
            pod.labels = [("set", (number % 40).to_string())].into_iter().collect();
            let bits = 0x0a10_0001 + u32::try_from(number).unwrap();
            pod.addresses = vec![IpAddr::V4(Ipv4Addr::from_bits(bits))];
            Object::Endpoint(pod.on_node("elsewhere"))
        };
        let joins = (0..CHANGES).map(|it| change(&mut node, &[Event::Come(remote(it))]));
        print("a member joins", joins.collect());
        let leaves = (0..CHANGES).map(|it| change(&mut node, &[Event::Go(remote(it).key())]));
        print("a member leaves", leaves.collect());
        let policies = (0..CHANGES).map(|it| {
            let Some(Object::Policy(policy)) = objects.last() else { panic!("no policy") };
            let mut policy = policy.clone();
            let port = 9000 + u16::try_from(it).unwrap();
            let rule = &mut policy.ingress.as_mut().unwrap()[0];
            rule.matches.l4 = to_ports(Transport::Tcp, &[(port, port)]).l4;
            change(&mut node, &[Event::Come(Object::Policy(policy))])
        });
        print("a policy of one endpoint changes", policies.collect());
        assert_eq!(node.state().full_updates(), full, "some changes were not covered");
    });
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: applied in {middle:?}, at most {last:?}");
    assert!(middle < Duration::from_millis(500));
}

/// Pods on one node, all of whom every policy applies to, with rules for ports of sets of addresses.
fn large(pods: usize, policies: usize, sets: usize, members: usize) -> Program {
    program(&large_objects(pods, policies, sets, members))
}

fn large_objects(pods: usize, policies: usize, sets: usize, members: usize) -> Vec<Object> {
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
    objects
}
