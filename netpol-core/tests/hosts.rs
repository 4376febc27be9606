//! Host endpoints: the judge, which sees the cluster, and the program of a node, which sees interfaces, give one answer.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/hosts.rs"]
mod hosts;

use std::net::IpAddr;

use netpol_core::eval::Judge;
use netpol_core::model::{EndpointKind, HostSettings, Inputs, Node, Object};
use netpol_core::net::{Protocol, Transport};
use netpol_core::program::{Passage, Program};
use netpol_core::{
    Capabilities, Explanation, Flow, HostJudgement, NodeConfig, Origin, Packet, Payload, Reason,
    Step, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use self::cluster::flows;
use self::hosts::{compiled_by, compiled_with, host, node, node_with, objects, passage, settings};

/// Another node. Its interfaces are called as those of the first one.
const OTHER: &str = "node-b";

/// A cluster of two nodes with workloads and host endpoints on both.
fn two_nodes() -> impl Strategy<Value = Vec<Object>> {
    (objects(), vec(host(), 0..3), any::<u16>()).prop_map(|(mut objects, hosts, moved)| {
        let mut number = 0;
        for object in &mut objects {
            if let Object::Endpoint(it) = object
                && it.id.kind == EndpointKind::Workload
            {
                number += 1;
                if moved >> (number % 16) & 1 == 1 {
                    it.node = Some(OTHER.into());
                }
            }
        }
        objects.push(Object::Node(other_node()));
        objects.extend(hosts.into_iter().map(|mut host| {
            // As if the addresses were those of this node's interfaces.
            let own = other_node().addresses;
            host.addresses = host.addresses.iter().zip(own).map(|(_, own)| own).collect();
            (host.id.name, host.node) = (format!("{}-b", host.id.name), Some(OTHER.into()));
            Object::Endpoint(host)
        }));
        objects
    })
}

fn other_node() -> Node {
    node_with(OTHER, "10.0.0.7", "192.0.2.8")
}

/// What policy does not cut, nearly the same, and what carries others.
fn payload() -> impl Strategy<Value = Payload> {
    let port = || select(vec![22, 53, 67, 68, 80, 179, 4789, 8080, 51820, Flow::EPHEMERAL]);
    let transport = select(vec![Transport::Tcp, Transport::Udp]);
    prop_oneof![
        8 => (transport, port(), port()).prop_map(|(transport, source, destination)| {
            Payload::Ports { transport, source, destination }
        }),
        1 => Just(Payload::Other(Protocol::new(4))),
        1 => Just(Payload::Other(Protocol::new(47))),
    ]
}

/// A node with its program.
struct Place {
    node: Node,
    program: Program,
}

impl Place {
    /// Returns what the node says of a flow that it sees, with the halves that it judges: egress first.
    fn says(
        &self,
        flow: &Flow,
        before_nat: &Flow,
    ) -> Option<(Vec<HostJudgement>, [Option<Explanation>; 2])> {
        let passage = passage(&self.program, &self.node, flow)?;
        let passage = Passage { before_nat: *before_nat, ..passage };
        let is_here =
            |address| self.program.endpoints.iter().any(|it| it.addresses.contains(&address));
        let origin = if is_here(flow.source) { flow.origin } else { Origin::Forwarded };
        let halves =
            self.program.outcome_of(&Passage { flow: flow.from_origin(origin), ..passage });
        Some((self.program.host_judgements(&passage), [halves.egress, halves.ingress]))
    }
}

fn places(objects: &[Object], settings: &HostSettings) -> [Place; 2] {
    [node(), other_node()].map(|node| {
        let config = NodeConfig::new(node.name.clone());
        Place { program: compiled_by(objects, settings, config), node }
    })
}

/// Puts together what the nodes on the way say, the source's first: requests as far as they get, then the replies on
/// their way back.
fn together(said: Vec<Vec<HostJudgement>>) -> Vec<HostJudgement> {
    let of = |packet: Packet| {
        let of_node = move |it: &Vec<HostJudgement>| -> Vec<HostJudgement> {
            it.iter().filter(|it| it.packet == packet).cloned().collect()
        };
        said.iter().map(of_node).collect::<Vec<_>>()
    };
    let (requests, mut replies) = (of(Packet::Request), of(Packet::Reply));
    replies.reverse();
    let mut all: Vec<HostJudgement> = Vec::new();
    for some in requests.into_iter().chain(replies) {
        if all.iter().all(|it| it.explanation.verdict == Verdict::Allow) {
            all.extend(some);
        }
    }
    all
}

fn judged(mut half: Explanation) -> Explanation {
    half.steps.retain(Step::is_known_to_programs);
    half.steps.dedup();
    half
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn judge_and_program_agree_on_hosts(objects in objects(), settings in settings(), seed in 0..1000_usize) {
        let capabilities = Capabilities::all();
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let program = compiled_with(&objects, &settings);
        let judge = Judge::new(&inputs, &capabilities).with_settings(settings);
        let node = node();
        for flow in flows(&objects, seed).into_iter().filter(|it| it.origin == Origin::Endpoint) {
            let mut judged = judge.evaluate(&flow).enforced;
            for said in &mut judged.hosts {
                said.explanation.steps.retain(Step::is_known_to_programs);
            }
            let Some(passage) = passage(&program, &node, &flow) else {
                prop_assert!(judged.hosts.is_empty(), "{}", flow);
                continue;
            };
            prop_assert_eq!(&program.host_judgements(&passage), &judged.hosts, "{} as {:?}", flow, passage);
        }
    }

    /// Whatever policies and host endpoints there are: what would cut these ports is settings alone, and an engine refuses
    /// such settings.
    #[test]
    fn no_policy_cuts_failsafe_ports(objects in objects(), settings in settings(), port in any::<Index>()) {
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let capabilities = Capabilities::all();
        let judge = Judge::new(&inputs, &capabilities).with_settings(settings.clone());
        let (program, node) = (compiled_with(&objects, &settings), node());
        let other: IpAddr = "198.51.100.1".parse().unwrap();
        for (ports, inbound) in [(&settings.failsafe_inbound, true), (&settings.failsafe_outbound, false)] {
            let Some(port) = ports.iter().nth(port.index(ports.len().max(1))) else { continue };
            for own in &node.addresses {
                let (source, destination) = if inbound { (other, *own) } else { (*own, other) };
                let flow = Flow::to_port(source, destination, port.transport, port.port);
                let judged = judge.evaluate(&flow).enforced;
                prop_assert_eq!(judged.verdict(), Verdict::Allow, "{}: {:?}", flow, judged);
                let passage = passage(&program, &node, &flow).unwrap();
                for said in program.host_judgements(&passage) {
                    prop_assert_eq!(said.explanation.verdict, Verdict::Allow, "{}: {}", flow, said);
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The judge sees the cluster at once; each of its nodes sees the packets that pass it.
    #[test]
    fn judge_and_the_programs_of_two_nodes_agree(
        objects in two_nodes(), settings in settings(), more in vec(payload(), 8), seed in 0..1000_usize,
    ) {
        let capabilities = Capabilities::all();
        let mut inputs = Inputs::default();
        objects.iter().for_each(|object| inputs.upsert(object.clone()));
        let places = places(&objects, &settings);
        let judge = Judge::new(&inputs, &capabilities).with_settings(settings);
        let some = flows(&objects, seed).into_iter().filter(|it| it.origin == Origin::Endpoint);
        let some: Vec<_> = some.collect();
        let varied = some.iter().zip(more.iter().cycle()).map(|(flow, payload)| Flow { payload: *payload, ..*flow });
        for (number, flow) in varied.chain(some.iter().copied()).enumerate() {
            let of = |address: IpAddr| {
                let is_there = |it: &&Place| {
                    it.node.addresses.contains(&address)
                        || it.program.endpoints.iter().any(|it| it.addresses.contains(&address))
                };
                places.iter().find(is_there)
            };
            let (from, to) = (of(flow.source), of(flow.destination));
            let is_same = from.zip(to).is_some_and(|(from, to)| from.node.name == to.node.name);
            let way: Vec<_> = from.into_iter().chain(to.filter(|_| !is_same)).collect();
            // Only the one node on the way can be who translates.
            let asked = some[number % some.len()].destination;
            let is_elsewhere = of(asked).is_some_and(|it| way.iter().all(|on| it.node.name != on.node.name));
            let can_be = way.len() == 1 && !is_elsewhere && asked.is_ipv4() == flow.destination.is_ipv4();
            let destination = if can_be && number % 3 == 0 { asked } else { flow.destination };
            let before_nat = Flow { destination, ..flow };
            let mut judgement = judge.evaluate_translated(&flow, &before_nat).enforced;
            for said in &mut judgement.hosts {
                said.explanation.steps.retain(Step::is_known_to_programs);
            }
            let (mut hosts, mut halves) = (Vec::new(), [None, None]);
            let says = |place: &Place| place.says(&flow, &before_nat);
            let said: Vec<_> = way.into_iter().filter_map(says).collect();
            if said.is_empty() {
                prop_assert!(judgement.hosts.is_empty(), "{} passes no interface", flow);
                continue;
            }
            for (said, [egress, ingress]) in said {
                hosts.push(said);
                let [out, into] = &mut halves;
                *out = out.take().or(egress);
                *into = into.take().or(ingress);
            }
            prop_assert_eq!(together(hosts), judgement.hosts, "{} made of {}", flow, before_nat);
            let nobody = || Explanation::at_once(Verdict::Allow, Reason::NoEndpoint);
            prop_assert_eq!(
                halves.map(|it| it.unwrap_or_else(nobody)),
                [judged(judgement.egress), judged(judgement.ingress)], "{}", flow
            );
        }
    }
}
