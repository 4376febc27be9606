//! The flat form: `flat/classify` makes it, `flat/advance` has it follow deltas, `flat/lookup` asks it about one flow.
//!
//! The node has the pods that the names say, and as many ingress policies as policy sets, each for its share of the
//! pods and with rules of one peer and one port each. Peers are selectors, each of which selects as many addresses of
//! other nodes. `disjoint` addresses meet one selector each; `overlapping` ones meet two to five, so that there are many
//! more classes; `prefixes` are of 16 addresses, in network sets, within one of all.
//!
//! Deltas: `join_and_leave` is an address that another one has the labels of, once there and back; `policy` is one whose
//! port changes, there and back.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "benchmark code")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use netpol_core::flat::{Limits, TableKey, classify};
use netpol_core::model::{
    Action, Endpoint, EndpointId, L4Match, NetworkSet, Object, Peers, Policy, PolicyKey,
    PortConstraint, PortMatch, Rule, RuleMatch,
};
use netpol_core::net::{PortRange, Prefix, Transport};
use netpol_core::{
    Applied, Capabilities, Change, Delta, Direction, Engine, Flow, NodeConfig, Program, Selector,
};

const PODS: u32 = 110;

/// How large a node's world is.
#[derive(Clone, Copy)]
struct World {
    selectors: u32,
    addresses: u32,
    policy_sets: u32,
    rules: u32,
    peers: Peer,
}

/// What selectors select.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Peer {
    Disjoint,
    Overlapping,
    Prefixes,
}

impl World {
    fn name(self) -> String {
        let Self { selectors, addresses, policy_sets, rules, peers } = self;
        let how = match peers {
            Peer::Disjoint => "disjoint_addresses",
            Peer::Overlapping => "overlapping_addresses",
            Peer::Prefixes => "prefixes",
        };
        format!(
            "{selectors}_selectors_{addresses}_{how}_{PODS}_pods_{policy_sets}_policy_sets_{rules}_rules"
        )
    }

    /// An engine that has handed out its first program.
    fn engine(self) -> (Engine, Arc<Program>) {
        let mut engine = Engine::new(NodeConfig::new("node"), &Capabilities::all());
        let remote: Vec<Object> = match self.peers {
            Peer::Prefixes => (0..self.selectors).map(|it| self.network_set(it).into()).collect(),
            _ => (0..self.selectors * self.addresses).map(|it| self.remote(it).into()).collect(),
        };
        let local = (0..PODS).map(|it| self.pod(it).into());
        let policies = (0..self.policy_sets).map(|it| self.policy(it, 8_000).into());
        let objects = remote.into_iter().chain(local).chain(policies);
        objects.for_each(|it: Object| engine.upsert(it).unwrap());
        engine.inputs_complete();
        let Change::Full(program) = next(&mut engine) else { panic!("a full update") };
        (engine, program)
    }

    /// Prefixes of 16 addresses; the first set also has one that holds them all.
    fn network_set(self, number: u32) -> NetworkSet {
        let own = (0..self.addresses).map(|it| it * self.selectors + number);
        let prefix = |it| Prefix::containing(remote_address(16 * it), 28).unwrap();
        let around = Prefix::containing(remote_address(0), 8).unwrap();
        let nets =
            if number == 0 { [around].into_iter().collect() } else { own.map(prefix).collect() };
        let labels = [(format!("peer-{number}"), "yes")].into_iter().collect();
        let name = format!("s{number}");
        NetworkSet { namespace: None, name, labels, nets }
    }

    /// A pod elsewhere. Overlapping ones also carry up to four labels that other selectors ask for.
    fn remote(self, number: u32) -> Endpoint {
        let mut pod = Endpoint::new(EndpointId::workload("remote", format!("r{number}")));
        pod.addresses = vec![remote_address(number)];
        let own = number % self.selectors;
        let scattered = number.wrapping_mul(2_654_435_761) >> 8;
        let more = (0..if self.peers == Peer::Overlapping { 1 + scattered % 4 } else { 0 })
            .map(|it| (scattered >> (4 * it)) % self.selectors);
        let labels = std::iter::once(own).chain(more);
        pod.labels = labels.map(|it| (format!("peer-{it}"), "yes")).collect();
        pod
    }

    fn pod(self, number: u32) -> Endpoint {
        let id = EndpointId::workload("local", format!("pod-{number}"));
        let mut pod = Endpoint::new(id).on_node("node").attached_to(format!("v{number}"));
        pod.addresses = vec![local_address(number)];
        let set = (number % self.policy_sets).to_string();
        pod.labels = [("set", set)].into_iter().collect();
        pod
    }

    fn policy(self, number: u32, port: u32) -> Policy {
        let subject = Selector::equal("set", number.to_string()).unwrap();
        let mut policy = Policy::new(PolicyKey::kubernetes("local", format!("p{number}")), subject);
        let peer = |rule| (number * self.rules + rule) % self.selectors;
        policy.ingress =
            Some((0..self.rules).map(|rule| allow(rule, peer(rule), port + rule)).collect());
        policy
    }
}

fn allow(index: u32, peer: u32, port: u32) -> Rule {
    let mut matches = RuleMatch::default();
    let selector = Selector::equal(format!("peer-{peer}"), "yes").unwrap();
    matches.source.peers = Some(Peers::Endpoints(selector));
    let port = PortRange::single(u16::try_from(port).unwrap()).unwrap();
    let listed = PortMatch { numbers: [port].into_iter().collect(), ..PortMatch::default() };
    matches.l4 = L4Match::Ports {
        transport: Transport::Tcp,
        source: PortConstraint::default(),
        destination: PortConstraint { any_of: Some(listed), none_of: None },
    };
    Rule::new(usize::try_from(index).unwrap(), Action::Allow, matches)
}

fn remote_address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

fn local_address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0ac8_0000 + number))
}

fn next(engine: &mut Engine) -> Change {
    let update = engine.poll_update().unwrap();
    engine.handle_applied(Ok(Applied::completely(update.generation)));
    update.change
}

/// Returns what leads to a change and back.
fn there_and_back(engine: &mut Engine, there: Object, back: Option<Object>) -> [Arc<Delta>; 2] {
    let key = there.key();
    engine.upsert(there).unwrap();
    let there = next(engine);
    match back {
        Some(before) => engine.upsert(before).unwrap(),
        None => assert!(engine.remove(&key)),
    }
    match (there, next(engine)) {
        (Change::Delta(there), Change::Delta(back)) => [there, back],
        _ => panic!("two deltas"),
    }
}

fn flat(criterion: &mut Criterion) {
    let world = |selectors, addresses, peers, rules| World {
        selectors,
        addresses,
        policy_sets: 30,
        rules,
        peers,
    };
    for world in [
        world(10, 10, Peer::Disjoint, 5),
        world(40, 1_000, Peer::Disjoint, 5),
        world(40, 1_000, Peer::Overlapping, 5),
        world(40, 2_500, Peer::Prefixes, 5),
        world(2, 1_000, Peer::Disjoint, 1_000),
        world(1_000, 10, Peer::Disjoint, 1_000),
    ] {
        let ((mut engine, program), limits) = (world.engine(), Limits::unlimited());
        let mut flat = classify(&program, &limits).unwrap();
        println!("flat/size/{}: {:?}", world.name(), flat.size());
        let mut group = criterion.benchmark_group("flat");
        group.bench_function(BenchmarkId::new("classify", world.name()), |bencher| {
            bencher.iter(|| classify(black_box(&program), &limits).unwrap());
        });
        let flows: Vec<(TableKey, Flow)> = (0..1_000)
            .map(|it| {
                let to = it * 7 % PODS;
                let endpoint = &program.endpoints[usize::try_from(to).unwrap()];
                let policy_set = endpoint.policy_set(Direction::Ingress);
                let key = TableKey { policy_set, direction: Direction::Ingress };
                let scale = if world.peers == Peer::Prefixes { 16 } else { 1 };
                let from = scale * (it * 7_919 % (world.selectors * world.addresses));
                let from = remote_address(from);
                (key, Flow::to_port(from, endpoint.addresses[0], Transport::Tcp, 8_002))
            })
            .collect();
        let mut next = (0..).map(|it: usize| &flows[it % flows.len()]);
        group.bench_function(BenchmarkId::new("lookup", world.name()), |bencher| {
            bencher.iter(|| {
                let (key, flow) = next.next().unwrap();
                flat.look_up(*key, flow)
            });
        });
        let policies = [9_000, 8_000].map(|port| world.policy(0, port).into());
        let [changed, before] = policies;
        let newcomer = world.remote(world.selectors * world.addresses).into();
        for (name, deltas) in [
            ("join_and_leave", there_and_back(&mut engine, newcomer, None)),
            ("policy", there_and_back(&mut engine, changed, Some(before))),
        ] {
            group.bench_function(
                BenchmarkId::new(format!("advance/{name}"), world.name()),
                |bencher| {
                    bencher.iter(|| {
                        deltas.each_ref().map(|delta| flat.advance(delta, &limits).unwrap())
                    });
                },
            );
        }
    }
}

criterion_group!(benches, flat);
criterion_main!(benches);
