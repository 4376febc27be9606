//! Services: the program sees their addresses before the node translates them.

use std::net::IpAddr;

use netpol_core::model::{
    EndpointSlice, NamedPort, Node as NodeObject, Object, Policy, Service, ServiceName, ServicePort,
};
use netpol_core::net::Transport;
use netpol_core::{Applied, Change, Dataplane, Direction, Engine, NodeConfig, Verdict};

use super::packet::{ACK, Packet, SYN};
use super::wire::{Wire, marked, nft};
use super::world::{Node, address, in_namespace, ip, objects, policy, to_nets, to_ports};
use crate::programs::Side;

use Verdict::{Allow, Deny};

/// The Service's addresses, its port, and the node's address with the node port.
const ADDRESSES: [&str; 2] = ["10.96.0.1", "fd00:96::1"];
const PORT: u16 = 80;
const NODE: [&str; 2] = ["10.0.9.1", "fd00:9::1"];
const NODE_PORT: u16 = 30_080;

fn served(v6: bool) -> (IpAddr, u16) {
    (ADDRESSES[usize::from(v6)].parse().unwrap(), PORT)
}

fn service() -> Object {
    let port = |transport, port, node_port| ServicePort {
        name: "main".to_owned(),
        transport,
        port,
        node_port,
    };
    Object::Service(Service {
        name: ServiceName::new("x", "s"),
        addresses: ADDRESSES.map(|it| it.parse().unwrap()).into(),
        ports: [port(Transport::Tcp, PORT, Some(NODE_PORT)), port(Transport::Udp, PORT, None)]
            .into(),
    })
}

/// Returns slices of the Service with these pods as backends, at a port.
fn backends(pods: &[u8], port: u16) -> Object {
    let port = |transport| NamedPort { name: "main".to_owned(), transport, port };
    Object::EndpointSlice(EndpointSlice {
        name: "s-1".to_owned(),
        service: ServiceName::new("x", "s"),
        addresses: pods.iter().flat_map(|it| [false, true].map(|v6| address(*it, v6))).collect(),
        ports: [port(Transport::Tcp), port(Transport::Udp)].into(),
    })
}

fn with_service(policies: Vec<Policy>, backends: Object) -> Vec<Object> {
    let node = NodeObject {
        name: "node".to_owned(),
        addresses: NODE.map(|it| it.parse().unwrap()).into(),
        ..NodeObject::default()
    };
    let others = [service(), backends, node.into()];
    objects(policies).into_iter().chain(others).collect()
}

/// Pod 0 may send to TCP 8080 of pod 1 and to nothing else.
fn to_one_backend() -> Vec<Policy> {
    let mut rule = to_ports(Transport::Tcp, &[(8080, 8080)]);
    rule.destination = to_nets(&["10.0.0.2/32", "fd00::2/128"]).destination;
    vec![policy("out", Direction::Egress, vec![rule]), policy("in", Direction::Ingress, vec![])]
}

fn syn(from: u8, to: (IpAddr, u16)) -> Packet {
    Packet::tcp((address(from, to.0.is_ipv6()), 4000), to, SYN)
}

#[test]
fn a_service_is_allowed_if_all_its_backends_are() {
    in_namespace(|| {
        let mut node = Node::new(to_one_backend());
        for (pods, port, want) in [
            (&[1][..], 8080, Allow),
            (&[1, 2], 8080, Deny),
            (&[2], 8080, Deny),
            (&[1], 80, Deny),
            (&[], 8080, Deny),
            (&[1], 8080, Allow),
        ] {
            node.apply(&with_service(to_one_backend(), backends(pods, port)));
            for v6 in [false, true] {
                let what = format!("{pods:?} at {port}, IPv6: {v6}");
                let (address, _) = served(v6);
                assert_eq!(node.sends(&syn(0, served(v6))), want, "{what}");
                let of_node = (NODE[usize::from(v6)].parse().unwrap(), NODE_PORT);
                assert_eq!(node.sends(&syn(0, of_node)), want, "{what}, by the node's port");
                // What nobody translates is an address as any other.
                assert_eq!(node.sends(&syn(0, (address, 8080))), Deny, "{what}");
                assert_eq!(node.sends(&syn(0, (of_node.0, PORT))), Deny, "{what}");
                // Where no policy applies, nothing is asked.
                let free = node.judges(Side::From, "np2", &syn(2, served(v6)), 1);
                assert_eq!(free, Allow, "{what}");
            }
        }
    });
}

#[test]
fn answers_of_services_are_those_of_their_addresses() {
    in_namespace(|| {
        let mut node = Node::new(to_one_backend());
        node.apply(&with_service(to_one_backend(), backends(&[1], 8080)));
        for v6 in [false, true] {
            let syn = syn(0, served(v6));
            assert_eq!(node.receives(&syn.reply()), Deny, "nobody asked");
            assert_eq!(node.sends(&syn), Allow);
            // Whoever translates what goes to the Service translates the answer before it gets here.
            assert_eq!(node.receives(&syn.reply()), Allow);
            assert_eq!(node.sends(&syn.clone().with_flags(ACK)), Allow);
            let of_backend = Packet::tcp((address(1, v6), 8080), (address(0, v6), 4000), ACK);
            assert_eq!(node.receives(&of_backend), Deny, "an answer as nobody sees it");
        }
    });
}

/// What the engine makes of changes, one after the other.
#[test]
fn services_are_followed_while_deltas_come_and_go() {
    in_namespace(|| {
        let mut node = Node::new(Vec::new());
        let mut engine = Engine::new(NodeConfig::new("node"), node.dataplane.capabilities());
        let apply = |engine: &mut Engine, node: &mut Node| {
            let update = engine.poll_update().unwrap();
            let is_delta = matches!(update.change, Change::Delta(_));
            let Applied { isolated, .. } = node.dataplane.apply(update).unwrap();
            assert!(isolated.is_empty());
            engine.handle_applied(Ok(Applied::completely(0)));
            is_delta
        };
        let by_label = |label: &str| {
            let mut rule = to_ports(Transport::Tcp, &[(8080, 8080)]);
            rule.destination.peers =
                Some(netpol_core::model::Peers::Endpoints(label.parse().unwrap()));
            policy("out", Direction::Egress, vec![rule])
        };
        for object in with_service(vec![by_label("has(served)")], backends(&[1, 2], 8080)) {
            engine.upsert(object).unwrap();
        }
        engine.inputs_complete();
        let label = |engine: &mut Engine, pod: u8, is_served: bool| {
            let mut pod = super::world::pod(pod);
            if is_served {
                pod.labels.insert("served", "yes");
            }
            engine.upsert(pod).unwrap();
        };
        let check = |node: &mut Node, want: Verdict| {
            for v6 in [false, true] {
                assert_eq!(node.sends(&syn(0, served(v6))), want, "IPv6: {v6}");
            }
        };
        apply(&mut engine, &mut node);
        check(&mut node, Deny);
        label(&mut engine, 1, true);
        assert!(!apply(&mut engine, &mut node), "a backend comes under another rule");
        check(&mut node, Deny);
        label(&mut engine, 2, true);
        apply(&mut engine, &mut node);
        check(&mut node, Allow);
        // What has nothing to do with the Service is a delta, and leaves it alone.
        let mut stranger = super::world::pod(7);
        stranger.labels.insert("served", "yes");
        stranger.node = None;
        engine.upsert(stranger.clone()).unwrap();
        assert!(apply(&mut engine, &mut node));
        check(&mut node, Allow);
        assert_eq!(node.sends(&syn(0, (address(7, false), 8080))), Allow);
        label(&mut engine, 1, false);
        apply(&mut engine, &mut node);
        check(&mut node, Deny);
        engine.upsert(backends(&[2], 8080)).unwrap();
        assert!(!apply(&mut engine, &mut node), "the backends change");
        check(&mut node, Allow);
        engine.remove(&service().key());
        apply(&mut engine, &mut node);
        check(&mut node, Deny);
        let differences = node.state().differences(&engine_program(&mut engine)).unwrap();
        assert_eq!(differences, Vec::<String>::new());
    });
}

fn engine_program(engine: &mut Engine) -> netpol_core::Program {
    engine.resync();
    match engine.poll_update().unwrap().change {
        Change::Full(program) => (*program).clone(),
        other => panic!("{other:?}"),
    }
}

/// Has the node translate the Service's address to a pod's port 7, and what a pod sends itself so to the node's own.
fn translate(to: u8) {
    let [v4, v6] = [false, true].map(|v6| address(to, v6));
    nft(&format!(
        "table inet n {{ \
           chain to {{ type nat hook prerouting priority -100; \
             ip daddr {} udp dport {PORT} dnat ip to {v4}:7; \
             ip6 daddr {} udp dport {PORT} dnat ip6 to [{v6}]:7; }}; \
           chain back {{ type nat hook postrouting priority 100; \
             ip saddr {v4} ip daddr {v4} snat ip to {}; ip6 saddr {v6} ip6 daddr {v6} snat ip6 to {}; }}; \
         }};",
        ADDRESSES[0], ADDRESSES[1], NODE[0], NODE[1]
    ));
}

/// A datagram whose header says how long it is: nothing else is translated.
fn datagram(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Vec<Vec<u8>> {
    let mut packet = marked(Packet::udp(source, destination));
    let length = u16::try_from(packet.payload.len()).unwrap();
    packet.payload[4..6].copy_from_slice(&length.to_be_bytes());
    vec![packet.bytes()]
}

/// Pod 0 may send to UDP 7 of pod 1, and takes UDP 7.
fn to_pod_1() -> Vec<Policy> {
    let mut rule = to_ports(Transport::Udp, &[(7, 7)]);
    rule.destination = to_nets(&["10.0.0.2/32", "fd00::2/128"]).destination;
    let inwards = to_ports(Transport::Udp, &[(7, 7)]);
    vec![
        policy("out", Direction::Egress, vec![rule]),
        policy("in", Direction::Ingress, vec![inwards]),
    ]
}

#[test]
fn translated_packets_and_their_answers_arrive() {
    in_namespace(|| {
        let mut wire = Wire::new(to_pod_1());
        translate(1);
        // Ports of their own, as the node remembers where packets went that were dropped later.
        for (port, pods, want) in [(11, &[1, 2][..], 0), (12, &[], 0), (13, &[1], 1)] {
            wire.apply(&with_service(to_pod_1(), backends(pods, 7)));
            for v6 in [false, true] {
                let there = datagram((address(0, v6), port), served(v6));
                let arrived = wire.arrive(0, there, 1, b"the mark");
                assert_eq!(arrived, want, "{pods:?}, IPv6: {v6}");
                let back = datagram((address(1, v6), 7), (address(0, v6), port));
                let arrived = wire.arrive(1, back, 0, b"the mark");
                assert_eq!(arrived, want, "the answer of {pods:?}, IPv6: {v6}");
            }
        }
        // An answer to nothing does not.
        let other = datagram((address(2, false), 7), (address(0, false), 13));
        assert_eq!(wire.arrive(2, other, 0, b"the mark"), 0);
    });
}

/// The way of a pod to itself through a Service: the node puts its own address in the place of the pod's, so that answers
/// come by it.
#[test]
fn a_pod_reaches_itself_through_its_service() {
    in_namespace(|| {
        let to_self = |to: &[&str]| {
            let mut rule = to_ports(Transport::Udp, &[(7, 7)]);
            rule.destination = to_nets(to).destination;
            vec![
                policy("out", Direction::Egress, vec![rule]),
                policy("in", Direction::Ingress, vec![]),
            ]
        };
        let mut wire = Wire::new(Vec::new());
        ip("addr add 10.0.9.1/32 dev lo");
        ip("addr add fd00:9::1/128 dev lo nodad");
        translate(0);
        for (port, to, want) in
            [(11, &["10.0.0.1/32", "fd00::1/128"][..], 1), (12, &["10.0.0.2/32"], 0)]
        {
            wire.apply(&with_service(to_self(to), backends(&[0], 7)));
            for v6 in [false, true] {
                let there = datagram((address(0, v6), port), served(v6));
                // Addresses and ports of what arrives: an ICMP redirect would hold the rest of it, too.
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(it) => it.octets().to_vec(),
                    IpAddr::V6(it) => it.octets().to_vec(),
                };
                let node = NODE[usize::from(v6)].parse().unwrap();
                let ports = [u16::to_be_bytes(port), [0, 7]].concat();
                let mark = [octets(node), octets(address(0, v6)), ports].concat();
                let arrived = wire.arrive(0, there, 0, &mark);
                assert_eq!(arrived, want, "{to:?}, IPv6: {v6}");
            }
        }
    });
}
